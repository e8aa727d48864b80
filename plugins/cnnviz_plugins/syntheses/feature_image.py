"""What a part of a network looks for, as an image: our own way."""

from __future__ import annotations

import torch
from torch import Tensor

from cnnviz import Ascent, FourierCanvas, Layer, Objective, Synthesis, robustness, synthesis
from cnnviz import diversity as unlikeness
from cnnviz_plugins.syntheses._objective_settings import At, wanted
from cnnviz_plugins.syntheses._optimizers import let_through

ALONE = 4  # one of so many steps is made before images are asked to differ: what is not awake yet would be put to sleep
STILL = 8  # one of so many steps is made at the end without transformations: stronger by half, and looks the same


@synthesis
def feature_image(
    layer: Layer = None,
    channel: int | None = None,
    at: At = None,
    target: int | str | None = None,
    objective: Objective | None = None,
    steps: int = 256,
    lr: float = 0.05,
    diversity: float = 0.0,
    robust: bool = True,
) -> Synthesis:
    """An input that maximizes a channel, a unit, a class, or any objective (Olah et al., 2017).

    It is painted in waves with colours that vary independently, and must withstand being moved, scaled and turned
    (``robust``); Adam takes ``steps`` of ``lr``. ``channel`` of ``layer`` is its mean over space, with ``at`` (a place
    such as 6,6, or middle) one unit. ``diversity``, 0 to 1, is the part of the objective that images of one batch lose
    by being alike, as their layer sees them.
    """
    if not 0 <= diversity <= 1:
        raise ValueError(f"diversity is {diversity}; a part is 0 to 1")

    def make(ascent: Ascent) -> Tensor:
        wish = wanted(ascent, layer, channel, at, target, objective)
        canvas = FourierCanvas(ascent.shape(), ascent.bounds, ascent.generator)
        adam = torch.optim.Adam(canvas.parameters, lr)
        transform = robustness(ascent.size) if robust else None
        alone = steps // ALONE if diversity and ascent.count > 1 else 0
        still = steps // STILL if robust else 0
        ascent.expect(steps)
        ascent.ascend(canvas, wish, adam, alone, transform=transform, where_flat=let_through)
        apart = wish * (1 + diversity * unlikeness(layer)) if alone else wish
        ascent.ascend(canvas, apart, adam, steps - alone - still, transform=transform, where_flat=let_through)
        return ascent.ascend(canvas, apart, adam, still, where_flat=let_through)

    return make
