"""How large a picture or an array may be that is read, so that a small file does not fill memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

LIMIT = 64_000_000
"""Pixels of a picture, or places of an array: its values of one channel."""
RAISE = "raise the limit (--limit 200M; in Python: with cnnviz.images.pixel_limit(200_000_000))"
_limits: list[int] = []
_changing = threading.Lock()


@contextmanager
def pixel_limit(pixels: int) -> Iterator[None]:
    """Read pictures of up to so many pixels inside of ``with``, and arrays of up to so many places.

    It holds for the whole process, as Pillow's own limit does, which is raised with it where that is needed. Raises
    ValueError for a number below 1.
    """
    if pixels < 1:
        raise ValueError(f"a limit of {pixels} pixels leaves no picture; give 1 or more")
    with _changing:
        before = Image.MAX_IMAGE_PIXELS
        _limits.append(pixels)
        if before is not None and pixels > before:
            Image.MAX_IMAGE_PIXELS = pixels
    try:
        yield
    finally:
        with _changing:
            _limits.remove(pixels)
            Image.MAX_IMAGE_PIXELS = before


def current_limit() -> int:
    """The limit that holds now."""
    return _limits[-1] if _limits else LIMIT
