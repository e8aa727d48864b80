"""Text in pictures: a font with letters of many languages, and lines that fit."""

from __future__ import annotations

import textwrap
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

LINE, LETTERS = 19, 15  # pixels: from line to line, of the font


@cache
def font(letters: int = LETTERS) -> FreeTypeFont:
    """A font of that size in pixels."""
    import matplotlib
    from PIL import ImageFont

    # Pillow's own font has few letters beyond ASCII
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), letters)


def lines(texts: Sequence[str], width: int, letters: int = LETTERS) -> list[str]:
    """Each text in lines as long as fit so many pixels; words are broken only where one alone is too long."""
    measure = font(letters)

    def wrapped(longest: int) -> list[str]:
        return [line for text in texts for line in textwrap.wrap(text, longest)]

    def too_wide(longest: int) -> bool:
        return any(measure.getlength(line) > width for line in wrapped(longest))

    most = max(map(len, texts), default=0)
    return wrapped(max(1, bisect_left(range(1, most + 1), True, key=too_wide)))
