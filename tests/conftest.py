"""Fixtures: nodes that stop, and are looked over, when their test or their module ends."""

import signal

import pytest

from harness import Node

# A signal that is ignored from a process's start stays ignored: SIGHUP under nohup, SIGQUIT and SIGINT behind a shell's
# `&`. The tests may run so; their nodes and scripts shall not.
for _signal in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(_signal, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# How much of a node's log a failed test shows.
LOG_LINES = 40


class Nodes:
    """Makes nodes, and sees to it that all of them end and leave nothing behind."""

    def __init__(self, new_folder):
        self.new_folder = new_folder
        self.all = []

    def __call__(self, service, *, wait="ready", arguments=(), env=None, close_fds=True, folders=(), **modules):
        """Start a node on a service file's text and modules given by name.

        `folders` are made beside the service file. `wait` says what to wait for: `ready`, `listening`, or None. A text
        without `service` and `listen` gets a name and a free port.
        """
        options = {"arguments": arguments, "env": env, "close_fds": close_fds, "folders": folders}
        node = Node(self.new_folder(), service, modules, **options)
        self.all.append(node)
        node.start()
        if wait is not None:
            node.wait_listening()
        if wait == "ready":
            node.wait_ready()
        return node

    def end(self):
        """Stop what still runs as a user would. Return the troubles."""
        troubles = []
        for node in self.all:
            node.close_connections()
            try:
                if node.process is not None and node.process.poll() is None:
                    node.stop()
            except Exception as error:
                troubles.append(f"a node did not stop as it should: {error}")
            if left := node.discard():
                troubles.append(f"processes survived their node: {left}")
        return troubles


def settle(nodes):
    troubles = nodes.end()
    assert not troubles, "\n".join(troubles)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """A test that failed shows the end of the log of every node that it had to do with."""
    report = yield
    if report.failed:
        held = [value.all if isinstance(value, Nodes) else [value] for value in item.funcargs.values()]
        nodes = {id(one): one for some in held for one in some if isinstance(one, Node)}
        for one in nodes.values():
            report.sections.append(("end of a node's log", "\n".join(one.log.splitlines()[-LOG_LINES:])))
    return report


@pytest.fixture
def node(tmp_path_factory):
    """Starts nodes for one test: `node(service_text, app="def work(value): ...")`."""
    nodes = Nodes(lambda: tmp_path_factory.mktemp("node"))
    yield nodes
    settle(nodes)


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory):
    """Starts nodes for all tests of a module, for tests that do them no harm."""
    nodes = Nodes(lambda: tmp_path_factory.mktemp("node"))
    yield nodes
    settle(nodes)
