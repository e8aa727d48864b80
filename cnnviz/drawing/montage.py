"""Pictures put together into one, as pixels: tiles side by side, rows of pictures under captions, grids of methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cnnviz.drawing.text import LETTERS, LINE, draw_text, lines

Pixels = NDArray[np.uint8]  # (H, W, 3), or of a batch (N, H, W, 3)
T = TypeVar("T")
Cell = tuple[list[str], Pixels]  # the caption above, and the picture


@dataclass(frozen=True)
class Layout:
    """Measures of a montage in pixels."""

    gap: int = 10
    """Between pictures, and around them."""
    column: int = 160
    """The least width of a column, so that captions fit."""
    letters: int = LETTERS
    """The size of the font of captions."""
    line: int = LINE
    """From line to line of a caption."""
    below: int = 4
    """Between a caption and its picture."""


SHEET = Layout()
PAGE = 8000  # pixels: the longest side of a page; viewers open it, and every format takes it


@dataclass(frozen=True)
class Page:
    """Some of many pictures in one, and which of them these are."""

    picture: Pixels
    items: slice


def sheet(rows: Sequence[Sequence[Cell]]) -> Pixels:
    """Pictures in rows, (H, W, 3), each under its caption; small ones are enlarged so that their captions fit."""
    return laid_out([[(caption, enlarged(picture, SHEET.column)) for caption, picture in row] for row in rows])


def laid_out(rows: Sequence[Sequence[Cell]], layout: Layout = SHEET) -> Pixels:
    """Pictures in rows, (H, W, 3), each under its caption, which is wrapped to the width of the column."""
    columns = range(max(map(len, rows)))
    widths = [max(layout.column, *(row[n][1].shape[1] for row in rows if n < len(row))) for n in columns]
    captions = [
        [lines(caption, width, layout.letters) for (caption, _), width in zip(row, widths, strict=False)]
        for row in rows
    ]
    above = [layout.line * max(map(len, caption)) + layout.below for caption in captions]
    heights = [max(picture.shape[0] for _, picture in row) for row in rows]
    height = sum(above) + sum(heights) + layout.gap * (len(rows) + 1)
    canvas = Image.new("RGB", (sum(widths) + layout.gap * (len(widths) + 1), height), "white")
    pen = ImageDraw.Draw(canvas)
    top = layout.gap
    for row, caption, room, tallest in zip(rows, captions, above, heights, strict=True):
        left = layout.gap
        for (_, picture), text, width in zip(row, caption, widths, strict=False):
            for number, line in enumerate(text):
                middle = top + room - layout.below - layout.line * (len(text) - number) + layout.line // 2
                draw_text(pen, (left + width / 2, middle), line, letters=layout.letters, anchor="mm")
            canvas.paste(Image.fromarray(picture), (left + (width - picture.shape[1]) // 2, top + room))
            left += width + layout.gap
        top += room + tallest + layout.gap
    return np.asarray(canvas).copy()


def paged(items: Sequence[Sequence[Sequence[Cell]]], longest: int = PAGE) -> list[Page]:
    """Sheets of many items, each some rows of cells: beside and below each other, so that a sheet is almost square.

    A page has at most ``longest`` pixels on a side, unless a single item is larger.
    """
    small = [
        [[(caption, enlarged(picture, SHEET.column)) for caption, picture in row] for row in item] for item in items
    ]
    width = max(_width(row) for item in small for row in item)
    height = max(sum(map(_height, item)) for item in small)
    across, down = (max(1, (longest - SHEET.gap) // length) for length in (width, height))
    pages = []
    for start in range(0, len(small), across * down):
        part = small[start : start + across * down]
        columns = min(across, max(round((len(part) * height / width) ** 0.5), -(-len(part) // down), 1))
        rows = [row for line in in_rows(part, columns) for row in _beside(line)]
        pages.append(Page(laid_out(rows), slice(start, start + len(part))))
    return pages


def _beside(items: Sequence[Sequence[Sequence[Cell]]]) -> list[list[Cell]]:
    """Items side by side: rows of as many cells for each of them as its longest row has."""
    blank: Cell = ([], np.full((1, 1, 3), 255, np.uint8))
    longest = max(len(row) for item in items for row in item)
    return [
        [cell for row in rows for cell in (*row, *[blank] * (longest - len(row)))]
        for rows in zip_longest(*items, fillvalue=())
    ]


def _width(row: Sequence[Cell]) -> int:
    """Of the row and the gaps behind its cells."""
    return sum(max(SHEET.column, picture.shape[1]) + SHEET.gap for _, picture in row)


def _height(row: Sequence[Cell]) -> int:
    """Of the row with its captions and the gap below it."""
    captions = [lines(caption, max(SHEET.column, picture.shape[1]), SHEET.letters) for caption, picture in row]
    above = SHEET.line * max(map(len, captions)) + SHEET.below
    return above + max(len(picture) for _, picture in row) + SHEET.gap


def in_rows(cells: Sequence[T], columns: int) -> list[Sequence[T]]:
    """The cells in rows of so many."""
    return [cells[start : start + columns] for start in range(0, len(cells), columns)]


def tiled(pictures: Sequence[Pixels], columns: int, gap: int = 0) -> Pixels:
    """Pictures of one size in rows of so many, (H, W, 3), with ``gap`` white pixels between them."""
    from skimage.util import montage

    shape = (-(-len(pictures) // columns), columns)
    white = (255, 255, 255)
    tiles: Pixels = montage(np.stack(pictures), white, grid_shape=shape, padding_width=gap, channel_axis=-1)
    return tiles[gap : len(tiles) - gap, gap : tiles.shape[1] - gap]  # scikit-image pads the border as well


def enlarged(picture: Pixels, side: int) -> Pixels:
    """The picture enlarged by a whole number, so that its longer side has at least so many pixels."""
    return _repeated(picture, max(1, -(-side // max(picture.shape[:2]))))


def fitted(picture: Pixels, side: int, resampling: str = "LANCZOS") -> Pixels:
    """The picture at the size where its longer side has at most so many pixels.

    A small one is enlarged by the largest whole number, so that every value stays a square; a large one is reduced by
    Pillow's ``resampling`` of that name.
    """
    longest = max(picture.shape[:2])
    if longest <= side:
        return _repeated(picture, side // longest)
    height, width = (max(1, round(length * side / longest)) for length in picture.shape[:2])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling[resampling]))


def _repeated(picture: Pixels, factor: int) -> Pixels:
    return picture.repeat(factor, 0).repeat(factor, 1)
