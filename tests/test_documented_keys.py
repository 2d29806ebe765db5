"""docs/service-file.md has every key of a service file, in prose and in an example, and each runs.

An example is a block of YAML with a `service`. It runs with the files that its section gives, and with the `shop.py`
of the page's beginning. What it answers is in its own `tests`; the few examples that `evener test` cannot run to their
end are asked here.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
import pytest
import trustme

from harness import Connection, run_evener, until
from harness.node import REPOSITORY, binary, environment
from harness.pages import read_page
from harness.places import find_places, keys_in_use
from harness.transcripts import DEFAULT_ADDRESS, Transcript, assert_shown

PAGE = read_page(REPOSITORY / "docs" / "service-file.md")
SECTIONS = {section.title: section for section in PAGE}
SHARED = PAGE[0].files

# Under which heading the keys of each place are described. Those of the top level have headings of their own.
HEADINGS = {
    "": "",
    "listen": "listen",
    "listen.http": "listen",
    "listen.http.tls": "listen",
    "stages.*": "stages",
    "stages.*.workers": "Pools that size themselves",
    "stages.*.batch": "Several jobs at a time",
    "stages.*.batch.wait": "Several jobs at a time",
    "pipelines.*[].scatter": "scatter",
    "pipelines.*[].each": "each",
    "routes[]": "routes",
    "routes[].cors": "cors",
    "functions.*": "functions",
    "triggers[]": "triggers",
    "tests[]": "tests",
    "tests[].request": "tests",
    "tests[].expect": "tests",
    "limits": "limits",
}

# The examples that are asked below: `evener test` has no TLS, no trigger to wait for, no program around it, no calls.
ASKED_HERE = {"listen", "rust", "triggers", "functions"}

EXAMPLES = [
    pytest.param(section, block, id=f"{section.title}:{block.line}".replace(" ", "-"))
    for section in PAGE
    for block in section.blocks
    if block.is_service
]
WITH_TESTS = [one for one in EXAMPLES if "tests" in one.values[1].value]


def prepare(section, block, folder):
    """Put an example and all files that it needs into a folder; return its file."""
    for name, text in (SHARED | section.files).items():
        (folder / name).write_text(text)
    file = folder / (block.file_name or "service.yaml")
    file.write_text(block.text)
    return file


def prepare_only(title, folder):
    """The same for the one example of a section that has no tests, or else the only one; returns its file and the
    consoles of the section."""
    section = SECTIONS[title]
    services = [block for block in section.blocks if block.is_service]
    (block,) = [block for block in services if "tests" not in block.value] or services
    return prepare(section, block, folder), [block for block in section.blocks if block.language == "console"]


@pytest.fixture(scope="module")
def worker_in_c(tmp_path_factory):
    """The program of the example in C, compiled."""
    program = tmp_path_factory.mktemp("frames-c") / "worker"
    source = REPOSITORY / "examples" / "frames-c" / "worker.c"
    subprocess.run(["cc", "-O1", "-o", program, source], check=True, timeout=60)
    return program


def own_python():
    """The Python of these tests as the one that is searched first, in every way: it has what function pools need."""
    folder = Path(sys.executable).parent
    return {"VIRTUAL_ENV": sys.prefix, "PATH": f"{folder}:{environment(folder)['PATH']}"}


@pytest.mark.parametrize(("section", "block"), WITH_TESTS)
def test_an_example_passes_its_own_tests(section, block, tmp_path, request):
    file = prepare(section, block, tmp_path)
    if "./worker" in block.text:
        shutil.copy(request.getfixturevalue("worker_in_c"), tmp_path)
    done = run_evener("test", file, cwd=tmp_path, env=own_python(), within=50)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert len(re.findall(r"^ok    ", done.stdout, re.MULTILINE)) == len(block.value["tests"])


def test_every_example_is_asked_something():
    silent = {one.values[0].title for one in EXAMPLES if one not in WITH_TESTS}
    assert silent == ASKED_HERE
    for section, block in (one.values for one in WITH_TESTS):
        assert block.value["tests"], section.title


def test_every_block_of_yaml_is_an_example_or_a_file_beside_one():
    for section in PAGE:
        for block in section.blocks:
            if block.language == "yaml" and not block.is_service:
                assert block.file_name, f"line {block.line}"
                assert any(block.file_name in one.text for one in section.blocks if one.is_service), block.file_name


# The examples that are asked here.


@pytest.fixture
def runtime():
    """A runtime folder of the test's own. A Unix socket's path has to be short, which those of pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="evener-") as folder:
        yield Path(folder)


@pytest.fixture
def transcript(node, tmp_path, runtime):
    return Transcript(node, tmp_path, runtime)


def test_tls_as_in_the_example_about_listeners(node, transcript, tmp_path):
    file, consoles = prepare_only("listen", tmp_path)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    certificate = authority.issue_cert("localhost")
    (tmp_path / "server.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    (tmp_path / "server.key").write_bytes(certificate.private_key_pem.bytes())
    transcript.node = node(file, arguments=["--http", "127.0.0.1:0", "--api", "127.0.0.1:0"])
    assert transcript.node.url("http").startswith("https://")
    assert transcript.node.url("api").startswith("http://127.0.0.1:")
    assert transcript.node.api("/healthz", token=False).status == 200
    (console,) = consoles
    ((command, shown),) = console.commands
    transcript.documented = "localhost:8443"
    assert transcript.documented in command
    command = command.replace(transcript.documented, f"localhost:{transcript.node.address()[1]}")
    transcript.ask(command, shown)


def test_what_is_fetched_at_the_start_as_in_the_example_about_triggers(node, transcript, tmp_path):
    file, consoles = prepare_only("triggers", tmp_path)
    transcript.node = node(file, arguments=["--http", "127.0.0.1:0"])
    transcript.documented = DEFAULT_ADDRESS
    until(lambda: transcript.node.get("/rates").json, "the trigger has fired")
    for console in consoles:
        transcript.run(console)
    assert transcript.done


def test_rust_functions_as_in_the_example_about_them(tmp_path, runtime):
    file, consoles = prepare_only("rust", tmp_path)
    example = REPOSITORY / "examples" / "embed-rust" / "service.yaml"
    # The program knows no other file than its own.
    assert file.read_text() == re.sub(r"^#.*\n", "", example.read_text())
    places = [binary().parent, REPOSITORY / "target" / "debug"]
    program = next((place / "embed-rust" for place in places if (place / "embed-rust").exists()), None)
    assert program, "`make build` builds the example"
    ((command, shown),) = consoles[0].commands
    path = re.fullmatch(r"curl 'http://127\.0\.0\.1:8003(/.*)'", command)[1]
    arguments = {"stdout": subprocess.PIPE, "text": True, "env": environment(runtime), "cwd": tmp_path}
    with subprocess.Popen([program, "127.0.0.1:0"], **arguments) as started:
        try:
            lines = {}
            for line in started.stdout:
                if line == "ready\n":
                    break
                _, name, url = line.split()
                lines[name] = url
            host, port = lines["http"].removeprefix("http://").split(":")
            with Connection((host, int(port))) as connection:
                assert_shown(shown, connection.get(path).text + "\n")
        finally:
            started.terminate()
    assert started.returncode == 0


def test_a_call_as_in_the_example_about_functions(node, tmp_path):
    file, consoles = prepare_only("functions", tmp_path)
    # One worker for each core is not what this is about.
    served = node(file, arguments=["--workers", "1"], env=own_python())
    ((command, shown),) = consoles[0].commands
    script = re.fullmatch(r"EVENER_URL=\S+ python (\w+\.py)", command)[1]
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=served.env | {"EVENER_URL": served.url("api"), "EVENER_BIN": str(binary())},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", shown)


def test_values_over_the_file_as_in_the_example_about_them(transcript, tmp_path):
    _, consoles = prepare_only("Values over the file", tmp_path)
    for console in consoles:
        transcript.run(console)
    assert [command.split()[0] for command in transcript.done] == ["evener", "curl"]


def test_evener_test_prints_what_the_page_shows(transcript, tmp_path):
    shutil.copytree(REPOSITORY / "examples" / "euler6", tmp_path / "examples" / "euler6")
    for block in SECTIONS["Running the tests"].blocks:
        if block.language == "console":
            transcript.run(block)
    assert transcript.done == ["evener test examples/euler6/service.yaml"]


def test_a_test_that_fails_is_shown_as_on_the_page(tmp_path):
    file, _ = prepare_only("tests", tmp_path)
    shop = tmp_path / "shop.py"
    shop.write_text(shop.read_text().replace('"chair": 45', '"chair": 50'))
    done = run_evener("test", file.name, "--filter", "this JSON", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    (told,) = (block.text for block in SECTIONS["Running the tests"].blocks if block.language == "text")
    assert_shown(f"{told}\n1 test: 0 passed, 1 failed (1 ms)\n", done.stdout)


def test_what_is_wrong_with_a_file_is_told_as_the_page_shows(tmp_path):
    file, told = [block.text for block in SECTIONS["What is wrong with a file"].blocks]
    (tmp_path / "service.yaml").write_text(file)
    done = run_evener("check", "service.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert_shown(told, done.stderr)


# The keys.


@pytest.fixture(scope="module")
def schema():
    done = run_evener("schema")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def all_keys(schema):
    return {(place.path, key) for place in find_places(schema).values() for key in place.keys}


def shown(keys):
    return sorted(f"{place or 'top level'}: {key}" for place, key in keys)


def test_every_place_of_the_schema_has_a_heading(schema):
    assert {place.path for place in find_places(schema).values()} == set(HEADINGS)
    assert set(HEADINGS.values()) - {""} <= set(SECTIONS)


def test_every_key_is_in_an_example_that_runs(schema):
    used = set().union(*(keys_in_use(schema, one.values[1].value) for one in EXAMPLES))
    missing = all_keys(schema) - used
    assert not missing, f"no example has {shown(missing)}"


def test_every_key_is_described(schema):
    headings = {word for section in PAGE for word in re.findall(r"\w+", section.title)}

    def described(place, key):
        if place == "":
            return key in headings
        return place in HEADINGS and re.search(rf"`{key}(?:`|: )", SECTIONS[HEADINGS[place]].whole_prose)

    missing = {(place, key) for place, key in all_keys(schema) if not described(place, key)}
    assert not missing, f"the page does not describe {shown(missing)}"


def test_no_table_has_a_key_that_is_none(schema):
    names = {key for _, key in all_keys(schema)}
    # The keys are in tables of four columns; others list options of commands.
    listed = {row[0].strip("`") for section in PAGE for row in section.rows if len(row) == 4} - {"key", "---"}
    assert len(listed) > 60
    assert listed <= names


def as_written(default):
    """How a default of the schema stands in the page."""
    if isinstance(default, list):
        return f"[{', '.join(default)}]"
    return json.dumps(default) if isinstance(default, bool) else str(default)


def test_the_schema_accepts_every_example(schema):
    validator = jsonschema.Draft202012Validator(schema)
    for _, block in (one.values for one in EXAMPLES):
        # An example that includes others has only a part of what it needs.
        if "include" not in block.value:
            validator.validate(block.value)


def test_every_default_in_a_table_is_that_of_the_schema(schema):
    wrong, right = set(), set()
    for place in find_places(schema).values():
        heading = HEADINGS.get(place.path)
        rows = {row[0].strip("`"): row for row in SECTIONS[heading].rows} if heading else {}
        for key, about in place.keys.items():
            if "default" in about and key in rows:
                stands = as_written(about["default"]) in rows[key][2]
                (right if stands else wrong).add((place.path, key))
    assert not wrong, f"another default than the schema's: {shown(wrong)}"
    assert len(right) > 40
