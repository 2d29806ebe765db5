"""A running node, as its tests hold it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import uuid
from pathlib import Path

from harness.client import Connection, request_bytes
from harness.processes import Process, children_of, marked
from harness.waiting import until

REPOSITORY = Path(__file__).resolve().parent.parent.parent

# Every process that descends from a node carries this variable, so that none can hide at its end.
MARK = "NODE_UNDER_TEST"

# How long a start may take on a machine that is busy with other things.
START = 20.0


def binary():
    """The program under test."""
    named = os.environ.get("EVENER_BIN")
    places = [Path(named)] if named else [REPOSITORY / "target" / kind / "evener" for kind in ("debug", "release")]
    found = next((place for place in places if place.is_file()), None)
    assert found, f"there is no {' and no '.join(map(str, places))}: build it, or set EVENER_BIN"
    return found.resolve()


def environment(runtime):
    """The environment of a node: this one's, its own runtime folder, and a Python that is not a slow wrapper."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("EVENER_", "LISTEN_"))}
    for name in ("VIRTUAL_ENV", "NO_COLOR", "NOTIFY_SOCKET"):
        env.pop(name, None)
    python = os.path.dirname(os.path.realpath(sys.executable))
    return env | {"XDG_RUNTIME_DIR": str(runtime), "PATH": python + os.pathsep + env.get("PATH", os.defpath)}


def run_evener(*arguments, cwd=None, env=None, within=20.0):
    """Run a command that ends by itself."""
    with tempfile.TemporaryDirectory(prefix="evener-") as runtime:
        return subprocess.run(
            [binary(), *map(str, arguments)],
            cwd=cwd,
            env=environment(runtime) | (env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )


class Node:
    """Runs `evener up` on a service file in a folder of its own, and knows all of its processes."""

    def __init__(self, folder, service, modules, *, arguments=(), env=None, close_fds=True, folders=()):
        self.folder = Path(folder)
        self.arguments = list(arguments)
        self.close_fds = close_fds
        # A Unix socket's path has to be short, which those of pytest's own folders are not.
        self.runtime = Path(tempfile.mkdtemp(prefix="evener-"))
        self.mark = uuid.uuid4().hex
        self.env = environment(self.runtime) | {MARK: self.mark} | (env or {})
        self.process = None
        self.output = []
        self.connections = []
        shutil.copy(Path(__file__).with_name("marks.py"), self.folder)
        for name in folders:
            (self.folder / name).mkdir()
        for name, source in modules.items():
            self.write(f"{name}.py", source)
        if isinstance(service, Path):
            self.file = service
        else:
            service = textwrap.dedent(service)
            if not re.search(r"^service:", service, re.MULTILINE):
                service = "service: tested\n" + service
            if not re.search(r"^listen:", service, re.MULTILINE):
                service = 'listen: {http: "127.0.0.1:0"}\n' + service
            self.file = self.write("service.yaml", service)

    def write(self, name, text):
        """Write a file beside the service file, whole or not at all."""
        place = self.folder / name
        new = place.with_name(place.name + ".new")
        new.write_text(textwrap.dedent(text))
        return new.rename(place)

    # Start and end.

    def start(self):
        """Start it, and return at once."""
        self.log_path = self.folder / "node.log"
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(
                [binary(), "up", self.file, *self.arguments],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                close_fds=self.close_fds,
            )
        self.reader = threading.Thread(target=self._read_output, daemon=True)
        self.reader.start()
        return self

    def _read_output(self):
        for line in self.process.stdout:
            self.output.append(line.rstrip("\n"))

    def wait_listening(self):
        """Wait until it says where it listens."""
        self._wait_line(lambda line: line.startswith("listening api "), "the addresses")
        return self

    def wait_ready(self, within=START):
        self._wait_line(lambda line: line == "ready", "`ready`", within)
        return self

    def _wait_line(self, wanted, what, within=START):
        def there():
            assert self.process.poll() is None or any(map(wanted, self.output)), (
                f"the node ended with {self.process.returncode} before it said {what}:\n{self.log}"
            )
            return any(map(wanted, self.output))

        until(there, f"the node says {what}", within=within)

    def send(self, number):
        self.process.send_signal(number)

    def wait_exit(self, within=10.0):
        """Wait until it has ended by itself; return its exit code."""
        code = self.process.wait(timeout=within)
        self.reader.join(5)
        return code

    def stop(self, within=15.0):
        """Ask it to stop; it must do so with exit code 0 and leave no process behind."""
        if self.process.poll() is None:
            self.send(signal.SIGTERM)
        code = self.wait_exit(within)
        assert code == 0, f"exit code {code}\n{self.log}"
        self.assert_nothing_survives()

    def assert_nothing_survives(self, within=2.0):
        until(lambda: not self.family(), "the end of every process of the node", within=within)

    def family(self):
        """Every living process that descends from the node, itself included."""
        return marked(MARK, self.mark)

    def close_connections(self):
        while self.connections:
            self.connections.pop().close()

    def discard(self):
        """End what is left, however things stand; return what should not have been there."""
        self.close_connections()
        was_running = self.process is not None and self.process.poll() is None
        if was_running:
            self.send(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(10)
            self.reader.join(5)
            self.process.stdout.close()
        try:
            self.assert_nothing_survives()
            left = []
        except AssertionError:
            left = self.family()
            for process in left:
                process.kill()
        shutil.rmtree(self.runtime, ignore_errors=True)
        return left

    # What it says.

    @property
    def log(self):
        return self.log_path.read_text(errors="replace") if self.process else ""

    def wait_log(self, pattern, within=10.0):
        """Wait until the log matches a regular expression; return the match."""
        found = re.compile(pattern, re.MULTILINE)
        return until(lambda: found.search(self.log), f"a line in the log that matches {pattern!r}", within=within)

    @property
    def records(self):
        """The log of a node that runs with `--log json`."""
        return [json.loads(line) for line in self.log.split("\n")[:-1]]

    def wait_record(self, within=10.0, **fields):
        """Wait until the log has a line with these fields; return it."""

        def found():
            return [one for one in self.records if all(one.get(name) == value for name, value in fields.items())]

        return until(found, f"a line in the log with {fields}", within=within)[0]

    def notes(self, name):
        """The lines that stage code has noted under that name."""
        place = self.folder / name
        return place.read_text().split("\n")[:-1] if place.exists() else []

    def wait_notes(self, name, count=1, within=10.0):
        until(lambda: len(self.notes(name)) >= count, f"{count} notes under {name!r}", within=within)
        return self.notes(name)

    def open(self, name):
        """Let stage code that waits for this name go on."""
        (self.folder / name).touch()

    def url(self, name):
        line = next((line for line in self.output if line.startswith(f"listening {name} ")), None)
        assert line, f"the node does not listen for {name}: {self.output}"
        return line.split(" ", 2)[2]

    def address(self, name="http"):
        """Where a door is: a (host, port) pair, or the path of a Unix socket."""
        url = self.url(name)
        if url.startswith("unix:"):
            return url.removeprefix("unix:")
        host, port = url.split("//")[1].rsplit(":", 1)
        return (host, int(port))

    # Its processes.

    @property
    def pid(self):
        return self.process.pid

    @property
    def itself(self):
        return Process.at(self.pid)

    @property
    def warden(self):
        wardens = [child for child in children_of(self.pid) if child.name == "evener-warden"]
        return wardens[0] if wardens else None

    def workers(self, target=""):
        """The worker processes, or those of one target such as `app:work`."""
        warden = self.warden
        children = children_of(warden.pid) if warden else []
        return [child for child in children if self._is_worker(child, target)]

    def _is_worker(self, process, target):
        arguments = process.arguments
        return any(re.search(r"/worker-[0-9a-f]+\.py$", word) for word in arguments) and arguments[-1].endswith(target)

    def worker(self, target=""):
        found = self.workers(target)
        assert len(found) == 1, found
        return found[0]

    # Its doors.

    def connect(self, door="http", **options):
        """Open a connection. It is closed with the node at the latest."""
        connection = Connection(self.address(door), **options)
        self.connections.append(connection)
        return connection

    def request(self, method, path, *, patience=20.0, **options):
        """Send one request on a connection of its own and read the answer."""
        with self.connect(patience=patience) as connection:
            return connection.request(method, path, **options)

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, body=b"", content_type=None, *, headers=(), **options):
        headers = dict(headers)
        if content_type is not None:
            headers["Content-Type"] = content_type
        body = body.encode() if isinstance(body, str) else body
        return self.request("POST", path, headers=headers, body=body, **options)

    def begin(self, method, path, **options):
        """Send one request on a connection of its own, and return that without reading the answer."""
        connection = self.connect()
        connection.send(request_bytes(method, path, **options))
        return connection

    @property
    def token(self):
        return (self.runtime / "evener" / "token").read_text().strip()

    def api(self, path, *, method="GET", token=True, headers=()):
        headers = dict(headers)
        if token:
            headers["Authorization"] = f"Bearer {self.token}"
        with self.connect("api") as connection:
            return connection.request(method, path, headers=headers)

    def readiness(self):
        """The readiness as the API tells it."""
        return self.api("/readyz", token=False).json

    def metrics(self):
        """Every sample by its name and labels, as it is written: `evener_workers{stage="work"}`."""
        answer = self.api("/metrics")
        assert answer.status == 200, answer
        lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def metric(self, name, **labels):
        shown = ",".join(f'{key}="{value}"' for key, value in labels.items())
        return self.metrics().get(f"evener_{name}{{{shown}}}" if shown else f"evener_{name}")
