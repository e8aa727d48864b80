"""Rules of layer-wise relevance propagation, as multipliers: what is carried back is relevance over value.

So linear operations, residual sums, concatenations, forks, pools and everything that only moves values need no rule:
torch's own backward is theirs. At a sum a + b, a gets a / (a + b) of the relevance, and at a fork shares add up.
Each rule also reports what biases and the stabilizer took, by the formula that divides the rest.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cnnviz import Call
from cnnviz.formulas import reads_at_once

Change = Callable[[Tensor], Tensor]
STABILIZER = 1e-6


@dataclass(frozen=True)
class Shares:
    """Relevance in, shares out."""

    ignores: bool = False
    """True to leave biases out of the division."""
    reports: bool = False
    """True to report what biases and the stabilizer took."""

    def of(
        self, call: Call, relevance: Tensor, output: Tensor, bias: Tensor | None, e: float = STABILIZER, sign: int = 1
    ) -> Tensor:
        """Relevance over the stabilized sum of contributions ``output`` and of the ``bias`` that is added to them."""
        whole = output if bias is None or self.ignores else output + bias
        e = max(e, torch.finfo(whole.dtype).eps) if e else 0.0  # less would make halves overflow
        stable = whole + torch.where(whole < 0, -e, e)
        share = relevance / torch.where(stable == 0, 1, stable)
        if self.reports:
            lost = share * (stable - whole) if e else torch.where(whole == 0, relevance, 0)
            call.report("stabilizer", sign * lost)
            if bias is not None and not self.ignores:
                call.report("biases", sign * share * bias)
        return share


LayerRule = Callable[[Call, Tensor, Shares], Tensor]


def positive(values: Tensor) -> Tensor:
    return values.clamp(min=0)


def negative(values: Tensor) -> Tensor:
    return values.clamp(max=0)


def _same(values: Tensor) -> Tensor:
    return values


class _Half:
    """The operation of positive inputs with some weights, and of negative inputs with others."""

    def __init__(self, call: Call, above: Change, below: Change):
        values = call.input
        self.above, self.below = call.again(positive(values)).with_weights(above), None
        self.output, self.is_above = self.above.output, values > 0
        self.bias = None if call.bias is None else above(call.bias)
        # a device is not waited for
        if values.device.type != "cpu" or not reads_at_once() or bool((values < 0).any()):
            self.below = call.again(negative(values)).with_weights(below)
            self.output = self.output + self.below.output

    def back(self, share: Tensor) -> Tensor:
        """Shares of the output as multipliers of the input."""
        above = self.above.vjp(share)
        return above * self.is_above if self.below is None else torch.where(self.is_above, above, self.below.vjp(share))


def _check(setting: str, value: Any, least: float = 0) -> None:
    if not isinstance(value, int | float) or not least <= value < math.inf:
        raise ValueError(f"{setting} is {value!r}; give a number{' from 0' if least == 0 else ''}")


@dataclass(frozen=True)
class epsilon:
    """Each contribution gets its part of the sum of all, with ``stabilizer`` added to its size; 0 is LRP-0."""

    called = "epsilon"

    stabilizer: float = STABILIZER

    def __post_init__(self) -> None:
        _check("the stabilizer of epsilon", self.stabilizer)

    def __call__(self, call: Call, grad: Tensor, shares: Shares) -> Tensor:
        plain = call.output if call.bias is None else call.output - call.bias
        return call.vjp(shares.of(call, grad * call.output, plain, call.bias, self.stabilizer))


@dataclass(frozen=True)
class z_plus:
    """Only positive contributions count."""

    called = "z_plus"

    def __call__(self, call: Call, grad: Tensor, shares: Shares) -> Tensor:
        half = _Half(call, positive, negative)
        return half.back(shares.of(call, grad * call.output, half.output, half.bias))


def divided(of: LayerRule) -> LayerRule:
    """The rule of the last layer where a class is set against its opposite: for both, epsilon gives the same parts."""
    return z_plus() if isinstance(of, epsilon) else of


@dataclass(frozen=True)
class negated:
    """Another rule, of the operation with the opposite weights: the relevance of what speaks against the class."""

    of: LayerRule

    def __call__(self, call: Call, grad: Tensor, shares: Shares) -> Tensor:
        return divided(self.of)(call.with_weights(torch.neg, torch.neg), -grad, replace(shares, reports=False))


@dataclass(frozen=True)
class contrasted:
    """What a rule gives more than for the opposite weights, where that is positive (Zhang et al., 2016)."""

    of: LayerRule

    def __call__(self, call: Call, grad: Tensor, shares: Shares) -> Tensor:
        own = self.of(call, grad, shares)
        difference = own - negated(self.of)(call, grad, shares)
        return torch.where(difference * own > 0, difference, 0)  # whatever the sign of the score


@dataclass(frozen=True)
class gamma:
    """Contributions of the output's sign count 1 + ``factor`` times, the others once."""

    called = "gamma"

    factor: float = 0.25

    def __post_init__(self) -> None:
        _check("the factor of gamma", self.factor)

    def __call__(self, call: Call, grad: Tensor, shares: Shares) -> Tensor:
        more, less = (lambda w: w + self.factor * positive(w)), (lambda w: w + self.factor * negative(w))
        relevance, total = grad * call.output, torch.zeros_like(call.input)
        for half, counts in ((_Half(call, more, less), call.output > 0), (_Half(call, less, more), call.output < 0)):
            total = total + half.back(shares.of(call, torch.where(counts, relevance, 0), half.output, half.bias))
        return total


@dataclass(frozen=True)
class alpha_beta:
    """Positive contributions get ``alpha`` times the relevance, negative ones minus ``beta``; alpha - beta = 1."""

    called = "alpha_beta"

    alpha: float = 2
    beta: float = 1

    def __post_init__(self) -> None:
        if not (abs(self.alpha - self.beta - 1) <= 1e-9 and self.beta >= 0):
            raise ValueError(
                f"alpha_beta: alpha={self.alpha} and beta={self.beta} do not keep the sum of relevance; give alpha "
                "and beta with alpha - beta = 1 and beta from 0, such as 2 and 1"
            )

    def __call__(self, call: Call, grad: Tensor, shares: Shares) -> Tensor:
        relevance, up = grad * call.output, _Half(call, positive, negative)
        raised = up.back(shares.of(call, self.alpha * relevance, up.output, up.bias))
        if not self.beta:
            return raised
        down = _Half(call, negative, positive)
        return raised - down.back(shares.of(call, self.beta * relevance, down.output, down.bias, sign=-1))


# Of the first layer: relevance of the input itself, also where the input is zero


@dataclass(frozen=True)
class flat:
    """All inputs of an output get the same."""

    called = "flat"

    def __call__(self, call: Call, grad: Tensor, shares: Shares) -> Tensor:
        return _blind(call, grad, shares, torch.ones_like)


@dataclass(frozen=True)
class w_square:
    """Inputs get the part of the square of their weight."""

    called = "w_square"

    def __call__(self, call: Call, grad: Tensor, shares: Shares) -> Tensor:
        return _blind(call, grad, shares, torch.square)


def _blind(call: Call, grad: Tensor, shares: Shares, change: Change) -> Tensor:
    """Relevance by weights alone, which is reported, as no multiplier of a zero could be."""
    ones = call.again(torch.ones_like(call.input)).with_weights(change)
    call.report("blind", ones.vjp(shares.of(call, grad * call.output, ones.output, None)), at_input=True)
    return torch.zeros_like(call.input)


@dataclass(frozen=True)
class z_box:
    """Inputs get parts by their weighted distance from the worst value: ``low`` or ``high``, in the model's units.

    Without them black and white, as the preprocessing has them.
    """

    called = "z_box"

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for setting, bound in (("low", self.low), ("high", self.high)):
            if bound is not None:
                _check(f"{setting} of z_box", bound, -sys.float_info.max)
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low={self.low} of z_box is not below high={self.high}; give the lowest value as low")

    def __call__(self, call: Call, grad: Tensor, shares: Shares) -> Tensor:
        values, given = call.input, (self.low, self.high)
        known = call.bounds if None in given else (values, values)
        box = [bound if own is None else torch.full_like(values, own) for own, bound in zip(given, known, strict=True)]
        places, changes = (values, *box), (_same, positive, negative)
        ways = [call.again(at).with_weights(change) for at, change in zip(places, changes, strict=True)]
        share = shares.of(call, grad * call.output, ways[0].output - ways[1].output - ways[2].output, None)
        parts = [at * way.vjp(share) for at, way in zip(places, ways, strict=True)]
        call.report("input", parts[0] - parts[1] - parts[2], at_input=True)
        return torch.zeros_like(values)
