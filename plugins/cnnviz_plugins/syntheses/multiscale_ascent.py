"""Multi-scale activation maximization of a channel."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz import Ascent, Layer, Synthesis, synthesis
from cnnviz.feature_visualization import FreeCanvas
from cnnviz_plugins.syntheses._objective_settings import objective_of

GRAYS = (150, 180)  # of 255, of the noise it begins with
DECAY = 1e-6
ENLARGED = ("linear", "bicubic", "trilinear")


@synthesis
def multiscale_ascent(
    layer: Layer = None,
    channel: int | None = None,
    lr: float = 0.1,
    steps: int = 20,
    blur: int | None = None,
    scales: int = 12,
    factor: float = 1.2,
    start: Annotated[int, "pixels of the first size"] = 56,
) -> Synthesis:
    """An image that maximizes a channel's mean, begun small from gray noise and enlarged (Graetz, 2019).

    At each of ``scales`` sizes, the first ``start`` pixels and each ``factor`` times the last, Adam takes ``steps``;
    then the image is enlarged, and smoothed over ``blur`` pixels. With a size asked for, that is the last one. Name a
    convolution, not its ReLU: where that is zero, there is no gradient. Gives inputs (N, C, *spatial). Raises
    ValueError for settings below their least.
    """
    if scales < 1 or factor < 1 or start < 1:
        raise ValueError(f"scales={scales}, factor={factor}, start={start} can't be; each is 1 or more")
    if blur is not None and blur < 1:
        raise ValueError(f"blur={blur} pixels can't be averaged; use 1 or more, or none")

    def make(ascent: Ascent) -> Tensor:
        goal = objective_of(ascent, layer, channel)
        sizes = _sizes(ascent, start, scales, factor)
        bounds = ascent.bounds
        grays = ascent.draws.integers(*GRAYS, ascent.shape(sizes[0]))
        inputs = bounds.inputs(grays.to(bounds.low) / 255)
        ascent.expect(scales * steps)
        for size in sizes:
            if inputs.shape[2:] != size:
                inputs = F.interpolate(inputs, size, mode=ENLARGED[ascent.rank - 1], align_corners=False)
                inputs = inputs if blur is None else averaged(inputs, blur)
            canvas = FreeCanvas(inputs)
            adam = torch.optim.Adam(canvas.parameters, lr, weight_decay=DECAY)
            inputs = ascent.ascend(canvas, goal, adam, steps)
        return inputs

    return make


def averaged(inputs: Tensor, width: int) -> Tensor:
    """Each value as the mean of the ``width`` ** rank around it; beyond the border values are mirrored."""
    rank = inputs.ndim - 2
    before = width // 2
    padded = F.pad(inputs, (before, width - 1 - before) * rank, mode="reflect")
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
    return pool(padded, width, stride=1)


def _sizes(ascent: Ascent, start: int, scales: int, factor: float) -> list[tuple[int, ...]]:
    if ascent.requested_size is None:
        lengths = [start]
        while len(lengths) < scales:
            lengths.append(int(factor * lengths[-1]))
        return [(length,) * ascent.rank for length in lengths]
    shrinking = [factor**-left for left in reversed(range(scales))]
    return [tuple(max(1, round(length * share)) for length in ascent.requested_size) for share in shrinking]
