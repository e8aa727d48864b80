"""Gradient maps are the score's slopes, as central differences find them."""

from __future__ import annotations

import pytest
import torch
from nets import AveragingNet, FlatteningNet, LinearNet, scores, slopes, tiny_inputs
from torch import Tensor, nn

import cnnviz
from cnnviz import explain

TARGET = [2, 0]


@pytest.fixture(params=("averaging", "flattening"))
def net(request: pytest.FixtureRequest, rank: int) -> nn.Module:
    return {"averaging": AveragingNet, "flattening": FlatteningNet}[request.param](rank)


@pytest.fixture
def by_hand(net: nn.Module, inputs: Tensor) -> Tensor:
    found = slopes(scores(net, TARGET), inputs)
    assert found.min() < -1e-2 < 1e-2 < found.max()  # else signs would go untested
    return found


def test_gradient_is_the_slope_of_the_score(net: nn.Module, inputs: Tensor, by_hand: Tensor) -> None:
    found = explain(net, inputs, "gradient", target=TARGET)
    torch.testing.assert_close(found.values, by_hand, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.score, scores(net, TARGET)(inputs))


def test_absolute_gradient_drops_the_sign(net: nn.Module, inputs: Tensor, by_hand: Tensor) -> None:
    found = explain(net, inputs, "gradient", target=TARGET, absolute=True).values
    torch.testing.assert_close(found, by_hand.abs(), rtol=0, atol=1e-7)


def test_input_x_gradient_is_the_product(net: nn.Module, inputs: Tensor, by_hand: Tensor) -> None:
    found = explain(net, inputs, "input_x_gradient", target=TARGET).values
    torch.testing.assert_close(found, inputs * by_hand, rtol=0, atol=1e-6)


def test_input_x_gradient_of_a_linear_network_is_the_score(rank: int, inputs: Tensor) -> None:
    net = LinearNet(rank)
    found = explain(net, inputs, "input_x_gradient", target=TARGET)
    bias = net.head.bias.detach()[TARGET]
    torch.testing.assert_close(found.values.flatten(1).sum(1) + bias, found.score)


def test_no_target_means_the_prediction(net: nn.Module, inputs: Tensor) -> None:
    found = explain(net, inputs, "gradient")
    with torch.no_grad():
        predicted = [max(range(3), key=row.tolist().__getitem__) for row in net(inputs)]
    assert found.target is not None
    assert found.target.tolist() == predicted
    torch.testing.assert_close(found.values, slopes(scores(net, predicted), inputs), rtol=0, atol=1e-7)


def test_a_function_of_the_output_is_explained_like_a_class() -> None:
    net, inputs = FlatteningNet(), tiny_inputs()
    margin = explain(net, inputs, "gradient", target=lambda output: output[:, 1] - output[:, 2] ** 2)

    def score(x: Tensor) -> Tensor:
        with torch.no_grad():
            return net(x)[:, 1] - net(x)[:, 2] ** 2

    torch.testing.assert_close(margin.values, slopes(score, inputs), rtol=0, atol=1e-6)
    assert margin.target is None


def test_gradient_at_a_layer_is_the_slope_of_what_follows(net: nn.Module, inputs: Tensor) -> None:
    with torch.no_grad():
        maps = net.maps(inputs)
    found = explain(net, inputs, cnnviz.gradient("late"), target=TARGET).values
    torch.testing.assert_close(found, slopes(scores(net.classify, TARGET), maps), rtol=0, atol=1e-7)


def test_an_item_of_a_batch_is_explained_as_if_alone(net: nn.Module, inputs: Tensor) -> None:
    together = explain(net, inputs, "gradient", target=TARGET).values
    for item, target in enumerate(TARGET):
        alone = explain(net, inputs[item : item + 1], "gradient", target=target).values
        torch.testing.assert_close(together[item : item + 1], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_lower_precision_gives_the_same_map_to_its_own_rounding(precision: torch.dtype) -> None:
    net, inputs = FlatteningNet(), tiny_inputs()
    inputs = inputs.to(precision)  # round first, so that both see the same
    exact = explain(net.to(precision).double(), inputs.double(), "gradient", target=TARGET).values
    found = explain(net.to(precision), inputs, "gradient", target=TARGET).values
    assert found.dtype == precision
    allowed = 20 * torch.finfo(precision).eps * exact.abs().max()
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=float(allowed))
