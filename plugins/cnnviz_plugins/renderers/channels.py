"""Every channel of a layer as a small picture under its number, many to a sheet.

A layer may have thousands, so a sheet is one array that tiles are copied into: a figure with an axis for each would
take minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cnnviz import Explanation, renderer
from cnnviz_plugins.renderers._arrays import as_uint8, check_rank, values_of
from cnnviz_plugins.renderers._figure import wrapped
from cnnviz_plugins.renderers._intensity import ALIKE, Floats

Draw = Callable[[Explanation], NDArray[np.uint8]]
ACROSS = 20  # tiles in a row, of not too many channels
SPREAD = 1600  # pixels that a row of tiles may take
SMALLEST, LARGEST = 40, 256  # pixels: of a tile's longer side
GAP, LABEL, HEADING = 4, 13, 24
LETTERS, LARGE = 10, 14  # pixels: of a label, of the heading
FINE = 3  # a curve is drawn so many times larger, and reduced
NEGATIVE = np.array((0.15, 0.45, 1.0))


@renderer(ranks=(1, 2, 3))
def channels(columns: int | None = None, most: int | None = None, shared: bool = False) -> Draw:
    """Every channel as a small picture under its number: images gray, volumes' maximum projections, signals' curves.

    Black is zero and white the strongest value of the channel, or with ``shared`` of all channels; what is negative is
    blue. ``most`` keeps the channels with the highest means, the highest first. ``columns`` None is 20, and more where
    the sheet would have more rows than columns.
    """
    for name, value in (("columns", columns), ("most", most)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} leaves no place for a picture; use 1 or more")

    def draw(explanation: Explanation) -> NDArray[np.uint8]:
        check_rank(explanation, "channels", 1, 2, 3)
        values = values_of(explanation, channels=explanation.values.shape[1])
        count = values.shape[1]
        numbers = [_strongest(each, most) for each in values]
        across = min(len(numbers[0]), columns or max(ACROSS, math.ceil(math.sqrt(len(numbers[0])))))
        heading = f"{explanation.recipe}: {count} channels" + (
            f", the strongest {most}" if len(numbers[0]) < count else ""
        )
        strengths = np.stack([_strengths(each, shared) for each in values])
        return np.stack([_sheet(each, shown, heading, across) for each, shown in zip(strengths, numbers, strict=True)])

    return draw


def _strongest(values: Floats, most: int | None) -> list[int]:
    """The numbers of the channels to show."""
    if most is None:
        return list(range(len(values)))
    means = values.reshape(len(values), -1).mean(1)
    return [int(number) for number in np.argsort(-means, kind="stable")[:most]]


def _strengths(values: Floats, shared: bool) -> Floats:
    """Channels (C, ...) within -1 and 1. One that is alike everywhere keeps its level: it found its feature there."""
    magnitudes = np.abs(values)
    peaks = magnitudes.max(None if shared else tuple(range(1, values.ndim)), keepdims=True)
    seen = peaks > ALIKE * magnitudes.max()  # a filter that found nothing gives roundings
    strengths: Floats = np.divide(values, peaks, out=np.zeros_like(values), where=seen)
    return strengths


def _sheet(strengths: Floats, numbers: list[int], heading: str, across: int) -> NDArray[np.uint8]:
    """The channels (C, *spatial) of those numbers, so many in a row."""
    side = int(np.clip(SPREAD // across - GAP, SMALLEST, LARGEST))
    tiles = [_tile(strengths[number], side) for number in numbers]
    height, width = tiles[0].shape[:2]
    room, row = max(width, SMALLEST), height + LABEL + GAP
    whole = max(across * (room + GAP) + GAP, LARGEST)
    lines = wrapped(heading, whole - 2 * GAP)
    top = GAP + HEADING * len(lines)
    sheet = Image.new("RGB", (whole, top + -(-len(tiles) // across) * row + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        pen.text((GAP, GAP + HEADING * (number + 0.4)), line, fill="black", font=_font(LARGE), anchor="lm")
    for place, (number, tile) in enumerate(zip(numbers, tiles, strict=True)):
        left, above = GAP + place % across * (room + GAP), top + place // across * row
        pen.text((left + room / 2, above), f"f:{number}", fill="black", font=_font(LETTERS), anchor="ma")
        sheet.paste(Image.fromarray(tile), (left + (room - width) // 2, above + LABEL))
    return np.asarray(sheet).copy()


def _tile(strengths: Floats, side: int) -> NDArray[np.uint8]:
    """A channel (*spatial) as a picture whose longer side is about so many pixels."""
    if strengths.ndim == 1:
        return _curve(strengths, side)
    picture = as_uint8(_colors(_projected(strengths) if strengths.ndim == 3 else strengths))
    longest = max(picture.shape[:2])
    if longest <= side:  # by whole multiples, so that no value is smeared
        return picture.repeat(side // longest, 0).repeat(side // longest, 1)
    height, width = (max(1, round(length * side / longest)) for length in picture.shape[:2])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))


def _projected(volume: Floats) -> Floats:
    """Of every column in depth the value of the highest magnitude."""
    found: Floats = np.take_along_axis(volume, np.abs(volume).argmax(0)[None], 0)[0]
    return found


def _colors(strengths: Floats) -> Floats:
    """Gray (..., 3) for strengths from 0 to 1, blue for those below."""
    return np.where(strengths[..., None] < 0, -strengths[..., None] * NEGATIVE, strengths[..., None])


def _curve(strengths: Floats, side: int) -> NDArray[np.uint8]:
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


@cache
def _font(letters: int) -> ImageFont.FreeTypeFont:
    # Pillow's own font has few letters beyond ASCII
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), letters)
