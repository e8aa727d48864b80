"""Relevance at operations that have no weights: curves, products of what comes from the input, and norms."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
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
SUMS = (torch.add, torch.sub)


def _relevance(grad: Tensor, values: Tensor) -> Tensor:
    """The relevance of values; of complex numbers that of both parts, as torch's gradients mean it."""
    return (grad.conj() * values).real if grad.is_complex() else grad * values


def passed(call: Call, grad: Tensor, shares: Shares) -> Back:
    """All relevance goes on to the only operand; where that is zero, the operation itself has made the value."""
    if len(call.inputs) > 1 or call.input.shape != call.output.shape:
        return _plain(call, grad, shares)
    ratio = call.output / call.input
    reaches = ratio.isfinite()
    if shares.reports:
        call.report("biases", torch.where(reaches, 0, _relevance(grad, call.output)))
    return torch.where(reaches, ratio, 0).conj() * grad


def _plain(call: Call, grad: Tensor, shares: Shares) -> tuple[Tensor, ...]:
    """The gradient; what the operation adds to its linear part is its bias."""
    if shares.reports:
        call.report("biases", _relevance(grad, call.output - call.linear_part()))
    return call.vjps(grad)


def _affine(call: Call, grad: Tensor, shares: Shares) -> Back:
    """A batch norm by itself: what it adds absorbs, or all relevance goes on where biases are ignored."""
    return passed(call, grad, shares) if shares.ignores else _plain(call, grad, shares)


def product(call: Call, grad: Tensor, shares: Shares, gate: bool, constant: bool, added: Collection[int] = ()) -> Back:
    """All to the operand of more elements, as a gate only lets through; of equal ones, each gets the same part.

    Without a ``gate`` each factor gets the same, as queries and keys do. With ``constant`` ones the shares of an
    attention are weights, which get nothing. Operands that are ``added`` to the product, by number, keep their
    gradient.
    """
    sizes = {number: values.numel() for number, values in enumerate(call.inputs) if number not in added}
    held = [number for number in sizes if constant and call.shares[number]]
    if held and len(held) < len(sizes):
        signals = [number for number in sizes if number not in held]
    else:
        signals = [number for number, size in sizes.items() if not gate or size == max(sizes.values())]
    if shares.reports and not added:
        call.report("biases", _relevance(grad, call.output - call.linear_part() / len(sizes)))
    parts = dict.fromkeys(added, 1.0) | dict.fromkeys(signals, 1 / max(1, len(signals)))
    return tuple(part * parts.get(number, 0.0) for number, part in enumerate(call.vjps(grad)))


def _pointwise(call: Call, grad: Tensor, shares: Shares, gate: bool, constant: bool) -> Back:
    """A product of values; a gate leaves the other operand its shape."""
    gate = gate and any(values.shape == call.output.shape for values in call.inputs)
    return product(call, grad, shares, gate, constant)


def _added_product(call: Call, grad: Tensor, shares: Shares, constant: bool) -> Back:
    """A sum and a product: what is added, which comes first, keeps its gradient."""
    return product(call, grad, shares, False, constant, range(call.constant(0, "input") is None))


def layered(call: Call, grad: Tensor, shares: Shares, gate: bool, constant: bool, factors: Sequence[str]) -> Back:
    """A layer several of whose ``factors`` come from the input, or what it adds, which comes last."""
    count = sum(call.constant(place, name) is None for place, name in enumerate(factors))
    return product(call, grad, shares, gate, constant, range(count, len(call.inputs)))


def _quotient(call: Call, grad: Tensor, shares: Shares) -> Back:
    """All to the numerator."""
    if len(call.inputs) == 2:
        return call.vjp(grad), torch.zeros_like(call.inputs[1])
    return passed(call, grad, shares) if call.constant(1, "other") is None else _plain(call, grad, shares)


def _left_out(call: Call, grad: Tensor, shares: Shares, place: int, name: str) -> Back:
    """A part that only weighs others, the last of what comes from the input, gets nothing."""
    parts = call.vjps(grad)
    return parts if call.constant(place, name) is not None else (*parts[:-1], torch.zeros_like(parts[-1]))


def _of_degree(call: Call, grad: Tensor, shares: Shares) -> Back:
    """Products of an operand's own values: divided by how many factors there are."""
    linear = call.linear_part()
    share = call.output / linear
    reaches = share.isfinite()
    if shares.reports:
        call.report("biases", torch.where(reaches, 0, _relevance(grad, call.output)))
    return call.vjp(torch.where(reaches, share, 0) * grad)


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
    elif bias is not None and shares.reports:
        call.report("biases", grad * bias)
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


def padded(call: Call, grad: Tensor, shares: Shares) -> Back:
    """What is reported of constants around the input is what these take."""
    if shares.reports:
        outputs = [call.again(torch.full_like(call.input, value)).output for value in (0, 1)]
        call.report("biases", torch.where(outputs[0] == outputs[1], grad, 0))
    return call.vjp(grad)


def carried(call: Call, grad: Tensor, shares: Shares) -> Back:
    """Relevance itself, whatever the values: all to the operands of most elements, each the same part."""
    shapes = [values.shape for values in call.inputs]
    signals = [shape == grad.shape for shape in shapes]
    if not any(signals):
        return call.vjps(grad)
    parts = (grad * (signal / sum(signals)) for signal in signals)
    return tuple(part.sum_to_size(shape) for part, shape in zip(parts, shapes, strict=True))


def functions(gate: bool, constant: bool, ignores: bool) -> dict[Callable[..., Any], Function]:
    """For each operation its function. Others, such as sums, pools and views, keep torch's own backward.

    Where it ``ignores`` biases, a constant that is added is one.
    """
    return {
        **dict.fromkeys(SUMS if ignores else (), passed),
        **{curve: passed for curve in POINTWISE if curve not in (F.relu, F.leaky_relu, F.prelu, F.rrelu)},
        **{torch.mul: partial(_pointwise, gate=gate, constant=constant)},
        **dict.fromkeys((torch.addcmul, torch.addr), partial(_added_product, constant=constant)),
        **dict.fromkeys((torch.cross, torch.linalg.cross), partial(product, gate=False, constant=constant)),
        **{torch.pow: passed, torch.float_power: passed, torch.div: _quotient, F.glu: _gated},
        **dict.fromkeys((torch.var, torch.prod, torch.cumprod, torch.cov), _of_degree),
        **{torch.lerp: partial(_left_out, place=2, name="weight")},
        **{torch.addcdiv: partial(_left_out, place=2, name="tensor2")},
        **{F.batch_norm: _affine, F.layer_norm: _layer_norm, F.rms_norm: _rms_norm},
        **{F.group_norm: _group_norm, F.instance_norm: _instance_norm},
    }
