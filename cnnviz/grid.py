"""Several methods side by side: a row for each input, its picture first, every picture under the name of its method."""

from __future__ import annotations

import textwrap
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
    drawn = {name: explanation.render(renderer, **settings) for name, explanation in results.items()}
    first = next(iter(results.values()))
    titles = first.titles()
    if first.inputs.ndim == 4:
        originals = first.render("overlay", opacity=0.0)  # the picture itself, as renderers see it
    font = _font()
    rows = []
    for item in range(len(first)):
        cells = [(titles[item], originals[item])] if first.inputs.ndim == 4 else []
        for name, explanation in results.items():
            title = explanation.titles()[item]
            titled = first.inputs.ndim != 4 or title == titles[item]  # figures of signals and volumes say it themselves
            cells.append((name if titled else f"{name}\n{title}", drawn[name][item]))
        rows.append([(says, _enlarged(picture)) for says, picture in cells])
    across = columns or len(rows[0])
    lines = [row[start : start + across] for row in rows for start in range(0, len(row), across)]
    return _sheet(lines, font)


def _sheet(lines: list[list[tuple[str, NDArray[np.uint8]]]], font: FreeTypeFont) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw

    widths = [
        max(SMALLEST, *(line[place][1].shape[1] for line in lines if place < len(line)))
        for place in range(max(map(len, lines)))
    ]
    captions = [[_wrapped(says, width, font) for (says, _), width in zip(line, widths, strict=False)] for line in lines]
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


def _wrapped(text: str, width: int, font: FreeTypeFont) -> list[str]:
    """The fewest lines that are no wider than so many pixels; words are broken only where one alone is too long."""
    lines = []
    for paragraph in text.split("\n"):
        for letters in range(max(2, len(paragraph)), 0, -1):
            broken = textwrap.wrap(paragraph, letters)
            if letters == 1 or all(font.getlength(each) <= width for each in broken):
                lines += broken
                break
    return lines
