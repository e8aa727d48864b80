"""Methods made of others are made of them as they say."""

from __future__ import annotations

import pytest
import torch
from nets import AveragingNet, FlatteningNet, tiny_inputs
from torch import Tensor, nn

import cnnviz
from cnnviz import explain
from cnnviz.formulas import MapWarning

TARGET = [2, 0]


def nearest(maps: Tensor, size: torch.Size) -> Tensor:
    for dim, length in enumerate(size, 2):
        maps = maps.index_select(dim, torch.tensor([place * maps.shape[dim] // length for place in range(length)]))
    return maps


def linear(maps: Tensor, size: torch.Size) -> Tensor:
    """Between the centres of cells, which a border continues outward."""
    for dim, length in enumerate(size, 2):
        cells = maps.shape[dim]
        matrix = torch.zeros(length, cells, dtype=maps.dtype)
        for place in range(length):
            where = min(max((place + 0.5) * cells / length - 0.5, 0.0), cells - 1.0)
            low = min(int(where), max(cells - 2, 0))
            matrix[place, low] += 1 - (where - low)
            if cells > 1:
                matrix[place, low + 1] += where - low
        maps = torch.tensordot(maps, matrix, ([dim], [1])).movedim(-1, dim)
    return maps


ENLARGED = {"linear": linear, "nearest": nearest}


@pytest.mark.parametrize("interpolation", ENLARGED)
def test_guided_grad_cam_is_guided_backprop_where_grad_cam_is_positive(
    averaging_net: AveragingNet, inputs: Tensor, interpolation: str
) -> None:
    net = averaging_net
    found = explain(net, inputs, "guided_grad_cam", target=TARGET, layer="second", interpolation=interpolation).values
    parts = explain(net, inputs, ("guided_backprop", "grad_cam"), target=TARGET, layer="second")
    coarse = parts["grad_cam"].values
    assert coarse.min() < 0 < coarse.max()
    assert coarse.shape[2:] != inputs.shape[2:]
    enlarged = ENLARGED[interpolation](torch.where(coarse > 0, coarse, 0), inputs.shape[2:])
    torch.testing.assert_close(found, parts["guided_backprop"].values * enlarged)


def test_guided_grad_cam_smooth_is_guided_backprops() -> None:
    class Curved(AveragingNet):
        def maps(self, x: Tensor) -> Tensor:
            return torch.nn.functional.silu(self.second(self.pool(self.norm(self.first(x)))))

    net, inputs = Curved(), tiny_inputs()
    found = explain(net, inputs, "guided_grad_cam", target=TARGET, layer="second", smooth=True).values
    guided = explain(net, inputs, "guided_backprop", target=TARGET, smooth=True).values
    coarse = explain(net, inputs, "grad_cam", target=TARGET, layer="second").values
    torch.testing.assert_close(found, guided * linear(coarse.clamp(min=0), inputs.shape[2:]))
    with pytest.raises(LookupError, match="the setting smooth=True"):
        explain(net, inputs, "guided_grad_cam", target=TARGET, layer="second")


@pytest.mark.parametrize("of", ["grad_cam", "gradient", "input_x_gradient", "smoothgrad", "guided_backprop"])
def test_saliency_confusion_is_both_signs_of_target_and_prediction(rank: int, inputs: Tensor, of: str) -> None:
    net = FlatteningNet(rank)
    with torch.no_grad():
        predicted = net(inputs).argmax(1)
    truth = [int(predicted[0]), (int(predicted[1]) + 1) % 3]  # one right, one wrong
    found = explain(net, inputs, "saliency_confusion", target=truth, of=of)
    assert found.notes["prediction"].tolist() == predicted.tolist()
    for item in range(2):
        for row, target in ((0, truth[item]), (2, int(predicted[item]))):
            values = explain(net, inputs[item : item + 1], of, target=target).values
            total = sum(values[0, k] for k in range(values.shape[1]))
            torch.testing.assert_close(found.values[item, row], torch.where(total < 0, -total, 0))
            torch.testing.assert_close(found.values[item, row + 1], torch.where(total > 0, total, 0))
    torch.testing.assert_close(found.values[0, :2], found.values[0, 2:])
    assert not torch.allclose(found.values[1, :2], found.values[1, 2:])
    assert found.values.shape[1] == 4


def test_saliency_confusion_takes_a_formula() -> None:
    net, inputs = FlatteningNet(), tiny_inputs()
    formula = cnnviz.image() ** 2 * cnnviz.gradient()
    found = explain(net, inputs, "saliency_confusion", target=TARGET, of=formula).values
    total = explain(net, inputs, formula, target=TARGET).values.sum(1)
    torch.testing.assert_close(found[:, 1] - found[:, 0], total)


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "guided_backprop", "grad_cam", "fullgrad"])
def test_toward_another_class_is_that_class(method: str) -> None:
    net, inputs = FlatteningNet(), tiny_inputs()
    found = explain(net, inputs, cnnviz.toward(cnnviz.attributions[method](), 1), target=TARGET).values
    torch.testing.assert_close(found, explain(net, inputs, method, target=1).values)


def test_at_another_input_is_asked_there() -> None:
    net, inputs = FlatteningNet(), tiny_inputs()
    found = explain(net, inputs, cnnviz.at(cnnviz.gradient(), cnnviz.image() * 0.5), target=TARGET).values
    torch.testing.assert_close(found, explain(net, inputs * 0.5, "gradient", target=TARGET).values)


def test_a_guided_grad_cam_of_zeros_says_so() -> None:
    classify = nn.Linear(4, 3)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), classify).eval()
    with torch.no_grad():
        classify.weight.copy_(-classify.weight.abs() - 0.1)  # everything speaks against every class
    images = torch.rand(2, 3, 8, 8)
    assert explain(net, images, "grad_cam", target=1).values.min() < 0
    with pytest.warns(MapWarning, match="guided_grad_cam is zero everywhere: Grad-CAM is nowhere positive"):
        found = explain(net, images, "guided_grad_cam", target=1).values
    assert torch.equal(found, torch.zeros_like(images))
