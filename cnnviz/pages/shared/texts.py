"""Texts that come from anywhere (names of files and classes, recipes), as a page shows them."""

from __future__ import annotations

import re
import unicodedata

MOST = 160
JOINS = "\u200d"  # emoji of several signs are joined by it; it steers nothing else
KEPT = f"\n\t{JOINS}"


def plain_letters(text: str) -> str:
    """The text in its lines, with a replacement character for letters that steer its direction or that no file holds.

    Names come from anywhere: of files that are no UTF-8, or with the escapes of terminals.
    """
    return "".join(letter if _is_plain(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _is_plain(letter: str) -> bool:
    return letter.isprintable() or letter in KEPT or unicodedata.category(letter) == "Zs"  # spaces of any width


def shown(text: object, most: int = MOST) -> str:
    """The text in one line, without letters that steer a page's direction or that no file can hold.

    Each of these becomes a replacement character. Of a text that is longer than ``most`` the middle is left out: names
    of files differ at both ends.
    """
    line = plain_letters(" ".join(str(text).split()))
    if len(line) <= most:
        return line
    end = most // 3
    return f"{line[: most - end - 1].rstrip()}\N{HORIZONTAL ELLIPSIS}{line[-end:].lstrip()}"


def counted(count: int, name: str, several: str | None = None) -> str:
    """A number with what is counted: ``1 picture``, ``8 pictures``."""
    return f"{count:,} {name if count == 1 else several or name + 's'}"


def plain(text: str) -> str:
    """A line of a docstring without the marks of the documentation: ``code`` and roles such as :func:`name`."""
    return re.sub(r":\w+(?::\w+)*:`~?([^`]*)`", r"\1", text).replace("``", "").replace("`", "")


def short_number(value: float) -> str:
    """Three digits, and a real minus."""
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")
