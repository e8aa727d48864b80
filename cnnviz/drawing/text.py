"""Text in pictures: a font with letters of many languages, and the wrapping of text to a width."""

from __future__ import annotations

import textwrap
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

LINE, LETTERS = 19, 15  # pixels: from line to line; size of the font


@cache
def font(letters: int = LETTERS) -> FreeTypeFont:
    """DejaVu Sans at that size in pixels."""
    import matplotlib
    from PIL import ImageFont

    # Pillow's own font has few letters beyond ASCII
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), letters)


def lines(texts: Sequence[str], width: float, letters: int = LETTERS) -> list[str]:
    """Each text in lines of at most ``width`` pixels, in the font of that size in pixels."""
    return wrapped_to(width, texts, font(letters).getlength)


def wrapped_to(width: float, texts: Sequence[str], measure: Callable[[str], float]) -> list[str]:
    """Each text in lines that measure at most ``width``; words are broken only where a single one is wider."""

    def broken(longest: int) -> list[str]:
        return [line for text in texts for line in textwrap.wrap(text, longest)]

    def too_wide(longest: int) -> bool:
        return any(measure(line) > width for line in broken(longest))

    most = max(map(len, texts), default=0)
    return broken(max(1, bisect_left(range(1, most + 1), True, key=too_wide)))
