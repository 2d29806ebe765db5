"""What clients are told when a request fails: the public contract of every code."""

import re
import uuid

# Code: status, title, whether the same request may well succeed later.
CODES = {
    "bad-request": (400, "The request is malformed", False),
    "bad-body": (400, "The body is not what its content type says", False),
    "unauthorized": (401, "A valid token is needed", False),
    "forbidden-origin": (403, "Not allowed from here", False),
    "no-route": (404, "No such route", False),
    "method-not-allowed": (405, "The route does not take this method", False),
    "body-timeout": (408, "The body did not arrive in time", True),
    "body-too-large": (413, "The body is over the limit", False),
    "headers-too-large": (431, "The headers are over the limit", False),
    "bad-call": (400, "The call is malformed", False),
    "unknown-pool": (404, "No such pool", False),
    "unknown-function": (404, "No such function", True),
    "python-mismatch": (409, "The versions of Python differ", False),
    "cancelled": (409, "The call was cancelled", False),
    "queue-full": (429, "The queue is full", True),
    "memory-full": (429, "The node's memory is full", True),
    "function-failed": (500, "The stage's code failed", False),
    "aborted": (400, "The service refused the request", False),
    "result-not-encodable": (500, "A result cannot be encoded", False),
    "value-not-decodable": (500, "A value between stages cannot be decoded", False),
    "result-too-large": (500, "A result is over the limit", False),
    "unknown-target": (500, "A goto leads nowhere", False),
    "too-many-hops": (500, "Too many gotos", False),
    "too-many-jobs": (500, "Too many jobs", False),
    "filter-failed": (500, "A jq program failed", False),
    "command-failed": (500, "A command failed", False),
    "worker-died": (502, "The worker died", True),
    "draining": (503, "The node is shutting down", True),
    "stage-broken": (503, "A stage has no workers that start", True),
    "deadline-exceeded": (504, "The deadline passed", True),
    "stage-timeout": (504, "A stage took too long", True),
    "scatter-timeout": (504, "A scatter took too long", True),
}


def is_uuid7(text):
    """Whether it is a UUID of version 7, written as such."""
    try:
        found = uuid.UUID(text)
    except (TypeError, ValueError):
        return False
    return found.version == 7 and str(found) == text


def assert_problem(answer, code, *, status=None, stage=None, tries=None, saying=""):
    """Check an answer against the contract of its code, and return its fields.

    With a `stage` the problem belongs to a job of it, unless the job was never made (then `tries` is None). Whatever
    is in `saying` must stand in the detail.
    """
    usual_status, title, retryable = CODES[code]
    status = status or usual_status
    assert answer.content_type == "application/problem+json", answer
    fields = answer.json
    assert fields["code"] == code, fields
    assert answer.status == status
    assert fields["status"] == status
    assert fields["title"] == title
    assert fields["retryable"] is retryable
    assert re.fullmatch(rf"\w+:\S+[:/]{code}", fields["type"])
    assert fields["detail"]
    assert saying in fields["detail"], fields
    assert is_uuid7(fields["request_id"])
    assert answer.header("evener-request-id") == fields["request_id"]
    assert fields.get("stage") == stage
    assert fields.get("tries") == tries
    if tries is not None:
        assert is_uuid7(fields["job_id"])
    assert set(fields) <= {
        "type", "title", "status", "detail", "code", "request_id", "job_id", "stage", "tries", "retryable", "cause",
    }  # fmt: skip
    return fields
