"""Steps of gradient ascent that do not depend on how steep it is, and begin where it is flat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cnnviz import ACTIVATIONS, Call, rule


class EvenSteps(torch.optim.Optimizer):
    """Each input moves by ``lr`` times its slope over the slope's mean magnitude (Mordvintsev et al., 2015)."""

    def __init__(self, parameters: list[Tensor], lr: float):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for each in group["params"]:
                if each.grad is not None:
                    steepness = each.grad.abs().mean(tuple(range(1, each.ndim)), keepdim=True)
                    each.sub_(each.grad / steepness.clamp(min=torch.finfo(each.dtype).tiny), alpha=group["lr"])
        return loss


@rule(*ACTIVATIONS, reads_input=False, otherwise=None)
def let_through(call: Call, grad: Tensor) -> Tensor:
    """An activation that holds everything back lets through what pushes up; else an image that wakes nothing stays."""
    passed = call.vjp(grad)
    shut = ~passed.flatten(1).any(1).view(-1, *(1,) * (passed.ndim - 1))
    return torch.where(shut, grad.clamp(min=0), passed)
