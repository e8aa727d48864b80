"""Command lines as text, which a shell reads back whatever the names of files hold."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable


def shell_line(words: Iterable[str]) -> str:
    """The words as one line for a POSIX shell, of letters that every page and terminal can hold.

    A word with control characters, letters that steer a line's direction, or bytes that are no UTF-8 is written as
    ``$'...'`` with these as bytes.
    """
    return " ".join(shlex.quote(word) if word.isprintable() else _as_bytes(word) for word in words)


def _as_bytes(word: str) -> str:
    return f"$'{''.join(map(_escaped, word))}'"


def _escaped(letter: str) -> str:
    if letter in "\\'":
        return f"\\{letter}"
    return letter if letter.isprintable() else "".join(f"\\{byte:03o}" for byte in os.fsencode(letter))
