"""Several methods side by side: a row for each input, its picture first, every picture under the name of its method."""

from __future__ import annotations

import textwrap
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

    from cnnviz.explanation import Explanation
    from cnnviz.protocols import Renderer

GAP, LINE, LETTERS = 10, 19, 15  # pixels: between pictures, from line to line, of the font
SMALLEST = 160  # a picture's longer side, so that small inputs can be seen and names fit


Cell = tuple[list[str], NDArray[np.uint8]]  # what is written above it, and the picture


def grid(
    results: Mapping[str, Explanation],
    renderer: str | Renderer | None = None,
    columns: int | None = None,
    **settings: Any,
) -> NDArray[np.uint8]:
    """One picture (H, W, 3) of the explanations that ``explain`` gave for several methods.

    Images have their own picture first, titled with the class and its score; a method that explained another class
    says so. Small pictures are enlarged by whole numbers. ``columns`` is how many pictures stand side by side before a
    row goes on below; None keeps an input in one row. ``renderer`` and its settings draw all of them, None
    leaves each its own. Raises ValueError for no results, or for results of different batches.
    """
    if not results:
        raise ValueError("there are no results to draw; give explain() at least one method")
    counts = {len(explanation) for explanation in results.values()}
    if len(counts) > 1:
        each = ", ".join(f"{name} {len(explanation)}" for name, explanation in results.items())
        raise ValueError(f"the results are of different numbers of inputs ({each}); draw what was asked together")
    if columns is not None and columns < 1:
        raise ValueError(f"columns={columns} leaves no place for a picture; use 1 or more")
    rows = _rows(results, renderer, settings)
    across = columns or len(rows[0])
    return _sheet([row[start : start + across] for row in rows for start in range(0, len(row), across)])


def _rows(results: Mapping[str, Explanation], renderer: str | Renderer | None, settings: Any) -> list[list[Cell]]:
    """For each input its cells."""
    first = next(iter(results.values()))
    titles = first.titles()
    images = first.inputs.ndim == 4
    rows: list[list[Cell]] = [[] for _ in titles]
    if images:
        originals = first.render("overlay", opacity=0.0)  # the picture itself, as renderers see it
        rows = [[([title], picture)] for title, picture in zip(titles, originals, strict=True)]
    for name, explanation in results.items():
        pictures = explanation.render(renderer, **settings)
        for row, usual, title, picture in zip(rows, titles, explanation.titles(), pictures, strict=True):
            # figures of signals and volumes say their title themselves
            row.append(([name, title] if images and title != usual else [name], picture))
    return rows


def _sheet(lines: list[list[Cell]]) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw

    font = _font()
    lines = [[(says, _enlarged(picture)) for says, picture in line] for line in lines]
    places = range(max(map(len, lines)))
    widths = [max(SMALLEST, *(line[at][1].shape[1] for line in lines if at < len(line))) for at in places]
    captions = [[_caption(says, width, font) for (says, _), width in zip(line, widths, strict=False)] for line in lines]
    above = [LINE * max(map(len, caption)) + 4 for caption in captions]
    heights = [max(picture.shape[0] for _, picture in line) for line in lines]
    height = sum(above) + sum(heights) + GAP * (len(lines) + 1)
    sheet = Image.new("RGB", (sum(widths) + GAP * (len(widths) + 1), height), "white")
    pen = ImageDraw.Draw(sheet)
    top = GAP
    for line, caption, room, tallest in zip(lines, captions, above, heights, strict=True):
        left = GAP
        for (_, picture), text, width in zip(line, caption, widths, strict=False):
            for number, words in enumerate(text):
                base = top + room - 4 - LINE * (len(text) - number) + LINE // 2
                pen.text((left + width / 2, base), words, fill="black", font=font, anchor="mm")
            sheet.paste(Image.fromarray(picture), (left + (width - picture.shape[1]) // 2, top + room))
            left += width + GAP
        top += room + tallest + GAP
    return np.asarray(sheet).copy()


def _enlarged(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    factor = max(1, -(-SMALLEST // max(picture.shape[:2])))
    return picture.repeat(factor, 0).repeat(factor, 1)


def _font() -> FreeTypeFont:
    import matplotlib
    from PIL import ImageFont

    # Pillow's own font has few letters beyond ASCII
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), LETTERS)


def _caption(says: list[str], width: int, font: FreeTypeFont) -> list[str]:
    """Lines as long as fit so many pixels; words are broken only where one alone is too long."""

    def wrapped(letters: int) -> list[str]:
        return [line for text in says for line in textwrap.wrap(text, letters)]

    def too_wide(letters: int) -> bool:
        return any(font.getlength(line) > width for line in wrapped(letters))

    longest = max(map(len, says))
    return wrapped(max(1, bisect_left(range(1, longest + 1), True, key=too_wide)))
