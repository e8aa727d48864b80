"""The closed forms of DeepLIFT's mean slopes, against exact fractions and against integrals of the slope."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnviz import explain
from cnnviz_plugins.attributions import _mean_slopes as mean_slopes

ZERO, ONE = Fraction(0), Fraction(1)
SLOPE, LIMIT = torch.tensor([-0.5]).double(), torch.tensor([2.0]).double()
PIECES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Fraction], Fraction]]] = {
    "relu": (F.relu, lambda x: max(x, ZERO)),
    "relu6": (F.relu6, lambda x: min(max(x, ZERO), 6 * ONE)),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 2), lambda x: min(max(x, -ONE / 2), 2 * ONE)),
    "hardtanh in place": (lambda x: F.hardtanh_(x, 0, 2), lambda x: min(max(x, ZERO), 2 * ONE)),
    "clamp": (lambda x: x.clamp(-0.5, 2), lambda x: min(max(x, -ONE / 2), 2 * ONE)),
    "clamp to a tensor": (lambda x: x.clamp(max=LIMIT), lambda x: min(x, 2 * ONE)),
    "clamp_min": (lambda x: x.clamp_min(-0.5), lambda x: max(x, -ONE / 2)),
    "clip": (lambda x: torch.clip(x, max=2), lambda x: min(x, 2 * ONE)),
    "clamp upside down": (lambda x: x.clamp(2, 1), lambda x: ONE),
    "leaky": (lambda x: F.leaky_relu(x, 0.25), lambda x: max(x, x / 4)),
    "leaky, steep below": (lambda x: F.leaky_relu(x, 2.0), lambda x: min(x, 2 * x)),
    "prelu": (lambda x: F.prelu(x, SLOPE), lambda x: max(x, -x / 2)),
    "hardsigmoid": (F.hardsigmoid, lambda x: min(max(x + 3, ZERO), 6 * ONE) / 6),
    "hardswish": (F.hardswish, lambda x: x * min(max(x + 3, ZERO), 6 * ONE) / 6),
}
ENDS = [-1e3, -6.5, -3.0, -2.0, -0.5, -0.25, -1e-9, -1e-200, 0.0, 1e-200, 1e-9, 0.75, 1.5, 2.25, 3.0, 5.0, 7.0, 1e3]
NEAR = [1e-15, -1e-12, 1e-8, -1e-5]


def pairs() -> tuple[Tensor, Tensor]:
    """Every end with every other one, and with ends close by, (count,) each."""
    both = [*itertools.permutations(ENDS, 2), *((end, end + move) for end in ENDS for move in NEAR)]
    x, b = torch.tensor(both, dtype=torch.float64).unbind(1)
    return x[x != b], b[x != b]


@pytest.mark.parametrize("name", PIECES)
def test_a_curve_of_straight_or_square_pieces_is_exact_however_small_the_change(name: str) -> None:
    curve, exact = PIECES[name]

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return curve(x * 1).sum(1, keepdim=True)

    x, b = pairs()
    values = explain(Net().eval(), x[None], "deeplift", target=0, baseline=b[None]).values[0]
    for contribution, one, other in zip(values.tolist(), x.tolist(), b.tolist(), strict=True):
        way = Fraction(one) - Fraction(other)
        expected = (exact(Fraction(one)) - exact(Fraction(other))) / way
        # of a square, both ends and their mean are rounded
        assert abs(contribution / float(way) - expected) <= 4e-16 * max(1, abs(one), abs(other))


SMOOTH: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "sigmoid": (torch.sigmoid, mean_slopes.sigmoid),
    "tanh": (torch.tanh, mean_slopes.tanh),
    "silu": (F.silu, mean_slopes.silu),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_a_smooth_curve_s_is_the_integral_of_its_slope(name: str) -> None:
    curve, mean_slope = SMOOTH[name]
    places, weights = np.polynomial.legendre.leggauss(80)
    x, b = pairs()
    near = (x - b).abs() < 12
    x, b = x[near], b[near]
    expected = torch.zeros_like(x)
    for place, weight in zip(places, weights, strict=True):
        at = (b + (x - b) * (place + 1) / 2).requires_grad_()
        (slope,) = torch.autograd.grad(curve(at).sum(), at)
        expected += weight / 2 * slope
    torch.testing.assert_close(mean_slope(x, b), expected, rtol=0, atol=2e-15 if name != "silu" else 1e-14)
    far = torch.tensor([-1e3, -40.0, 30.0, 800.0]).double()
    for one, other in itertools.permutations(far, 2):
        ratio = (curve(one) - curve(other)) / (one - other)
        torch.testing.assert_close(mean_slope(one[None], other[None]), ratio[None], rtol=1e-13, atol=1e-17)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_where_nothing_changes_it_is_the_slope(dtype: torch.dtype) -> None:
    x = torch.tensor([-40.0, -7.0, -2.5, -0.25, 0.0, 1e-6, 0.5, 5.0, 6.5, 50.0], dtype=dtype)

    def by_hand(curve: Callable[[Tensor], Tensor]) -> Tensor:
        at = x.double().clone().requires_grad_()
        return torch.autograd.grad(curve(at).sum(), at)[0]

    slopes = [  # torch's slopes of hardsigmoid and hardswish have the digits of float32
        (mean_slopes.clamped(x, x), by_hand(F.relu)),
        (mean_slopes.clamped(x, x, 0, 6), by_hand(F.relu6)),
        (mean_slopes.hardsigmoid(x, x), by_hand(lambda x: F.hardtanh(x, -3, 3) / 6)),
        (mean_slopes.hardswish(x, x), by_hand(lambda x: x * (F.hardtanh(x, -3, 3) + 3) / 6)),
        *((mean_slope(x, x), by_hand(curve)) for curve, mean_slope in SMOOTH.values()),
    ]
    for found, slope in slopes:
        tolerance = 8 * torch.finfo(dtype).eps
        torch.testing.assert_close(found.double(), slope, rtol=tolerance, atol=tolerance)


def test_what_stays_infinite_does_not_change() -> None:
    x = torch.tensor([-torch.inf, torch.inf, -torch.inf])
    assert mean_slopes.clamped(x, torch.tensor([-torch.inf, torch.inf, 2.0])).tolist() == [0, 1, 0]
    assert mean_slopes.clamped(x, x, -1, 6).tolist() == [0, 0, 0]
    assert mean_slopes.sigmoid(x, x).tolist() == [0, 0, 0]
