"""What can go wrong with remote functions.

.. code-block:: text

    EvenerError                   .code
     ├── ConnectError             no engine there, or a private one does not start; also a ConnectionError
     ├── AuthenticationError      the engine is there, and the token is not the one it wants
     ├── EngineLost               the engine went away, or the client was closed; a BrokenExecutor
     ├── ForkError                this process is a fork of the one that uses Evener
     ├── UnknownPool              the engine has no pool of this name
     ├── PoolUnavailable          the pool's workers do not start
     ├── PythonMismatch           the pool runs another version of Python
     ├── SerializationError       a function, argument or result cannot be pickled; a PicklingError and a TypeError
     ├── InitializerFailed        the initializer of an Executor failed; a BrokenExecutor
     ├── WorkerDied               .certificate; the worker died, and the tries are spent; a BrokenExecutor
     ├── CallTimeout              the call took longer than its timeout; a TimeoutError
     └── RemoteError              .type_name .message .remote_traceback; an exception that could not come back as itself

    RemoteTraceback               the cause of an exception that was raised in a worker; its text is the traceback there

What a remote function raises comes back as its own type, so these are only for the rest.
"""

from __future__ import annotations

import pickle
import sys
from concurrent import futures
from concurrent.futures import BrokenExecutor

if sys.version_info >= (3, 11):

    class _Timeout(TimeoutError):
        __module__ = "evener"

else:

    class _Timeout(TimeoutError, futures.TimeoutError):
        __module__ = "evener"


class EvenerError(Exception):
    """The base of all errors that Evener itself raises.

    `code` is the stable name of what happened (``worker-died``), with a page in the documentation if the engine said
    it, or None where it happened in this process.
    """

    __module__ = "evener"

    code: str | None = None


class ConnectError(EvenerError, ConnectionError):
    """No engine answers at the address, or a private engine could not be started. The message says why."""

    __module__ = "evener"


class AuthenticationError(EvenerError):
    """The engine refused the token.

    Clients of the same user find the token by themselves. For an engine of another user or machine, `EVENER_TOKEN_FILE`
    or ``Client(token_file=…)`` names the file with its token.
    """

    __module__ = "evener"

    code = "unauthorized"


class EngineLost(EvenerError, BrokenExecutor):
    """The connection to the engine ended before the call had an outcome; whether it was done is not known.

    With the default client, the next call starts or connects to an engine anew. A `Client` of your own stays as it is:
    make a new one.
    """

    __module__ = "evener"


class ForkError(EvenerError):
    """Evener was used in this process before it was forked, and its connection belongs to the parent.

    Use the start methods ``spawn`` or ``forkserver`` of multiprocessing, or call Evener only after the fork.
    """

    __module__ = "evener"


class UnknownPool(EvenerError):
    """The engine has no function pool of this name. The message lists those that it has."""

    __module__ = "evener"

    code = "unknown-pool"


class PoolUnavailable(EvenerError):
    """The workers of the pool do not start. The message says why."""

    __module__ = "evener"


class PythonMismatch(EvenerError):
    """The pool runs another minor version of Python than this process, so functions cannot travel.

    Byte code differs between minor versions. The message names both.
    """

    __module__ = "evener"

    code = "python-mismatch"


class SerializationError(EvenerError, pickle.PicklingError, TypeError):
    """A function, an argument or a result cannot be pickled or unpickled.

    The message names what it is, where it is, and what to do instead.
    """

    __module__ = "evener"


class InitializerFailed(EvenerError, BrokenExecutor):
    """The initializer of an `Executor` raised in a worker, so the executor takes no more calls."""

    __module__ = "evener"


class WorkerDied(EvenerError, BrokenExecutor):
    """The worker died during the call, and `retries` allows no other try.

    `certificate` says how it died: signal or exit code, whether memory ran out, its last lines of standard error. It is
    empty if the engine knows nothing. Other calls are not affected, and the worker is replaced.
    """

    __module__ = "evener"

    certificate: str = ""


class CallTimeout(EvenerError, _Timeout):
    """The call ran longer than its `timeout`; it was stopped."""

    __module__ = "evener"


class RemoteError(EvenerError):
    """A remote exception that cannot come back as its own type.

    Either it cannot be pickled, or its class is not to be found in this process. `type_name` is its type
    (``package.module.Name``), `message` its text, `remote_traceback` the formatted traceback of the worker.
    """

    __module__ = "evener"

    def __init__(self, type_name: str, message: str = "", remote_traceback: str = "", why: str = "") -> None:
        super().__init__(type_name, message, remote_traceback, why)
        self.type_name = type_name
        self.message = message
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        said = f"{self.type_name}: {self.message}" if self.message else self.type_name
        why = self.args[3]
        return f"{said}\n(It cannot be raised as its own type: {why})" if why else said


class RemoteTraceback(Exception):
    """Stands as the last cause behind an exception that was raised in a worker; its text is the traceback there."""

    __module__ = "evener"

    def __init__(self, text: str = "") -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\n{self.text.rstrip()}\n"
