"""Evener spreads work evenly over a pool of workers, and brings every result back to whoever asked.

This package holds what the code of a stage uses. A stage is a function of one value, or of a value and a `Context`, or
a class whose instances are such functions::

    import evener

    def parse(request):
        if "possible_prime" not in request.query:
            raise evener.Abort(400, "the query parameter possible_prime is missing")
        return int(request.query["possible_prime"])

What it returns goes to the next stage, or answers the client if there is none. `Response` answers at once, `Goto` goes
elsewhere, `Abort` refuses.
"""

from evener._worker import (
    Abort,
    Cancelled,
    Context,
    Goto,
    Headers,
    MultiDict,
    Request,
    Response,
    __version__,
)

__all__ = [
    "Abort",
    "Cancelled",
    "Context",
    "Goto",
    "Headers",
    "MultiDict",
    "Request",
    "Response",
    "__version__",
]
