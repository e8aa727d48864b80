"""Every channel of a layer as a small picture under its number, all in one montage.

A layer may have thousands of channels, so the montage is made of pixels: a matplotlib figure with axes for each would
take minutes.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from cnnviz import Explanation, Renderer, renderer
from cnnviz.drawing import (
    ROUNDING,
    Floats,
    Layout,
    Pixels,
    as_uint8,
    check_rank,
    draw_text,
    fitted,
    in_rows,
    laid_out,
    lines,
    values_of,
)

COLUMNS = 20  # unless there are many channels
WIDEST = 1600  # pixels: of a row of tiles
SMALLEST, LARGEST = 40, 256  # pixels: of a tile's longer side
LAYOUT = Layout(gap=4, column=SMALLEST, letters=10, line=13, below=0)
HEADING, LARGE = 24, 14  # pixels: from line to line of the heading, size of its font
FINE = 3  # a curve is drawn so many times larger, and reduced
NEGATIVE = np.array((0.15, 0.45, 1.0))


@renderer(ranks=(1, 2, 3), canvas="figure")
def channels(columns: int | None = None, most: int | None = None, shared: bool = False) -> Renderer:
    """Every channel as a small picture under its number: images gray, volumes' maximum projections, signals' curves.

    Black is zero and white the strongest value of the channel, or with ``shared`` of all channels; what is negative is
    blue. ``most`` keeps the channels with the highest means, the highest first. ``columns`` None is 20, and more where
    the sheet would have more rows than columns.
    """
    for name, value in (("columns", columns), ("most", most)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} leaves no place for a picture; use 1 or more")

    def draw(explanation: Explanation) -> Pixels:
        check_rank(explanation, "channels", 1, 2, 3)
        values = values_of(explanation, channels=explanation.values.shape[1])
        count = values.shape[1]
        numbers = [_strongest(maps, most) for maps in values]
        across = min(len(numbers[0]), columns or max(COLUMNS, math.ceil(math.sqrt(len(numbers[0])))))
        heading = f"{explanation.recipe}: {count} channels" + (
            f", the strongest {most}" if len(numbers[0]) < count else ""
        )
        strengths = [_strengths(maps, shared) for maps in values]
        return np.stack([_sheet(*item, heading, across) for item in zip(strengths, numbers, strict=True)])

    return draw


def _strongest(values: Floats, most: int | None) -> list[int]:
    """The indices of the channels to draw."""
    if most is None:
        return list(range(len(values)))
    means = values.reshape(len(values), -1).mean(1)
    return [int(number) for number in np.argsort(-means, kind="stable")[:most]]


def _strengths(values: Floats, shared: bool) -> Floats:
    """Channels (C, ...) within -1 and 1. A constant channel is drawn at its level: its feature is everywhere."""
    magnitudes = np.abs(values)
    peaks = magnitudes.max(None if shared else tuple(range(1, values.ndim)), keepdims=True)
    active = peaks > ROUNDING * magnitudes.max()  # of a feature that is nowhere there are roundings
    strengths: Floats = np.divide(values, peaks, out=np.zeros_like(values), where=active)
    return strengths


def _sheet(strengths: Floats, numbers: list[int], heading: str, columns: int) -> Pixels:
    """The channels (C, *spatial) of those numbers, in rows of so many."""
    side = int(np.clip(WIDEST // columns - LAYOUT.gap, SMALLEST, LARGEST))
    cells = [([f"f:{number}"], _tile(strengths[number], side)) for number in numbers]
    tiles = laid_out(in_rows(cells, columns), LAYOUT)
    width = max(tiles.shape[1], LARGEST)
    text = lines([heading], width - 2 * LAYOUT.gap, LARGE)
    canvas = Image.new("RGB", (width, HEADING * len(text) + len(tiles) + LAYOUT.gap), "white")
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(text):
        middle = LAYOUT.gap + HEADING * (number + 0.4)
        draw_text(pen, (LAYOUT.gap, middle), line, letters=LARGE, anchor="lm")
    canvas.paste(Image.fromarray(tiles), (0, HEADING * len(text)))
    return np.asarray(canvas).copy()


def _tile(strengths: Floats, side: int) -> Pixels:
    """A channel (*spatial) as a picture whose longer side is about so many pixels."""
    if strengths.ndim == 1:
        return _curve(strengths, side)
    picture = as_uint8(_colors(_projected(strengths) if strengths.ndim == 3 else strengths))
    return fitted(picture, side, "BOX")


def _projected(volume: Floats) -> Floats:
    """Of every column in depth the value of the highest magnitude."""
    projected: Floats = np.take_along_axis(volume, np.abs(volume).argmax(0)[None], 0)[0]
    return projected


def _colors(strengths: Floats) -> Floats:
    """Gray (..., 3) for strengths from 0 to 1, blue for those below."""
    return np.where(strengths[..., None] < 0, -strengths[..., None] * NEGATIVE, strengths[..., None])


def _curve(strengths: Floats, side: int) -> Pixels:
    """A line from left to right, with zero in the middle, where it stays whatever the channel's signs."""
    height, width = side // 2 * FINE, side * FINE
    tile = Image.new("RGB", (width, height), "black")
    pen = ImageDraw.Draw(tile)
    pen.line([(0, height / 2), (width, height / 2)], fill=(90, 90, 90), width=FINE)
    across = (np.arange(len(strengths)) + 0.5) / len(strengths) * width
    down = height / 2 - strengths * (height / 2 - FINE)
    points = list(zip(across.tolist(), down.tolist(), strict=True))
    pen.line([(0.0, points[0][1]), *points, (float(width), points[-1][1])], fill="white", width=FINE)
    return np.asarray(tile.resize((side, side // 2), Image.Resampling.BOX))
