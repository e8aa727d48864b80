"""Inversion: an input with the same features in a layer shows what the layer keeps of a picture."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from cnnviz import Ascent, Layer, Synthesis, synthesis
from cnnviz.feature_visualization import FourierCanvas, FreeCanvas
from cnnviz.objectives import alpha_norm, feature_distance, total_variation
from cnnviz_plugins.syntheses._optimizers import pass_positive

NOISE = 0.1  # standard deviation of the start, where it has no bounds
WARM_UP = 16  # steps before the image itself is regularized
EVERY, LESS = 40, 0.1  # with momentum, steps get shorter after so many by this factor


@synthesis
def inversion(
    of: Annotated[Tensor | str, "the picture whose features are inverted"],
    layer: Layer = None,
    steps: int = 256,
    lr: float | None = None,
    canvas: Literal["waves", "pixels"] = "waves",
    norm_weight: float = 0.0,
    alpha: float = 6.0,
    variation_weight: float = 0.05,
    beta: float = 2.0,
) -> Synthesis:
    """An input whose features in a layer are those of the picture ``of`` (Mahendran & Vedaldi, 2014, arXiv:1412.0035).

    The squared distance of the layer's features over their squared norm is made small, plus ``norm_weight`` times the
    mean of the input's values to the power ``alpha``, plus ``variation_weight`` times the mean of its squared steps
    from place to place to the power ``beta`` / 2. On ``waves``, between the values of pictures, by Adam (``lr`` 0.1);
    on ``pixels``, as published, by momentum whose steps get shorter (``lr`` 1000). Gives inputs (N, C, *spatial). The
    note ``relative_error`` (N,) is the distance over the norm.
    """

    def make(ascent: Ascent) -> Tensor:
        picture = ascent.inputs_from(of)
        features = ascent.seen(picture, layer).layer(layer)
        distance = feature_distance(layer, features)
        goal = -(distance + norm_weight * alpha_norm(alpha) + variation_weight * total_variation(beta))
        if canvas == "waves":
            waves = FourierCanvas(picture.shape, ascent.bounds, ascent.draws)
            adam = torch.optim.Adam(waves.parameters, 0.1 if lr is None else lr)
            ascent.expect(steps)
            ascent.ascend(waves, -distance, adam, min(WARM_UP, steps), where_flat=pass_positive)
            made = ascent.ascend(waves, goal, adam, steps - min(WARM_UP, steps))
        else:
            pixels = FreeCanvas(NOISE * ascent.draws.normal(picture.shape, picture.dtype))
            momentum = torch.optim.SGD(pixels.parameters, 1000.0 if lr is None else lr, momentum=0.9)
            shorter = torch.optim.lr_scheduler.StepLR(momentum, EVERY, LESS)
            made = ascent.ascend(pixels, goal, momentum, steps, after=lambda step: shorter.step())
        ascent.note("relative_error", distance(ascent.seen(made, layer)).sqrt())
        return made

    return make
