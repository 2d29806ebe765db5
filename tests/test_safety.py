"""Safe by default: what a worker inherits, and what listens where."""

import contextlib
import os
import socket
from pathlib import Path

import pytest

from harness import run_evener

SERVICE = """
stages: {look: {python: "app:look", workers: 2}}
routes: [{path: /look, pipeline: look}]
"""

APP = """
    import os, resource, signal
    import marks

    def look(request):
        descriptors = {}
        for name in os.listdir("/proc/self/fd"):
            try:
                descriptors[name] = os.readlink(f"/proc/self/fd/{name}")
            except OSError:
                # The one that this listing itself had open.
                continue
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        return {
            "descriptors": descriptors, "environment": dict(os.environ), "pid": os.getpid(), "group": os.getpgid(0),
            "session": os.getsid(0), "blocked": status["SigBlk"].strip(), "ignored": status["SigIgn"].strip(),
            "umask": status["Umask"].strip(), "parent": os.getppid(), "path": __import__("sys").path,
            "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        }
"""

KEPT_BACK = {
    "EVENER_TOKEN_FILE": "secret", "EVENER_LOG": "info", "EVENER_ANYTHING": "1", "NOTIFY_SOCKET": "/run/notify",
    "LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "x",
}  # fmt: skip


@pytest.fixture(scope="module")
def served(shared_node):
    return shared_node(SERVICE, env=KEPT_BACK | {"PASSED_ON": "yes"}, app=APP)


@pytest.fixture(scope="module")
def seen(served):
    return served.get("/look").json


def test_a_worker_has_its_four_descriptors_and_no_other(seen):
    descriptors = seen["descriptors"]
    assert set(descriptors) == {"0", "1", "2", "3"}
    assert descriptors["0"] == "/dev/null"
    assert descriptors["1"].startswith("pipe:")
    assert descriptors["2"].startswith("pipe:")
    assert descriptors["3"].startswith("socket:")


def test_descriptors_that_the_node_inherited_do_not_reach_workers(node):
    reading, writing = os.pipe()
    high = os.dup2(writing, 200)
    try:
        for descriptor in (writing, high):
            os.set_inheritable(descriptor, True)
        started = node(SERVICE, app=APP, close_fds=False)
        assert str(os.readlink(f"/proc/{started.pid}/fd/200")) == os.readlink(f"/proc/self/fd/{writing}")
        assert set(started.get("/look").json["descriptors"]) == {"0", "1", "2", "3"}
        for worker in started.workers():
            assert set(worker.descriptors) == {0, 1, 2, 3}
    finally:
        for descriptor in (reading, writing, high):
            os.close(descriptor)


def test_what_is_the_nodes_own_is_not_in_a_workers_environment(seen):
    names = set(seen["environment"])
    assert not names & set(KEPT_BACK)
    assert not [name for name in names if name.startswith(("EVENER_", "LISTEN_"))]
    assert seen["environment"]["PASSED_ON"] == "yes"


def test_a_worker_has_a_group_of_its_own_and_the_usual_signals(served, seen):
    assert seen["group"] == seen["pid"]
    assert seen["group"] != os.getpgid(served.pid)
    assert seen["session"] != os.getsid(served.pid)
    assert seen["parent"] == served.warden.pid
    assert int(seen["blocked"], 16) == 0
    # Python itself ignores SIGPIPE and SIGXFSZ; 32 and 33 are the C library's own.
    assert int(seen["ignored"], 16) & ~(1 << 12 | 1 << 24 | 1 << 31 | 1 << 32) == 0


def test_modules_are_found_beside_the_service_file_alone(served, seen):
    assert seen["path"][0] == str(served.folder)
    assert str(served.runtime / "evener") not in seen["path"]


def listening_addresses(processes):
    """The local addresses of all TCP sockets on which these processes listen, and how many UDP sockets they have."""
    inodes = set()
    for process in processes:
        for target in process.descriptors.values():
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    addresses, udp = [], 0
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and table.startswith("udp"):
                udp += 1
            elif fields[9] in inodes and fields[3] == "0A":
                addresses.append(fields[1].split(":")[0])
    return addresses, udp


def test_nothing_listens_beyond_loopback_by_default(served):
    addresses, udp = listening_addresses(served.family())
    # 127.0.0.1, as the kernel writes it.
    assert addresses == ["0100007F"]
    assert udp == 0


def test_without_an_address_routes_are_served_on_loopback(tmp_path):
    file = tmp_path / "service.yaml"
    file.write_text("service: s\n" + SERVICE)
    with contextlib.ExitStack() as stack:
        # Whoever has that port, the node cannot, and says which one it wanted.
        with contextlib.suppress(OSError):
            stack.enter_context(socket.create_server(("127.0.0.1", 8000)))
        done = run_evener("up", file)
    assert done.returncode == 1
    assert "cannot listen on 127.0.0.1:8000" in done.stderr


def test_the_runtime_files_are_private(served):
    folder = served.runtime / "evener"
    for entry in folder.iterdir():
        if not entry.name.endswith(".sock"):
            assert entry.stat().st_mode & 0o077 == 0, entry
    assert len(list(folder.glob("worker-*.py"))) == 1
    # No temporary file is left.
    assert not [entry for entry in folder.iterdir() if entry.name.startswith(".")]


def test_a_link_in_place_of_the_token_is_refused(tmp_path):
    file = tmp_path / "service.yaml"
    file.write_text('service: s\nlisten: {http: "127.0.0.1:0"}\n' + SERVICE)
    folder = tmp_path / "run" / "evener"
    folder.mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("0" * 64)
    (folder / "token").symlink_to(elsewhere)
    done = run_evener("up", file, env={"XDG_RUNTIME_DIR": str(folder.parent)})
    assert done.returncode == 1
    assert "is a link" in done.stderr


def test_a_changed_runtime_file_is_not_trusted(node):
    started = node(SERVICE, app=APP)
    (runtime,) = (started.runtime / "evener").glob("worker-*.py")
    runtime.write_text("raise SystemExit('changed by somebody')\n")
    for worker in started.workers():
        worker.kill()
    assert started.get("/look").status == 200
    assert "changed by somebody" not in started.log


def test_the_node_is_small_when_it_is_idle(served):
    # The debug build is larger than the 30 MiB that a release build keeps to.
    assert served.itself.resident < 60 << 20
