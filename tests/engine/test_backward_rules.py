"""Guided backprop and deconvnet follow their rule wherever a network rectifies, however the rectifier is written."""

from __future__ import annotations

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
