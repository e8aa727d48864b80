"""Relevance at operations that have no weights: curves, products of what comes from the input, and norms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz import POINTWISE, Call
from cnnviz_plugins.relevance.rules import Shares

Back = Tensor | tuple[Tensor, ...]
Function = Callable[[Call, Tensor, Shares], Back]
Form = Callable[[Call], tuple[Any, ...]]


def passed(call: Call, grad: Tensor, shares: Shares) -> Back:
    """All relevance goes on to the only operand; where that is zero, the operation itself has made the value."""
    if len(call.inputs) > 1 or call.input.shape != call.output.shape:
        return _plain(call, grad, shares)
    ratio = call.output / call.input
    reaches = ratio.isfinite()
    if shares.tells:
        call.tell("biases", torch.where(reaches, 0, grad * call.output))
    return torch.where(reaches, ratio, 0) * grad


def _plain(call: Call, grad: Tensor, shares: Shares) -> tuple[Tensor, ...]:
    """The gradient; what the operation adds to its linear part is its bias."""
    if shares.tells:
        call.tell("biases", grad * (call.output - call.linear_part()))
    return call.vjps(grad)


def _affine(call: Call, grad: Tensor, shares: Shares) -> Back:
    """A batch norm by itself: what it adds absorbs, or all relevance goes on where biases are ignored."""
    return passed(call, grad, shares) if shares.ignores else _plain(call, grad, shares)


def product(call: Call, grad: Tensor, shares: Shares, gate: bool, constant: bool) -> Back:
    """All to the operand of more elements, as a gate only lets through; of equal ones, each gets the same part."""
    sizes = [values.numel() for values in call.inputs]
    if not gate or len(set(sizes)) == 1 or (constant and len(set(call.shares)) == 2):
        return joined(call, grad, shares, constant)
    signals = [size == max(sizes) for size in sizes]
    return tuple(part * (signal / sum(signals)) for part, signal in zip(call.vjps(grad), signals, strict=True))


def _pointwise(call: Call, grad: Tensor, shares: Shares, gate: bool, constant: bool) -> Back:
    """A product of values; a gate leaves the other operand its shape."""
    gate = gate and any(values.shape == call.output.shape for values in call.inputs)
    return product(call, grad, shares, gate, constant)


def joined(call: Call, grad: Tensor, shares: Shares, constant: bool, sums: bool = False) -> Back:
    """A product of what comes from the input, such as queries and keys: each factor gets the same part.

    With ``constant`` ones the shares of an attention are weights, which get nothing. Where the operation ``sums`` too,
    what is added keeps its gradient.
    """
    added = int(sums and call.constant(0, "input") is None)
    count = len(call.inputs) - added
    if count < 2:
        return _plain(call, grad, shares)
    held = (False,) * added + (call.shares if constant else (False,) * len(call.inputs))[added:]
    if not any(held) or all(held[added:]):
        held = (False,) * len(held)
    if shares.tells and not added:
        call.tell("biases", grad * (call.output - call.linear_part() / count))
    parts = zip(call.vjps(grad), held, strict=True)
    return tuple(
        part if number < added else part * (not fixed) / (count - sum(held))
        for number, (part, fixed) in enumerate(parts)
    )


def _quotient(call: Call, grad: Tensor, shares: Shares) -> Back:
    """All to the numerator."""
    return (call.vjp(grad), torch.zeros_like(call.inputs[1])) if len(call.inputs) == 2 else passed(call, grad, shares)


def _gated(call: Call, grad: Tensor, shares: Shares) -> Back:
    """A half of the operand that the other half lets through: all to the first."""
    gradient, dim = call.vjp(grad), call.constant(1, "dim", -1)
    signal, gate = gradient.chunk(2, dim)
    return torch.cat([signal, torch.zeros_like(gate)], dim)


def _last_dims(call: Call, centred: bool) -> tuple[Any, ...]:
    """Layer and RMS norm: weights of the last dimensions, which are normalized together."""
    shape = call.constant(1, "normalized_shape")
    bias = call.constant(3, "bias") if centred else None
    eps = call.constant(4, "eps", 1e-5) if centred else call.constant(3, "eps")
    return (*call.input.shape[: -len(shape)], -1), call.constant(2, "weight"), bias, eps


def _channels(call: Call, groups: int, at: int, number: int) -> tuple[Any, ...]:
    """Group and instance norm: weights of channels."""
    shape = (-1, *(1,) * (call.input.ndim - 2))
    weights = [call.constant(place, name) for place, name in ((at, "weight"), (at + 1, "bias"))]
    weight, bias = (None if each is None else each.reshape(shape) for each in weights)
    return (len(call.input), groups, -1), weight, bias, call.constant(number, "eps", 1e-5)


def _normalized(call: Call, grad: Tensor, shares: Shares, form: Form, centred: bool) -> Back:
    """A norm whose standard deviation is held constant; ``form`` gives the shape of its rows, weight, bias and eps."""
    if len(call.inputs) > 1:
        return _plain(call, grad, shares)
    shape, weight, bias, eps = form(call)
    eps = torch.finfo(grad.dtype).eps if eps is None else eps
    if bias is not None and shares.ignores:
        grad = shares.of(call, grad * call.output, call.output - bias, None)
    elif bias is not None and shares.tells:
        call.tell("biases", grad * bias)
    rows, back = call.input.reshape(shape), (grad if weight is None else grad * weight).reshape(shape)
    rows = rows - rows.mean(-1, keepdim=True) if centred else rows
    back = back * (rows.square().mean(-1, keepdim=True) + eps).rsqrt()
    return (back - back.mean(-1, keepdim=True) if centred else back).reshape(call.input.shape)


def _layer_norm(call: Call, grad: Tensor, shares: Shares) -> Back:
    return _normalized(call, grad, shares, lambda call: _last_dims(call, True), True)


def _rms_norm(call: Call, grad: Tensor, shares: Shares) -> Back:
    return _normalized(call, grad, shares, lambda call: _last_dims(call, False), False)


def _group_norm(call: Call, grad: Tensor, shares: Shares) -> Back:
    return _normalized(call, grad, shares, lambda call: _channels(call, call.constant(1, "num_groups"), 2, 4), True)


def _instance_norm(call: Call, grad: Tensor, shares: Shares) -> Back:
    if not call.constant(5, "use_input_stats", True):
        return _affine(call, grad, shares)
    at = 3 if call.constant(8, "cudnn_enabled") is None else 1  # torch's own function takes the weights first
    return _normalized(call, grad, shares, lambda call: _channels(call, call.input.shape[1], at, 7), True)


def functions(gate: bool, constant: bool) -> dict[Callable[..., Any], Function]:
    """For each operation its function. Others, such as sums, pools and views, keep torch's own backward."""
    return {
        **{curve: passed for curve in POINTWISE if curve not in (F.relu, F.leaky_relu, F.prelu, F.rrelu)},
        **dict.fromkeys((torch.mul,), partial(_pointwise, gate=gate, constant=constant)),
        **{
            torch.addcmul: partial(joined, constant=constant, sums=True),
            torch.pow: passed,
            torch.div: _quotient,
            F.glu: _gated,
        },
        **{F.batch_norm: _affine, F.layer_norm: _layer_norm, F.rms_norm: _rms_norm},
        **{F.group_norm: _group_norm, F.instance_norm: _instance_norm},
    }
