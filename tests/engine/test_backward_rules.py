"""Guided backprop and deconvnet follow their rule wherever a network rectifies, however the rectifier is written."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import (
    RELU6,
    SPELLINGS,
    AveragingNet,
    Curve,
    Halfway,
    LinearNet,
    Rectified,
    Residual,
    dense,
    scores,
    slopes,
    tiny_inputs,
)
from torch import Tensor, nn

from cnnviz import explain

TARGET = [2, 0]
RULES = ("guided_backprop", "deconvnet")


def propagated(net: Rectified, x: Tensor, target: int, rule: str, curve: Curve) -> Tensor:
    """The rule by matrices and masks, for one item (C, *spatial)."""
    first, first_bias = dense(net.first, tuple(x.shape))
    second, second_bias = dense(net.second, (net.second.in_features,))
    below = first @ x.flatten() + first_bias
    above = second @ curve.value(below) + second_bias
    if curve is RELU6:
        assert bool((below > 6).any())  # else its cap would go untested
    grad = net.head.weight.detach()[target]
    for z, matrix in ((above, second), (below, first)):
        positive = torch.where(grad > 0, grad, 0.0)
        grad = matrix.T @ (positive * curve.slope(z) if rule == "guided_backprop" else positive)
    return grad.view_as(x)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_follows_the_rule(rank: int, inputs: Tensor, spelling: str, rule: str) -> None:
    curve, make = SPELLINGS[spelling]
    net = Rectified(rank, make())
    found = explain(net, inputs, rule, target=TARGET).values
    by_hand = torch.stack([propagated(net, x, target, rule, curve) for x, target in zip(inputs, TARGET, strict=True)])
    torch.testing.assert_close(found, by_hand, rtol=0, atol=1e-10)
    assert not torch.allclose(found, explain(net, inputs, "gradient", target=TARGET).values, atol=1e-3)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_rules_asked_together_with_the_gradient_are_those_asked_alone(spelling: str) -> None:
    net, inputs = Rectified(2, SPELLINGS[spelling][1]()), tiny_inputs()
    asked = ("guided_backprop", "gradient", "deconvnet")
    together = explain(net, inputs, asked, target=TARGET)
    torch.testing.assert_close(together["gradient"].values, slopes(scores(net, TARGET), inputs), rtol=0, atol=1e-6)
    for method in asked:
        alone = explain(net, inputs, method, target=TARGET).values
        torch.testing.assert_close(together[method].values, alone, rtol=0, atol=1e-12)


def pooled(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Max pooling by two of one item's maps (C, *spatial), and as a 0/1 matrix the places the maxima came from."""
    places = torch.arange(maps[0].numel()).view(maps.shape[1:])
    windows, origins = maps, places
    for dim in range(maps.ndim - 1):
        windows, origins = windows.unfold(dim + 1, 2, 2), origins.unfold(dim, 2, 2)
    flat, origins = windows.flatten(-(maps.ndim - 1)), origins.flatten(-(maps.ndim - 1))
    values, which = flat.max(-1)
    unpool = torch.zeros(values.numel(), maps.numel(), dtype=torch.float64)
    chosen = origins.expand(flat.shape).gather(-1, which[..., None])[..., 0]
    channel = torch.arange(len(maps)).view(-1, *(1,) * (maps.ndim - 1)) * places.numel()
    unpool[torch.arange(values.numel()), (chosen + channel).flatten()] = 1
    return values, unpool


@pytest.mark.parametrize("rule", RULES)
def test_pooling_hands_back_to_where_the_maximum_was(rank: int, inputs: Tensor, rule: str) -> None:
    net = AveragingNet(rank)
    found = explain(net, inputs, rule, target=TARGET).values
    for x, target, values in zip(inputs, TARGET, found, strict=True):
        first, first_bias = dense(lambda each: net.norm(net.first(each)), tuple(x.shape))
        below = first @ x.flatten() + first_bias
        maps, unpool = pooled(below.clamp(min=0).view(3, *x.shape[1:]))
        second, second_bias = dense(net.second, tuple(maps.shape))
        above = second @ maps.flatten() + second_bias
        size = maps[0].numel()
        grad = (net.head.weight.detach()[target][:, None] / size).expand(4, size).flatten()
        grad = second.T @ (grad.clamp(min=0) * ((above > 0) | (rule == "deconvnet")))
        grad = unpool.T @ grad
        grad = first.T @ (grad.clamp(min=0) * ((below > 0) | (rule == "deconvnet")))
        torch.testing.assert_close(values.flatten(), grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_reused_rectifiers_and_additions(rule: str) -> None:
    net, inputs = Residual(), tiny_inputs()
    found = explain(net, inputs, rule, target=TARGET).values
    stem, stem_bias = dense(net.stem, (2, 5, 6))
    branch, branch_bias = dense(net.branch, (2, 5, 6))
    for x, target, values in zip(inputs, TARGET, found, strict=True):
        low = stem @ x.flatten() + stem_bias
        side = branch @ low.clamp(min=0) + branch_bias
        top = low.clamp(min=0) + side.clamp(min=0) - 1

        def back(grad: Tensor, z: Tensor) -> Tensor:
            return grad.clamp(min=0) * ((z > 0) | (rule == "deconvnet"))

        grad = back(net.head.weight.detach()[target], top)
        grad = back(grad + branch.T @ back(grad, side), low)
        torch.testing.assert_close(values.flatten(), stem.T @ grad, rtol=0, atol=1e-10)


SMOOTH = {"silu": F.silu, "gelu": F.gelu, "elu": F.elu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "mish": F.mish}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_extends_the_rule_to_every_activation(name: str, rule: str) -> None:
    curve = SMOOTH[name]
    net, inputs = Rectified(2, curve), tiny_inputs()
    found = explain(net, inputs, rule, target=TARGET, smooth=True).values

    def slope(z: Tensor) -> Tensor:
        return (curve(z + 1e-6) - curve(z - 1e-6)) / 2e-6

    for x, target, values in zip(inputs, TARGET, found, strict=True):
        first, first_bias = dense(net.first, tuple(x.shape))
        below = first @ x.flatten() + first_bias
        above = net.second.weight.detach() @ curve(below) + net.second.bias.detach()
        grad = net.head.weight.detach()[target].clamp(min=0)
        grad = net.second.weight.detach().T @ (grad * slope(above) if rule == "guided_backprop" else grad)
        grad = grad.clamp(min=0) * slope(below) if rule == "guided_backprop" else grad.clamp(min=0)
        torch.testing.assert_close(values.flatten(), first.T @ grad, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("net", [LinearNet(), Rectified(2, F.silu)], ids=("linear", "smooth"))
def test_a_network_without_rectifiers_is_refused(net: nn.Module, rule: str) -> None:
    name = type(net).__name__
    with pytest.raises(LookupError, match=f"changes nothing in {name}.* none of .*relu.*; .*smooth=True"):
        explain(net, tiny_inputs(), rule, target=TARGET)


@pytest.mark.parametrize("rule", RULES)
def test_a_view_written_in_place(rule: str) -> None:
    net, inputs = Halfway(), tiny_inputs()
    found = explain(net, inputs, rule, target=TARGET).values
    first, first_bias = dense(net.first, (2, 5, 6))
    for x, target, values in zip(inputs, TARGET, found, strict=True):
        z = first @ x.flatten() + first_bias
        grad = net.head.weight.detach()[target].clone()
        grad[:60] = grad[:60].clamp(min=0) * ((z[:60] > 0) | (rule == "deconvnet"))
        torch.testing.assert_close(values.flatten(), first.T @ grad, rtol=0, atol=1e-10)


# Rectifiers that are written as something else

ZERO = torch.zeros((), dtype=torch.float64)
DISGUISES: dict[str, Callable[[Tensor], Tensor]] = {
    "times its sign": lambda x: x * (x > 0),
    "times its sign, turned": lambda x: (x > 0) * x,
    "times its sign as numbers": lambda x: x * (x >= 0).to(x.dtype),
    "times its detached sign": lambda x: x.mul((x.detach() > 0).double()),
    "times its sign in place": lambda x: (y := x * 1).mul_(y > 0),
    "where": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "where, a number": lambda x: torch.where(x > 0, x, 0.0),
    "where, turned": lambda x: torch.where(x <= 0, 0.0, x),
    "where, a method": lambda x: x.where(x.gt(0), ZERO),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "maximum, turned": lambda x: torch.maximum(ZERO, x),
    "max": lambda x: torch.max(x, x.new_zeros(())),
    "fmax": lambda x: torch.fmax(x, ZERO),
    "clamp": lambda x: x.clamp(min=ZERO),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0),
    "masked_fill in place": lambda x: (y := x * 1).masked_fill_(y <= 0, 0.0),
}


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("method", [*RULES, "deeplift", "gradient"])
@pytest.mark.parametrize("name", DISGUISES)
def test_a_rectifier_by_another_name_follows_the_rule(name: str, method: str, positive: bool) -> None:
    inputs = tiny_inputs()

    def asked(curve: Curve | Callable[[Tensor], Tensor]) -> Tensor:
        net = Rectified(2, lambda x: curve(x + 50 * positive))  # so that every value may be positive
        return explain(net, inputs, method, target=TARGET).values

    torch.testing.assert_close(asked(DISGUISES[name]), asked(F.relu), rtol=0, atol=1e-11)


GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "a constant": lambda x: x * torch.linspace(-1, 1, x.shape[1]).to(x),
    "another's sign": lambda x: x * (x.flip(1) > 0),
    "a product of two": lambda x: x * x.sigmoid(),
    "a floor": lambda x: torch.maximum(x, torch.full_like(x, -0.3)),
    "a constant choice": lambda x: torch.where(torch.arange(x.shape[1]) % 2 == 0, x, 0.0),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", GATES)
def test_what_is_no_rectifier_passes_its_gradient(name: str, rule: str) -> None:
    inputs, gate = tiny_inputs(), GATES[name]
    net = Rectified(2, lambda x: gate(x.flatten(1)).view_as(x).relu())
    found = explain(net, inputs, rule, target=TARGET).values
    first, second, head = (
        dense(layer, shape)
        for layer, shape in (
            (net.first, (2, 5, 6)),
            (net.second, (net.second.in_features,)),
            (net.head, (net.head.in_features,)),
        )
    )
    for x, target, values in zip(inputs, TARGET, found, strict=True):
        grad, below = head[0][target], first[0] @ x.flatten() + first[1]
        above = second[0] @ gate(below[None])[0].clamp(min=0) + second[1]
        for z, (matrix, _) in ((above, second), (below, first)):
            gated = z[None].clone().requires_grad_()
            out = gate(gated)
            grad = grad.clamp(min=0) * ((out[0] > 0) | (rule == "deconvnet"))
            grad = matrix.T @ torch.autograd.grad(out, gated, grad[None])[0][0]
        torch.testing.assert_close(values.flatten(), grad, rtol=0, atol=1e-10)


def negative_to_zero(x: Tensor) -> Tensor:
    x = x * 1
    x[x < 0] = 0
    return x


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("curve", "reason"),
    [
        (lambda x: torch.where(x > 0, x, 0.1 * x), "torch.where chooses by the sign.*such as F.leaky_relu"),
        (negative_to_zero, "an assignment chooses by the sign.*such as x.relu"),
    ],
    ids=("where", "assignment"),
)
def test_a_rectifier_of_several_operations_is_refused(
    curve: Callable[[Tensor], Tensor], reason: str, rule: str
) -> None:
    net = Rectified(2, curve)
    with pytest.raises(ValueError, match=reason):
        explain(net, tiny_inputs(), rule, target=TARGET)
    explain(net, tiny_inputs(), "gradient", target=TARGET)


# Rectifiers that Python does not see


def clamped(x: Tensor) -> Tensor:
    return torch.clamp(x, min=0.0, max=4.0)


def rectified(x: Tensor) -> Tensor:
    return torch.relu(x)


with warnings.catch_warnings(action="ignore"):  # torch deprecates it, and models go on to use it
    scripted, scripted_clamp = torch.jit.script(rectified), torch.jit.script(clamped)


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x > 0)


def elsewhere(x: Tensor) -> Tensor:
    given: list[Tensor] = []

    def work() -> None:
        with torch.enable_grad():
            given.append(x.relu())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return given[0]


HIDDEN = {"scripted": (scripted, "relu"), "scripted clamp": (scripted_clamp, "relu6")}
HIDDEN |= {"custom": (Custom.apply, "Custom"), "in a thread": (elsewhere, "relu")}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_rectifier_is_refused_by_name(name: str, rule: str) -> None:
    curve, called = HIDDEN[name]

    class Half(Rectified):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.second(curve(self.first(x)).flatten(1)).relu())

    with pytest.raises(LookupError, match=f"can't act on {called} in Half: it is not seen.*torch's functions"):
        explain(Half(2, curve), tiny_inputs(), rule, target=TARGET)


@pytest.mark.parametrize("rule", RULES)
def test_a_hidden_rectifier_that_is_on_no_way_is_none(rule: str) -> None:
    class Aside(Residual):
        def forward(self, x: Tensor) -> Tensor:
            scripted(x)
            return super().forward(x.detach().relu() * 0 + x)

    found, plain = (explain(net, tiny_inputs(), rule, target=TARGET).values for net in (Aside(), Residual()))
    torch.testing.assert_close(found, plain, rtol=0, atol=0)
