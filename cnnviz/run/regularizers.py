"""Regularizers: objectives of the input itself, its norm or its variation, to be subtracted from another one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cnnviz.engine.feature_extraction import Seen
from cnnviz.run.objectives import Objective


@dataclass(frozen=True, repr=False)
class alpha_norm(Objective):
    """The input's mean absolute value to a power: keeps it in range (Mahendran & Vedaldi, 2014, arXiv:1412.0035)."""

    alpha: float = 6.0

    def __call__(self, seen: Seen, /) -> Tensor:
        return seen.inputs.flatten(1).abs().pow(self.alpha).mean(1)


@dataclass(frozen=True, repr=False)
class total_variation(Objective):
    """How much the input changes from place to place, per place (Mahendran & Vedaldi, 2014, arXiv:1412.0035).

    The mean of (sum of squared differences to the next place along each dimension) to the power beta / 2.
    """

    beta: float = 2.0

    def __call__(self, seen: Seen, /) -> Tensor:
        inputs = seen.inputs
        squares = torch.zeros_like(inputs)
        for dim in range(2, inputs.ndim):
            steps = inputs.diff(dim=dim).square()
            squares = squares + torch.cat([steps, torch.zeros_like(inputs.narrow(dim, 0, 1))], dim)
        # the root of zero has no slope
        powered = squares if self.beta == 2 else (squares + torch.finfo(inputs.dtype).eps).pow(self.beta / 2)
        return powered.flatten(1).mean(1)


@dataclass(frozen=True, repr=False)
class l2(Objective):
    """The input's mean square (Simonyan et al., 2014, arXiv:1312.6034)."""

    def __call__(self, seen: Seen, /) -> Tensor:
        return seen.inputs.flatten(1).square().mean(1)
