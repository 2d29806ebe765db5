"""The compiled part of the client: sessions with an engine, over `crates/sdk`.

Payloads are bytes in both directions. Nothing here is for users; `_session.py` is the one module that uses it.

All waits let other threads run, and notice signals, such as the one of Ctrl-C, within 50 ms. After a fork, the
objects of the parent are of no use in the child: their methods raise `BridgeError("closed", …)` there.
"""

from typing import Literal, final

from typing_extensions import TypeAlias

# number, 0, stream (1 stdout, 2 stderr), data, truncated: the call has written something. `truncated`: this is where
# it was cut, and what the call writes from now on is dropped.
Printed: TypeAlias = tuple[int, Literal[0], int, bytes, bool]
# number, 1, value, process number of the worker, nanoseconds that the function ran, tries that were begun: its
# outcome.
Value: TypeAlias = tuple[int, Literal[1], bytes, int, int, int]
# number, 2, exception, process number of the worker, nanoseconds that the function ran, tries that were begun: its
# outcome.
Raised: TypeAlias = tuple[int, Literal[2], bytes, int, int, int]
# number, 3, code, detail, certificate, retryable, process number of the worker or 0, tries that were begun: its
# outcome.
#
# The codes are those of docs/errors, and two that come from this side: `engine-lost` (the connection ended; `detail`
# says how) and `session-closed`. `certificate` says how the worker died, if one did; else it is empty.
Problem: TypeAlias = tuple[int, Literal[3], str, str, str, bool, int, int]

# Any number of `Printed` about a call, and then exactly one of the others, which is the last event of it.
Event: TypeAlias = Printed | Value | Raised | Problem

class BridgeError(Exception):
    """A session cannot be used.

    Its arguments are a kind and a message for people. The kinds: `connect` (nobody listens there, or the address or a
    certificate is malformed), `unauthorized` (the token is wrong or missing), `lost` (the connection ended), `closed`
    (the session was closed here), `undefined` (a call of a function that was not defined), `protocol` (what answers
    is no engine, or one of another version).
    """

    args: tuple[str, str]

@final
class Session:
    """A session with an engine, for any number of threads. It ends with `close`, or when the object is gone."""

    def __init__(self, url: str, token_file: str | None, ca_file: str | None, client: str, timeout: float) -> None:
        """Connect, and wait for the engine's welcome, at most `timeout` seconds.

        `url`: `unix:/path`, `http://host:port` or `https://host:port`. `token_file`: None is `$EVENER_TOKEN_FILE`,
        else the token in this user's runtime folder. `ca_file`: None is `$EVENER_CA_FILE`, else whom the system
        trusts. `client`: what this client is, for people. Raises `BridgeError`.
        """

    @property
    def version(self) -> str:
        """The version of the engine's program."""

    @property
    def node(self) -> str:
        """The engine's name: its host's name and its process number."""

    @property
    def window(self) -> int:
        """How many calls the engine takes at a time; those beyond wait here."""

    @property
    def pools(self) -> list[tuple[str, str, int]]:
        """The pools that take functions: name, version of its Python such as `3.11`, how many workers it shall have."""

    def define(self, hash: bytes, name: str, python: str, body: bytes) -> None:
        """Make a function known to the session; it is sent before its first call. Defining it again changes nothing.

        `hash` is the SHA-256 of `body`; `python` is the version that `body` is for.
        """

    def submit(
        self,
        function: bytes,
        pool: str,
        input: bytes,
        group: bool,
        retries: int,
        timeout: float | None,
        priority: int,
        discard: bool,
    ) -> int:
        """Call a function, by its hash, and return the call's number; its events come from `wait`.

        Never blocks: calls that the engine does not take yet wait here, by priority and then in order. `timeout` is
        for one try, in seconds.
        """

    def submit_many(
        self,
        function: bytes,
        pool: str,
        inputs: list[bytes],
        group: bool,
        retries: int,
        timeout: float | None,
        priority: int,
        discard: bool,
    ) -> int:
        """Call a function with many inputs; return the number of the first call. The others follow it."""

    def call(
        self,
        function: bytes,
        pool: str,
        input: bytes,
        group: bool,
        retries: int,
        timeout: float | None,
        priority: int,
        discard: bool,
    ) -> Direct:
        """Call a function; the call's events come from what is returned, and not from `wait`."""

    def wait(self, timeout: float | None) -> list[Event] | None:
        """Wait for events and return them all.

        An empty list: there are none within `timeout` seconds. None: the session is over and all events were taken.
        """

    def cancel(self, number: int, kill: bool) -> bool:
        """Cancel a call, and wait until it is known whether that could be done.

        True: it is cancelled, and a problem with the code `cancelled` is its outcome. False: it had begun, or has
        ended. `kill`: also if it has begun: it is told, and its worker is stopped if it does not come back.
        """

    def workers(self, pool: str) -> list[tuple[int, str, str, int, int, bool]]:
        """Return the workers of a pool that are up, or of all pools if `pool` is empty.

        Of each: process number, the engine's name, pool, number in the pool, jobs that it has done, whether it is at
        one.
        """

    def close(self) -> None:
        """End the session. All calls without an outcome get a problem with the code `session-closed`.

        `wait` then returns what is left, and then None. Closing it again changes nothing.
        """

@final
class Direct:
    """One call whose events come from here."""

    @property
    def number(self) -> int:
        """The call's number."""

    def wait(self, timeout: float | None) -> list[Event]:
        """Wait for events of this call and return them all; the last event is its outcome.

        An empty list: there are none within `timeout` seconds, or the outcome was taken before.
        """
