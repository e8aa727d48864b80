"""Several methods side by side: a row for each input, its picture first, every picture under the name of its method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cnnviz.drawing.text import LINE, font, lines

if TYPE_CHECKING:
    from cnnviz.explanations.explanation import Explanation
    from cnnviz.registry.protocols import Renderer

GAP = 10  # pixels between pictures
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
    return sheet([row[start : start + across] for row in rows for start in range(0, len(row), across)])


def _rows(results: Mapping[str, Explanation], renderer: str | Renderer | None, settings: Any) -> list[list[Cell]]:
    """For each input its cells."""
    first = next(iter(results.values()))
    titles = first.titles()
    images = first.inputs.ndim == 4
    rows: list[list[Cell]] = [[] for _ in titles]
    if images:
        blank = replace(first, values=first.inputs[:, :1] * 0)  # whatever the values are, they are no part of it
        originals = blank.render("overlay", opacity=0.0)  # the picture itself, as renderers see it
        rows = [[([title], picture)] for title, picture in zip(titles, originals, strict=True)]
    for name, explanation in results.items():
        pictures = explanation.render(renderer, **settings)
        for row, usual, title, picture in zip(rows, titles, explanation.titles(), pictures, strict=True):
            # figures of signals and volumes say their title themselves
            row.append(([name, title] if images and title != usual else [name], picture))
    return rows


def sheet(rows: Sequence[Sequence[Cell]]) -> NDArray[np.uint8]:
    """Pictures in rows, (H, W, 3), each under what is written above it."""
    from PIL import Image, ImageDraw

    rows = [[(says, _enlarged(picture)) for says, picture in row] for row in rows]
    places = range(max(map(len, rows)))
    widths = [max(SMALLEST, *(row[at][1].shape[1] for row in rows if at < len(row))) for at in places]
    captions = [[lines(says, width) for (says, _), width in zip(row, widths, strict=False)] for row in rows]
    above = [LINE * max(map(len, caption)) + 4 for caption in captions]
    heights = [max(picture.shape[0] for _, picture in row) for row in rows]
    height = sum(above) + sum(heights) + GAP * (len(rows) + 1)
    whole = Image.new("RGB", (sum(widths) + GAP * (len(widths) + 1), height), "white")
    pen = ImageDraw.Draw(whole)
    top = GAP
    for row, caption, room, tallest in zip(rows, captions, above, heights, strict=True):
        left = GAP
        for (_, picture), text, width in zip(row, caption, widths, strict=False):
            for number, words in enumerate(text):
                base = top + room - 4 - LINE * (len(text) - number) + LINE // 2
                pen.text((left + width / 2, base), words, fill="black", font=font(), anchor="mm")
            whole.paste(Image.fromarray(picture), (left + (width - picture.shape[1]) // 2, top + room))
            left += width + GAP
        top += room + tallest + GAP
    return np.asarray(whole).copy()


def _enlarged(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    factor = max(1, -(-SMALLEST // max(picture.shape[:2])))
    return picture.repeat(factor, 0).repeat(factor, 1)
