"""Fixtures: engines in both modes, and scripts, that end and leave nothing behind."""

import os
import shutil
import tempfile

import pytest

from harness.engine import TESTS, Engine, client_of, function_pools, private_client
from harness.script import Script
from harness.signs import Signs
from harness.waiting import until

MODES = ["private", "shared"]


@pytest.fixture(scope="session", autouse=True)
def surroundings():
    """No engine of somebody else's is found from here."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("EVENER_") and name != "EVENER_BIN"]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def runtime():
    """A runtime folder for private engines. A Unix socket's path has to be short, which those of pytest's are not."""
    folder = tempfile.mkdtemp(prefix="evener-")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def start_private(runtime):
    """Starts private engines for a module: `start_private(workers=2)`."""
    opened = []

    def start(workers=2):
        context = private_client(runtime, workers)
        engine = Engine(context.__enter__()).wait_workers()
        opened.append((context, engine))
        return engine

    yield start
    for context, engine in opened:
        family = engine.family()
        context.__exit__(None, None, None)
        until(lambda family=family: not any(one.is_alive for one in family), "the end of a private engine", within=3)


@pytest.fixture(scope="module")
def start_shared(shared_node):
    """Starts engines that could be shared, for a module: `start_shared(default="workers: 2")`."""
    opened = []

    def start(*, env=None, service="", **pools):
        text = service + function_pools(**(pools or {"default": "workers: 2"}))
        node = shared_node(text, env={"PYTHONPATH": str(TESTS)} | (env or {}))
        engine = Engine(client_of(node), node).wait_workers()
        opened.append(engine)
        return engine

    yield start
    for engine in opened:
        engine.client.close()


@pytest.fixture(scope="module", params=MODES)
def engine(request):
    """An engine with two workers, in both modes, for tests that leave it as it was."""
    return request.getfixturevalue(f"start_{request.param}")()


@pytest.fixture
def remote(engine):
    """The decorator, for that engine."""
    return engine.function


@pytest.fixture
def signs(tmp_path):
    return Signs(tmp_path)


@pytest.fixture
def script(tmp_path_factory):
    """Starts scripts for one test: `script("import evener ...")`."""
    started = []

    def start(text, *, env=None, arguments=(), python=None, **options):
        made = Script(tmp_path_factory.mktemp("script"), text, env=env, arguments=arguments, python=python)
        started.append(made)
        return made.start(**options)

    yield start
    left = [process for one in started for process in one.discard()]
    assert not left, f"processes survived their script: {left}"


@pytest.fixture(scope="module", params=MODES)
def place(request):
    """Where scripts call their functions, in both modes: the variables that tell them so."""
    if request.param == "private":
        return {}
    engine = request.getfixturevalue("start_shared")()
    return {"EVENER_URL": engine.node.url("api"), "XDG_RUNTIME_DIR": str(engine.node.runtime)}
