"""Rectifiers that a rule may not see: it acts on all of them, or refuses the network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from faults.references import Net, net, pictures, scripted
from faults.situations import NAMES, Situation, answer, check, close, cross, pairs, slow_answer
from torch import Tensor

GUIDED = ("guided_backprop", "deconvnet", "guided_grad_cam")


@scripted
def scripted_relu(h: Tensor) -> Tensor:
    return torch.relu(h)


class OwnRelu(torch.autograd.Function):
    """A rectifier in a Function of the user's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x > 0)


RECTIFIERS = {
    "product with a mask": lambda h: h * (h > 0),
    "product with a mask of numbers": lambda h: h * (h > 0).to(h.dtype),
    "where": lambda h: torch.where(h > 0, h, torch.zeros_like(h)),
    "where with a number": lambda h: torch.where(h > 0, h, 0.0),
    "maximum": lambda h: torch.maximum(h, torch.zeros_like(h)),
    "max of two": lambda h: torch.max(h, h.new_zeros(())),
    "fmax": lambda h: torch.fmax(h, torch.zeros_like(h)),
    "masked_fill": lambda h: h.masked_fill(h < 0, 0.0),
    "clamp_min": lambda h: h.clamp_min(0),
    "clamp with a tensor": lambda h: torch.clamp(h, min=h.new_zeros(())),
    "threshold": lambda h: F.threshold(h, 0, 0),
    "leaky with a slope of zero": lambda h: F.leaky_relu(h, 0.0),
    "a Function of the user's own": OwnRelu.apply,
    "TorchScript": scripted_relu,
}


@cross(RECTIFIERS, GUIDED)
def test_a_rule_acts_on_every_rectifier_or_says_so(case: str, name: str) -> None:
    """Beside an nn.ReLU, which the rule would meet anyway."""
    found = answer(name, net(lambda self, x: self.finish(RECTIFIERS[case](self.conv1(x)))), pictures(), "conv2")
    if isinstance(found, str):
        assert "\n" not in found
    else:
        expected = slow_answer(name, net(), pictures(), "conv2")
        assert not isinstance(expected, str)
        close(found[0], expected[0])


SITUATIONS = {
    "one rectifier is scripted": Situation(
        lambda: net(lambda self, x: self.finish(scripted_relu(self.conv1(x)))), net, or_refused="script|seen"
    ),
    "one rectifier is a Function": Situation(
        lambda: net(lambda self, x: self.finish(OwnRelu.apply(self.conv1(x)))), net, or_refused="Function|seen|known"
    ),
}


@pairs(SITUATIONS)
def test_other_attributions_are_right_with_such_a_part(situation: Situation, name: str) -> None:
    assert name in NAMES
    check(situation, name)


def test_the_networks_compute_the_same() -> None:
    """Else the comparison above would show nothing."""
    for rectify in RECTIFIERS.values():
        found = net(lambda self, x, rectify=rectify: self.finish(rectify(self.conv1(x))))(pictures())
        close(found, Net.double(Net())(pictures()), 1e-12)
