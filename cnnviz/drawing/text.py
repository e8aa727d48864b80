"""Text in pictures: drawn and measured in letters of any script, and wrapped to a width."""

from __future__ import annotations

import textwrap
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cnnviz.drawing.fonts import parts, usual_face

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

LINE, LETTERS = 19, 15  # pixels: from line to line; size of the font


def font(letters: int = LETTERS) -> FreeTypeFont:
    """DejaVu Sans at that size in pixels."""
    return usual_face().sized(letters)


def text_width(text: str, letters: int = LETTERS) -> float:
    """How many pixels wide :func:`draw_text` draws the text."""
    return sum(face.sized(letters).getlength(part) for face, part in parts(text))


def draw_text(
    pen: ImageDraw,
    place: tuple[float, float],
    text: str,
    fill: str = "black",
    letters: int = LETTERS,
    anchor: str = "la",
) -> None:
    """Draw a line of text in fonts that have its letters, of that size in pixels.

    Args:
        pen: of the picture that is drawn on.
        place: the x and y in pixels that the text is placed at.
        text: the line.
        fill: the colour.
        letters: the size of the font in pixels.
        anchor: Pillow's: l, m or r for where the place is across the text, then a or m for the top or the middle.
    """
    pieces = parts(text)
    if len(pieces) == 1:
        pen.text(place, text, fill=fill, font=pieces[0][0].sized(letters), anchor=anchor)
        return
    ascent, descent = font(letters).getmetrics()
    left = place[0] - {"l": 0, "m": 0.5, "r": 1}[anchor[0]] * text_width(text, letters)
    baseline = place[1] + {"a": float(ascent), "m": (ascent - descent) / 2}[anchor[1]]
    for face, part in pieces:  # fonts differ in height, and stand on one line
        pen.text((left, baseline), part, fill=fill, font=face.sized(letters), anchor="ls")
        left += face.sized(letters).getlength(part)


def lines(texts: Sequence[str], width: float, letters: int = LETTERS) -> list[str]:
    """Each text in lines of at most ``width`` pixels, in fonts of that size in pixels."""
    return wrapped_to(width, texts, lambda line: text_width(line, letters))


def wrapped_to(width: float, texts: Sequence[str], measure: Callable[[str], float]) -> list[str]:
    """Each text in lines that measure at most ``width``; words are broken only where a single one is wider."""

    def broken(longest: int) -> list[str]:
        return [line for text in texts for line in textwrap.wrap(text, longest)]

    def too_wide(longest: int) -> bool:
        return any(measure(line) > width for line in broken(longest))

    most = max(map(len, texts), default=0)
    return broken(max(1, bisect_left(range(1, most + 1), True, key=too_wide)))
