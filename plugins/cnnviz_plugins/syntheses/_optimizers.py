"""Gradient ascent with steps of constant length, and a rule for where the gradient is zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cnnviz import ACTIVATIONS, Call, rule


class NormalizedGradient(torch.optim.Optimizer):
    """Each input moves by ``lr`` times its gradient over the mean magnitude of that (Mordvintsev et al., 2015)."""

    def __init__(self, parameters: list[Tensor], lr: float):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for values in group["params"]:
                if values.grad is not None:
                    magnitude = values.grad.abs().mean(tuple(range(1, values.ndim)), keepdim=True)
                    values.sub_(values.grad / magnitude.clamp(min=torch.finfo(values.dtype).tiny), alpha=group["lr"])
        return loss


@rule(*ACTIVATIONS, reads_input=False, otherwise=None)
def pass_positive(call: Call, grad: Tensor) -> Tensor:
    """Where an activation blocks the gradient of a whole sample, pass its positive part, so that ascent can start."""
    gradient = call.vjp(grad)
    dead = ~gradient.flatten(1).any(1).view(-1, *(1,) * (gradient.ndim - 1))
    return torch.where(dead, grad.clamp(min=0), gradient)
