"""DeepDream: a picture changed so that the activations of a layer grow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cnnviz import Ascent, Layer, Synthesis, synthesis
from cnnviz.feature_visualization import FreeCanvas, RandomNumbers, Transformation
from cnnviz.images import resize
from cnnviz.objectives import Objective, layer_energy
from cnnviz_plugins.syntheses._objective_settings import objective_of
from cnnviz_plugins.syntheses._optimizers import NormalizedGradient, pass_positive
from cnnviz_plugins.syntheses.class_image import bounds_kept

NOISE = 0.05  # of the range, about its middle, where no picture is given


@synthesis
def deep_dream(
    start: Tensor | str | None = None,
    layer: Layer = None,
    channel: int | None = None,
    objective: Objective | None = None,
    octaves: int = 4,
    factor: float = 1.4,
    steps: int = 20,
    lr: float = 0.006,
    jitter: int = 32,
    even: bool = True,
    decay: float = 0.0,
) -> Synthesis:
    """A picture changed so that the activations of a layer grow (DeepDream; Mordvintsev et al., 2015).

    The mean square of the layer is maximized, or the mean of a channel, or any objective. ``start`` is a picture;
    without one it is noise. It is changed at ``octaves`` sizes, each ``factor`` times the last, and the change at one
    is carried to the next; ``steps`` at each size, on average ``lr`` of the range of pictures long, or with ``even``
    off ``lr`` times the gradient and a weight ``decay``. The picture is shifted around its edges by up to ``jitter``
    pixels before each. Gives inputs (N, C, *spatial) within the range of pictures. Raises ValueError for settings below
    their least.
    """
    if octaves < 1 or factor < 1 or jitter < 0:
        raise ValueError(f"octaves={octaves}, factor={factor}, jitter={jitter} can't be; use 1, 1 and 0, or more")

    def make(ascent: Ascent) -> Tensor:
        picture = _noise(ascent) if start is None else ascent.inputs_from(start)
        default = channel is None and objective is None
        goal = layer_energy(layer) if default else objective_of(ascent, layer, channel, objective=objective)
        bounds = ascent.bounds
        span = float((bounds.high - bounds.low).mean())
        change = torch.zeros_like(picture)
        dream = picture
        ascent.expect(octaves * steps)
        for octave in reversed(range(octaves)):
            size = tuple(max(1, round(length / factor**octave)) for length in picture.shape[2:])
            below = resize(picture, size, antialias=True)
            canvas = FreeCanvas(below + resize(change, size, antialias=True))
            optimizer: Any = NormalizedGradient(canvas.parameters, lr * span)
            if not even:
                optimizer = torch.optim.SGD(canvas.parameters, lr, weight_decay=decay)
            dream = ascent.ascend(
                canvas,
                goal,
                optimizer,
                steps,
                transform=rolled(jitter),
                where_flat=pass_positive,
                after=lambda step, canvas=canvas: bounds_kept(canvas.values, bounds),  # type: ignore[misc]
            )
            change = dream - below
        return dream

    return make


def rolled(most: int) -> Transformation:
    """Shifted in space by up to so many pixels; what leaves on one side comes back on the other."""

    def transform(inputs: Tensor, draws: RandomNumbers) -> Tensor:
        dims = tuple(range(2, inputs.ndim))
        return inputs.roll([int(share * (2 * most + 1)) - most for share in draws.floats(len(dims))], dims)

    return transform


def _noise(ascent: Ascent) -> Tensor:
    bounds, shape = ascent.bounds, ascent.shape()
    return bounds.inputs(0.5 + NOISE * (2 * ascent.draws.uniform(shape, bounds.low.dtype) - 1))
