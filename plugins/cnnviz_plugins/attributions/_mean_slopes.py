"""Mean slopes of activations on the straight way from a baseline to an input, value by value, in closed form.

Each is (f(x) - f(b)) / (x - b), and f's slope where both are equal. No difference of two outputs is divided by a small
number, so no digits are lost however small the change, and there is no 0 / 0 to look for.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def clamped(x: Tensor, b: Tensor, low: Any = 0, high: Any = None) -> Tensor:
    """Of a clamp: how much of the way lies between its limits, 0 to 1. As they are given, it is that of a ReLU.

    Limits are numbers or tensors that broadcast to the input; None: there is none on that side.
    """
    work = torch.empty_like(x)  # a tensor less to make: on a CPU new memory costs more than what is computed in it
    if low is None:
        inside = torch.minimum(x, b).neg_().add_(high)
    else:
        inside = torch.maximum(x, b)
        if isinstance(low, Tensor) or low != 0:
            inside.sub_(low)
        if high is not None:
            torch.minimum(x, b, out=work).neg_().add_(high)
            torch.minimum(inside, work, out=inside).clamp_(max=high - low)
    return inside.div_(_distance(x, b, work)).clamp_(0, 1)


def sigmoid(x: Tensor, b: Tensor) -> Tensor:
    """Of 1 / (1 + exp(-x)): sigmoid(high) sigmoid(-low) (1 - exp(low - high)) / (high - low)."""
    way = _distance(x, b).neg_()
    ends = torch.maximum(x, b).sigmoid_().mul_(torch.minimum(x, b).neg_().sigmoid_())
    return ends.mul_(torch.expm1(way).div_(way))


def tanh(x: Tensor, b: Tensor) -> Tensor:
    """Of 2 sigmoid(2 x) - 1."""
    return sigmoid(2 * x, 2 * b).mul_(4)


def hardsigmoid(x: Tensor, b: Tensor) -> Tensor:
    """Of (x + 3) / 6, clamped to 0..1."""
    return clamped(x, b, -3, 3).div_(6)


def silu(x: Tensor, b: Tensor) -> Tensor:
    """Of x sigmoid(x)."""
    return _gated(x, b, x.sigmoid() + b.sigmoid(), sigmoid(x, b))


def hardswish(x: Tensor, b: Tensor) -> Tensor:
    """Of x hardsigmoid(x)."""
    return _gated(x, b, F.hardsigmoid(x) + F.hardsigmoid(b), hardsigmoid(x, b))


def _gated(x: Tensor, b: Tensor, gates: Tensor, slope: Tensor) -> Tensor:
    """Of x g(x), from g at both ends, added up, and the mean slope of g: differences of a product, without rounding."""
    return gates.add_((x + b).mul_(slope)).div_(2)


def _distance(x: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """The size of the change, nowhere quite zero. Infinite values that stay, as of masks, do not change."""
    info = torch.finfo(x.dtype)
    least = info.tiny * info.eps if x.dtype is torch.float16 else info.tiny  # float16 has few numbers below its tiny
    return torch.sub(x, b, out=out).abs_().nan_to_num_(0.0, torch.inf).clamp_(min=least)
