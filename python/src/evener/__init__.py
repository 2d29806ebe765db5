"""Evener spreads work evenly over a pool of workers, and brings every result back to whoever asked.

This package has two faces. One is what the code of a stage uses. A stage is a function of one value, or of a value and
a `Context`, or a class whose instances are such functions::

    import evener

    def parse(request):
        if "possible_prime" not in request.query:
            raise evener.Abort(400, "the query parameter possible_prime is missing")
        return int(request.query["possible_prime"])

What it returns goes to the next stage, or answers the client if there is none. `Response` answers at once, `Goto` goes
elsewhere, `Abort` refuses.

The other is for functions that are called from here and run in workers::

    @evener.function
    def square(x):
        return x * x

    square.run(3)                     # in a worker
    square.submit(3).result()         # the same, with a future
    list(square.map(range(1000)))     # many

With `EVENER_URL` the workers are those of a running engine; without it a private one starts by itself, and ends with
the program. `Client` is a connection of one's own, `Executor` a `concurrent.futures.Executor`, and `EvenerError` the
base of all errors.
"""

from __future__ import annotations as _annotations

import typing as _typing

from evener._worker import (
    Abort,
    Cancelled,
    Context,
    Goto,
    Headers,
    MultiDict,
    Request,
    Response,
    State,
    StateRefused,
    __version__,
    context,
)

if _typing.TYPE_CHECKING:
    from evener._client import Client, Worker
    from evener._compute_this import compute_this
    from evener._errors import (
        AuthenticationError,
        CallTimeout,
        ConnectError,
        EngineLost,
        EvenerError,
        ForkError,
        InitializerFailed,
        PoolUnavailable,
        PythonMismatch,
        RemoteError,
        RemoteTraceback,
        SerializationError,
        UnknownPool,
        WorkerDied,
    )
    from evener._executor import Executor
    from evener._function import Function, function
    from evener._future import Future, as_completed, wait

__all__ = [
    "Abort",
    "AuthenticationError",
    "CallTimeout",
    "Cancelled",
    "Client",
    "ConnectError",
    "Context",
    "EngineLost",
    "EvenerError",
    "Executor",
    "ForkError",
    "Function",
    "Future",
    "Goto",
    "Headers",
    "InitializerFailed",
    "MultiDict",
    "PoolUnavailable",
    "PythonMismatch",
    "RemoteError",
    "RemoteTraceback",
    "Request",
    "Response",
    "SerializationError",
    "State",
    "StateRefused",
    "UnknownPool",
    "Worker",
    "WorkerDied",
    "__version__",
    "as_completed",
    "compute_this",
    "context",
    "function",
    "wait",
]

# Where the names of the client are. A stage's worker imports this package too, and has no use for any of it, so each is
# imported when somebody asks for it.
_PLACES = {
    "_client": ("Client", "Worker"),
    "_compute_this": ("compute_this",),
    "_errors": (
        "AuthenticationError",
        "CallTimeout",
        "ConnectError",
        "EngineLost",
        "EvenerError",
        "ForkError",
        "InitializerFailed",
        "PoolUnavailable",
        "PythonMismatch",
        "RemoteError",
        "RemoteTraceback",
        "SerializationError",
        "UnknownPool",
        "WorkerDied",
    ),
    "_executor": ("Executor",),
    "_function": ("Function", "function"),
    "_future": ("Future", "as_completed", "wait"),
}
_HOME = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> object:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module 'evener' has no attribute {name!r}")
    import importlib  # noqa: PLC0415 (see above)

    found: object = getattr(importlib.import_module(f"evener.{module}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
