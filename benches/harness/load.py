"""Load on one system: closed loop by wrk, open loop by floor/src/bin/openloop.rs."""

from __future__ import annotations

import json
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BENCHES = Path(__file__).resolve().parent.parent
PATH = "/echo"
BODY = json.dumps({"data": "x" * 88})
assert len(BODY) == 100


class LoadError(Exception):
    """The load generator failed, or not every request was answered rightly."""


@dataclass(frozen=True)
class Load:
    """What one run of a load generator saw; `generator_cpu` is its own CPU seconds.

    Of the open loop only: how many requests found no connection free, and how late the others left (in microseconds).
    `client_cpu` is for clients that belong to the system they load: the part of its CPU seconds that is theirs.
    """

    requests: int
    seconds: float
    p50_us: float
    p90_us: float
    p99_us: float
    max_us: float
    generator_cpu: float
    backlogged: int = 0
    wake_p50_us: float = 0.0
    wake_p99_us: float = 0.0
    client_cpu: float = 0.0


def closed(address: str, connections: int, seconds: int, path: str = PATH) -> Load:
    """Send as many requests as `connections` keep-alive connections let through, each waiting for its answer."""
    return _wrk(f"http://{address}{path}", connections, seconds, "post.lua", BODY)


def closed_gets(address: str, connections: int, seconds: int, paths: Sequence[str]) -> Load:
    """The same with GETs of all the paths in turn."""
    return _wrk(f"http://{address}", connections, seconds, "get.lua", *paths)


def _wrk(url: str, connections: int, seconds: int, script: str, *arguments: str) -> Load:
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    command += ["--timeout", "10s", "--script", str(BENCHES / script), url, "--", *arguments]
    output, cpu = _run(command, seconds + 30)
    lines = [line for line in output.splitlines() if line.startswith("summary ")]
    if len(lines) != 1:
        raise LoadError(f"wrk gave no summary:\n{output}")
    found = json.loads(lines[0][len("summary ") :])
    failed = {name: found[name] for name in ("connect", "read", "write", "status", "timeout") if found[name]}
    if failed or not found["requests"]:
        raise LoadError(f"of {found['requests']} requests some failed: {failed}")
    return Load(
        found["requests"],
        found["microseconds"] / 1e6,
        found["p50_us"],
        found["p90_us"],
        found["p99_us"],
        found["max_us"],
        cpu,
    )


def open_loop(generator: Path, address: str, rate: float, connections: int, seconds: int, seed: int) -> Load:
    """Send requests at a mean rate whatever the answers do; latency counts from when each was due."""
    numbers = [f"{rate:.1f}", str(seconds), str(connections), str(seed)]
    output, cpu = _run([str(generator), address, PATH, BODY, *numbers], seconds + 30)
    found = json.loads(output)
    if found["errors"] or found["answered"] != found["planned"]:
        raise LoadError(f"of {found['planned']} requests {found['errors']} failed")
    return Load(
        found["answered"],
        found["seconds"],
        found["p50_us"],
        found["p90_us"],
        found["p99_us"],
        found["max_us"],
        cpu,
        found["backlogged"],
        found["wake_p50_us"],
        found["wake_p99_us"],
    )


def _run(command: list[str], patience: float) -> tuple[str, float]:
    """Run a load generator; give what it wrote and the CPU seconds it used."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as child:
        before = _reaped_cpu()
        try:
            output, _ = child.communicate(timeout=patience)
        except BaseException:
            child.kill()
            child.wait()
            raise
        cpu = _reaped_cpu() - before
    if child.returncode:
        raise LoadError(f"{Path(command[0]).name} ended with code {child.returncode}:\n{output}")
    return output, cpu


def _reaped_cpu() -> float:
    """CPU seconds of all children that have ended; while a load generator runs, no other child of ours ends."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
