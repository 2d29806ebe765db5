"""An engine without an engine: stands in for `evener._bridge`, and does the calls in threads of this process.

It keeps to what the package expects of the bridge: numbers, events and their order, what cancelling answers, what the
end of a session does. What a call prints, it prints with `say`; it dies with `die`. Functions that can be imported are
called as they are, so tests can hold and release them with the events of their own module.
"""

# ruff: noqa: A002, BLE001 (names and errors of any kind are as the bridge has them)

from __future__ import annotations

import hashlib
import importlib
import pickle
import sys
import threading
import time
import traceback
from collections import deque

import cloudpickle

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"

_here = threading.local()


class BridgeError(Exception):
    pass


class Died(BaseException):
    """Ends the fake worker that does the call at hand."""


class Overran(BaseException):
    """Ends the call at hand as if its time were over."""


def say(text, stream=1, truncated=False):
    """Print from within a call."""
    data = text if isinstance(text, bytes) else text.encode()
    call = _here.call
    call.deliver((call.number, 0, stream, data, truncated))


def die():
    raise Died


def overrun():
    raise Overran


def hold(value=None):
    """Hold the worker until `release` is set."""
    release.wait(20)
    return value


def worker():
    """The number of the worker that does the call at hand."""
    return _here.pid


class Node:
    """What stands behind an address: pools of threads, and the calls that they do."""

    def __init__(self, workers=2, pools=None, refuse=None):
        self.pools = pools or [("default", PYTHON, workers)]
        self.refuse = refuse
        self.changed = threading.Condition()
        self.ready = []
        self.running = set()
        self.sessions = []
        self.submitted = 0
        self.groups = []
        self.orders = []
        self.bodies = {}
        self.next_pid = 1000
        self.jobs_done = {}
        self.up = True
        self.tick = 0
        made.append(self)
        for name, _python, count in self.pools:
            for _ in range(count):
                self.start(name)

    def start(self, pool):
        self.next_pid += 1
        pid = self.next_pid
        self.jobs_done[pid] = (pool, 0)
        threading.Thread(target=self.work, args=(pool, pid), daemon=True).start()

    def work(self, pool, pid):
        functions, initialized = {}, {}
        while True:
            with self.changed:
                while not any(call.pool == pool for _, _, call in self.ready):
                    if not self.up:
                        return
                    self.changed.wait()
                entry = min(entry for entry in self.ready if entry[2].pool == pool)
                self.ready.remove(entry)
                call = entry[2]
                call.tries += 1
                self.running.add(call)
            _here.call, _here.pid = call, pid
            event = self.do(call, pid, functions, initialized)
            with self.changed:
                self.running.discard(call)
                self.jobs_done[pid] = (pool, self.jobs_done[pid][1] + 1)
            if event is None:
                with self.changed:
                    del self.jobs_done[pid]
                    self.start(pool)
                    if call.tries <= call.retries:
                        self.add(call)
                        return
                call.end((call.number, 3, "worker-died", "the worker died", "exit code 1", True, pid, call.tries))
                return
            call.end(event)

    def do(self, call, pid, functions, initialized):
        began = time.perf_counter_ns()
        try:
            if call.function not in functions:
                functions[call.function] = load(self.bodies[call.function], initialized)
            function = functions[call.function]
            if call.group:
                spread, items = pickle.loads(call.input)
                results, failures = [], []
                for place, item in enumerate(items):
                    try:
                        results.append(function(*item) if spread else function(item))
                    except Exception as error:
                        results.append(None)
                        failures.append((place, blob_of(error)))
                value = (results, failures)
            else:
                arguments, keywords = pickle.loads(call.input)
                value = function(*arguments, **(keywords or {}))
            ran = time.perf_counter_ns() - began
            return (call.number, 1, encode(value), pid, ran, call.tries)
        except Died:
            return None
        except Overran:
            return (call.number, 3, "stage-timeout", "the call took too long", "", True, pid, call.tries)
        except BaseException as error:
            return (call.number, 2, blob_of(error), pid, time.perf_counter_ns() - began, call.tries)

    def add(self, call):
        with self.changed:
            self.tick += 1
            self.ready.append((-call.priority, self.tick, call))
            self.changed.notify_all()

    def cancel(self, call, kill):
        with self.changed:
            for entry in self.ready:
                if entry[2] is call:
                    self.ready.remove(entry)
                    break
            else:
                if not kill or call not in self.running:
                    return False
        return call.end((call.number, 3, "cancelled", "cancelled", "", False, 0, call.tries))

    def stop(self):
        with self.changed:
            self.up = False
            self.ready.clear()
            self.changed.notify_all()

    def lose(self):
        """Be gone, as if it were killed."""
        self.stop()
        for session in list(self.sessions):
            session.end("engine-lost", "the connection was reset", "lost")


def load(body, initialized):
    fields = pickle.loads(body)
    assert fields["format"] == 1
    if fields["initializer"] is not None and fields["key"] not in initialized:
        try:
            function, arguments = pickle.loads(fields["initializer"])
            function(*arguments)
            initialized[fields["key"]] = None
        except Exception as error:
            initialized[fields["key"]] = error
    if initialized.get(fields["key"]) is not None:
        raise InitializerFailed("the initializer failed") from initialized[fields["key"]]
    function = pickle.loads(fields["function"])
    for alias, module in fields["modules"]:
        function.__globals__[alias] = importlib.import_module(module)
    return function


class InitializerFailed(Exception):
    internal = "evener.InitializerFailed"


class SerializationError(Exception):
    internal = "evener.SerializationError"


def encode(value):
    try:
        return pickle.dumps(value, 5)
    except Exception:
        try:
            return cloudpickle.dumps(value, 5)
        except Exception as error:
            raise SerializationError(f"the result cannot be pickled: {error}") from None


def blob_of(error):
    """An exception blob, as workers make them."""
    nodes, places = [], {}

    def add(error):
        if error is None:
            return None
        if id(error) in places:
            return places[id(error)]
        place = places[id(error)] = len(nodes)
        kind = type(error)
        node = {
            "pickled": None,
            "why": None,
            "type": getattr(kind, "internal", None)
            or (kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"),
            "message": str(error),
            "frames": frames(error.__traceback__),
            "suppress": error.__suppress_context__,
        }
        nodes.append(node)
        if not hasattr(kind, "internal"):
            try:
                node["pickled"] = pickle.dumps(error, 5)
                assert type(pickle.loads(node["pickled"])) is kind
            except Exception as why:
                node["pickled"], node["why"] = None, f"{type(why).__name__}: {why}"
        node["cause"], node["context"] = add(error.__cause__), add(error.__context__)
        return place

    add(error)
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    fields = {"format": 1, "type": nodes[0]["type"], "message": str(error), "traceback": text, "chain": nodes}
    return pickle.dumps(fields, 5)


def frames(trace):
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    if trace is None:
        return None
    frame = trace.tb_frame
    return {
        "tb_frame": {
            "f_globals": {"__name__": frame.f_globals.get("__name__"), "__file__": frame.f_globals.get("__file__")},
            "f_code": {"co_filename": frame.f_code.co_filename, "co_name": frame.f_code.co_name},
            "f_lineno": frame.f_lineno,
        },
        "tb_lineno": trace.tb_lineno,
        "tb_next": frames(trace.tb_next),
    }


class Call:
    def __init__(self, number, deliver, function, pool, input, group, retries, timeout, priority, discard):
        self.number, self.deliver_raw, self.over = number, deliver, False
        self.function, self.pool, self.input, self.group = function, pool, input, group
        self.retries, self.timeout, self.priority, self.discard = retries, timeout, priority, discard
        self.tries = 0
        self.lock = threading.Lock()

    def deliver(self, event):
        with self.lock:
            if not self.over and not self.discard:
                self.deliver_raw(event)

    def end(self, event):
        with self.lock:
            if self.over:
                return False
            self.over = True
            self.deliver_raw(event)
            return True


class Session:
    """Stands in for `evener._bridge.Session`."""

    def __init__(self, url, token_file, ca_file, client, timeout):
        node = nodes.get(url)
        if node is None or not node.up:
            raise BridgeError("connect", f"{url}: connection refused")
        if node.refuse is not None:
            raise BridgeError(*node.refuse)
        self.version, self.node, self.window, self.pools = "0.1.0", "host:1", 10_000, node.pools
        self.at = node
        self.client, self.token_file, self.ca_file = client, token_file, ca_file
        self.lock = threading.Lock()
        self.calls = {}
        self.next = 0
        self.events = deque()
        self.arrived = threading.Condition()
        self.over = None
        node.sessions.append(self)

    def define(self, hash, name, python, body):
        self.check()
        assert hashlib.sha256(body).digest() == hash
        assert python == PYTHON
        self.at.bodies[hash] = body

    def check(self):
        if self.over is not None:
            raise BridgeError(self.over, "the session is over")

    def new(self, deliver, *order):
        assert type(order[2]) is bytes
        self.check()
        with self.lock:
            self.next += 1
            number = self.next
        call = Call(number, deliver, *order)
        self.calls[number] = call
        self.at.submitted += 1
        self.at.orders.append(order[1:2] + order[3:])
        if order[3]:
            self.at.groups.append(len(pickle.loads(order[2])[1]))
        self.at.add(call)
        return number

    def submit(self, function, pool, input, group, retries, timeout, priority, discard):
        return self.new(self.put, function, pool, input, group, retries, timeout, priority, discard)

    def call(self, function, pool, input, group, retries, timeout, priority, discard):
        return Direct(self, function, pool, input, group, retries, timeout, priority, discard)

    def put(self, event):
        with self.arrived:
            self.events.append(event)
            self.arrived.notify_all()

    def wait(self, timeout):
        with self.arrived:
            self.arrived.wait_for(lambda: self.events or self.over, timeout)
            if not self.events:
                return None if self.over else []
            events = list(self.events)
            self.events.clear()
            return events

    def cancel(self, number, kill):
        self.check()
        call = self.calls.get(number)
        return call is not None and self.at.cancel(call, kill)

    def workers(self, pool):
        self.check()
        return [
            (pid, self.node, name, place, done, False)
            for place, (pid, (name, done)) in enumerate(list(self.at.jobs_done.items()))
            if pool in ("", name)
        ]

    def close(self):
        self.end("session-closed", "the session was closed", "closed")

    def end(self, code, detail, kind):
        if self.over is not None:
            return
        for call in list(self.calls.values()):
            with self.at.changed:
                self.at.ready[:] = [entry for entry in self.at.ready if entry[2] is not call]
            call.end((call.number, 3, code, detail, "", True, 0, call.tries))
        with self.arrived:
            self.over = kind
            self.arrived.notify_all()


class Direct:
    """Stands in for `evener._bridge.Direct`."""

    def __init__(self, session, *order):
        self.events = deque()
        self.arrived = threading.Condition()
        self.number = session.new(self.put, *order)

    put = Session.put

    def wait(self, timeout):
        with self.arrived:
            self.arrived.wait_for(lambda: self.events, timeout)
            events = list(self.events)
            self.events.clear()
            return events


# Engines by their addresses, and all that there are.
nodes = {}
made = []
release = threading.Event()
