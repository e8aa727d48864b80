"""Feature visualization: the image that maximizes a channel, a unit, a class, or any objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cnnviz import Ascent, Layer, Synthesis, synthesis
from cnnviz.feature_visualization import FourierCanvas, robustness
from cnnviz.objectives import Objective
from cnnviz.objectives import diversity as unlikeness
from cnnviz_plugins.syntheses._objective_settings import At, objective_of
from cnnviz_plugins.syntheses._optimizers import pass_positive

ALONE = 4  # one of so many steps is without the diversity term: it would suppress a channel that is not active yet
STILL = 8  # one of so many steps, at the end, is without transformations: half more activation, and looks the same


@synthesis
def feature_image(
    layer: Layer = None,
    channel: int | None = None,
    at: At = None,
    target: int | str | Callable[..., Any] | None = None,  # of a function it is told what to give instead
    objective: Objective | None = None,
    steps: int = 256,
    lr: float = 0.05,
    diversity: float = 0.0,
    robust: bool = True,
) -> Synthesis:
    """An input that maximizes a channel, a unit, a class, or any objective (Olah et al., 2017).

    The image is parameterized as a Fourier spectrum with decorrelated colours and made robust to being moved, scaled
    and turned (``robust``); Adam takes ``steps`` of ``lr``. ``channel`` of ``layer`` is its mean over space, with
    ``at`` (a place such as 6,6, or middle) one unit. ``diversity``, 0 to 1, is the part of the objective that images of
    one batch lose by similar activations of the layer. Gives inputs (N, C, *spatial) within the range of pictures.
    Raises ValueError for settings that do not fit.
    """
    if not 0 <= diversity <= 1:
        raise ValueError(f"diversity is {diversity}; a part is 0 to 1")

    def make(ascent: Ascent) -> Tensor:
        goal = objective_of(ascent, layer, channel, at, target, objective)
        canvas = FourierCanvas(ascent.shape(), ascent.bounds, ascent.draws)
        adam = torch.optim.Adam(canvas.parameters, lr)
        transform = robustness(ascent.size) if robust else None
        alone = steps // ALONE if diversity and ascent.count > 1 else 0
        still = steps // STILL if robust else 0
        ascent.expect(steps)
        ascent.ascend(canvas, goal, adam, alone, transform=transform, where_flat=pass_positive)
        apart = goal * (1 + diversity * unlikeness(layer)) if alone else goal
        ascent.ascend(canvas, apart, adam, steps - alone - still, transform=transform, where_flat=pass_positive)
        return ascent.ascend(canvas, apart, adam, still, where_flat=pass_positive)

    return make
