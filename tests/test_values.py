"""What travels: results as answers and between stages, and what cannot travel."""

import json

import pytest

from harness import assert_problem

# Every expression is the result of a stage.
SERVICE = """
stages:
  make: {python: "app:make"}
  echo: {python: "app:echo"}
  kind: {python: "app:kind"}
pipelines:
  handed_on: [make, kind]
  three: [echo, echo, kind]
routes:
  - {path: /make, pipeline: make, input: body, decode: text}
  - {path: /handed-on, pipeline: handed_on, input: body, decode: text}
  - {path: /echo, pipeline: echo}
  - {path: /three, pipeline: three}
"""

APP = """
    import collections, dataclasses, datetime, decimal, enum, math
    import evener

    @dataclasses.dataclass
    class Point:
        x: int

    class Colour(enum.IntEnum):
        RED = 1

    class Text(str):
        pass

    Pair = collections.namedtuple("Pair", "a b")
    circle = []
    circle.append(circle)
    deep = []
    for _ in range(100_000):
        deep = [deep]

    def make(expression):
        return eval(expression)

    def echo(value):
        return value

    def kind(value):
        return [type(value).__name__, value.decode("latin-1") if isinstance(value, bytes) else value]
"""


@pytest.fixture(scope="module")
def served(shared_node):
    return shared_node(SERVICE, app=APP)


RESULTS = [
    # expression, content type, body, how the next stage sees it
    ('"text"', "text/plain; charset=utf-8", b"text", ["str", "text"]),
    ('"é🐍"', "text/plain; charset=utf-8", "é🐍".encode(), ["str", "é🐍"]),
    ('""', "text/plain; charset=utf-8", b"", ["str", ""]),
    ('Text("own")', "text/plain; charset=utf-8", b"own", ["str", "own"]),
    (r'b"\x00\xff"', "application/octet-stream", b"\0\xff", ["bytes", "\0\xff"]),
    ('bytearray(b"ab")', "application/octet-stream", b"ab", ["bytes", "ab"]),
    ('memoryview(b"ab")', "application/octet-stream", b"ab", ["bytes", "ab"]),
    ('b""', "application/octet-stream", b"", ["bytes", ""]),
    ("None", "application/json", b"null", ["NoneType", None]),
    ("True", "application/json", b"true", ["bool", True]),
    ("7", "application/json", b"7", ["int", 7]),
    ("2 ** 70", "application/json", str(2**70).encode(), ["int", 2**70]),
    ("0.1", "application/json", b"0.1", ["float", 0.1]),
    ("-0.0", "application/json", b"-0.0", ["float", -0.0]),
    ("[]", "application/json", b"[]", ["list", []]),
    ("{}", "application/json", b"{}", ["dict", {}]),
    ('{"a": [1, {"b": "é"}]}', "application/json", '{"a":[1,{"b":"é"}]}'.encode(), ["dict", {"a": [1, {"b": "é"}]}]),
    ("(1, 2)", "application/json", b"[1,2]", ["list", [1, 2]]),
    ("Pair(1, 2)", "application/json", b"[1,2]", ["list", [1, 2]]),
    ("{1: 2}", "application/json", b'{"1":2}', ["dict", {"1": 2}]),
    ("Colour.RED", "application/json", b"1", ["int", 1]),
    ("collections.OrderedDict(b=1, a=2)", "application/json", b'{"b":1,"a":2}', ["dict", {"b": 1, "a": 2}]),
]


@pytest.mark.parametrize(("expression", "content_type", "body", "_"), RESULTS)
def test_a_result_answers_as_its_type_wants(served, expression, content_type, body, _):
    answer = served.post("/make", expression)
    assert (answer.status, answer.content_type, answer.body) == (200, content_type, body)
    assert answer.header("content-length") == str(len(body))


@pytest.mark.parametrize(("expression", "_", "__", "seen"), RESULTS)
def test_a_result_reaches_the_next_stage_as_the_same_kind(served, expression, _, __, seen):
    assert served.post("/handed-on", expression).json == seen


@pytest.mark.parametrize(
    ("expression", "place", "saying"),
    [
        ("{1, 2}", "result", "set"),
        ("frozenset()", "result", "frozenset"),
        ('float("nan")', "result", "NaN"),
        ("math.inf", "result", "infinite"),
        ('{"rows": [0, 1, {"x": {1}}]}', 'result["rows"][2]["x"]', "set"),
        ('[1, [2, float("nan")]]', "result[1][1]", "NaN"),
        ('{"a": b"x"}', 'result["a"]', "bytes"),
        ("{(1, 2): 3}", "result", "key"),
        ("object()", "result", "object"),
        ("datetime.date(2020, 1, 1)", "result", "isoformat"),
        ("Point(1)", "result", "asdict"),
        ("decimal.Decimal(1)", "result", "Decimal"),
        ("[(x for x in [1])]", "result[0]", "a generator inside another value"),
        ("circle", "result", "holds itself"),
        ("deep", "result", "nested too deeply"),
        (r'"\ud800"', "result", "surrogate"),
        (r'["a", "\ud800"]', "result[1]", "surrogate"),
        ("make", "result", "function"),
        ("Point", "result", "class"),
        ('evener.Abort(400, "no")', "result", "raised, not returned"),
        ('[evener.Response("x")]', "result[0]", "Response"),
        ("evener.Response({1})", "Response.body", "set"),
        ('evener.Response("x", status=99)', "Response.status", "200 to 599"),
        ('evener.Response("x", status="200")', "Response.status", "200 to 599"),
        ('evener.Response("x", headers={"a b": "c"})', "Response.headers", "name of a header"),
        (r'evener.Response("x", headers={"a": "b\r\nc: d"})', 'Response.headers["a"]', "line ends"),
        ('evener.Response("x", headers={"a": 1})', 'Response.headers["a"]', "str"),
        ('evener.Response("x", headers=7)', "Response.headers", "list of pairs"),
        ('evener.Goto("make", {1})', "Goto", "set"),
    ],
)
def test_what_cannot_travel_is_named_with_its_place(served, expression, place, saying):
    answer = served.post("/make", expression)
    fields = assert_problem(answer, "result-not-encodable", stage="make", tries=1, saying=saying)
    assert place in fields["detail"], fields
    assert served.post("/make", "1").json == 1


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", None])
@pytest.mark.parametrize("size", [0, 1, 1000, 262_143, 262_144, 262_145, 1_000_000, 5_000_000])
def test_bodies_of_any_size_pass_through_three_stages(served, size, content_type):
    text = "0123456789abcdef" * (size // 16) + "x" * (size % 16)
    sent = json.dumps(text) if content_type == "application/json" else text
    answer = served.post("/three", sent, content_type)
    kind, seen = answer.json
    assert kind == ("bytes" if content_type is None else "str")
    assert seen == text


def test_every_byte_passes(served):
    body = bytes(range(256)) * 1030
    answer = served.post("/echo", body)
    assert (answer.content_type, answer.body) == ("application/octet-stream", body)


def test_no_payload_is_left_in_memory(served):
    assert served.post("/echo", b"x" * 1_000_000).status == 200
    assert served.metric("payload_bytes") == 0
