"""DeepLIFT's rescale rule for every kind of operation: the ratio of an output's change to an input's change.

Each call of the pass of the inputs is compared with the same call of the pass of the baselines. The gradient that comes
back is the multiplier between both: for every operation the derivative averaged over the straight path from the
baseline to the input, so that multipliers times input differences sum to the output difference, operation by operation.
It does not matter how values are laid out. Linear operations need no rule: their multiplier is the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz import POINTWISE, Call, Rule
from cnnviz_plugins.attributions._mean_slopes import clamped, hardsigmoid, hardswish, sigmoid, silu, tanh

Backward = Callable[[Call, Tensor], "Tensor | Sequence[Tensor]"]

MAXIMA = (
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.amax, torch.maximum),
    *(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
)
PRODUCTS = (torch.mul, torch.matmul, torch.baddbmm, torch.addcmul, torch.einsum, F.bilinear)
SMOOTH = (
    *(F.log_softmax, F.layer_norm, F.group_norm, F.instance_norm, F.rms_norm, F.normalize),
    *(F.local_response_norm, F.glu, F.cosine_similarity, F.scaled_dot_product_attention, torch.logsumexp),
    *(F.lp_pool1d, F.lp_pool2d, F.lp_pool3d, torch.norm, torch.std, torch.var, torch.prod),
)
MAX_POINTS = 256  # of a quadrature


def _curve(mean_slope: Callable[[Tensor, Tensor], Tensor]) -> Backward:
    """The rule for a curve whose mean slope between baseline and input is known in closed form."""

    def backward(call: Call, grad: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not _of_each_value(call, grad):
            return _smooth(call, grad)
        return mean_slope(call.input, call.reference.input).mul_(grad)

    return backward


def _clamp(call: Call, grad: Tensor) -> Tensor | tuple[Tensor, ...]:
    """ReLU, ReLU6, hard tanh, clamp: as much of the gradient as there is of the way between the limits."""
    if not _of_each_value(call, grad) or call.limits is None:
        return _smooth(call, grad)
    return clamped(call.input, call.reference.input, *call.limits).mul_(grad)


def _leaky(call: Call, grad: Tensor) -> Tensor | tuple[Tensor, ...]:
    """A line that bends at zero: its slope below, and what is missing to one for as much of the way as lies above."""
    if not _of_each_value(call, grad):
        return _smooth(call, grad)
    below = -call.again(torch.full_like(call.input, -1)).output
    return torch.lerp(below, torch.ones_like(below), clamped(call.input, call.reference.input)).mul_(grad)


def _pointwise(call: Call, grad: Tensor) -> Tensor | tuple[Tensor, ...]:
    """The ratio of changes of each value, or the mean derivative of both ends if the changes drown in rounding."""
    if not _of_each_value(call, grad):
        return _smooth(call, grad)
    change = _difference(call.input, call.reference.input)
    ratio = _difference(call.output, call.reference.output) / change
    ones = torch.ones_like(grad)
    slope = call.reference.vjp(ones)
    bend = call.vjp(ones) - slope
    # the ratio's error is eps / change, that of the mean of both ends change**2 / 12: they are equal at this change
    near = torch.finfo(change.dtype).eps ** (1 / 3)
    straight = (change == 0) | ((change.abs() <= near) & (bend.abs() <= 2 * near))
    mean = (slope + bend / 2).nan_to_num(0, 0, 0)  # a root has no derivative at zero
    return torch.where(straight, mean, ratio) * grad


def _maximum(call: Call, grad: Tensor) -> tuple[Tensor, ...]:
    """Contribution of a rise to the place of the input's maximum, of a fall to the place of the baseline's maximum.

    There the value changes at least as much as the maximum and with its sign, so no multiplier exceeds the gradient.
    """
    rise = _difference(call.output, call.reference.output)
    risen = call.vjps(grad * rise.clamp(min=0))
    fallen = call.reference.vjps(grad * rise.clamp(max=0))
    changes = [_difference(*pair) for pair in _pairs(call)]
    return tuple(
        (up + down).mul_(change.reciprocal_().nan_to_num_(0, 0, 0))  # what does not change contributes nothing
        for up, down, change in zip(risen, fallen, changes, strict=True)
    )


def _product(call: Call, grad: Tensor) -> tuple[Tensor, ...]:
    """Mean of the other factors as multiplier, exact with half as many points as factors."""
    return _mean_backward(call, grad, (len(call.inputs) + 1) // 2) if len(call.inputs) > 1 else call.vjps(grad)


def _smooth(call: Call, grad: Tensor) -> tuple[Tensor, ...]:
    """Mean backward, with twice the points until contributions sum to the output's up to rounding."""
    rows = len({tensor.shape[:1] for tensor in (*call.inputs, call.output)}) == 1 and call.output.ndim > 0
    expected = _contribution(grad, _difference(call.output, call.reference.output))
    exact = max(torch.finfo(grad.dtype).eps / 4, 1e-13) * _total(expected.abs(), rows)
    points, before = 8, torch.full_like(exact, torch.inf)
    while True:
        grads = _mean_backward(call, grad, points)
        pairs = zip(grads, _pairs(call), strict=True)
        total = sum(_total(_contribution(part, _difference(*pair)), rows) for part, pair in pairs)
        gap = _total(expected, rows) - total
        rounding = (gap.abs() < 100 * exact) & (gap.abs() > before.abs() / 8)
        # rows that the operation mixes have no sum of their own, but one that more points do not change
        if points >= MAX_POINTS or bool(((gap.abs() <= exact) | rounding | ((gap - before).abs() <= exact)).all()):
            return grads
        points, before = 2 * points, gap


def _softmax(call: Call, grad: Tensor) -> tuple[Tensor, ...]:
    """Mean backward, whose multipliers sum to zero as no common shift of the logits changes a softmax.

    Rounding leaves a rest, which large logits would multiply. It is taken off where the rest is no more than rounding.
    """
    grads = []
    for part in _smooth(call, grad):
        for dim in range(part.ndim):
            rest, size = part.mean(dim, keepdim=True), part.abs().mean(dim, keepdim=True)
            part = part - rest.where(rest.abs() <= 16 * torch.finfo(part.dtype).eps * size, 0)
        grads.append(part)
    return tuple(grads)


def _mean_backward(call: Call, grad: Tensor, points: int) -> tuple[Tensor, ...]:
    """The operation's ordinary backward, averaged from the baselines to the input by Gauss-Legendre quadrature."""
    totals = [torch.zeros_like(tensor) for tensor in call.inputs]
    for place, weight in _quadrature(points):
        between = [torch.lerp(low, high, place).where(high != low, high) for high, low in _pairs(call)]
        for total, part in zip(totals, call.again(*between).vjps(grad), strict=True):
            total += weight * part
    return tuple(totals)


@cache
def _quadrature(points: int) -> list[tuple[float, float]]:
    places, weights = np.polynomial.legendre.leggauss(points)
    return list(zip(((places + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))


def _pairs(call: Call) -> list[tuple[Tensor, Tensor]]:
    """Each operand beside that of the baselines."""
    return list(zip(call.inputs, call.reference.inputs, strict=True))


def _of_each_value(call: Call, grad: Tensor) -> bool:
    """True where each value of the only operand gives one value."""
    return len(call.inputs) == 1 and call.input.shape == grad.shape and not call.input.is_complex()


def _difference(value: Tensor, baseline: Tensor) -> Tensor:
    """Infinite values that stay, as masks of attention have them, do not change."""
    if value.is_complex():
        return torch.where(value == baseline, 0, value - baseline)
    return (value - baseline).nan_to_num_(0, torch.inf, -torch.inf)


def _contribution(multiplier: Tensor, change: Tensor) -> Tensor:
    """Multiplier x change; of complex numbers the sum over both parts, as torch's gradients mean it."""
    return (multiplier.conj() * change).real if multiplier.is_complex() else multiplier * change


def _total(values: Tensor, rows: bool) -> Tensor:
    """The sum of each row, (rows,), or of all values."""
    return values.double().reshape(len(values) if rows else 1, -1).sum(1)


RESCALE = Rule(
    "deeplift",
    {
        **dict.fromkeys((*POINTWISE, torch.div, torch.pow), _pointwise),
        **dict.fromkeys((F.relu, F.relu6, F.hardtanh, torch.clamp), _clamp),
        **dict.fromkeys((F.leaky_relu, F.prelu), _leaky),
        **{F.silu: _curve(silu), F.hardswish: _curve(hardswish), F.hardsigmoid: _curve(hardsigmoid)},
        **{torch.sigmoid: _curve(sigmoid), torch.tanh: _curve(tanh)},
        **dict.fromkeys(MAXIMA, _maximum),
        **dict.fromkeys(PRODUCTS, _product),
        **dict.fromkeys(SMOOTH, _smooth),
        **dict.fromkeys((F.softmax, F.softmin), _softmax),
    },
    otherwise=None,
    compares=True,
)
