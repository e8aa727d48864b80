"""Batch norm in evaluation mode, computed as one multiplication and one addition.

Outputs and gradients are those of torch's batch norm up to rounding. Gradients take a third of the time or less, since
torch also computes in the backward pass what only training needs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_PLAIN = (Tensor, nn.Parameter, nn.Buffer)


class BatchNormCall(NamedTuple):
    """The arguments of ``F.batch_norm``."""

    input: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5

    def affine(self) -> tuple[Tensor, Tensor] | None:
        """Factor and shift of each channel, (C,); None where the statistics are those of the batch."""
        if self.training or self.running_mean is None or self.running_var is None:
            return None
        scale = (self.running_var + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        if self.bias is None:
            return scale, -self.running_mean * scale
        return scale, torch.addcmul(self.bias, self.running_mean, scale, value=-1)


def scaled(*args: Any, **kwargs: Any) -> Tensor | None:
    """``F.batch_norm`` with fixed statistics, of an input that requires gradients; None for any other call."""
    call = BatchNormCall(*args, **kwargs)
    input, constants = call.input, [constant for constant in call[1:5] if constant is not None]
    if type(input) is not Tensor or not input.requires_grad:
        return None
    if any(type(constant) not in _PLAIN or constant.grad_fn is not None for constant in constants):
        return None  # weights that were computed, perhaps from the input
    if any(constant.dtype is not input.dtype or constant.shape != input.shape[1:2] for constant in constants):
        return None
    with torch.no_grad():
        factors = call.affine()
    if factors is None:
        return None
    scale, shift = (factor.view(-1, *(1,) * (input.ndim - 2)) for factor in factors)
    return torch.addcmul(shift, input, scale)
