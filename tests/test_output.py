"""What workers print, and what the node says itself: the log."""

import json
import re

import pytest

from harness import is_uuid7, until

SERVICE = """
stages:
  say: {python: "app:say"}
  raising: {python: "app:raising"}
  die: {python: "app:die", retries: 0}
pipelines:
  both: [say, echo]
routes:
  - {path: /say, pipeline: say, input: body, decode: text}
  - {path: /raise, pipeline: raising, input: body}
  - {path: /die, pipeline: die}
  - {path: /both, pipeline: both, input: body, decode: text}
"""
SERVICE = SERVICE.replace("pipelines:", '  echo: {python: "app:echo"}\npipelines:')

APP = r"""
    import logging, os, subprocess, sys
    import evener

    print("while loading")

    def say(code, ctx):
        exec(code)
        return ctx.job_id

    def echo(value, ctx):
        print("from echo")
        return [value, ctx.job_id]

    def raising(value):
        raise ValueError("two\nlines")

    def die(value):
        print("last words", file=sys.stderr)
        os._exit(3)
"""


@pytest.fixture(scope="module")
def served(shared_node):
    return shared_node(SERVICE, arguments=["--log", "json"], app=APP)


@pytest.fixture(scope="module")
def served_in_text(shared_node):
    return shared_node(SERVICE, arguments=["--log", "text"], app=APP)


def test_a_printed_line_is_in_the_log_with_its_stage_and_job(served):
    job = served.post("/say", "print('a line')").text
    assert is_uuid7(job)
    record = served.wait_record(message="a line")
    assert (record["stage"], record["job"], record["stream"]) == ("say", job, "stdout")
    assert record["worker"] == 0
    assert record["pid"] == served.worker("app:say").pid


def test_standard_error_is_in_the_log_as_well(served):
    job = served.post("/say", "print('a complaint', file=sys.stderr)").text
    record = served.wait_record(message="a complaint")
    assert (record["stage"], record["job"], record["stream"]) == ("say", job, "stderr")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ctx.log.info('by the log')", "by the log"),
        ("logging.getLogger('x').warning('by logging')", "by logging"),
        ("os.write(1, b'by a raw write\\n')", "by a raw write"),
        ("os.write(2, b'not \\xff UTF-8\\n')", "not \ufffd UTF-8"),
        ("print('é🐍')", "é🐍"),
        ("print('carriage', end='\\r\\n')", "carriage"),
        ("subprocess.run(['echo', 'by a child'])", "by a child"),
        ("subprocess.run('echo by a grandchild >&2', shell=True)", "by a grandchild"),
        ("print('\\x1b[31mred\\x1b[0m and \\x1b[2J clear')", "red and \\x1b[2J clear"),
    ],
)
def test_every_way_to_write_a_line(served, code, message):
    job = served.post("/say", code).text
    assert served.wait_record(message=message)["job"] == job


def test_two_stages_print_under_their_own_names(served):
    first, second = served.post("/both", "print('from say')").json
    assert (served.wait_record(message="from say")["job"], served.wait_record(message="from echo")["job"]) == (
        first,
        second,
    )
    assert served.wait_record(message="from echo")["stage"] == "echo"


def test_a_line_without_an_end_belongs_to_the_job_that_began_it(served):
    first = served.post("/say", "print('begun by the first', end='', flush=True)").text
    second = served.post("/say", "print('said by the second')").text
    assert served.wait_record(message="begun by the first", within=3)["job"] == first
    assert served.wait_record(message="said by the second", within=3)["job"] == second


def test_lines_of_many_jobs_never_change_hands(served):
    with served.connect() as connection:
        jobs = [
            connection.request("POST", "/say", body=f"for n in range(5): print('many', {number}, n)".encode()).text
            for number in range(100)
        ]
    served.wait_record(message="many 99 4")
    seen = {record["message"]: record["job"] for record in served.records if record["message"].startswith("many ")}
    assert seen == {f"many {number} {n}": jobs[number] for number in range(100) for n in range(5)}
    # And in order.
    order = [record["message"] for record in served.records if record["message"].startswith("many ")]
    assert order == [f"many {number} {n}" for number in range(100) for n in range(5)]


def test_what_a_worker_prints_while_it_loads_has_no_job(served):
    record = served.wait_record(message="while loading", stage="echo")
    assert record.get("job") is None


def test_an_exception_is_one_record_with_its_traceback(served):
    answer = served.post("/raise")
    job = answer.json["job_id"]

    def found():
        return [one for one in served.records if one.get("code") == "function-failed" and one.get("job") == job]

    record = until(found, "a record of the failure")[0]
    assert record["level"] == "ERROR"
    assert record["request_id"] == answer.json["request_id"]
    assert record["stage"] == "raising"
    assert record["message"].startswith("stage `raising` raised ValueError")
    assert "Traceback (most recent call last):" in str(record)


def test_a_death_is_a_record_with_its_certificate_and_last_words(served):
    answer = served.get("/die")
    assert answer.status == 502
    said = served.wait_record(message="last words")
    assert (said["stage"], said["job"]) == ("die", answer.json["job_id"])

    def certificates():
        return [one for one in served.records if one.get("stage") == "die" and "code 3, after" in str(one)]

    gone = until(certificates, "the certificate")[0]
    assert (gone["level"], gone["job"]) == ("WARN", answer.json["job_id"])
    assert re.search(r"exited with code 3, after [0-9.]+ m?s, with a peak of \d+\.\d MiB", str(gone))


def test_every_line_of_a_json_log_is_an_object_with_time_and_level(served):
    records = served.records
    assert len(records) > 3
    for record in records:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", record["timestamp"])
        assert record["level"] in ("DEBUG", "INFO", "WARN", "ERROR")
        assert record["message"]


def test_no_line_of_a_json_log_has_a_key_twice(served):
    served.post("/raise")
    served.wait_record(code="function-failed")
    for line in served.log.splitlines():
        names = json.loads(line, object_pairs_hook=lambda pairs: [name for name, _ in pairs])
        assert len(set(names)) == len(names), line


def test_the_text_log_has_the_same_in_lines_for_people(served_in_text):
    job = served_in_text.post("/say", "print('a line for people')").text
    line = served_in_text.wait_log(r"^.*a line for people.*$")[0]
    assert "stage=say" in line.replace('"', "")
    assert f"job={job}" in line.replace('"', "")
    assert "INFO" in line
    # No colours where nobody sees them.
    assert "\x1b" not in served_in_text.log


def test_a_worker_cannot_forge_a_line_of_the_node(served_in_text):
    before = len(served_in_text.log.splitlines())
    code = r"os.write(1, b'harmless\r2020-01-01T00:00:00Z ERROR evener: forged\n')"
    assert served_in_text.post("/say", code).status == 200
    served_in_text.wait_log("harmless")
    lines = served_in_text.log.splitlines()[before:]
    assert not [line for line in lines if line.startswith("2020-01-01")]


def test_a_flood_of_output_does_not_lose_the_service(node):
    started = node(SERVICE, app=APP)
    code = "for n in range(100_000): print('flood', n)\nsys.stdout.flush()"
    with started.connect(patience=50) as flooding, started.connect() as other:
        flooding.send(b"POST /say HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(code), code.encode()))
        # Others are served meanwhile.
        for _ in range(10):
            assert other.request("POST", "/raise", body=b"").status == 500
        assert is_uuid7(flooding.answer().text)
    started.wait_log("flood 99999", within=20)
    assert is_uuid7(started.post("/say", "print('after the flood')").text)
    started.wait_log("after the flood", within=20)


def test_a_line_without_end_does_not_fill_the_memory(node):
    started = node(SERVICE, app=APP)
    assert started.post("/say", "os.write(1, b'start')").status == 200
    before = started.itself.resident
    code = "for n in range(64): os.write(1, b'x' * 1_000_000)"
    assert started.post("/say", code, patience=50).status == 200
    assert started.itself.resident - before < 32 << 20


def test_the_log_filter(node):
    quiet = node(SERVICE, env={"EVENER_LOG": "warn"}, app=APP)
    assert quiet.post("/say", "print('not worth a warning')").status == 200
    assert quiet.get("/die").status == 502
    quiet.wait_log("exited with code 3")
    assert "INFO" not in quiet.log
    assert "not worth a warning" not in quiet.log


@pytest.mark.parametrize(
    ("method", "level"), [("info", "INFO"), ("warning", "WARN"), ("error", "ERROR"), ("critical", "ERROR")]
)
def test_the_log_of_the_context_keeps_its_levels(served, method, level):
    job = served.post("/say", f"ctx.log.{method}('as loud as {method}')").text
    record = served.wait_record(message=f"as loud as {method}")
    assert (record["level"], record["job"]) == (level, job)


def test_every_line_of_a_logged_exception_is_an_error(served):
    served.post("/say", "exec(\"try:\\n 1 / 0\\nexcept ZeroDivisionError:\\n ctx.log.exception('so be it')\")")
    assert served.wait_record(message="so be it")["level"] == "ERROR"
    assert served.wait_record(message="ZeroDivisionError: division by zero")["level"] == "ERROR"


def test_a_connection_that_only_makes_noise_leaves_no_lines(node):
    """Frames that a library would warn of, each: nobody has sent a request."""
    noisy = node(SERVICE, app=APP)
    lines = len(noisy.log.splitlines())
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    # A PING that is acknowledged, though none was sent.
    frame = bytes([0, 0, 8, 6, 1, 0, 0, 0, 0]) + b"12345678"
    for door in ("http", "api"):
        with noisy.connect(door) as connection:
            connection.send(preface)
            for _ in range(20):
                connection.send(frame * 500)
    assert noisy.get("/nowhere").status == 404
    assert noisy.api("/healthz").status == 200
    assert len(noisy.log.splitlines()) - lines < 10, noisy.log
