"""Projections of channels side by side, each under the channel's number, beside the picture they are of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cnnviz import Explanation, renderer
from cnnviz_plugins.renderers._arrays import as_uint8, check_rank, gray, pictures_of, values_of
from cnnviz_plugins.renderers.pixel_maps import color

Picture = NDArray[np.uint8]
ACROSS = {1: 1, 2: 6, 3: 2}  # pictures in a row, by rank: those of signals and volumes are wide
SMALLEST = 128  # pixels: a tile's longer side
GAP, LABEL, LETTERS = 8, 18, 13


@renderer(ranks=(1, 2, 3))
def by_channel(
    columns: int | None = None, style: str = "zero", percentile: float = 99.5, contrast: float = 1.0
) -> Callable[[Explanation], Picture]:
    """What ``projections`` gives: each channel's under its number and activation, images beside the picture itself.

    Images have colours around middle gray, at full strength where only ``percentile`` of the values that are not zero
    are weaker: a projection may cover little of the picture. ``style`` is that of ``color``. ``contrast`` stretches
    what is drawn away from its mean gray. Maps of one channel are drawn over the input; signals and volumes as usual
    for them. ``columns`` None is 6 of images, 2 of volumes and 1 of signals.
    """
    if columns is not None and columns < 1:
        raise ValueError(f"columns={columns} leaves no place for a picture; use 1 or more")
    if not contrast > 0:
        raise ValueError(f"contrast={contrast} leaves nothing to see; use a number above 0, such as 2")
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile={percentile} is out of range; use one above 0 and up to 100")
    color(style=style)  # raises for one there is not

    def draw(explanation: Explanation) -> Picture:
        check_rank(explanation, "by_channel", 1, 2, 3)
        values_of(explanation, channels=explanation.values.shape[1])  # raises where they are not finite
        parts = _parts(explanation)
        images = explanation.inputs.ndim == 4
        fine = images and parts[0].values.shape[1] == explanation.inputs.shape[1]
        drawn = [_colored(part, style, percentile) if fine else part.render() for part in parts]
        across = min(len(parts), columns or ACROSS[explanation.inputs.ndim - 2])
        sheets = []
        for item in range(len(explanation)):
            tiles = [_contrasted(pictures[item], contrast) for pictures in drawn]
            if images:
                titles = [part.titles()[item] for part in parts]
                sheets.append(_labelled(as_uint8(pictures_of(explanation)[item]), tiles, titles, across))
            else:  # whose figures say their titles themselves
                sheets.append(_tiled(tiles, across))
        return np.stack(sheets)

    return draw


def _parts(explanation: Explanation) -> list[Explanation]:
    """An explanation for each place among the channels, titled with the channel and its activation."""
    values, notes = explanation.values, explanation.notes
    if "channel" not in notes or "activation" not in notes:  # whatever it is, its values are known
        fine = values.shape[1] % explanation.inputs.shape[1] == 0
        each = torch.split(values, explanation.inputs.shape[1] if fine else 1, 1)
        return [
            replace(explanation, values=part, target=None, objective=f"f:{place}", renderer=None)
            for place, part in enumerate(each)
        ]
    numbers, strengths = notes["channel"], notes["activation"]
    names = tuple(f"f:{number}" for number in range(int(numbers.max()) + 1))
    each = torch.split(values, values.shape[1] // numbers.shape[1], 1)
    return [
        replace(
            explanation, values=each[place], target=numbers[:, place], score=strengths[:, place], categories=names,
            renderer=None,
        )
        for place in range(numbers.shape[1])
    ]  # fmt: skip


def _colored(part: Explanation, style: str, percentile: float) -> Picture:
    """Each projection on a scale of its own."""
    found = []
    for values, one in zip(np.abs(values_of(part)), part, strict=True):
        peak = float(np.percentile(values[values > 0], percentile)) if values.any() else 1.0
        found.append(one.render(color(style=style, normalize=peak)))
    return np.concatenate(found)


def _contrasted(picture: Picture, contrast: float) -> Picture:
    """Stretched away from its mean gray, as Pillow's enhancement of contrast does."""
    if contrast == 1:
        return picture
    mean = round(float(gray(picture / 255.0).mean() * 255))
    return as_uint8((mean + contrast * (picture.astype(np.float64) - mean)) / 255)


def _labelled(original: Picture, tiles: Sequence[Picture], titles: Sequence[str], across: int) -> Picture:
    """The picture itself on the left, then the tiles under their titles, so many in a row."""
    tiles = [_enlarged(tile) for tile in tiles]
    original = _enlarged(original)
    height, width = tiles[0].shape[:2]
    room, row = max(width, SMALLEST) + GAP, height + LABEL + GAP
    left = original.shape[1] + 3 * GAP
    rows = -(-len(tiles) // across)
    high = max(rows * row, original.shape[0] + LABEL + GAP) + GAP
    whole = Image.new("RGB", (left + across * room, high), "white")
    whole.paste(Image.fromarray(original), (GAP, GAP + LABEL))
    pen = ImageDraw.Draw(whole)
    for place, (title, tile) in enumerate(zip(titles, tiles, strict=True)):
        x, y = left + place % across * room, GAP + place // across * row
        pen.text((x + (room - GAP) / 2, y + LABEL / 2), title, fill="black", font=_font(), anchor="mm")
        whole.paste(Image.fromarray(tile), (x + (room - GAP - width) // 2, y + LABEL))
    return np.asarray(whole).copy()


def _tiled(tiles: Sequence[Picture], across: int) -> Picture:
    height, width = tiles[0].shape[:2]
    whole = np.full((-(-len(tiles) // across) * height, across * width, 3), 255, np.uint8)
    for place, tile in enumerate(tiles):
        y, x = place // across * height, place % across * width
        whole[y : y + height, x : x + width] = tile
    return whole


def _enlarged(picture: Picture) -> Picture:
    factor = max(1, -(-SMALLEST // max(picture.shape[:2])))
    return picture.repeat(factor, 0).repeat(factor, 1)


@cache
def _font() -> ImageFont.FreeTypeFont:
    # Pillow's own font has few letters beyond ASCII
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), LETTERS)
