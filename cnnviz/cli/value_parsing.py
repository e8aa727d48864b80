"""Names, numbers, sizes and amounts of memory as people type them. Raises ValueError for what is none of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def names(texts: Sequence[str] | None, default: str) -> list[str]:
    """The names in ``a,b`` and in repeated options, each once."""
    return list(dict.fromkeys(name.strip() for text in texts or [default] for name in text.split(",")))


def numbers(
    text: str | None,
    option: str,
    kind: type[int] | type[float] = float,
    form: str = "numbers with commas between, such as 0.5,0.5,0.5",
) -> tuple[Any, ...] | None:
    """``0.5,0.5,0.5`` as numbers of a kind; ``form`` tells the user how they are typed. None for no text."""
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option} is {form}, not {text!r}") from None


def lengths(text: str | None, option: str = "--size") -> tuple[int, ...] | None:
    """``224`` or ``224x320`` (height x width) as pixels. None for no text."""
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}([x,][0-9]{1,9})*", text):
        raise ValueError(f"{option} is pixels, such as 224, or height x width, such as 224x320, not {text!r}")
    return tuple(int(length) for length in re.split("[x,]", text))


def size(text: str | None) -> int | tuple[int, int] | None:
    """The size of pictures: a square's side, or height and width. None for no text."""
    match lengths(text):
        case None:
            return None
        case (side,):
            return side
        case (height, width):
            return height, width
    raise ValueError(f"--size of pictures is 224 or 224x320, not {text!r}")


def count(text: str, option: str) -> int:
    """``200M`` or ``1000000`` as a number."""
    parts = re.fullmatch(r"([0-9][0-9_,]{0,17}(?:\.[0-9]+)?)\s*([kmg]?)", text.strip().lower())
    if parts is None:
        raise ValueError(f"{option} is a number such as 200M, not {text!r}")
    return int(float(re.sub("[_,]", "", parts[1])) * 1000 ** "_kmg".index(parts[2] or "_"))


def byte_count(text: str | None) -> int | None:
    """``512MB`` or ``2GiB`` as bytes. None for no text."""
    if text is None:
        return None
    parts = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]+)?)\s*([kmg]?)(i?)b?", text.strip().lower())
    if parts is None:
        raise ValueError(f"--memory is a size such as 512MB or 2GB, not {text!r}")
    return int(float(parts[1]) * (1024 if parts[3] else 1000) ** "_kmg".index(parts[2] or "_"))
