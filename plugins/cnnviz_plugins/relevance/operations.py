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
    if shares.tells:
        call.tell("biases", torch.where(reaches, 0, _relevance(grad, call.output)))
    return torch.where(reaches, ratio, 0).conj() * grad


def _plain(call: Call, grad: Tensor, shares: Shares, count: int = 1) -> tuple[Tensor, ...]:
    """The gradient, divided among ``count`` factors; what the operation adds to its linear part is its bias."""
    if shares.tells:
        call.tell("biases", _relevance(grad, call.output - call.linear_part() / count))
    return tuple(part / count for part in call.vjps(grad))


def _affine(call: Call, grad: Tensor, shares: Shares) -> Back:
    """A batch norm by itself: what it adds absorbs, or all relevance goes on where biases are ignored."""
    return passed(call, grad, shares) if shares.ignores else _plain(call, grad, shares)


def product(call: Call, grad: Tensor, shares: Shares, gate: bool, added: Collection[int] = ()) -> Back:
    """All to the operand of more elements, as a gate only lets through; of equal ones, each gets the same part.

    Operands that are ``added`` to the product, by number, keep their gradient.
    """
    sizes = {number: values.numel() for number, values in enumerate(call.inputs) if number not in added}
    signals = [number for number, size in sizes.items() if not gate or size == max(sizes.values())]
    if shares.tells and not added:
        call.tell("biases", _relevance(grad, call.output - call.linear_part() / len(sizes)))
    parts = dict.fromkeys(added, 1.0) | dict.fromkeys(signals, 1 / max(1, len(signals)))
    return tuple(part * parts.get(number, 0.0) for number, part in enumerate(call.vjps(grad)))


def joined(call: Call, grad: Tensor, shares: Shares, constant: bool) -> Back:
    """A product of matrices from the input, such as queries and keys: each gets the same, whatever their sizes.

    With ``constant`` ones that average, as the shares of an attention do, count as weights and get nothing.
    """
    averages = [constant and _averages(call, number) for number in range(2)]
    if not any(averages) or len(call.inputs) > 2:
        return _plain(call, grad, shares, len(call.inputs))
    return tuple(part * (not fixed) for part, fixed in zip(call.vjps(grad), averages, strict=True))


def _averages(call: Call, number: int) -> bool:
    """True if what is summed over in an operand adds up to one and is not negative; all zeros read nothing."""
    values, dim = call.inputs[number], (-1, -2)[number]
    equation = call.constant(0, "equation")
    if isinstance(equation, str):  # of torch.einsum
        terms, _, output = equation.replace(" ", "").replace("...", ".").partition("->")
        term = terms.split(",")[number]
        summed = set(term) & set(terms.split(",")[1 - number]) - set(output)
        if len(summed) != 1:
            return False
        place = term.index(summed.pop())
        dim = place - len(term) if "." in term[:place] else place
    if values.ndim < 2 or bool((values < 0).any()):
        return False
    total = values.double().sum(dim)
    return bool(((total - 1).abs() < 0.01).logical_or(total == 0).all() & total.any())


def added_product(call: Call, grad: Tensor, shares: Shares, gate: bool) -> Back:
    """A sum and a product: what is added, which comes first, keeps its gradient."""
    return product(call, grad, shares, gate, range(call.constant(0, "input") is None))


def layered(call: Call, grad: Tensor, shares: Shares, gate: bool, factors: Sequence[str]) -> Back:
    """A layer several of whose ``factors`` come from the input, or what it adds, which comes last."""
    count = sum(call.constant(place, name) is None for place, name in enumerate(factors))
    return product(call, grad, shares, gate, range(count, len(call.inputs)))


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
    if shares.tells:
        call.tell("biases", torch.where(reaches, 0, _relevance(grad, call.output)))
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


def padded(call: Call, grad: Tensor, shares: Shares) -> Back:
    """What is told of constants around the input is what these take."""
    if shares.tells:
        outputs = [call.again(torch.full_like(call.input, value)).output for value in (0, 1)]
        call.tell("biases", torch.where(outputs[0] == outputs[1], grad, 0))
    return call.vjp(grad)


def carried(call: Call, grad: Tensor, shares: Shares) -> Back:
    """Relevance itself, whatever the values: all to the operands of most elements, each the same part."""
    shapes = [values.shape for values in call.inputs]
    signals = [shape == grad.shape for shape in shapes]
    if not any(signals):
        return call.vjps(grad)
    parts = (grad * (signal / sum(signals)) for signal in signals)
    return tuple(part.sum_to_size(shape) for part, shape in zip(parts, shapes, strict=True))


def functions(gate: bool, ignores: bool) -> dict[Callable[..., Any], Function]:
    """For each operation its function. Others, such as sums, pools and views, keep torch's own backward.

    Where it ``ignores`` biases, a constant that is added is one.
    """
    return {
        **dict.fromkeys(SUMS if ignores else (), passed),
        **{curve: passed for curve in POINTWISE if curve not in (F.relu, F.leaky_relu, F.prelu, F.rrelu)},
        **{torch.mul: partial(product, gate=gate), torch.addcmul: partial(added_product, gate=gate)},
        **dict.fromkeys((torch.cross, torch.linalg.cross), partial(product, gate=False)),
        **{torch.pow: passed, torch.float_power: passed, torch.div: _quotient, F.glu: _gated},
        **dict.fromkeys((torch.var, torch.prod, torch.cumprod, torch.cov), _of_degree),
        **{torch.addr: partial(added_product, gate=False)},
        **{torch.lerp: partial(_left_out, place=2, name="weight")},
        **{torch.addcdiv: partial(_left_out, place=2, name="tensor2")},
        **{F.batch_norm: _affine, F.layer_norm: _layer_norm, F.rms_norm: _rms_norm},
        **{F.group_norm: _group_norm, F.instance_norm: _instance_norm},
    }
