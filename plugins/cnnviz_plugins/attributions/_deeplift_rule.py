"""DeepLIFT's rescale rule for every kind of operation: the ratio of an output's change to an input's change.

A batch holds the inputs and their baselines: slot 0 the inputs, each further slot one baseline for each of them. The
gradient in slot k is the multiplier between the input and baseline k. For every operation it is the derivative averaged
over the straight path from the baseline to the input, so that multipliers times input differences sum to the output
difference, operation by operation. Linear operations need no rule: their multiplier is the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz import POINTWISE, Call, Rule

MAXIMA = (
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.amax, torch.maximum),
    *(F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d),
)
PRODUCTS = (torch.mul, torch.matmul, torch.baddbmm, torch.addcmul, torch.einsum, F.bilinear)
SMOOTH = (
    *(F.softmax, F.log_softmax, F.softmin, F.layer_norm, F.group_norm, F.instance_norm, F.rms_norm, F.normalize),
    *(F.local_response_norm, F.glu, F.cosine_similarity, F.scaled_dot_product_attention, torch.logsumexp),
    *(F.lp_pool1d, F.lp_pool2d, F.lp_pool3d, torch.norm, torch.std, torch.var, torch.prod),
)
MAX_POINTS = 256  # of a quadrature

SlotRule = Callable[[int, Call, Tensor], "Tensor | tuple[Tensor, ...]"]


@cache
def rescale(slots: int) -> Rule:
    """The rule for a batch of that number of slots."""
    rules: dict[Callable[..., object], SlotRule] = {
        **dict.fromkeys((*POINTWISE, torch.div, torch.pow), _pointwise),
        F.relu: _relu,
        **dict.fromkeys(MAXIMA, _maximum),
        **dict.fromkeys(PRODUCTS, _product),
        **dict.fromkeys(SMOOTH, _smooth),
    }
    backward = {operation: partial(_in_slots, rule, slots) for operation, rule in rules.items()}
    return Rule("deeplift", backward, otherwise=None)


def _in_slots(rule: SlotRule, slots: int, call: Call, grad: Tensor) -> Tensor | tuple[Tensor, ...]:
    """The rule's gradient, or the ordinary one of an operation that mixes slots, such as the mean of a whole batch."""
    lengths = {len(tensor) if tensor.ndim else 0 for tensor in (*call.inputs, call.output)}
    separate = len(lengths) == 1 and all(length and length % slots == 0 for length in lengths)
    return rule(slots, call, grad) if separate else call.vjps(grad)


def _relu(slots: int, call: Call, grad: Tensor) -> Tensor:
    """The ratio of changes, which a ReLU's sign makes exact for any change but zero."""
    change, rise = _difference(call.input, slots), _difference(call.output, slots)
    same = change == 0
    slope = (_split(call.output, slots)[1:] > 0).to(grad.dtype)
    return _merged(torch.where(same, slope, rise / change.where(~same, 1)) * _split(grad, slots)[1:])


def _pointwise(slots: int, call: Call, grad: Tensor) -> Tensor | tuple[Tensor, ...]:
    """The ratio of changes of each value, or the mean derivative of both ends if the changes drown in rounding."""
    if len(call.inputs) > 1 or call.input.shape != call.output.shape:
        return _smooth(slots, call, grad)
    change, rise = _difference(call.input, slots), _difference(call.output, slots)
    slopes = _split(call.vjp(torch.ones_like(grad)), slots)
    bend = slopes[:1] - slopes[1:]
    # the ratio's error is eps / change, that of the mean of both ends change**2 / 12: they are equal at this change
    near = torch.finfo(change.dtype).eps ** (1 / 3)
    straight = (change == 0) | ((change.abs() <= near) & (bend.abs() <= 2 * near))
    mean = (slopes[1:] + bend / 2).nan_to_num(0, 0, 0)  # a root has no derivative at zero
    return _merged(torch.where(straight, mean, rise / change.where(~straight, 1)) * _split(grad, slots)[1:])


def _maximum(slots: int, call: Call, grad: Tensor) -> tuple[Tensor, ...]:
    """Contribution of a rise to the place of the input's maximum, of a fall to the place of the baseline's maximum.

    There the value changes at least as much as the maximum and with its sign, so no multiplier exceeds the gradient.
    """
    contribution = _split(grad, slots)[1:] * (rise := _difference(call.output, slots))
    inputs = [_split(tensor, slots) for tensor in call.inputs]
    at_inputs = call.again(*(values[:1].expand_as(values).flatten(0, 1) for values in inputs))
    zero = torch.zeros_like(contribution)
    risen = at_inputs.vjps(_merged(contribution.where(rise > 0, zero)))
    fallen = call.vjps(_merged(contribution.where(rise < 0, zero)))

    def multiplier(up: Tensor, down: Tensor, values: Tensor) -> Tensor:
        change = _difference(values, slots)
        return _merged(torch.where(change == 0, 0, _split(up + down, slots)[1:] / change.where(change != 0, 1)))

    return tuple(map(multiplier, risen, fallen, call.inputs))


def _product(slots: int, call: Call, grad: Tensor) -> tuple[Tensor, ...]:
    """Mean of the other factors as multiplier, exact with half as many points as factors."""
    return _mean_backward(slots, call, grad, (len(call.inputs) + 1) // 2) if len(call.inputs) > 1 else call.vjps(grad)


def _smooth(slots: int, call: Call, grad: Tensor) -> tuple[Tensor, ...]:
    """Mean backward, with twice the points until contributions sum to the output's up to rounding."""
    expected = _split(grad, slots)[1:] * _difference(call.output, slots)
    exact = max(torch.finfo(grad.dtype).eps / 4, 1e-13) * _total(expected.abs())
    points, before = 8, torch.full_like(exact, torch.inf)
    while True:
        grads = _mean_backward(slots, call, grad, points)
        pairs = zip(grads, call.inputs, strict=True)
        total = sum(_total(_split(part, slots)[1:] * _difference(values, slots)) for part, values in pairs)
        gap = (_total(expected) - total).abs()
        rounding = (gap < 100 * exact) & (gap > before / 8)
        if points >= MAX_POINTS or bool(((gap <= exact) | rounding).all()):
            return grads
        points, before = 2 * points, gap


def _mean_backward(slots: int, call: Call, grad: Tensor, points: int) -> tuple[Tensor, ...]:
    """The operation's ordinary backward, averaged from the baselines to the input by Gauss-Legendre quadrature."""
    inputs = [_split(tensor, slots) for tensor in call.inputs]
    totals = [torch.zeros_like(tensor) for tensor in call.inputs]
    for place, weight in _quadrature(points):
        between = [torch.lerp(values, values[:1].expand_as(values), place).flatten(0, 1) for values in inputs]
        for total, part in zip(totals, call.again(*between).vjps(grad), strict=True):
            total += weight * part
    return tuple(totals)


@cache
def _quadrature(points: int) -> list[tuple[float, float]]:
    places, weights = np.polynomial.legendre.leggauss(points)
    return list(zip(((places + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))


def _total(values: Tensor) -> Tensor:
    return values.double().reshape(*values.shape[:2], -1).sum(2)  # (slots - 1, N)


def _split(values: Tensor, slots: int) -> Tensor:
    return values.reshape(slots, len(values) // slots, *values.shape[1:])  # (slots, N, ...)


def _difference(values: Tensor, slots: int) -> Tensor:
    """The input's values minus each baseline's, (slots - 1, N, ...)."""
    split = _split(values, slots)
    return split[:1] - split[1:]


def _merged(values: Tensor) -> Tensor:
    """Values (slots - 1, N, ...) as a batch, with zeros in the input's own slot."""
    return torch.cat([torch.zeros_like(values[:1]), values]).flatten(0, 1)
