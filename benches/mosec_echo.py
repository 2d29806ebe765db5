"""The same service on Mosec: STAGES stages of two workers, each running `echo` from echo.py.

STAGES and ENCODER come from the environment, because Mosec reads the command line itself. ENCODER=compact replaces
Mosec's own answer encoder, which indents its JSON and so leaves the fast path of Python's json module.
"""

from __future__ import annotations

import json
import os

from echo import echo
from mosec import Server, Worker


class Echo(Worker):
    """Mosec as it comes: JSON at both ends of the pipeline, pickle between stages."""

    def forward(self, data: object) -> object:
        """Do one job."""
        return echo(data)


class CompactEcho(Echo):
    """The same with an answer that is not indented."""

    def serialize(self, data: object) -> bytes:
        """Encode the answer."""
        return json.dumps(data).encode()


if __name__ == "__main__":
    server = Server()
    for _ in range(int(os.environ.get("STAGES", "1"))):
        server.append_worker(
            CompactEcho if os.environ.get("ENCODER") == "compact" else Echo, num=2, max_batch_size=1, route="/echo"
        )
    server.run()
