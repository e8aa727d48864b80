"""A mask optimized by gradient steps, so that the score of the masked input rises and the mask's cost falls."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cnnviz.engine.feature_extraction import gradients_of
from cnnviz.engine.meter import stage
from cnnviz.run.run import Run


def learned_mask(
    run: Run,
    mask: Tensor,
    masked: Callable[[Tensor, int], Tensor],
    cost: Callable[[Tensor, int], Tensor],
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    steps: int,
    worth: Tensor | float = 1.0,
) -> Tensor:
    """The mask after ``steps`` that raise the score of what it shows and lower its cost, every input's by itself.

    One forward and one backward pass for each step; the model's own parameters get no gradients.

    Args:
        run: whose score is asked for.
        mask: to begin with, (N, ...), from 0 to 1; it is not changed.
        masked: from a mask and the step's number, from 0, to the inputs (N, C, *spatial) that the model sees.
        cost: from a mask and the step's number to what it costs, (N,).
        optimizer: of a list of tensors, such as ``lambda each: torch.optim.Adam(each, 0.1)``.
        steps: how many.
        worth: how much cost a unit of the score makes up for, one for all or (N,); negative where it is to fall.

    Returns:
        The mask, from 0 to 1, detached.

    Raises:
        ValueError: for a negative number of steps, or where the score does not depend on the input.
    """
    if steps < 0:
        raise ValueError(f"steps={steps} is no number of steps; use 0 or more")
    with torch.inference_mode(False):
        mask = mask.detach().clone().requires_grad_()
        descent = optimizer([mask])
        with stage(steps * len(run.inputs)) as part:
            for step in range(steps):
                with torch.enable_grad():
                    inputs = masked(mask, step)
                    slope = run.at(inputs.detach().to(run.inputs.dtype)).gradient()
                    loss = cost(mask, step) - worth * (inputs * slope).flatten(1).sum(1)
                    (mask.grad,) = gradients_of(loss.sum(), [mask])
                descent.step()
                with torch.no_grad():
                    mask.clamp_(0, 1)
                if part is not None:
                    part.advance(len(run.inputs))
    return mask.detach()
