"""An engine for functions that other programs share, as somebody starts it in another terminal."""

import subprocess
from contextlib import contextmanager


@contextmanager
def shared_engine(program, env, *, workers=2):
    """Run `evener up` without a service file; gives the address of its API once its workers are up."""
    node = subprocess.Popen(
        [program, "up", "--workers", str(workers)],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = None
        for line in node.stdout:
            if line.startswith("listening api "):
                address = line.split()[2]
            if line == "ready\n":
                break
        assert address, f"the engine did not start: exit code {node.wait(20)}"
        yield address
    finally:
        node.terminate()
        assert node.wait(20) == 0
        node.stdout.close()
