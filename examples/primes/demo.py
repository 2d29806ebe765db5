"""Runs the primes service, sends it real requests, and shows what came back and which worker did how many jobs.

Needs nothing but Python and the `evener` binary: python3 examples/primes/demo.py --evener target/debug/evener
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHOWN = ["32416190071", "91", "97", "1000001", "1000000", "2147483647", "twelve", ""]
LOAD = 2000
CLIENTS = 16


class Unix(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def smallest_factor(number: int) -> int:
    """The answer that the service should give, computed here."""
    factor = 2
    while factor * factor <= number:
        if number % factor == 0:
            return factor
        factor += 1
    return number


def ask(connection: http.client.HTTPConnection, number: str) -> tuple[int, str]:
    """Send one request and return the status and the body."""
    query = urllib.parse.urlencode({"possible_prime": number} if number else {})
    connection.request("GET", f"/is_prime?{query}")
    response = connection.getresponse()
    return response.status, response.read().decode()


def show(url: urllib.parse.SplitResult) -> bool:
    """Send a few requests one by one and print what came back; false if an answer is wrong."""
    right = True
    connection = http.client.HTTPConnection(url.hostname or "", url.port)
    for number in SHOWN:
        status, body = ask(connection, number)
        shown = json.loads(body)["detail"] if status != 200 else body
        expected = status == 200 and int(body) == smallest_factor(int(number)) if number.isdigit() else status == 400
        right &= expected
        print(f"  /is_prime?possible_prime={number:<12} {status}  {shown}{'' if expected else '   WRONG'}")
    return right


def load(url: urllib.parse.SplitResult) -> collections.Counter[str]:
    """Send many requests from many clients at once, each over a connection of its own, and check every answer."""
    local = threading.local()

    def one(number: int) -> str:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(url.hostname or "", url.port)
        status, body = ask(local.connection, str(number))
        return "right" if status == 200 and int(body) == smallest_factor(number) else f"wrong: {status} {body}"

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as clients:
        return collections.Counter(clients.map(one, range(10_001, 10_001 + 2 * LOAD, 2)))


def worker_counts(api: str) -> list[tuple[str, str, int]]:
    """Ask the API which worker did how many jobs."""
    path = Path(api.removeprefix("unix:"))
    token = (path.parent / "token").read_text().strip()
    connection = Unix(str(path))
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})
    text = connection.getresponse().read().decode()
    found = re.findall(r'evener_worker_jobs_total\{stage="([^"]+)",worker="(\d+)"\} (\d+)', text)
    return sorted((stage, worker, int(done)) for stage, worker, done in found)


def start(evener: Path) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """Start the service on a port that the system picks, and wait until it is ready."""
    command = [str(evener), "up", str(HERE / "service.yaml"), "--http", "127.0.0.1:0"]
    print(f"$ {' '.join(command)}")
    node = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    addresses = {}
    for line in node.stdout or ():
        print(f"  {line.rstrip()}")
        if line == "ready\n":
            return node, addresses
        _, name, url = line.split()
        addresses[name] = url
    raise SystemExit(f"the service did not start: exit code {node.wait()}")


def main() -> int:
    """Run the demo; 0 if every answer was right."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--evener", type=Path, default=Path("evener"), help="the binary (default: on the PATH)")
    node, addresses = start(arguments.parse_args().evener)
    try:
        url = urllib.parse.urlsplit(addresses["http"])
        print("\nOne by one:")
        right = show(url)
        print(f"\n{LOAD:,} requests from {CLIENTS} clients at once:")
        began = time.monotonic()
        answers = load(url)
        for answer, count in answers.most_common(5):
            print(f"  {count:,} {answer}")
        print(f"  in {time.monotonic() - began:.1f} s")
        print("\nWho did the work:")
        for stage, worker, done in worker_counts(addresses["api"]):
            print(f"  {stage:<8} worker {worker}: {done:,} jobs")
    finally:
        node.terminate()
        code = node.wait(timeout=60)
    print(f"\nSIGTERM: drained, exit code {code}")
    return 0 if right and answers.keys() == {"right"} and code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
