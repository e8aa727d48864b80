"""Numbers, sizes and amounts of memory as people type them."""

from __future__ import annotations

import re


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """``0.5,0.5,0.5`` as numbers. Raises ValueError."""
    if text is None:
        return None
    try:
        return tuple(float(each) for each in text.split(","))
    except ValueError:
        raise ValueError(f"{option} is numbers with commas between, such as 0.5,0.5,0.5, not {text!r}") from None


def lengths(text: str | None, option: str = "--size") -> tuple[int, ...] | None:
    """``224`` or ``224x320`` (height x width) as pixels. Raises ValueError."""
    if text is None:
        return None
    if not re.fullmatch(r"\d+([x,]\d+)*", text):
        raise ValueError(f"{option} is pixels, such as 224, or height x width, such as 224x320, not {text!r}")
    return tuple(int(each) for each in re.split("[x,]", text))


def size(text: str | None) -> int | tuple[int, int] | None:
    """The size of pictures: a square's side, or height and width. Raises ValueError."""
    match lengths(text):
        case None:
            return None
        case (side,):
            return side
        case (height, width):
            return height, width
    raise ValueError(f"--size of pictures is 224 or 224x320, not {text!r}")


def byte_count(text: str | None) -> int | None:
    """``512MB`` or ``2GiB`` as bytes. Raises ValueError."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)(i?)b?", text.strip().lower())
    if found is None:
        raise ValueError(f"--memory is a size such as 512MB or 2GB, not {text!r}")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** "_kmg".index(found[2] or "_"))
