"""DeepLIFT's rescale rule at every kind of operation: what comes out changes by, over what goes in changes by.

A batch holds the inputs and their baselines: slot 0 the inputs, each further slot one baseline for each of them. The
gradient in slot k is the multiplier between the input and baseline k. Everywhere it is the operation's own derivative,
averaged on the straight way from the baseline to the input; so differences of inputs times multipliers add up to the
difference of outputs, operation by operation. Linear operations need no rule: there the multiplier is the gradient.
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
CURVED = (
    *(F.softmax, F.log_softmax, F.softmin, F.layer_norm, F.group_norm, F.instance_norm, F.rms_norm, F.normalize),
    *(F.local_response_norm, F.glu, F.cosine_similarity, F.scaled_dot_product_attention, torch.logsumexp),
    *(F.lp_pool1d, F.lp_pool2d, F.lp_pool3d, torch.norm, torch.std, torch.var, torch.prod),
)
MOST_POINTS = 256

Step = Callable[[int, Call, Tensor], "Tensor | tuple[Tensor, ...]"]


@cache
def rescale(slots: int) -> Rule:
    """The rule for a batch of so many slots."""
    steps: dict[Callable[..., object], Step] = {
        **dict.fromkeys((*POINTWISE, torch.div, torch.pow), _rescaled),
        F.relu: _rectified,
        **dict.fromkeys(MAXIMA, _routed),
        **dict.fromkeys(PRODUCTS, _averaged),
        **dict.fromkeys(CURVED, _integrated),
    }
    return Rule("deeplift", {each: partial(_in_slots, step, slots) for each, step in steps.items()}, otherwise=None)


def _in_slots(step: Step, slots: int, call: Call, grad: Tensor) -> Tensor | tuple[Tensor, ...]:
    """What has not kept the slots apart, such as the mean of a whole batch, keeps its ordinary backward."""
    lengths = {len(each) if each.ndim else 0 for each in (*call.inputs, call.output)}
    apart = len(lengths) == 1 and all(length and length % slots == 0 for length in lengths)
    return step(slots, call, grad) if apart else call.vjps(grad)


def _rectified(slots: int, call: Call, grad: Tensor) -> Tensor:
    """ReLU: exact wherever anything changes."""
    change, rise = _difference(call.input, slots), _difference(call.output, slots)
    same = change == 0
    slope = (_split(call.output, slots)[1:] > 0).to(grad.dtype)
    return _folded(torch.where(same, slope, rise / change.where(~same, 1)) * _split(grad, slots)[1:])


def _rescaled(slots: int, call: Call, grad: Tensor) -> Tensor | tuple[Tensor, ...]:
    """What acts on each value by itself: the ratio of changes, or the mean derivative where they drown in rounding."""
    if len(call.inputs) > 1 or call.input.shape != call.output.shape:
        return _integrated(slots, call, grad)
    change, rise = _difference(call.input, slots), _difference(call.output, slots)
    slopes = _split(call.vjp(torch.ones_like(grad)), slots)
    bent = slopes[:1] - slopes[1:]
    # the ratio's error is eps / change, that of the mean of both ends change**2 / 12: here they meet
    near = torch.finfo(change.dtype).eps ** (1 / 3)
    straight = (change == 0) | ((change.abs() <= near) & (bent.abs() <= 2 * near))
    mean = (slopes[1:] + bent / 2).nan_to_num(0, 0, 0)  # a root has no derivative at zero
    return _folded(torch.where(straight, mean, rise / change.where(~straight, 1)) * _split(grad, slots)[1:])


def _routed(slots: int, call: Call, grad: Tensor) -> tuple[Tensor, ...]:
    """Maxima: a rise belongs to where the input's maximum is, a fall to where the baseline's is.

    There the values change at least as much as the maximum and with its sign, so no multiplier exceeds the gradient.
    """
    change = _split(grad, slots)[1:] * (rise := _difference(call.output, slots))
    at_inputs = call.again(
        *(_split(each, slots)[:1].expand_as(_split(each, slots)).flatten(0, 1) for each in call.inputs)
    )
    zero = torch.zeros_like(change)
    risen = at_inputs.vjps(_folded(change.where(rise > 0, zero)))
    fallen = call.vjps(_folded(change.where(rise < 0, zero)))

    def multiplier(up: Tensor, down: Tensor, source: Tensor) -> Tensor:
        moved, given = _difference(source, slots), _split(up + down, slots)[1:]
        return _folded(torch.where(moved == 0, 0, given / moved.where(moved != 0, 1)))

    return tuple(map(multiplier, risen, fallen, call.inputs))


def _averaged(slots: int, call: Call, grad: Tensor) -> tuple[Tensor, ...]:
    """Products: each factor's multiplier is the mean of the others, exact with half as many points as factors."""
    return _mean_backward(slots, call, grad, (len(call.inputs) + 1) // 2) if len(call.inputs) > 1 else call.vjps(grad)


def _integrated(slots: int, call: Call, grad: Tensor) -> tuple[Tensor, ...]:
    """Anything smooth: with twice the points until the differences add up, as far as rounding lets them."""
    expected = _split(grad, slots)[1:] * _difference(call.output, slots)
    exact = max(torch.finfo(grad.dtype).eps / 4, 1e-13) * _total(expected.abs())
    points, before = 8, torch.full_like(exact, torch.inf)
    while True:
        found = _mean_backward(slots, call, grad, points)
        shares = zip(found, call.inputs, strict=True)
        gap = _total(expected) - sum(_total(_split(each, slots)[1:] * _difference(x, slots)) for each, x in shares)
        gap = gap.abs()
        rounding = (gap < 100 * exact) & (gap > before / 8)
        if points >= MOST_POINTS or bool(((gap <= exact) | rounding).all()):
            return found
        points, before = 2 * points, gap


def _mean_backward(slots: int, call: Call, grad: Tensor, points: int) -> tuple[Tensor, ...]:
    """The operation's ordinary backward, averaged from the baselines to the input by Gauss-Legendre quadrature."""
    apart = [_split(each, slots) for each in call.inputs]
    found = [torch.zeros_like(each) for each in call.inputs]
    for place, weight in _quadrature(points):
        on_the_way = [torch.lerp(each, each[:1].expand_as(each), place).flatten(0, 1) for each in apart]
        for total, part in zip(found, call.again(*on_the_way).vjps(grad), strict=True):
            total += weight * part
    return tuple(found)


@cache
def _quadrature(points: int) -> list[tuple[float, float]]:
    places, weights = np.polynomial.legendre.leggauss(points)
    return list(zip(((places + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))


def _total(values: Tensor) -> Tensor:
    return values.double().reshape(*values.shape[:2], -1).sum(2)  # (slots - 1, N)


def _split(values: Tensor, slots: int) -> Tensor:
    return values.reshape(slots, len(values) // slots, *values.shape[1:])  # (slots, N, ...)


def _difference(values: Tensor, slots: int) -> Tensor:
    """The input's values less each baseline's, (slots - 1, N, ...)."""
    apart = _split(values, slots)
    return apart[:1] - apart[1:]


def _folded(values: Tensor) -> Tensor:
    """Values (slots - 1, N, ...) as a batch, with nothing in the input's own slot."""
    return torch.cat([torch.zeros_like(values[:1]), values]).flatten(0, 1)
