"""Measure the Python worker runtime by itself: one worker, one socketpair, and a peer in Python that plays the node.

    python benches/worker_runtime.py [--jobs N] [--interpreter PYTHON] [--profile]

Two figures come out for each case:

* round trip: the time from sending a JOB to having read its OUTCOME, with one job under way, as a node does it;
* per job: the processor time of the worker divided by the jobs, which leaves the peer's own cost out.

The peer sends frames that it made before the clock started, and looks at no more of an answer than its length.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

HEADER = struct.Struct("<IBBBBQIIIIQ")
ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNTIME = ROOT / "python" / "src" / "evener" / "_worker.py"
TARGETS = """
def echo(value):
    return value

def echo_with_context(value, ctx):
    return value

def ask_cancelled(value, ctx):
    for _ in range(1000):
        ctx.cancelled()
    return value

def first(request):
    return int(request.query["possible_prime"])
"""
REQUEST = {
    "method": "GET",
    "path": "/is_prime",
    "params": {},
    "query": [["possible_prime", "32416190071"]],
    "headers": [["host", "127.0.0.1:8002"], ["user-agent", "curl/8.5.0"], ["accept", "*/*"]],
    "client": "127.0.0.1:50000",
}
RECORD = {"id": 17, "name": "horse", "tags": ["bay", "tall"], "weight": 512.5, "parent": None}


def frame(content: int, payload: bytes, extension: bytes = b"", verb: int = 0, number: int = 1) -> bytes:
    """Make a JOB, in parts if the payload is large."""
    cut = [payload[start : start + 262_144] for start in range(0, len(payload), 262_144)] or [b""]
    frames = []
    for index, part in enumerate(cut):
        kind, extra, code = (2, extension, content) if index == 0 else (4, b"", 0)
        more = 1 if index + 1 < len(cut) else 0
        word = verb if index == 0 else 0
        length = len(extra) + len(part)
        frames.append(
            HEADER.pack(length, kind, more, code, word, 7, 1, len(extra), number, 0, 2**64 - 1) + extra + part
        )
    return b"".join(frames)


def start(target: str, folder: str, interpreter: str, profile: bool) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()

    def place() -> None:
        os.dup2(theirs.fileno(), 3)

    prefix = [interpreter, "-m", "cProfile", "-s", "tottime"] if profile else [interpreter]
    command = [*prefix, str(RUNTIME), f"targets:{target}", "--path", folder]
    worker = subprocess.Popen(command, pass_fds=(3,), preexec_fn=place, stdin=subprocess.DEVNULL)
    theirs.close()
    ready = ours.recv(65_536)
    if ready[4] != 1:
        raise SystemExit(f"the worker did not start: {ready[40:].decode()}")
    return worker, ours


def processor_time(pid: int) -> int:
    """Return the nanoseconds that a process has had of a processor, system calls included (Linux only)."""
    return int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def receive_outcome(peer: socket.socket, buffer: bytearray) -> None:
    """Read one whole outcome, and its parts."""
    while True:
        size = 0
        need = HEADER.size
        view = memoryview(buffer)
        while size < need:
            size += peer.recv_into(view[size:], need - size if size else HEADER.size)
            if size >= HEADER.size:
                need = HEADER.size + int.from_bytes(buffer[:4], "little")
        if not buffer[5] & 1:
            return


def measure(name: str, target: str, job: bytes, jobs: int, options: argparse.Namespace, folder: str) -> None:
    worker, peer = start(target, folder, options.interpreter, options.profile)
    buffer = bytearray(HEADER.size + 2 * 262_144)
    small = len(job) < 30_000
    send, receive, clock = peer.sendall, peer.recv_into, time.perf_counter_ns
    times = []
    began_processor = 0
    began = clock()
    for turn in range(jobs + jobs // 10):
        if turn == jobs // 10:
            began_processor, began, times = processor_time(worker.pid), clock(), []
        sent = clock()
        send(job)
        if small:
            receive(buffer)
        else:
            receive_outcome(peer, buffer)
        times.append(clock() - sent)
    wall = (clock() - began) / jobs
    processor = (processor_time(worker.pid) - began_processor) / jobs
    if buffer[4] not in (4, 7) or (buffer[4] == 7 and buffer[7] != 1):
        raise SystemExit(f"{name}: not the outcome that was expected: {bytes(buffer[:300])!r}")
    peer.close()
    worker.wait(10)
    middle = statistics.median(times)
    print(
        f"{name:34s} {middle / 1e3:9.2f} {sorted(times)[len(times) * 99 // 100] / 1e3:9.2f} "
        f"{1e9 / wall:12,.0f} {processor / 1e3:9.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--interpreter", default=sys.executable)
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--profile", action="store_true", help="print the worker's profile at its end")
    options = parser.parse_args()
    extension = json.dumps({"request": REQUEST}, separators=(",", ":")).encode()
    record = json.dumps(RECORD, separators=(",", ":")).encode()
    large = json.dumps("x" * (1 << 20)).encode()
    cases = [
        ("a number, JSON", "echo", frame(1, b"32416190071"), 1),
        ("a record of 80 bytes, JSON", "echo", frame(1, record), 1),
        ("100 bytes of text", "echo", frame(2, b"x" * 100), 1),
        ("100 bytes", "echo", frame(3, b"x" * 100), 1),
        ("a request (parse of primes)", "first", frame(0, b"", extension, verb=1), 1),
        ("a number, with context", "echo_with_context", frame(1, b"17", extension), 1),
        ("1,000 times ctx.cancelled()", "ask_cancelled", frame(1, b"17", extension), 200),
        ("16 KiB of bytes", "echo", frame(3, b"x" * 16_384), 2),
        ("1 MiB of JSON", "echo", frame(1, large), 500),
        ("1 MiB of bytes", "echo", frame(3, b"x" * (1 << 20)), 500),
    ]
    print(f"{'case':34s} {'median us':>9s} {'p99 us':>9s} {'jobs/s':>12s} {'CPU us':>9s}")
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "targets.py").write_text(TARGETS)
        for name, target, job, less in cases:
            if options.only in name:
                measure(name, target, job, max(100, options.jobs // less), options, folder)


if __name__ == "__main__":
    main()
