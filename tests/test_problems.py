"""Every code that a client can meet is a contract; those that no other file brings about are brought about here."""

import re

from harness import assert_problem
from harness.node import REPOSITORY
from harness.problems import CODES


def test_the_contract_knows_every_code():
    source = (REPOSITORY / "crates" / "core" / "src" / "problem.rs").read_text()
    rows = re.findall(r'^    \w+ = "([a-z-]+)", (\d+), "([^"]+)", (true|false);$', source, re.MULTILINE)
    assert {name: (int(status), title, retryable == "true") for name, status, title, retryable in rows} == CODES


def test_every_code_has_a_page():
    pages = {page.stem for page in (REPOSITORY / "docs" / "errors").glob("*.md")}
    assert set(CODES) <= pages


def test_a_value_between_stages_that_does_not_decode(node):
    served = node(
        """
        stages:
          make: {python: "app:make"}
          take: {python: "strict:take"}
        pipelines: {path: [make, take]}
        routes: [{path: /path, pipeline: path}]
        """,
        app="""
        def make(request):
            return int("9" * int(request.query["digits"]))
        """,
        strict="""
        import sys

        # This worker converts fewer digits than the one before it.
        sys.set_int_max_str_digits(640)

        def take(value):
            return len(str(value))
        """,
    )
    assert served.get("/path?digits=640").json == 640
    answer = served.get("/path?digits=641")
    assert_problem(
        answer, "value-not-decodable", stage="take", tries=1, saying="`take` got a value that does not decode"
    )


def test_a_result_over_the_limit(node):
    served = node(
        """
        limits: {memory: 2MiB, body: 1MiB}
        stages: {make: {python: "app:make"}}
        routes: [{path: /make, pipeline: make}]
        """,
        app="""
        import evener

        def make(request):
            text = "x" * int(request.query["size"])
            return text if "plain" in request.query else evener.Response(text)
        """,
    )
    before = served.worker()
    for kind in ("plain", "response"):
        assert len(served.get(f"/make?{kind}&size=1500000").body) == 1_500_000
        answer = served.get(f"/make?{kind}&size=20000000")
        assert_problem(answer, "result-too-large", stage="make", tries=1, saying="2097152")
    assert served.get("/make?plain&size=1").text == "x"
    # It was no fault of the worker.
    assert served.worker() == before
    assert served.metric("payload_bytes") == 0
