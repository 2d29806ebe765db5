"""A service file with mistakes: all of them at once, each with its place, its line and a hint."""

import json
import re
import textwrap

import jsonschema
import pytest
import yaml

from harness import run_evener
from harness.node import REPOSITORY

GOOD = """
service: good
stages:
  work: {python: "app:work"}
routes:
  - {path: /work, pipeline: work}
"""

FULL = """
service: full-of_everything
listen:
  http: {address: "0.0.0.0:${PORT:-8002}", insecure: true}
  api: "[::1]:7070"
stages:
  work:
    python: package.module:Class.method
    workers: auto
    timeout: 1.5s
    retries: 0
    backoff: 250ms
    queue: 7
    env: {NAME: value, EMPTY: "", INDEX: "{index}"}
    cwd: .
    interpreter: python3
    memory: 300MiB
    max_jobs_per_worker: 100
    start_timeout: 2m
    grace: 1h
    on_cancel: kill
  again: {python: "app:again", workers: 3, retry_on: [lost, timeout, error]}
  none: {python: "app:none", workers: 0}
pipelines:
  one: [work, again]
  two: [one, none, one]
routes:
  - {path: /, pipeline: one, methods: [GET, POST], timeout: 5s}
  - {path: "/{id}/x/{*rest}", pipeline: two, input: body, decode: json, body: 1KB}
  - {path: /f, pipeline: work, fallback: {a: [1, null]}, fallback_on: [timeout, error, lost, unavailable]}
functions:
  default:
  models:
    workers: auto
    interpreter: python3
    cwd: .
    env: {INDEX: "{index}"}
    memory: 300MiB
    max_jobs_per_worker: 100
    start_timeout: 2m
    grace: 1s
    queue: 3
    on_cancel: tell
    output: 64KiB
limits:
  body: 1MiB
  queue: 5
  memory: 1GiB
  connections: 10
  max_hops: 0
  headers: 8KiB
  header_timeout: 1s
  body_timeout: 1s
  idle_timeout: 1s
drain: 0s
debug: true
"""


def good(more="", **route):
    """The good file with more lines, or with a marked change of its route."""
    text = GOOD.lstrip()
    if route:
        keys = {"path": "/work", "pipeline": "work"} | route
        pairs = ", ".join(f"{name}: {value}" for name, value in keys.items())
        text = text.replace("{path: /work, pipeline: work}", f"{{{pairs}}}  # <-")
    return text + more


# Every mistake: what is wrong in the file (the wrong line is marked), what is said, and a part of the hint.
MISTAKES = {
    "an unknown key": ("service: s\nstagez: {}  # <-\n", "stagez", "stages"),
    "a missing key": ("routes: []\n", "service", ""),
    "no stages": ("service: s\nstages: {}  # <-\n", "stage", ""),
    "a duplicate key": ("service: s\nservice: t  # <-\n", "service", ""),
    "a name that is no name": ("service: a b  # <-\n", "a b", ""),
    "an unknown stage key": ('service: s\nstages:\n  a: {python: "m:f", worker: 2}  # <-\n', "worker", "workers"),
    "no kind": ("service: s\nstages:\n  a: {workers: 2}  # <-\n", "python", ""),
    "no attribute": ("service: s\nstages:\n  a: {python: app}  # <-\n", "`app`", "module, a colon"),
    "a file instead of a module": ("service: s\nstages:\n  a: {python: app.py:f}  # <-\n", "app.py", "app:f"),
    "a bad number": ('service: s\nstages:\n  a: {python: "m:f", workers: many}  # <-\n', "many", ""),
    "a negative number": ('service: s\nstages:\n  a: {python: "m:f", retries: -1}  # <-\n', "-1", ""),
    "a duration without a unit": ('service: s\nstages:\n  a: {python: "m:f", timeout: 5}  # <-\n', "5", "5s"),
    "a bad unit": ('service: s\nstages:\n  a: {python: "m:f", timeout: 5sec}  # <-\n', "sec", "units"),
    "a bad size": ('service: s\nstages:\n  a: {python: "m:f", memory: 10MM}  # <-\n', "MM", ""),
    "a bad choice": ('service: s\nstages:\n  a: {python: "m:f", on_cancel: stop}  # <-\n', "stop", "kill"),
    "a bad item": ('service: s\nstages:\n  a: {python: "m:f", retry_on: [los]}  # <-\n', "los", "lost"),
    "two kinds": ('service: s\nstages:\n  a: {python: "m:f", command: [ls]}  # <-\n', "command", ""),
    "a kind of a later version": ("service: s\nstages:\n  a: {zmq: {}}  # <-\n", "zmq", ""),
    "an unreachable stage": ('service: s\nstages:\n  a: {python: "m:f"}  # <-\nroutes: []\n', "`a`", ""),
    "an unknown stage": (good(pipeline="wrok"), "wrok", "work"),
    "an empty pipeline": (good("pipelines:\n  p: []  # <-\n"), "`p` has no steps", "at least one stage"),
    "a pipeline in itself": (good("pipelines:\n  p: [work, p]  # <-\n"), "contains itself", "goto"),
    "a pipeline named as a stage": (good("pipelines:\n  work: [work]  # <-\n"), "`work`", "rename"),
    "a path without a slash": (good(path="work"), "slash", "/work"),
    "the same route twice": (good("  - {path: /work, pipeline: work}  # <-\n"), "/work", ""),
    "routes that conflict": (
        good('  - {path: "/{a}", pipeline: work}\n  - {path: "/{b}", pipeline: work}  # <-\n'), "{b}", ""
    ),
    "a method in lower case": (good(methods="[get]"), "get", "GET"),
    "a fallback_on without a fallback": (
        good(fallback_on="[lost]"), "fallback", "fallback"
    ),
    "no stages and no functions": ("service: s  # <-\n", "`stages` or `functions`", ""),
    "no function pool": ("service: s\nfunctions: {}  # <-\n", "no pool", "{default: {}}"),
    "a number for a function pool": ("service: s\nfunctions: {default: 4}  # <-\n", "`4`", "{workers: 4}"),
    "a timeout of a function pool": (
        "service: s\nfunctions:\n  f: {timeout: 5s}  # <-\n", "timeout", "@evener.function(timeout=60)"
    ),
    "retries of a function pool": (
        "service: s\nfunctions:\n  f: {retries: 2}  # <-\n", "retries", "@evener.function(retries=2)"
    ),
    "a function pool named as a stage": (good("functions:\n  work:  # <-\n"), "`work`", "rename"),
    "a step that is a function pool": (
        good("functions: {f: }\npipelines:\n  p: [f]  # <-\n"), "from clients only", "stage"
    ),
    "a bad address": ("service: s\nlisten: {http: 8000}  # <-\n", "8000", "127.0.0.1:8000"),
    "an API for everybody": ('service: s\nlisten: {api: "0.0.0.0:7070"}  # <-\n', "reach the API", "insecure"),
    "an unset variable": ("service: s\ndrain: ${NO_SUCH_VARIABLE}  # <-\n", "NO_SUCH_VARIABLE", ":-"),
    "a list for a map": ("service: s\nstages: [a]  # <-\n", "stage", ""),
    "a text for a boolean": ("service: s\ndebug: maybe  # <-\n", "maybe", ""),
    "yes, which is no boolean": ("service: s\ndebug: yes  # <-\n", "yes", "true"),
}  # fmt: skip


def check(tmp_path, text, **env):
    file = tmp_path / "service.yaml"
    file.write_text(text)
    return run_evener("check", file, env=env)


@pytest.mark.parametrize(("text", "saying", "hint"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_shown_with_its_place_its_line_and_a_hint(tmp_path, text, saying, hint):
    done = check(tmp_path, text)
    assert (done.returncode, done.stdout) == (2, "")
    # The report of another mistake in the same file does not count.
    lines = text.split("\n")
    wrong = next((number for number, line in enumerate(lines, 1) if line.endswith("# <-")), None)
    reports = re.split(r"(?m)^(?=(?:error|warning)(?:\[|:))", done.stderr)
    if wrong is not None:
        place = re.compile(rf"service\.yaml:{wrong}:[1-9]\d*$", re.MULTILINE)
        reports = [report for report in reports if place.search(report)]
        assert reports, done.stderr
        shown = lines[wrong - 1].removesuffix("  # <-")
        assert any(shown.strip() in report for report in reports), done.stderr
    assert any(saying in report and hint in report for report in reports), done.stderr
    assert re.search(r"\d+ errors? in \S*service\.yaml", done.stderr)


def test_up_says_the_same_as_check(tmp_path):
    text = MISTAKES["an unknown key"][0]
    checked = check(tmp_path, text)
    started = run_evener("up", tmp_path / "service.yaml")
    assert (started.returncode, started.stdout) == (2, "")
    assert started.stderr == checked.stderr


def test_all_mistakes_are_shown_at_once_in_the_order_of_the_file(tmp_path):
    text = """\
        service: two words
        drian: 5s
        stages:
          a: {python: "m:f", timeout: 5}
          b: {python: m, worker: 2}
          lonely: {python: "m:f"}
        pipelines:
          p: [a, nowhere]
        routes:
          - {path: x, pipeline: p}
          - {path: /y, pipeline: q, methods: [get]}
        limits: {body: 10MM}
        """
    done = check(tmp_path, textwrap.dedent(text))
    assert done.returncode == 2
    places = [tuple(map(int, place)) for place in re.findall(r"--> \S*service\.yaml:(\d+):(\d+)", done.stderr)]
    assert places == sorted(places)
    assert {line for line, _ in places} == {1, 2, 4, 5, 6, 8, 10, 11, 12}
    found = re.search(r"(\d+) errors in", done.stderr)
    assert found, done.stderr
    assert int(found[1]) == 12, done.stderr


def test_columns_point_at_the_fault(tmp_path):
    done = check(tmp_path, GOOD.lstrip().replace('"app:work"', '"app:work", workers: many'))
    line = '  work: {python: "app:work", workers: many}'
    assert f"service.yaml:3:{line.index('many') + 1}\n" in done.stderr


def test_secrets_are_not_shown(tmp_path):
    done = check(tmp_path, "service: s\ndrain: ${SECRET}\nstages: {a: {python: '${SECRET}'}}\n", SECRET="hidden-value")
    assert done.returncode == 2
    assert "drain: ${SECRET}" in done.stderr


@pytest.mark.parametrize(
    ("text", "saying"),
    [
        ("", "empty"),
        ("just a text", "mapping"),
        ("service: [unclosed", ""),
        ("service: s\n\tstages: x", ""),
        ("a: &a [*a]\nservice: s", ""),
        ("service: !!python/object:os.system s", ""),
        ("service: s\nservice: s\n---\nservice: t\n", ""),
    ],
)
def test_what_is_no_service_file_at_all(tmp_path, text, saying):
    done = check(tmp_path, text)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error" in done.stderr
    assert saying in done.stderr
    assert "panicked" not in done.stderr


def test_an_alias_bomb_is_refused_quickly(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    done = check(tmp_path, "\n".join(lines) + "\nservice: s\n")
    assert done.returncode == 2
    assert len(done.stderr) < 1_000_000


def test_a_huge_file_is_refused(tmp_path):
    done = check(tmp_path, "# " + "x" * (1 << 20) + "\nservice: s\n")
    assert done.returncode == 2
    assert "larger than 1MiB" in done.stderr


def test_a_file_that_is_not_utf8(tmp_path):
    file = tmp_path / "service.yaml"
    file.write_bytes(b"service: s\n# caf\xe9\n")
    done = run_evener("check", file)
    assert done.returncode == 2
    assert "not UTF-8" in done.stderr
    assert "line 2" in done.stderr


def test_the_full_file_is_good(tmp_path):
    done = check(tmp_path, FULL)
    assert (done.returncode, done.stderr) == (0, "")


def test_functions_are_all_that_a_service_needs(tmp_path):
    done = check(tmp_path, "service: s\nfunctions: {default: }\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 function pool)" in done.stdout


def test_variables_are_expanded(node):
    started = node(
        """
        listen: {http: "${HOST}:${PORT:-0}"}
        stages: {work: {python: "app:work", env: {GIVEN: "${GIVEN}", DOLLAR: "$$x", DEFAULT: "${UNSET:-d}"}}}
        routes: [{path: /work, pipeline: work}]
        """,
        env={"HOST": "127.0.0.1", "GIVEN": "a: [b]"},
        app="""
        import os

        def work(value):
            return [os.environ[name] for name in ("GIVEN", "DOLLAR", "DEFAULT")]
        """,
    )
    assert started.get("/work").json == ["a: [b]", "$x", "d"]


@pytest.fixture(scope="module")
def schema():
    done = run_evener("schema")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_the_schema_is_a_schema(schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def accepts(schema, text):
    return jsonschema.Draft202012Validator(schema).is_valid(yaml.safe_load(text))


def test_the_schema_accepts_what_check_accepts(schema):
    examples = sorted((REPOSITORY / "examples").glob("*/service.yaml"))
    assert examples
    for text in [GOOD, FULL, *(example.read_text() for example in examples)]:
        assert accepts(schema, text), text


# What only a reader of the whole file can see, or what YAML itself refuses.
BEYOND_A_SCHEMA = {
    "a duplicate key", "an unreachable stage", "an unknown stage", "a pipeline in itself",
    "a pipeline named as a stage", "the same route twice", "routes that conflict", "an API for everybody",
    "an unset variable", "a function pool named as a stage", "a step that is a function pool",
    "a fallback_on without a fallback", "a file instead of a module", "yes, which is no boolean", "two kinds",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(MISTAKES) - BEYOND_A_SCHEMA))
def test_the_schema_refuses_what_check_refuses(schema, name):
    # What else the file lacks is filled in, so that it is refused for this mistake alone.
    whole = yaml.safe_load(MISTAKES[name][0])
    if name not in ("a missing key", "no stages", "a list for a map", "no stages and no functions"):
        whole = {"service": "s", "stages": {"work": {"python": "m:f"}}} | whole
    assert not jsonschema.Draft202012Validator(schema).is_valid(whole)


def test_the_schema_explains_every_key(schema):
    def walk(part):
        if isinstance(part, dict):
            for name, key in part.get("properties", {}).items():
                assert key.get("description") or "$ref" in key, name
            for child in part.values():
                walk(child)
        elif isinstance(part, list):
            for child in part:
                walk(child)

    walk(schema)
