"""The image with the highest score of a class, under regularizers."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from cnnviz import Ascent, Synthesis, synthesis
from cnnviz.feature_visualization import FreeCanvas
from cnnviz.images import Bounds, blurred
from cnnviz.objectives import Objective, class_score, l2
from cnnviz_plugins.syntheses._optimizers import NormalizedGradient, pass_positive


@synthesis
def class_image(
    target: int | str,
    steps: int = 200,
    lr: float = 0.1,
    penalty: float = 0.0,
    decay: float = 0.005,
    blur: float = 1.0,
    blur_every: int = 4,
    small_norms: float = 0.0,
    small_contributions: float = 0.0,
    start: Literal["zero", "noise"] = "zero",
    even: bool = True,
    bounded: bool = True,
) -> Synthesis:
    """An image that maximizes a class's score (Simonyan et al., 2014, arXiv:1312.6034).

    Regularized by any of: ``penalty`` times the image's squared norm is taken off the score (Simonyan); and after each
    step (Yosinski et al., 2015, arXiv:1506.06579) the image loses the share ``decay``, is blurred every ``blur_every``
    steps with a Gaussian of ``blur`` pixels, and those percent of its pixels become zero that have the smallest norms
    (``small_norms``) or contribute least to the score (``small_contributions``).

    It begins with the mean image (``zero``) or with noise over all that pictures can be. Steps are ``lr`` long on
    average, or with ``even`` off ``lr`` times the gradient. ``bounded`` keeps values within the range of pictures.
    Gives inputs (N, C, *spatial). Raises ValueError for settings out of their range.
    """
    _check(steps=steps, blur_every=blur_every)
    for name, share, most in (
        ("decay", decay, 1.0),
        ("blur", blur, math.inf),
        ("small_norms", small_norms, 100.0),
        ("small_contributions", small_contributions, 100.0),
    ):
        if not 0 <= share < most:
            raise ValueError(f"{name} is {share}; it is 0 or more, and below {most:g}")

    def make(ascent: Ascent) -> Tensor:
        bounds, shape = ascent.bounds, ascent.shape()
        shares = ascent.draws.uniform(shape, bounds.low.dtype)
        canvas = FreeCanvas(bounds.inputs(shares) if start == "noise" else torch.zeros_like(shares))
        score = class_score(ascent.class_index(target))
        goal: Objective = score - penalty * shares[0].numel() * l2() if penalty else score
        optimizer = NormalizedGradient(canvas.parameters, lr) if even else torch.optim.SGD(canvas.parameters, lr)

        def regularize(step: int) -> None:
            image = canvas.values
            if decay:
                image.mul_(1 - decay)
            if blur and step % blur_every == 0:
                image.copy_(blurred(image, blur))
            if small_norms:
                _silence(image, image.norm(dim=1), small_norms)
            if small_contributions and image.grad is not None:
                _silence(image, (image * image.grad).sum(1).abs(), small_contributions)
            if bounded:
                bounds_kept(image, bounds)

        return ascent.ascend(canvas, goal, optimizer, steps, where_flat=pass_positive, after=regularize)

    return make


def bounds_kept(image: Tensor, bounds: Bounds) -> None:
    """Bring values beyond the bounds back to them, in place."""
    image.copy_(bounds.inputs(bounds.shares(image).clamp(0, 1)))


def _silence(image: Tensor, weights: Tensor, percent: float) -> None:
    """Set those percent of each image's pixels to zero that weigh least, (N, *spatial)."""
    flat = weights.flatten(1)
    least = flat.kthvalue(max(1, int(flat.shape[1] * percent / 100)), dim=1).values
    image.mul_((weights > least.view(-1, *(1,) * (weights.ndim - 1)))[:, None])


def _check(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count} is too few; use 1 or more")
