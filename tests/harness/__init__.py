"""What the end-to-end tests stand on: a running node, a client that sees every byte, and a way to wait for a state."""

from harness.client import Answer, Connection, ConnectionEnded
from harness.node import Node, binary, run_evener
from harness.problems import assert_problem, is_uuid7
from harness.processes import Process
from harness.waiting import until

__all__ = [
    "Answer",
    "Connection",
    "ConnectionEnded",
    "Node",
    "Process",
    "assert_problem",
    "binary",
    "is_uuid7",
    "run_evener",
    "until",
]
