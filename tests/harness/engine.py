"""Engines that call Python functions, in both ways in which a program has one."""

import functools
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import evener

from harness.node import MARK, binary
from harness.processes import Process, children_of
from harness.waiting import until

# Functions of the tests' own modules are found by workers of a shared engine as well.
TESTS = Path(__file__).resolve().parent.parent


def function_pools(**pools):
    """The text of a service file with these function pools, whose workers run this Python if they name no other."""

    def line(name, keys):
        named = "" if "interpreter:" in keys else f'interpreter: "{sys.executable}", '
        return f"  {name}: {{{named}{keys}}}\n"

    return "functions:\n" + "".join(line(name, keys) for name, keys in pools.items())


@contextmanager
def variables(**values):
    """Have environment variables for a while; None stands for none of that name."""
    before = {name: os.environ.get(name) for name in values}

    def put(given):
        for name, value in given.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = str(value)

    put(values)
    try:
        yield
    finally:
        put(before)


def token_file(node):
    return node.runtime / "evener" / "token"


def client_of(node):
    """A client that finds a shared engine as a program does: by its environment."""
    url = node.url("api")
    trusted = url.removeprefix("http://") if url.startswith("http://") else None
    with variables(EVENER_URL=url, EVENER_TOKEN_FILE=token_file(node), EVENER_INSECURE=trusted):
        return evener.Client().__enter__()


@contextmanager
def private_client(runtime, workers=2, mark="private"):
    """A client with an engine of its own, which leaves nothing behind when the client is closed."""
    names = {"EVENER_URL": None, "EVENER_TOKEN_FILE": None, "EVENER_BIN": binary(), "XDG_RUNTIME_DIR": runtime}
    with variables(**names, **{MARK: mark}):
        client = evener.Client(workers=workers).__enter__()
    try:
        yield client
    finally:
        client.close()


class Engine:
    """An engine and a client of it, whether it is a private one or one that others share (then `node` is that)."""

    def __init__(self, client, node=None):
        self.client = client
        self.node = node
        self.is_private = node is None

    def function(self, function=None, **options):
        """The decorator, for this engine."""
        return self.client.function(function, **options) if function else self.client.function(**options)

    def wait_workers(self, within=20.0):
        """Wait until all of its workers are up."""
        wanted = sum(pool.workers for pool in self.client.pools)
        until(lambda: len(self.client.workers()) == wanted, f"{wanted} workers", within=within)
        assert self.process
        return self

    @functools.cached_property
    def process(self):
        """The engine's process, as it was when this was asked first."""
        return Process.at(int(self.client.workers()[0].node.rsplit("-", 1)[1]))

    def pids(self):
        """The process numbers of its workers, in their order."""
        return [worker.pid for worker in sorted(self.client.workers(), key=lambda worker: worker.index)]

    def family(self):
        """The engine's process and all that descend from it and live."""
        found, new = [], [self.process] if self.process.is_alive else []
        while new:
            found += new
            new = [child for one in new for child in children_of(one.pid)]
        return found
