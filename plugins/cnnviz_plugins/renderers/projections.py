"""Projections of channels in a montage, each under the channel's number, beside the picture of the input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from cnnviz import Explanation, Renderer, renderer
from cnnviz.drawing import (
    Layout,
    Pixels,
    as_uint8,
    check_rank,
    enlarged,
    gray,
    in_rows,
    laid_out,
    pictures_of,
    tiled,
    values_of,
)
from cnnviz_plugins.renderers.pixel_maps import Style, color

COLUMNS = {1: 1, 2: 6, 3: 2}  # by rank: pictures of signals and volumes are wide
SMALLEST = 128  # pixels: of a tile's longer side
LABEL = 18
LAYOUT = Layout(gap=8, column=SMALLEST, letters=13, line=LABEL, below=0)


@renderer(ranks=(1, 2, 3), canvas="figure")
def by_channel(
    columns: int | None = None, style: Style = "zero", percentile: float = 99.5, contrast: float = 1.0
) -> Renderer:
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

    def draw(explanation: Explanation) -> Pixels:
        check_rank(explanation, "by_channel", 1, 2, 3)
        values_of(explanation, channels=explanation.values.shape[1])  # raises where they are not finite
        parts = _parts(explanation)
        images = explanation.inputs.ndim == 4
        fine = images and parts[0].values.shape[1] == explanation.inputs.shape[1]
        drawn = [_colored(part, style, percentile) if fine else part.render() for part in parts]
        across = min(len(parts), columns or COLUMNS[explanation.inputs.ndim - 2])
        tiles = [[_contrasted(picture, contrast) for picture in pictures] for pictures in zip(*drawn, strict=True)]
        if not images:  # figures of signals and volumes have their titles in the picture
            return np.stack([tiled(pictures, across) for pictures in tiles])
        titles = zip(*(part.titles() for part in parts), strict=True)
        montages = []
        for picture, *item in zip(as_uint8(pictures_of(explanation)), titles, tiles, strict=True):
            cells = [([title], enlarged(tile, SMALLEST)) for title, tile in zip(*item, strict=True)]
            montages.append(_beside(enlarged(picture, SMALLEST), laid_out(in_rows(cells, across), LAYOUT)))
        return np.stack(montages)

    return draw


def _parts(explanation: Explanation) -> list[Explanation]:
    """An explanation for each projected channel, titled with the channel's number and its activation."""
    values, notes = explanation.values, explanation.notes
    if "channel" not in notes or "activation" not in notes:  # not what projections gives
        fine = values.shape[1] % explanation.inputs.shape[1] == 0
        maps = torch.split(values, explanation.inputs.shape[1] if fine else 1, 1)
        return [
            replace(explanation, values=part, target=None, probability=None, objective=f"f:{place}", renderer=None)
            for place, part in enumerate(maps)
        ]
    numbers, strengths = notes["channel"], notes["activation"]
    names = tuple(f"f:{number}" for number in range(int(numbers.max()) + 1))
    maps = torch.split(values, values.shape[1] // numbers.shape[1], 1)
    return [
        replace(
            explanation, values=maps[place], target=numbers[:, place], score=strengths[:, place], categories=names,
            probability=None, renderer=None,
        )
        for place in range(numbers.shape[1])
    ]  # fmt: skip


def _colored(part: Explanation, style: Style, percentile: float) -> Pixels:
    """Each projection on a scale of its own, (N, H, W, 3)."""
    pictures = []
    for values, projection in zip(np.abs(values_of(part)), part, strict=True):
        peak = float(np.percentile(values[values > 0], percentile)) if values.any() else 1.0
        pictures.append(projection.render(color(style=style, normalize=peak)))
    return np.concatenate(pictures)


def _contrasted(picture: Pixels, contrast: float) -> Pixels:
    """The picture stretched away from its mean gray, as Pillow's enhancement of contrast does."""
    if contrast == 1:
        return picture
    mean = round(float(gray(picture / 255.0).mean() * 255))
    return as_uint8((mean + contrast * (picture.astype(np.float64) - mean)) / 255)


def _beside(picture: Pixels, tiles: Pixels) -> Pixels:
    """The input's picture on the left of the tiles, both on white."""
    gap = LAYOUT.gap
    canvas = np.full((max(len(tiles), len(picture) + LABEL + 2 * gap), picture.shape[1] + 2 * gap, 3), 255, np.uint8)
    canvas[gap + LABEL :][: len(picture), gap : gap + picture.shape[1]] = picture
    below = len(canvas) - len(tiles)
    return np.concatenate([canvas, np.pad(tiles, ((0, below), (0, 0), (0, 0)), constant_values=255)], 1)
