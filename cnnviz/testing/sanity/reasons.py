"""Why a check gives no figures, as a page tells it."""

from __future__ import annotations

ANY = (Exception, SystemExit)
"""What a method, or a network with random weights, may raise."""


def reason(error: BaseException) -> str:
    """In one line; of an error that is not about what was asked, with its type."""
    line = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    if line and isinstance(error, ValueError | TypeError | LookupError | RuntimeError):
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
