"""The worker runtime as a process, seen through its socket: docs/protocol.md from the worker's side."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from conftest import (
    ABORT,
    BYE,
    BYTES,
    CANCEL,
    CANCELLED,
    DECODE,
    ENCODE,
    ERROR,
    FAIL,
    FUNCTION,
    GOTO,
    JOB,
    JSON,
    LIMIT,
    MEMORY,
    NEXT,
    NO_JOB,
    NOTHING,
    OUTCOME,
    PART,
    PYTHON,
    READY,
    RESPOND,
    RUNTIME,
    SOURCES,
    TEXT,
    TYPED,
    Worker,
    define,
    frame,
    job,
)

ECHO = "def f(value):\n    return value\n"
REQUEST = {
    "method": "POST",
    "path": "/items/9",
    "params": {"id": "9"},
    "query": [["a", "1"], ["b", "2"], ["a", "3"]],
    "headers": [["Content-Type", "application/json"]],
    "client": "127.0.0.1:5000",
}


def source(text: str) -> str:
    return textwrap.dedent(text)


# Starting


def test_ready_says_what_it_is(start):
    worker = start(ECHO, ready=False)
    first = worker.frame()
    assert first.kind == READY
    assert first.extension["protocol"] == 1
    assert first.extension["context"] is False
    expected = subprocess.run([PYTHON, "-V"], stdout=subprocess.PIPE, check=True, text=True).stdout
    assert first.extension["runtime"] == expected.strip().lower()
    assert (first.job, first.attempt, first.payload, first.content) == (0, 0, b"", NOTHING)


@pytest.mark.parametrize(
    ("text", "context"),
    [
        ("def f(value): return 'one'", False),
        ("def f(value, ctx): return ctx.tries", True),
        ("def f(value, anything): return anything.tries", True),
        ("def f(value, ctx=None): return ctx.tries", True),
        ("def f(value, scale=2): return scale", False),
        ("def f(*values): return len(values)", False),
        ("f = lambda value: 3", False),
        ("from functools import partial\nf = partial(pow, 2)", False),
        ("f = len", False),
        ("f = max", False),
        ("class f:\n  def __call__(self, value): return 4", False),
        ("class f:\n  def __call__(self, value, ctx): return ctx.tries", True),
        ("class F:\n  def g(self, value, ctx): return ctx.tries\nf = F().g", True),
    ],
)
def test_the_context_is_given_to_those_who_take_it(start, text, context):
    worker = start(text, ready=False)
    assert worker.ready().extension["context"] is context
    outcome = worker.do(b"[1, 2]" if "len" in text or "max" in text else b"2", number=6)
    assert outcome.verb == NEXT, outcome
    assert not context or outcome.value == 6


WRAPPERS = """
import functools

def injecting(function):
    @functools.wraps(function)
    def wrapper(value):
        return function(value, "db")
    return wrapper

def several(function):
    @functools.wraps(function)
    def wrapper(value):
        return function(value, "a", "b", key="c")
    return wrapper

def adding(function):
    @functools.wraps(function)
    def wrapper(value, ctx):
        return f"{function(value)} {ctx.tries}"
    return wrapper

def passing(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

class Adding:
    def __init__(self, function):
        functools.update_wrapper(self, function)
    def __call__(self, value, ctx):
        return f"{self.__wrapped__(value)} {ctx.tries}"
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@injecting\ndef f(value, database): return f'{value} {database}'", "v db"),
        ("@several\ndef f(value, a, b, *, key): return f'{value} {a}{b}{key}'", "v abc"),
        ("@adding\ndef f(value): return value", "v 6"),
        ("@Adding\ndef f(value): return value", "v 6"),
        ("@passing\ndef f(value, ctx): return f'{value} {ctx.tries}'", "v 6"),
        ("@passing\ndef f(value): return value", "v"),
        ("@passing\n@injecting\ndef f(value, database): return f'{value} {database}'", "v db"),
        ("@passing\n@adding\ndef f(value): return value", "v 6"),
        ("@functools.lru_cache\ndef f(value): return value", "v"),
        ("@injecting\ndef g(value, database): return f'{value} {database}'\nf = functools.partial(g)", "v db"),
        ("@passing\ndef g(key, value, ctx): return f'{value} {ctx.tries}'\nf = functools.partial(g, 1)", "v 6"),
        ("class f:\n  @passing\n  def __call__(self, value, ctx): return f'{value} {ctx.tries}'", "v 6"),
        (
            "def bound(function):\n  @functools.wraps(function)\n  def wrapper(self, value):\n"
            "    return function(self, value, 'db')\n  return wrapper\n"
            "class F:\n  @bound\n  def __call__(self, value, database): return f'{value} {database}'\nf = F()",
            "v db",
        ),
        # These wrap something for ever.
        (
            "class F:\n  def __getattr__(self, name): return F()\n  def __call__(self, *args): return args[0]\nf = F()",
            "v",
        ),
        ("def f(*args): return args[0]\nf.__wrapped__ = f", "v"),
    ],
)
def test_what_is_called_is_the_decorators_wrapper(start, text, expected):
    worker = start(WRAPPERS + text)
    assert worker.do(b'"v"', number=6).value == expected


def test_a_class_is_made_once_before_ready(start):
    worker = start(
        source("""
        class Model:
            def __init__(self):
                print("warming up")
                self.count = 0
            def __call__(self, value):
                self.count += value
                return self.count
        """),
        "m:Model",
    )
    assert worker.line() == "warming up\n"
    assert [worker.do(b"2").value, worker.do(b"3").value] == [2, 5]


def test_a_target_may_be_inside_something(start):
    worker = start("class A:\n  @staticmethod\n  def f(value): return value + 1\n", "m:A.f")
    assert worker.do(b"1").value == 2


BROKEN = [
    ("import nonesuch", "m:f", ["ModuleNotFoundError: No module named 'nonesuch'"]),
    ("raise ValueError('two\\nlines')", "m:f", ["ValueError: two lines"]),
    ("def f(value)\n", "m:f", ["SyntaxError: ", "m.py, line 1"]),
    ("import sys\nsys.exit(3)", "m:f", ["SystemExit: 3"]),
    ("raise KeyboardInterrupt", "m:f", ["KeyboardInterrupt"]),
    (ECHO, "nm:f", ["ModuleNotFoundError: No module named 'nm'", "looked in ", "did you mean 'm'?"]),
    (ECHO, "m", ["'m' names no target", "MODULE:ATTRIBUTE"]),
    (ECHO, "m:", ["names no target"]),
    ("def compute(value): pass", "m:compite", ["m:compite", "module m (", "m.py) has no 'compite'", "mean 'compute'?"]),
    ("def compute(value): pass\nx = 1", "m:zzz", ["module m (", "has no 'zzz'; it has compute"]),
    ("", "m:f", ["it defines no functions"]),
    ("class A: pass", "m:A.f", ["m:A.f: type has no 'f'"]),
    ("f = 17", "m:f", ["m:f is a int; a target is a function"]),
    ("async def f(): pass", "m:f", ["takes no argument"]),
    ("def f(): pass", "m:f", ["m:f() takes no argument", "(value) or (value, ctx)"]),
    ("def f(a, b, c): pass", "m:f", ["m:f(a, b, c) needs 3 arguments"]),
    ("def f(a, *, key): pass", "m:f", ["needs the keyword 'key'"]),
    ("class f: pass", "m:f", ["m:f is a class without __call__"]),
    ("class f:\n  def __init__(self, path): pass\n  def __call__(self, v): pass", "m:f", ["needs arguments", "'path'"]),
    (
        "class f:\n  def __init__(self): raise OSError('no model')\n  def __call__(self, v): pass",
        "m:f",
        ["OSError: no"],
    ),
    ("class f:\n  async def __call__(self): pass", "m:f", ["takes no argument"]),
    ("class f:\n  def __call__(self): pass", "m:f", ["m:f() takes no argument"]),
]


@pytest.mark.parametrize(("text", "target", "says"), BROKEN)
def test_a_worker_that_cannot_start_says_why(start, text, target, says):
    worker = start(text, target, ready=False)
    bye = worker.frame()
    code, _, errors = worker.gone()
    assert bye.kind == BYE
    assert code == 1
    for part in says:
        assert part in bye.extension["error"]
    assert "\n" not in bye.extension["error"]
    assert says[0].split("\n")[0].split(" lines")[0] in errors
    # A traceback only where the user's code is at fault, and without the runtime's own frames.
    assert ("Traceback" in errors) == ("raise" in text or "import" in text)
    assert RUNTIME.name not in errors


@pytest.mark.parametrize("arguments", [[], ["a:b", "c:d"], ["--help"]])
def test_a_wrong_command_line_says_how(arguments):
    done = subprocess.run([PYTHON, str(RUNTIME), *arguments], stderr=subprocess.PIPE, timeout=15, check=False)
    assert done.returncode == 2
    assert b"usage: " in done.stderr


def test_without_a_socket_it_says_so():
    with Path(os.devnull).open() as nothing:
        done = subprocess.run(
            [PYTHON, str(RUNTIME), "m:f"],
            stderr=subprocess.PIPE,
            timeout=15,
            check=False,
            pass_fds=(3,),
            preexec_fn=lambda: os.dup2(nothing.fileno(), 3),
        )
    assert done.returncode == 2
    assert b"descriptor 3 must be the socket to a node" in done.stderr


def test_user_code_finds_a_tidy_process(start, tmp_path):
    (tmp_path / "json_helper.py").write_text("name = 'beside'")
    worker = start(
        source("""
        import sys, json_helper
        def f(value):
            return [sys.path[0], sys.argv[1:], json_helper.name, sys.stdin.read(), sys.stdout.encoding]
        """)
    )
    folder, arguments, name, text, encoding = worker.do().value
    assert (folder, arguments, name, text, encoding) == (str(tmp_path), [], "beside", "", "utf-8")


def test_the_runtime_runs_under_any_name(tmp_path):
    copy = tmp_path / "runtime" / "run"
    copy.parent.mkdir()
    copy.write_bytes(RUNTIME.read_bytes())
    (tmp_path / "m.py").write_text(
        "import sys, evener\ndef f(v): return evener.Response(sys.path[0])\ndef g(v): raise ValueError"
    )
    ours, theirs = socket.socketpair()
    ours.settimeout(15)
    worker = subprocess.Popen(
        [PYTHON, "-S", str(copy), "m:f"], cwd=tmp_path, pass_fds=(3,), preexec_fn=lambda: os.dup2(theirs.fileno(), 3)
    )
    theirs.close()
    assert ours.recv(65_536)[4] == READY
    ours.sendall(job(b"1"))
    assert str(tmp_path).encode() in ours.recv(65_536)
    ours.close()
    assert worker.wait(15) == 0


# Values


@pytest.mark.parametrize(
    ("content", "payload", "value"),
    [
        (JSON, b' {"a": [1, 2.5, null, true, "\\u00e9\\n"]}\r\n', {"a": [1, 2.5, None, True, "é\n"]}),
        (JSON, b"32416190071", 32416190071),
        (JSON, b"1" + b"0" * 400, 10**400),
        (JSON, b"null", None),
        (JSON, b"\t[]", []),
        (JSON, '"grüß"'.encode(), "grüß"),
        (TEXT, "grüß".encode(), "grüß"),
        (TEXT, b"", ""),
        (BYTES, b"\x00\xff", b"\x00\xff"),
        (BYTES, b"", b""),
        (TYPED, b"<xml/>", b"<xml/>"),
        (NOTHING, b"", None),
    ],
)
def test_values_come_and_go(start, content, payload, value):
    worker = start(ECHO)
    worker.send(job(payload, content, job=2**63 + 5, attempt=2**32 - 1))
    outcome = worker.outcome()
    assert (outcome.verb, outcome.job, outcome.attempt) == (NEXT, 2**63 + 5, 2**32 - 1)
    assert outcome.value == value
    assert type(outcome.value) is type(value)
    assert outcome.extension == {}
    assert 0 < outcome.nanoseconds < 10**10
    assert outcome.content == {str: TEXT, bytes: BYTES}.get(type(value), JSON)


@pytest.mark.parametrize(
    ("expression", "content", "payload"),
    [
        (
            "{'a': [1, 'é', None, True], 2: 0.5, None: 1, True: 2}",
            JSON,
            '{"a":[1,"é",null,true],"2":0.5,"null":1,"true":2}',
        ),
        ("(1, 2)", JSON, "[1,2]"),
        ("'text'", TEXT, "text"),
        ("type('S', (str,), {})('sub')", TEXT, "sub"),
        ("bytearray(b'ab')", BYTES, "ab"),
        ("memoryview(b'abcd')[::2]", BYTES, "ac"),
        ("__import__('collections').OrderedDict(a=1)", JSON, '{"a":1}'),
        ("__import__('http').HTTPStatus.OK", JSON, "200"),
        ("None", JSON, "null"),
        ("1e400 - 1e400 == 0", JSON, "false"),
    ],
)
def test_results_travel_by_type(start, expression, content, payload):
    outcome = start(f"def f(value): return {expression}").do()
    assert (outcome.verb, outcome.content, outcome.payload.decode()) == (NEXT, content, payload)


@pytest.mark.parametrize(
    ("content", "payload", "detail"),
    [
        (JSON, b"{", "body is not JSON: Expecting property name enclosed in double quotes at line 1 column 2"),
        (JSON, b"nope", "body is not JSON: Expecting value at line 1 column 1"),
        (JSON, b"1 2", "body is not JSON: Extra data at line 1 column 3"),
        (JSON, b'"a\nb"', "Invalid control character at"),
        (JSON, b"", "body is not JSON: it is empty"),
        (JSON, b"  \n", "body is not JSON: it is empty"),
        (JSON, b"NaN", "NaN is not a JSON value"),
        (JSON, b"[-Infinity]", "-Infinity is not a JSON value"),
        (JSON, b'"\xff"', "body is not UTF-8 text: invalid start byte at byte 1"),
        pytest.param(JSON, b"[" * 200_000, "nested too deeply", id="deep"),
        (TEXT, b"a\xe9b", "body is not UTF-8 text: invalid continuation byte at byte 1"),
    ],
)
def test_what_does_not_decode(start, content, payload, detail):
    worker = start(ECHO)
    outcome = worker.do(payload, content)
    assert (outcome.verb, outcome.number, outcome.payload) == (FAIL, DECODE, b"")
    assert detail in outcome.extension["detail"]
    assert worker.do(b"1").value == 1


def test_a_number_beyond_pythons_limit_of_digits(start):
    worker = start("def f(value): return 10 ** 10_000")
    outcome = worker.do(b"1" * 10_000)
    if outcome.number == DECODE:
        assert "digits" in outcome.extension["detail"]
        outcome = worker.do()
        assert (outcome.number, outcome.extension["place"]) == (ENCODE, "result")
        assert "digits" in outcome.extension["detail"]
    else:
        # Early releases of old Pythons have no such limit.
        assert outcome.value == 10**10_000


UNSENDABLE = [
    ("{'rows': [1, 2, 3, float('nan')]}", 'result["rows"][3]', "NaN"),
    ("[float('inf')]", "result[0]", "infinite"),
    ("float('-inf')", "result", "infinite"),
    ("{'a': {1, 2}}", 'result["a"]', "a set, which JSON does not have"),
    ("[[b'x']]", "result[0][0]", "bytes inside JSON"),
    ("{'a': (1, object())}", 'result["a"][1]', "JSON cannot hold a object"),
    ("[Horse()]", "result[0]", "JSON cannot hold a m.Horse"),
    ("Horse", "result", "the class m.Horse itself"),
    ("'\\ud800'", "result", "lone surrogate, U+D800, at index 0"),
    ("['ab\\udfff']", "result[0]", "lone surrogate, U+DFFF, at index 2"),
    ("{'\\ud800': 1}", 'result["\\ud800"]', "a key: the text holds a lone surrogate"),
    ("{'a': {(1, 2): 3}}", 'result["a"][(1, 2)]', "a key is a tuple"),
    ("{float('nan'): 3}", "result[nan]", "a key: the number is NaN"),
    ("circle()", 'result["me"][0]', "holds itself"),
    ("deep()", "result", "nested too deeply"),
    ("map(str, [1])", "result", "JSON cannot hold a map; send a list"),
    ("[(x for x in [1])]", "result[0]", "a generator inside another value"),
    ("later()", "result", "should not be async"),
    ("__import__('datetime').date.today()", "result", ".isoformat()"),
    ("evener.Abort(400)", "result", "must be raised"),
    ("[evener.Response()]", "result[0]", "evener.Response inside another value; return it by itself"),
    ("evener.Request()", "result", "a request cannot travel"),
    ("{'k' * 500: {1}}", None, "a set"),
    ("evener.Response({'a': [{1}]})", 'Response.body["a"][0]', "a set"),
    ("evener.Response('\\ud800')", "Response.body", "lone surrogate"),
    ("evener.Response((x for x in [1]))", "Response.body", "a generator"),
    ("evener.Response(status=199)", "Response.status", "200 to 599, not 199"),
    ("evener.Response(status=600)", "Response.status", "200 to 599"),
    ("evener.Response(status='200')", "Response.status", '200 to 599, not "200"'),
    ("evener.Response(status=True)", "Response.status", "200 to 599"),
    ("evener.Response(headers={'a b': 'c'})", "Response.headers", '"a b" cannot be the name'),
    ("evener.Response(headers={'': 'c'})", "Response.headers", "cannot be the name"),
    ("evener.Response(headers={1: 'c'})", "Response.headers", "cannot be the name"),
    ("evener.Response(headers={'x': 'a\\r\\nb: c'})", 'Response.headers["x"]', "line ends"),
    ("evener.Response(headers={'x': 'a\\0'})", 'Response.headers["x"]', "control characters"),
    ("evener.Response(headers={'Retry-After': 3})", 'Response.headers["Retry-After"]', "is a str, not a int"),
    ("evener.Response(headers=[('a', '\\ud800')])", 'Response.headers["a"]', "lone surrogate"),
    ("evener.Response(headers='a: b')", "Response.headers", "a dict or a list of pairs"),
    ("evener.Response(headers=17)", "Response.headers", "a dict or a list of pairs is needed, not this int"),
    ("evener.Response(headers={'x': 'y' * 300_000})", "Response.headers", "larger than"),
    ("evener.Goto(17)", "Goto.target", "a stage or a pipeline"),
    ("evener.Goto('')", "Goto.target", "a stage or a pipeline"),
    ("evener.Goto('x' * 300_000)", "Goto.target", "too long"),
    ("evener.Goto('x', [float('nan')])", "Goto.value[0]", "NaN"),
]


@pytest.mark.parametrize(("expression", "place", "detail"), UNSENDABLE)
def test_what_does_not_encode_is_named(start, expression, place, detail):
    worker = start(
        source("""
        import evener
        class Horse: pass
        async def later(): pass
        def circle():
            value = {"me": []}
            value["me"].append(value)
            return value
        def deep():
            value = []
            for _ in range(150_000):
                value = [value]
            return value
        def f(value):
            return 1 if value else %s
        """)
        % expression
    )
    for _ in range(2):
        outcome = worker.do(b"false")
        assert (outcome.verb, outcome.number, outcome.content) == (FAIL, ENCODE, NOTHING), outcome
        assert detail in outcome.extension["detail"]
        if place is not None and "\\ud800" not in place:
            assert outcome.extension["place"] == place
        assert len(outcome.extension["place"]) < 200
    assert worker.do(b"true").value == 1
    assert "never awaited" not in worker.leave()[2]


# Outcomes


def test_a_response_answers(start):
    worker = start(
        source("""
        import evener, http
        answers = [
            evener.Response(),
            evener.Response("text", 201),
            evener.Response(b"bytes", status=http.HTTPStatus.ACCEPTED, headers={"X-A": "1", "x-b": "gr\u00fc\u00df"}),
            evener.Response({"a": [1]}, 599, [("set-cookie", "a"), ("set-cookie", "b")]),
            evener.Response([], headers={}),
        ]
        def f(value):
            return answers[value]
        """)
    )
    seen = [worker.do(str(index).encode()) for index in range(5)]
    assert [outcome.verb for outcome in seen] == [RESPOND] * 5
    assert [outcome.number for outcome in seen] == [200, 201, 202, 599, 200]
    assert [outcome.content for outcome in seen] == [NOTHING, TEXT, BYTES, JSON, JSON]
    assert [outcome.value for outcome in seen] == [None, "text", b"bytes", {"a": [1]}, []]
    headers = [["X-A", "1"], ["x-b", "grüß"]]
    cookies = [["set-cookie", "a"], ["set-cookie", "b"]]
    assert [outcome.extension for outcome in seen] == [{}, {}, {"headers": headers}, {"headers": cookies}, {}]


def test_a_goto_goes(start):
    worker = start("import evener\ndef f(value): return evener.Goto('elsewhere', value)")
    outcome = worker.do(b'{"a":1}')
    assert (outcome.verb, outcome.number, outcome.extension) == (GOTO, 0, {"target": "elsewhere"})
    assert outcome.value == {"a": 1}
    assert worker.do(b"null").value is None


def test_an_abort_refuses(start):
    worker = start(
        source("""
        import evener
        class NotFound(evener.Abort):
            def __init__(self):
                super().__init__(404, "no horse")
        def f(value):
            if value:
                raise NotFound
            raise evener.Abort(418)
        """)
    )
    outcome = worker.do(b"true")
    assert (outcome.verb, outcome.number) == (FAIL, ABORT)
    assert outcome.extension == {"status": 404, "detail": "no horse"}
    assert worker.do(b"false").extension == {"status": 418, "detail": ""}


def test_an_error_tells_type_message_and_traceback(start):
    worker = start(
        source("""
        class Lame(Exception):
            pass
        def inner(value):
            raise Lame("left " + value)
        def f(value):
            try:
                return 1 / 0
            except ZeroDivisionError as error:
                inner(value)
        """)
    )
    outcome = worker.do('"grüß\\ud800"'.encode())
    assert (outcome.verb, outcome.number) == (FAIL, ERROR)
    assert outcome.extension["type"] == "m.Lame"
    assert outcome.extension["message"] == "left grüß\\ud800"
    trace = outcome.extension["traceback"]
    assert trace.startswith("Traceback (most recent call last):")
    assert "ZeroDivisionError: division by zero" in trace
    assert 'raise Lame("left " + value)' in trace
    assert trace.endswith("m.Lame: left grüß\\ud800")
    assert RUNTIME.name not in trace
    assert worker.leave() == (0, "", "")


@pytest.mark.parametrize(
    ("statement", "kind", "message"),
    [
        ("raise ValueError('x')", "ValueError", "x"),
        ("import sys; sys.exit('bye')", "SystemExit", "bye"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("raise GeneratorExit", "GeneratorExit", ""),
        ("raise StopIteration(3)", "StopIteration", "3"),
        ("return f(value)", "RecursionError", "maximum recursion depth exceeded"),
        ("raise Silent", "m.Silent", "whose text cannot be had"),
        ("import asyncio; raise asyncio.CancelledError", "asyncio.exceptions.CancelledError", ""),
        ("raise OSError(32, 'pipe')", "BrokenPipeError", "[Errno 32] pipe"),
        ("raise evener.Abort(200)", "ValueError", "400 to 599"),
        ("error = evener.Abort(400); error.status = 7; raise error", "evener.Abort", "7"),
    ],
)
def test_whatever_is_raised_is_an_outcome(start, statement, kind, message):
    worker = start(
        source("""
        import evener
        class Silent(Exception):
            def __str__(self):
                raise RuntimeError("no")
        def f(value):
            if value:
                return "fine"
            %s
        """)
        % statement
    )
    outcome = worker.do(b"false")
    assert (outcome.verb, outcome.number, outcome.extension["type"]) == (FAIL, ERROR, kind)
    assert message in outcome.extension["message"]
    assert worker.do(b"true").value == "fine"


@pytest.mark.parametrize("letter", ["x", "é", "\\0", "\\ud800"])
def test_long_texts_are_cut_and_keep_their_ends(start, letter):
    worker = start(f"def f(value): raise ValueError('{letter}' * 200_000 + 'the end')")
    worker.send(job(b"1"))
    outcome = worker.outcome()
    for name in ("message", "traceback"):
        assert outcome.extension[name].endswith("the end")
        assert "bytes, cut to the last" in outcome.extension[name]
        assert 3_000 < len(outcome.extension[name].encode()) <= 32_768


def test_out_of_memory_says_so_and_leaves(start):
    worker = start("def f(value): raise MemoryError('Unable to allocate 8 TiB')")
    outcome = worker.do(job=99, attempt=3)
    assert (outcome.verb, outcome.number, outcome.job, outcome.attempt) == (FAIL, MEMORY, 99, 3)
    assert outcome.extension == {"message": "Unable to allocate 8 TiB"}
    assert worker.frame().kind == BYE
    assert worker.gone()[0] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce RLIMIT_AS")
def test_out_of_real_memory(start):
    worker = start(
        source("""
        import resource
        def f(value):
            with open("/proc/self/statm") as file:
                size = int(file.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + 50_000_000,) * 2)
            hoard = []
            while True:
                hoard.append(list(range(100)))
        """)
    )
    outcome = worker.do()
    assert (outcome.verb, outcome.number) == (FAIL, MEMORY)
    assert "MemoryError" in outcome.extension["message"]
    assert worker.frame().kind == BYE
    assert worker.gone()[0] == 1


# Requests and the context


def test_a_request_is_lazy_and_whole(start):
    worker = start(
        source("""
        import evener
        def f(request):
            assert isinstance(request, evener.Request)
            return [request.method, request.path, request.params, request.query["a"], request.query.getlist("a"),
                    request.headers["content-type"], request.client, request.json(), request.text()]
        """)
    )
    outcome = worker.do(b'{"x":1}', JSON, {"request": REQUEST, "unknown": 1}, verb=1)
    assert outcome.value == [
        "POST",
        "/items/9",
        {"id": "9"},
        "1",
        ["1", "3"],
        "application/json",
        "127.0.0.1:5000",
        {"x": 1},
        '{"x":1}',
    ]
    for content, body in ((NOTHING, b""), (JSON, b"{"), (TYPED, b"?"), (TEXT, b"\xff")):
        outcome = worker.do(body, content, {"request": REQUEST}, verb=1)
        assert (outcome.number, outcome.extension["status"]) == (ABORT, 400)


def test_the_context_tells_what_the_extension_says(start):
    worker = start(
        source("""
        import time
        def f(value, ctx):
            request = ctx.request and [ctx.request.method, ctx.request.query["b"], ctx.request.body.decode()]
            left = ctx.remaining()
            assert left is None or 0 < ctx.deadline - time.monotonic() <= left
            return [ctx.job_id, ctx.request_id, ctx.tries, left, request, ctx.traceparent, ctx.cancelled()]
        """)
    )
    fields = {"job_id": "j", "request_id": "r", "request": REQUEST, "traceparent": "t"}
    outcome = worker.do(b"1", JSON, fields, number=3, nanoseconds=5 * 10**9)
    identity, request_identity, tries, left, request, trace, cancelled = outcome.value
    assert (identity, request_identity, tries, trace, cancelled) == ("j", "r", 3, "t", False)
    assert request == ["POST", "2", ""]
    assert 4 < left <= 5
    outcome = worker.do(b"1")
    assert outcome.value == ["", "", 1, None, None, "", False]
    assert worker.do(b"x", JSON, {"request": REQUEST}, verb=1).value[4][2] == ""


def test_the_log_is_named_after_the_target(start):
    worker = start("def f(value, ctx):\n  ctx.log.info('name %s', ctx.log.name)\n  ctx.log.debug('quiet')\n  return 1")
    worker.do()
    worker.do()
    assert worker.leave()[2] == "<6>name m:f\n" * 2


def test_a_configured_log_stays_as_it_is(start):
    worker = start(
        "import logging\nlogging.basicConfig(format='mine %(message)s', level=10)\n"
        "def f(value, ctx): ctx.log.debug('x')"
    )
    worker.do()
    assert worker.leave()[2] == "mine x\n"


# Cancelling

WAITS = """
import evener
def f(value, ctx):
    print("begun")
    if value == "cancelled":
        while not ctx.cancelled():
            pass
        return [ctx.cancelled(), ctx.cancelled()]
    if value == "swallow":
        while True:
            try:
                ctx.check()
            except Exception:
                return "swallowed"
            except evener.Cancelled:
                return "caught"
    if value == "check":
        while True:
            ctx.check()
    return value
"""


def test_a_cancel_is_seen_by_the_function(start):
    worker = start(WAITS)
    for value, verb, number in (("check", FAIL, CANCELLED), ("cancelled", NEXT, 0), ("swallow", NEXT, 0)):
        worker.send(job(json.dumps(value).encode()))
        assert worker.line() == "begun\n"
        # Of another job, and in two pieces.
        worker.send(frame(CANCEL, job=8), frame(CANCEL)[:17])
        worker.send(frame(CANCEL)[17:])
        outcome = worker.outcome()
        assert (outcome.verb, outcome.number) == (verb, number)
        assert verb == FAIL or outcome.value in ([True, True], "caught")
    assert worker.do(b'"next"').value == "next"


def test_a_cancel_for_a_function_that_does_not_look(start):
    worker = start("def f(value):\n  print('begun')\n  return value\n")
    worker.send(job(b"1"))
    assert worker.line() == "begun\n"
    worker.send(frame(CANCEL), frame(CANCEL, job=2**60))
    assert worker.outcome().value == 1
    assert worker.do(b"2").value == 2


def test_a_job_that_comes_with_its_cancel_is_not_begun(start):
    worker = start("def f(value):\n  print('begun')\n  return value\n")
    worker.send(job(b"1") + frame(CANCEL))
    outcome = worker.outcome()
    assert (outcome.verb, outcome.number) == (FAIL, CANCELLED)
    worker.send(job(b"2", attempt=2))
    assert worker.outcome().value == 2
    assert worker.leave()[1] == "begun\n"


def test_the_end_of_the_node_cancels(start):
    worker = start(WAITS)
    worker.send(job(b'"check"'))
    assert worker.line() == "begun\n"
    assert worker.leave()[0] == 0


def test_an_old_context_does_not_read_what_is_not_its_own(start):
    worker = start(
        source("""
        import threading
        stop = threading.Event()
        old = []
        seen = []
        def watch(ctx):
            while not stop.is_set():
                seen.append(ctx.cancelled())
        def f(value, ctx):
            if value == "first":
                threading.Thread(target=watch, args=(ctx,)).start()
            if value == "last":
                stop.set()
                return [any(seen), len(seen) > 0]
            return value
        """)
    )
    assert worker.do(b'"first"').value == "first"
    for number in range(300):
        assert worker.do(str(number).encode(), job=number).value == number
    assert worker.do(b'"last"').value == [False, True]


# Parts


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1, 2 * LIMIT, 1 << 20, (1 << 20) + 17])
def test_large_values_go_in_parts(start, size):
    worker = start(ECHO)
    payload = random.Random(size).randbytes(size) if hasattr(random.Random, "randbytes") else os.urandom(size)
    assert worker.do(payload, BYTES).value == payload
    assert worker.largest_part == min(size, LIMIT)
    assert worker.do(b"1").value == 1


@pytest.mark.parametrize(
    ("result", "verb"), [("value", NEXT), ("evener.Response(value, 201)", RESPOND), ("evener.Goto('x', value)", GOTO)]
)
def test_large_outcomes_of_every_verb(start, result, verb):
    worker = start(f"import evener\ndef f(value): return {result}")
    text = "é" * 600_000
    outcome = worker.do(json.dumps(text).encode())
    assert (outcome.verb, outcome.value) == (verb, text)
    assert worker.do(text.encode(), TEXT).value == text


def test_a_large_body_with_headers_as_large_as_can_be(start):
    worker = start("import evener\ndef f(size): return evener.Response(bytes(400_000), headers={'x': 'y' * size})")
    for size in (1, LIMIT - 100, LIMIT - len('{"headers":[["x",""]]}')):
        outcome = worker.do(str(size).encode())
        assert outcome.extension["headers"] == [["x", "y" * size]]
        assert outcome.extension.get("size", 400_000) == len(outcome.payload) == 400_000
    assert worker.do(str(size + 1).encode()).number == ENCODE


def test_a_large_request(start):
    worker = start("def f(request): return len(request.body)")
    assert worker.do(b"x" * 1_000_000, BYTES, {"request": REQUEST}, verb=1).value == 1_000_000


def test_a_cancel_between_parts_drops_the_job(start):
    worker = start("def f(value):\n  print('begun')\n  return value\n")
    parts = job(b"x" * LIMIT * 3, BYTES, job=5, attempt=4)
    worker.send(parts[: 40 + LIMIT], frame(CANCEL, job=6), parts[40 + LIMIT : 2 * (40 + LIMIT)])
    worker.send(frame(CANCEL, job=5, attempt=4))
    outcome = worker.outcome()
    assert (outcome.verb, outcome.number, outcome.job, outcome.attempt) == (FAIL, CANCELLED, 5, 4)
    assert worker.do(b"1").value == 1
    assert worker.leave()[1] == "begun\n"


def test_the_end_between_parts(start):
    worker = start(ECHO)
    worker.send(job(b"x" * LIMIT * 3, BYTES)[: LIMIT + 100], b"")
    assert worker.leave()[0] == 0


def test_frames_may_arrive_in_any_pieces(start):
    worker = start(ECHO)
    randomness = random.Random(17)
    for turn in range(150):
        size = randomness.choice([0, 1, 30, 4_000, 65_496, 65_497, 70_000, 300_000])
        payload = bytes(size)
        message = job(payload, BYTES, b"{}" if turn % 3 else b"", job=turn)
        # A CANCEL of a job long gone, in the same breath.
        message = frame(CANCEL, job=10_000) + message if turn % 4 == 0 else message
        while message:
            count = randomness.choice([1, 7, 40, 41, 65_536, len(message)])
            worker.send(message[:count])
            message = message[count:]
        outcome = worker.outcome()
        assert (outcome.job, outcome.value) == (turn, payload)


def test_a_job_byte_by_byte(start):
    worker = start(ECHO)
    for byte in job(b'{"a":1}', extension=b'{"x":1}'):
        worker.send(bytes([byte]))
    assert worker.outcome().value == {"a": 1}


# What a job prints


def test_what_a_job_prints_is_in_the_pipe_before_its_outcome(start):
    worker = start(
        source("""
        import sys
        def f(value):
            print("whole line"); sys.stdout.write("half \\ud800"); sys.stderr.write("half error")
            sys.stdout.buffer.write(b"!")
            return value
        """)
    )
    os.set_blocking(worker.process.stdout.fileno(), False)
    os.set_blocking(worker.process.stderr.fileno(), False)
    assert worker.do(b"1").value == 1
    assert os.read(worker.process.stdout.fileno(), 1000) == b"whole line\nhalf \\ud800!"
    assert os.read(worker.process.stderr.fileno(), 1000) == b"half error"


@pytest.mark.parametrize(
    "spoil",
    ["sys.stdout.close()", "sys.stdout = None; sys.stderr = None", "sys.stdout = 17", "vars(sys).pop('stdout', 0)"],
)
def test_spoiled_streams_do_no_harm(start, spoil):
    worker = start(f"import sys\ndef f(value):\n  {spoil}\n  return value\n")
    assert [worker.do(b"1").value, worker.do(b"2").value] == [1, 2]
    assert worker.leave()[0] == 0


def test_nobody_reads_what_it_prints(start):
    worker = start("import sys\ndef f(value):\n  sys.stdout.write('x')\n  return value\n", env={"PYTHONUNBUFFERED": ""})
    worker.process.stdout.close()
    assert [worker.do(b"1").value, worker.do(b"2").value] == [1, 2]
    worker.socket.close()
    assert worker.process.wait(15) == 0


# Leaving


def test_the_end_of_the_stream_ends_it(start):
    worker = start("import atexit\natexit.register(print, 'cleaned up')\ndef f(value): return value")
    assert worker.do(b"1").value == 1
    assert worker.leave() == (0, "cleaned up\n", "")


def test_bye_ends_it(start):
    worker = start(ECHO)
    worker.send(job(b"1") + frame(BYE))
    assert worker.outcome().value == 1
    assert worker.gone() == (0, "", "")


def test_bye_while_it_works_waits_for_the_job(start):
    worker = start("def f(value, ctx):\n  print('begun')\n  while not ctx.cancelled(): pass\n  return 'done'")
    worker.send(job(b"1"))
    assert worker.line() == "begun\n"
    worker.send(frame(BYE), frame(CANCEL))
    assert worker.outcome().value == "done"
    assert worker.gone()[0] == 0


def test_threads_of_user_code_do_not_keep_it(start):
    worker = start(
        "import threading\ndef f(value):\n  threading.Thread(target=threading.Event().wait).start()\n  return value\n"
    )
    assert worker.do(b"1").value == 1
    assert worker.leave()[0] == 0


def test_handlers_at_exit_do_not_keep_it(start):
    worker = start("import atexit, threading\natexit.register(threading.Event().wait)\ndef f(value): return value\n")
    assert worker.leave()[0] == 0


def test_a_failing_handler_at_exit_is_told(start):
    worker = start("import atexit\natexit.register(int, 'x')\ndef f(value): return value\n")
    code, _, errors = worker.leave()
    assert code == 0
    assert "invalid literal" in errors


GARBAGE = {
    "an unknown kind": frame(99),
    "kind zero": bytes(40),
    "a reserved kind": frame(3),
    "another reserved kind": frame(5),
    "READY": frame(READY),
    "OUTCOME": frame(OUTCOME, verb=NEXT),
    "a PART of nothing": frame(PART, b"x"),
    "an unknown flag": frame(JOB, b"1", content=JSON, flags=8),
    "a batch that was not asked for": frame(JOB, b"1", content=JSON, flags=4),
    "an outcome that streams": frame(CANCEL, flags=2),
    "a reserved field": frame(JOB, b"1", content=JSON, function=1),
    "an unknown content": frame(JOB, b"1", content=5),
    "an unknown verb": frame(JOB, b"1", content=JSON, verb=2),
    "a payload without content": frame(JOB, b"1"),
    "a length over the limit": frame(JOB, content=BYTES, length=LIMIT + 1),
    "an extension over the limit": frame(JOB, content=BYTES, length=LIMIT + 1, extension_length=LIMIT + 1),
    "an extension longer than its frame": frame(JOB, b"1", content=JSON, extension_length=2),
    "an extension that is not JSON": frame(JOB, b"1", b"{", content=JSON, verb=1),
    "an extension that is no object": frame(JOB, b"1", b"[]", content=JSON, verb=1),
    "a request without a request": frame(JOB, b"1", b"{}", content=JSON, verb=1),
    "a JOB between parts": job(b"x" * LIMIT + b"y", BYTES)[: 40 + LIMIT] + job(b"1"),
    "a PART of another job": job(b"x" * LIMIT + b"y", BYTES)[: 40 + LIMIT] + frame(PART, b"x", job=8),
    "a PART of another attempt": job(b"x" * LIMIT + b"y", BYTES)[: 40 + LIMIT] + frame(PART, b"x", attempt=8),
    "a PART with a content": job(b"x" * LIMIT + b"y", BYTES)[: 40 + LIMIT] + frame(PART, b"y", content=BYTES),
    "a PART with a verb": job(b"x" * LIMIT + b"y", BYTES)[: 40 + LIMIT] + frame(PART, b"y", verb=1),
    "a reserved field of a PART": job(b"x" * LIMIT + b"y", BYTES)[: 40 + LIMIT] + frame(PART, b"y", function=1),
    "a JOB after BYE": frame(BYE) + job(b"1"),
    "a PART of an unknown flag": job(b"x" * LIMIT + b"y", BYTES)[: 40 + LIMIT] + frame(PART, b"x", flags=4),
    "parts without content": frame(JOB, b"1", flags=1) + frame(PART, b"1"),
    "a function for a stage": define(1, b"x"),
    "a function without a number for a stage": frame(FUNCTION, b"x", content=BYTES, job=NO_JOB, attempt=0),
}


@pytest.mark.parametrize("name", GARBAGE)
@pytest.mark.parametrize("source_text", [ECHO, "def f(value, ctx): return value"])
def test_a_malformed_frame_ends_it(start, name, source_text):
    worker = start(source_text)
    worker.send(GARBAGE[name])
    code, output, errors = worker.gone()
    assert (code, output) == (2, "")
    assert errors.startswith(("evener worker: the node sent a ", "evener worker: the node sent an "))
    assert errors.count("\n") == 1
    assert not worker.received


def test_a_malformed_extension_ends_it_when_it_is_read(start):
    worker = start("def f(value, ctx):\n  try:\n    return ctx.job_id\n  except Exception:\n    return 1\n")
    worker.send(job(b"1", extension=b"{"))
    code, _, errors = worker.gone()
    assert code == 2
    assert "an extension that is not JSON" in errors


# Signals, descriptors, processes


def test_an_interrupt_is_for_the_node(start):
    worker = start(
        source("""
        import signal, subprocess, sys
        code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
        def f(value):
            signal.raise_signal(signal.SIGINT)
            return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout.decode()
        """)
    )
    worker.process.send_signal(signal.SIGINT)
    assert worker.do().value == "True\n"
    worker.process.send_signal(signal.SIGINT)
    assert worker.do().value == "True\n"


def test_a_terminate_ends_it(start):
    worker = start(ECHO)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(15) == -signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_subprocesses_do_not_get_the_socket(start):
    worker = start(
        source("""
        import os, subprocess
        def f(value):
            listing = subprocess.run(["ls", "-l", "/proc/self/fd"], close_fds=False, stdout=subprocess.PIPE, check=True)
            return [os.readlink("/proc/self/fd/3"), listing.stdout.decode()]
        """)
    )
    ours, listing = worker.do().value
    assert ours.startswith("socket:")
    assert ours not in listing


def test_a_forked_process_does_not_answer(start):
    worker = start(
        source("""
        import os, sys
        def f(value, ctx):
            pid = os.fork()
            if pid == 0:
                if value == "exit":
                    ctx.cancelled()
                    sys.exit(7)
                if value == "raise":
                    raise ValueError("in the child")
                return "from the child"
            return os.waitpid(pid, 0)[1] >> 8
        """)
    )
    assert worker.do(b'"exit"').value == 7
    assert worker.do(b'"raise"').value == 1
    assert worker.do(b'"return"').value == 1
    code, _, errors = worker.leave()
    assert code == 0
    assert "ValueError: in the child" in errors
    assert "came out of the job" in errors


def test_a_process_pool_works(start):
    worker = start(
        source("""
        import multiprocessing
        def square(x):
            return x * x
        def f(values):
            with multiprocessing.get_context("fork").Pool(2) as pool:
                return pool.map(square, values)
        """)
    )
    assert worker.do(b"[1,2,3]").value == [1, 4, 9]
    assert worker.leave()[0] == 0


# The package


WHERE = """
import evener
def f(request, ctx):
    if request.query:
        print("begun")
        try:
            while True:
                ctx.check()
        except evener.Cancelled:
            return evener.Goto("caught")
    return evener.Response([evener.__version__, getattr(evener, "__file__", None), isinstance(request, evener.Request)])
"""


@pytest.mark.parametrize("installed", [True, False])
def test_an_installed_package_wins(start, installed):
    worker = start(WHERE, env={"PYTHONPATH": str(SOURCES)} if installed else {})
    outcome = worker.do(b"", NOTHING, {"request": {**REQUEST, "query": []}}, verb=1)
    assert outcome.verb == RESPOND
    assert outcome.value == ["0.1.0", str(SOURCES / "evener" / "__init__.py") if installed else None, True]
    worker.send(job(b"", NOTHING, json.dumps({"request": REQUEST}).encode(), verb=1))
    assert worker.line() == "begun\n"
    worker.send(frame(CANCEL))
    assert worker.outcome().extension == {"target": "caught"}


def test_a_folder_of_that_name_is_no_package(start, tmp_path):
    (tmp_path / "evener").mkdir()
    worker = start("import evener\ndef f(value): return evener.Response('fine')")
    assert worker.do().value == "fine"


def test_the_names_without_the_package(start):
    worker = start(
        source("""
        import evener, importlib.util, pickle
        from evener import *
        def f(value):
            assert importlib.util.find_spec("evener") is evener.__spec__
            assert pickle.loads(pickle.dumps(evener.Abort(400, "x"))).status == 400
            try:
                evener.function
            except AttributeError as error:
                return [sorted(evener.__all__), str(error)]
        """)
    )
    names, message = worker.do().value
    assert names == [
        "Abort",
        "Cancelled",
        "Context",
        "Goto",
        "Headers",
        "MultiDict",
        "Request",
        "Response",
        "State",
        "StateRefused",
        "context",
    ]
    assert "'function'" in message
    assert "pip install evener" in message


# The example


def test_the_primes_example():
    folder = SOURCES.parent.parent / "examples" / "primes"
    parse, compute = Worker(folder, "primes:parse"), Worker(folder, "primes:compute")
    try:
        assert parse.ready().extension["context"] is False
        assert compute.ready().extension["context"] is True

        def asked(number):
            query = [] if number is None else [["possible_prime", number]]
            return parse.do(b"", NOTHING, {"request": {**REQUEST, "query": query}}, verb=1)

        for number in (None, "", "x", "1", "0", "-7", "1e3", "7.0", "\u0667", "9" * 19, "9" * 100_000):
            outcome = asked(number)
            assert (outcome.verb, outcome.number, outcome.extension["status"]) == (FAIL, ABORT, 400)
            assert "possible_prime" in outcome.extension["detail"]
        for number in ("2", "4", "1000"):
            outcome = asked(number)
            assert (outcome.verb, outcome.number, outcome.payload) == (RESPOND, 200, b"2")
        for number, factor in (("3", 3), ("9", 3), ("91", 7), ("32416190071", 32416190071), ("007", 7)):
            outcome = asked(number)
            assert (outcome.verb, outcome.content) == (NEXT, JSON)
            answer = compute.do(outcome.payload)
            assert (answer.verb, answer.payload) == (NEXT, str(factor).encode())
        compute.send(job(b"999999999999999989"))
        compute.send(frame(CANCEL))
        outcome = compute.outcome()
        assert (outcome.verb, outcome.number) == (FAIL, CANCELLED)
    finally:
        assert parse.leave() == (0, "", "")
        assert compute.leave() == (0, "", "")
