"""What a request costs the node, part by part: python3 benches/hop.py --evener target/release/evener

Runs the echo services under wrk with 32 connections, samples the node's CPU with perf, and prints a Markdown table of
microseconds of CPU for each request: system calls by what they do, the node's own code by the crate it belongs to.
Needs wrk and perf (Debian: wrk, linux-perf). The sampling itself costs a few percent.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BODY = '{"data": "' + "x" * 88 + '"}'
SECONDS = 6

# Kernel functions that stand for one kind of work each; perf counts what they call as well.
KERNEL = {
    "HTTP: read (tcp_recvmsg)": "tcp_recvmsg",
    "HTTP: write (tcp_sendmsg)": "tcp_sendmsg",
    "workers: read (unix_stream_recvmsg)": "unix_stream_recvmsg",
    "workers: write (unix_stream_sendmsg)": "unix_stream_sendmsg",
    "workers: look at the output pipes (poll)": "do_sys_poll",
    "wait for events (epoll_wait)": "do_epoll_wait",
}
# The node's own code, by the first pattern that a symbol matches.
OWN = {
    "core": r"evener_core::",
    "HTTP: hyper and the door": r"hyper|httparse|^<?http::|evener_doors|matchit|<http",
    "engine and ids": r"evener_engine|uuid|fastrand|prometheus",
    "slots and the wire": r"evener_supervisor|evener_protocol|rustix",
    "tokio": r"tokio|mio::",
    "memory": r"malloc|free|realloc|alloc|mem(cpy|move|set|cmp)",
}


def report(data: Path, *options: str) -> list[tuple[float, str]]:
    """Read a perf report as pairs of percent and symbol."""
    command = ["perf", "report", "--input", str(data), "--stdio", "--call-graph", "none", "--percent-limit", "0.01"]
    text = subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout
    rows = re.findall(r"^ +([\d.]+)%.*\[([.k])\] (.*?) *$", text, re.MULTILINE)
    return [(float(percent), ("kernel " if mode == "k" else "") + symbol) for percent, mode, symbol in rows]


def children(data: Path) -> dict[str, float]:
    """Percent of each kernel function with all that it calls."""
    command = ["perf", "report", "--input", str(data), "--stdio", "--call-graph", "none", "--children"]
    text = subprocess.run([*command, "--percent-limit", "0.05"], check=True, capture_output=True, text=True).stdout
    rows = re.findall(r"^ +([\d.]+)% +[\d.]+%.*\[k\] (\S+)", text, re.MULTILINE)
    return {symbol: float(percent) for percent, symbol in rows}


def cpu_seconds(pid: int) -> float:
    """User and system time of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(evener: Path, service: Path) -> dict[str, float]:
    """Microseconds of the node's CPU for each request, by part."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "perf.data"
        environment = os.environ | {"XDG_RUNTIME_DIR": scratch}
        node = subprocess.Popen(
            [evener, "up", service], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        try:
            url = ""
            for line in node.stdout or ():
                if line.startswith("listening http"):
                    url = line.split()[2]
                if line == "ready\n":
                    break
            wrk = ["wrk", "-t1", "-c32", f"-d{SECONDS}s", "-s", str(HERE / "post.lua"), f"{url}/echo", "--", BODY]
            load = subprocess.Popen(wrk, stdout=subprocess.PIPE, text=True)
            time.sleep(1)  # The first second warms up; it is part of the load but not of the samples.
            before = cpu_seconds(node.pid)
            perf = ["perf", "record", "-e", "cpu-clock", "-F", "4000", "-g", "-p", str(node.pid), "-o", str(data)]
            subprocess.run([*perf, "sleep", str(SECONDS - 2)], check=True, capture_output=True)
            spent = cpu_seconds(node.pid) - before
            output = load.communicate()[0]
        finally:
            node.terminate()
            node.wait()
        rate = float(re.findall(r"Requests/sec: +([\d.]+)", output)[0])
        micros = spent / (rate * (SECONDS - 2)) * 1e6
        return parts(data, micros)


def parts(data: Path, micros: float) -> dict[str, float]:
    """Split the node's CPU for a request by what perf saw."""
    inclusive = children(data)
    found = {name: inclusive.get(symbol, 0.0) for name, symbol in KERNEL.items()}
    flat = report(data, "--no-children")
    kernel = sum(percent for percent, symbol in flat if symbol.startswith("kernel "))
    found["other system work"] = max(kernel - sum(found.values()), 0.0)
    for percent, symbol in flat:
        if not symbol.startswith("kernel "):
            name = next((name for name, pattern in OWN.items() if re.search(pattern, symbol)), "the rest")
            found[name] = found.get(name, 0.0) + percent
    return {name: percent / 100 * micros for name, percent in found.items()} | {"all": micros}


def render(one: dict[str, float], three: dict[str, float]) -> str:
    """The table."""
    lines = ["| part of the node | 1 stage, us | 3 stages, us | one more hop, us |", "|---|---:|---:|---:|"]
    for name in [*KERNEL, "other system work", *OWN, "the rest", "all"]:
        first, last = one.get(name, 0.0), three.get(name, 0.0)
        lines.append(f"| {name} | {first:.1f} | {last:.1f} | {(last - first) / 2:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, and put it between its marks in a document if one is named."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--evener", type=Path, default=Path("target/release/evener"), help="the binary to measure")
    arguments.add_argument(
        "--write", type=Path, metavar="FILE.md", help="put the table between its marks in this document"
    )
    chosen = arguments.parse_args()
    if not shutil.which("perf") or not shutil.which("wrk"):
        raise SystemExit("wrk and perf are needed (Debian: wrk, linux-perf)")
    evener = chosen.evener.resolve()
    one, three = (measure(evener, HERE / f"echo{stages}.yaml") for stages in (1, 3))
    table = render(one, three)
    print(table, end="")
    if chosen.write:
        before, begin, rest = chosen.write.read_text().partition("<!-- hop begin -->\n")
        _, end, after = rest.partition("<!-- hop end -->")
        if not (begin and end):
            raise SystemExit(f"{chosen.write} has no `<!-- hop begin -->` and `<!-- hop end -->`")
        chosen.write.write_text(before + begin + table + end + after)


if __name__ == "__main__":
    main()
