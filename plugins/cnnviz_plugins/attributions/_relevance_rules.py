"""Rules of layer-wise relevance propagation, as multipliers: what is carried back is relevance over value.

So linear operations, residual sums, concatenations, forks, pools and everything that only moves values need no rule:
torch's own backward is theirs. At a sum a + b, a gets a / (a + b) of the relevance, and at a fork shares add up.
Each rule also tells what biases and the stabilizer took, by the same formula that divides the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz import Call

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Shares:
    """Relevance in, shares out: what a rule of a linear operation is built with."""

    stabilizer: float = 1e-6
    ignores: bool = False
    """True to leave biases out of the division."""
    tells: bool = False
    """True to tell what biases and the stabilizer took."""

    def each(self, call: Call, relevance: Tensor, output: Tensor, bias: Tensor | None, sign: float = 1) -> Tensor:
        """Relevance over the stabilized sum of contributions ``output``, without the ``bias`` that is added to it."""
        whole = output if bias is None or self.ignores else output + bias
        added = torch.where(whole < 0, -self.stabilizer, self.stabilizer)
        share = relevance / torch.where(whole + added == 0, 1, whole + added)
        if self.tells:
            lost = share * added if self.stabilizer else torch.where(whole == 0, relevance, 0)
            call.tell("stabilizer", sign * lost)
            if bias is not None and not self.ignores:
                call.tell("biases", sign * share * bias)
        return share


def positive(values: Tensor) -> Tensor:
    return values.clamp(min=0)


def negative(values: Tensor) -> Tensor:
    return values.clamp(max=0)


def _same(values: Tensor) -> Tensor:
    return values


class _Half:
    """The operation of positive inputs with some weights, and of negative inputs with others."""

    def __init__(self, call: Call, above: Change, below: Change, weight: Change = _same):
        values = call.input
        self.above = call.again(positive(values)).with_weights(lambda w: above(weight(w)))
        self.output, self.is_above = self.above.output, values > 0
        self.bias = None if call.bias is None else above(weight(call.bias))
        self.below = None
        if values.device.type != "cpu" or bool((values < 0).any()):  # a GPU is not waited for
            self.below = call.again(negative(values)).with_weights(lambda w: below(weight(w)))
            self.output = self.output + self.below.output

    def back(self, share: Tensor) -> Tensor:
        """Shares of the output as multipliers of the input."""
        above = self.above.vjp(share)
        return above * self.is_above if self.below is None else torch.where(self.is_above, above, self.below.vjp(share))


def epsilon(call: Call, grad: Tensor, shares: Shares) -> Tensor:
    """Each contribution gets its part of the sum of all."""
    bias = call.bias
    plain = call.output if bias is None else call.output - bias
    return call.vjp(shares.each(call, grad * call.output, plain, bias))


def z_plus(call: Call, grad: Tensor, shares: Shares, weight: Change = _same) -> Tensor:
    """Only positive contributions count."""
    half = _Half(call, positive, negative, weight)
    return half.back(shares.each(call, grad * call.output, half.output, half.bias))


def gamma(call: Call, grad: Tensor, shares: Shares, factor: float) -> Tensor:
    """Contributions of the output's sign count 1 + gamma times, the others once."""
    more, less = (lambda w: w + factor * positive(w)), (lambda w: w + factor * negative(w))
    relevance, total = grad * call.output, torch.zeros_like(call.input)
    for half, counts in ((_Half(call, more, less), call.output > 0), (_Half(call, less, more), call.output < 0)):
        total = total + half.back(shares.each(call, torch.where(counts, relevance, 0), half.output, half.bias))
    return total


def alpha_beta(call: Call, grad: Tensor, shares: Shares, alpha: float, beta: float) -> Tensor:
    """Positive contributions get alpha times the relevance, negative ones minus beta times."""
    relevance, up, down = grad * call.output, _Half(call, positive, negative), _Half(call, negative, positive)
    raised = up.back(shares.each(call, alpha * relevance, up.output, up.bias))
    return raised - down.back(shares.each(call, beta * relevance, down.output, down.bias, sign=-1))


# At the first layer: relevance of the input itself, also where the input is zero


def flat(call: Call, grad: Tensor, shares: Shares) -> Tensor:
    """All inputs of an output get the same."""
    return _first(call, grad, shares, torch.ones_like)


def w_square(call: Call, grad: Tensor, shares: Shares) -> Tensor:
    """Inputs get the part of the square of their weight."""
    return _first(call, grad, shares, torch.square)


def _first(call: Call, grad: Tensor, shares: Shares, change: Change) -> Tensor:
    ones = call.again(torch.ones_like(call.input)).with_weights(change)
    call.tell("blind", ones.vjp(shares.each(call, grad * call.output, ones.output, None)), at_input=True)
    return torch.zeros_like(call.input)


def z_box(call: Call, grad: Tensor, shares: Shares, low: float | None, high: float | None) -> Tensor:
    """Inputs get the part that their weighted distance from the worst value makes of all such distances."""
    values = call.input
    lowest, highest = call.bounds if low is None or high is None else (values.new_tensor(low), values.new_tensor(high))
    places = (values, lowest.expand_as(values), highest.expand_as(values))
    whole, above, below = (
        call.again(at).with_weights(change) for at, change in zip(places, (_same, positive, negative), strict=True)
    )
    share = shares.each(call, grad * call.output, whole.output - above.output - below.output, None)
    parts = [at * way.vjp(share) for at, way in zip(places, (whole, above, below), strict=True)]
    call.tell("input", parts[0] - parts[1] - parts[2], at_input=True)
    return torch.zeros_like(values)


# Operations that are curved, or products of what comes from the input


def passed(call: Call, grad: Tensor, shares: Shares) -> Tensor | tuple[Tensor, ...]:
    """All relevance goes on to the only operand; where that is zero, the operation itself has made the value."""
    if len(call.inputs) > 1 or call.input.shape != call.output.shape:
        return plain(call, grad, shares)
    ratio = call.output / call.input
    reaches = ratio.isfinite()
    if shares.tells:
        call.tell("biases", torch.where(reaches, 0, grad * call.output))
    return torch.where(reaches, ratio, 0) * grad


def plain(call: Call, grad: Tensor, shares: Shares) -> tuple[Tensor, ...]:
    """The gradient; what the operation adds to its linear part is its bias."""
    gradients = call.vjps(grad)
    if shares.tells:
        call.tell("biases", grad * (call.output - call.linear_part()))
    return gradients


def affine(call: Call, grad: Tensor, shares: Shares) -> Tensor | tuple[Tensor, ...]:
    """A batch norm of its own: what it adds absorbs, or all relevance goes on where biases are ignored."""
    return passed(call, grad, shares) if shares.ignores else plain(call, grad, shares)


def product(call: Call, grad: Tensor, shares: Shares, how: Literal["gate", "halves"]) -> tuple[Tensor, ...]:
    """To the operand of more elements, as a gate only lets through; of equal ones each gets half."""
    gradients, sizes = call.vjps(grad), [values.numel() for values in call.inputs]
    if how == "gate" and len(set(sizes)) > 1:
        signals = [float(size == max(sizes)) for size in sizes]
        return tuple(part * (signal / sum(signals)) for part, signal in zip(gradients, signals, strict=True))
    return tuple(part / len(gradients) for part in gradients)


def quotient(call: Call, grad: Tensor, shares: Shares) -> Tensor | tuple[Tensor, ...]:
    """All to the numerator."""
    if len(call.inputs) != 2:
        return passed(call, grad, shares)
    return call.vjp(grad), torch.zeros_like(call.inputs[1])


def summed_product(call: Call, grad: Tensor, shares: Shares) -> tuple[Tensor, ...]:
    """What is added keeps its gradient, the factors share that of their product."""
    gradients = call.vjps(grad)
    if len(gradients) == 3:
        return gradients[0], gradients[1] / 2, gradients[2] / 2
    return plain(call, grad, shares) if call.constant(0, "input") is None else tuple(part / 2 for part in gradients)


def normalized(
    call: Call, grad: Tensor, shares: Shares, group: Callable[[Call], Sequence[int]], at: int, centred: bool = True
) -> Tensor:
    """A norm whose standard deviation is held constant; ``group`` gives the shape in which a row is normalized."""
    weight, bias, output = call.constant(at, "weight"), call.constant(at + 1, "bias"), call.output
    spread = output.shape[-weight.ndim :] if weight is not None and weight.ndim > 1 else None
    shape = (1, -1, *(1,) * (output.ndim - 2)) if at > 1 or spread is None else spread
    del shape, spread
    del bias, group, centred
    return call.vjp(grad)
