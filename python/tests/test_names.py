"""The names that stage code sees, used by themselves as in tests of stage code."""

from __future__ import annotations

import importlib.util
import re
import sys
import time
from pathlib import Path

import pytest

import evener
from evener import _worker


def test_all_is_what_there_is():
    assert sorted(evener.__all__) == evener.__all__
    assert set(_worker._PUBLIC) < set(evener.__all__)
    # `evener.testing` is a public module of its own, an attribute here once something has imported it; what else is
    # public has to be named.
    assert {name for name in vars(evener) if not name.startswith("_")} - {"testing"} <= set(evener.__all__)
    for name in _worker._PUBLIC:
        assert getattr(evener, name).__module__ == "evener"
        assert getattr(evener, name).__doc__


def test_the_version_is_the_projects():
    project = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    assert re.findall(r'^version = "(.*)"$', project, re.MULTILINE) == [evener.__version__]


def test_a_multidict_gives_first_values_and_lists():
    query = evener.MultiDict([["a", "1"], ["b", "2"], ["a", "3"]])
    assert (query["a"], query.get("a"), query.get("x"), query.get("x", "y")) == ("1", "1", None, "y")
    assert (query.getlist("a"), query.getlist("x")) == (["1", "3"], [])
    assert (list(query), len(query), "a" in query, "A" in query, 1 in query) == (["a", "b"], 2, True, False, False)
    assert dict(query) == {"a": "1", "b": "2"}
    assert query.pairs() == [("a", "1"), ("b", "2"), ("a", "3")]
    assert query == evener.MultiDict({"a": ["1", "3"], "b": "2"})
    assert query != evener.MultiDict({"a": "1"})
    assert evener.MultiDict(query) == query
    assert len(evener.MultiDict()) == 0
    with pytest.raises(KeyError, match="nope"):
        query["nope"]


def test_headers_have_no_case():
    headers = evener.Headers([["Content-Type", "text/plain"], ["X-A", "1"], ["x-a", "2"]])
    assert headers["content-type"] == headers.get("CONTENT-TYPE") == "text/plain"
    assert headers.getlist("x-A") == ["1", "2"]
    assert "cOntent-type" in headers
    assert list(headers) == ["content-type", "x-a"]
    assert headers == evener.Headers({"content-TYPE": "text/plain", "X-a": ["1", "2"]})


def test_an_abort_takes_the_statuses_of_failures():
    abort = evener.Abort(404, "no such horse")
    assert (abort.status, abort.detail, str(abort)) == (404, "no such horse", "404 no such horse")
    assert str(evener.Abort(500)) == "500"
    for status in (200, 399, 600, True, "400", None):
        with pytest.raises(ValueError, match="400 to 599"):
            evener.Abort(status)


def test_a_request_for_tests_of_stage_code():
    request = evener.Request("POST", "/x", {"id": "1"}, [["q", "1"]], {"Accept": "*/*"}, body=b'{"a": 1}')
    assert (request.method, request.path, request.params, request.client) == ("POST", "/x", {"id": "1"}, "")
    assert (request.query["q"], request.headers["accept"]) == ("1", "*/*")
    assert request.query is request.query
    assert (request.json(), request.text()) == ({"a": 1}, '{"a": 1}')
    assert evener.Request().params == {}
    assert repr(request) == "<evener.Request POST /x>"


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b"\xff", pytest.param(b"[" * 100_000, id="deep")])
def test_a_bad_body_is_a_value_error_and_a_400(body):
    with pytest.raises(ValueError, match="body is not") as caught:
        evener.Request(body=body).json()
    assert isinstance(caught.value, evener.Abort)
    assert caught.value.status == 400
    if body == b"\xff":
        with pytest.raises(evener.Abort, match="UTF-8"):
            evener.Request(body=body).text()


def test_what_a_function_returns_can_be_compared():
    made = evener.Response({"created": 7}, 201, {"Location": "/items/7"})
    assert made == evener.Response({"created": 7}, status=201, headers={"Location": "/items/7"})
    others = [
        evener.Response({"created": 8}, 201, {"Location": "/items/7"}),
        evener.Response({"created": 7}, 200, {"Location": "/items/7"}),
        evener.Response({"created": 7}, 201),
        {"created": 7},
        None,
    ]
    assert all(made != other and other != made for other in others)
    assert evener.Goto("again", [1]) == evener.Goto("again", [1])
    assert evener.Goto("again", [1]) not in [evener.Goto("again", [2]), evener.Goto("once", [1]), ("again", [1])]
    assert evener.Response() != evener.Goto("again")
    for one in (made, evener.Goto("again")):
        with pytest.raises(TypeError, match="unhashable"):
            hash(one)


def test_two_copies_of_the_runtime_have_equal_names():
    """As in a worker whose Python has the package, or in a test that loads the file itself."""
    spec = importlib.util.spec_from_file_location("another_copy", _worker.__file__)
    copy = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = copy
    try:
        spec.loader.exec_module(copy)
    finally:
        del sys.modules[spec.name]
    assert copy.Response is not evener.Response
    assert copy.Response("x", 201) == evener.Response("x", 201) != copy.Response("y", 201)
    assert copy.Goto("again", 1) == evener.Goto("again", 1) != copy.Goto("again", 2)

    class Created(evener.Response):
        __slots__ = ("item",)

    assert Created("x", 201) == evener.Response("x", 201) == Created("x", 201) != Created("x", 202)


def test_a_context_for_tests_of_stage_code():
    context = evener.Context(deadline=time.monotonic() - 1, cancelled=lambda: True)
    assert context.remaining() == 0.0
    assert context.cancelled()
    with pytest.raises(evener.Cancelled):
        context.check()
    plain = evener.Context()
    plain.check()
    assert (plain.remaining(), plain.tries, plain.request) == (None, 1, None)
    assert not issubclass(evener.Cancelled, Exception)
