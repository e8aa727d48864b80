"""Class activation maps are the weighted sums of channels that their papers say, and keep the papers' promises."""

from __future__ import annotations

import pytest
import torch
from nets import AveragingNet, FlatteningNet, scores, slopes, tiny_inputs
from slow_cams import SLOW, first_component, places, weighted
from torch import Tensor, nn

from cnnviz import explain
from cnnviz.formulas import MapWarning

TARGET = [2, 0]


def maps_and_slopes(net: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        maps = net.maps(inputs)
    return maps, slopes(scores(net.classify, TARGET), maps, step=1e-5)


@pytest.mark.parametrize("method", SLOW)
@pytest.mark.parametrize("kind", [AveragingNet, FlatteningNet], ids=("averaging", "flattening"))
def test_maps_are_those_of_the_paper(kind: type[nn.Module], rank: int, inputs: Tensor, method: str) -> None:
    net = kind(rank)
    found = explain(net, inputs, method, target=TARGET, layer="late").values
    for item, (maps, grads) in enumerate(zip(*maps_and_slopes(net, inputs), strict=True)):
        assert float(grads.min()) < 0 < float(grads.max())
        torch.testing.assert_close(found[item, 0], SLOW[method](maps, grads), rtol=1e-5, atol=1e-7)
    assert found.shape[1] == 1


@pytest.mark.parametrize("method", ["eigen_cam", "eigen_grad_cam"])
@pytest.mark.parametrize("items", [(8, 2), (3, 12)], ids=("more-places", "more-channels"))
def test_first_component_centred(items: tuple[int, int], method: str) -> None:
    size, channels = items
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, channels, 1), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)).double()
    inputs = torch.randn(2, 1, size, size, dtype=torch.float64)
    net(inputs)
    net.eval()
    with torch.no_grad():
        maps = net[:2](inputs)
    grads = net[3].weight.detach()[TARGET].view(maps.shape)
    for centred in (False, True):
        found = explain(net, inputs, method, target=TARGET, layer="1", centred=centred).values
        for item in range(2):
            weighed = maps[item] * (grads[item] if method == "eigen_grad_cam" else 1)
            torch.testing.assert_close(found[item, 0], first_component(weighed, centred), rtol=1e-6, atol=1e-9)


def test_grad_cam_relu_keeps_what_is_positive() -> None:
    net, inputs = FlatteningNet(), tiny_inputs()
    signed = explain(net, inputs, "grad_cam", target=TARGET, layer="late").values
    kept = explain(net, inputs, "grad_cam", target=TARGET, layer="late", relu=True).values
    assert signed.min() < 0
    torch.testing.assert_close(kept, torch.where(signed > 0, signed, 0))


@pytest.mark.parametrize("method", ["grad_cam_plus_plus", "xgrad_cam"])
def test_epsilon_is_the_one_asked_for(method: str) -> None:
    net, inputs = FlatteningNet(), tiny_inputs()
    found = explain(net, inputs, method, target=TARGET, layer="late", epsilon=0.5).values
    for item, (maps, grads) in enumerate(zip(*maps_and_slopes(net, inputs), strict=True)):
        weights = []
        for channel, grad in zip(maps, grads, strict=True):
            if method == "xgrad_cam":
                weights.append(float((grad * channel).sum() / (channel.sum() + 0.5)))
            else:
                share = [s**3 / (2 * s**2 + float(channel.sum()) * s**3 + 0.5) for s in places(grad) if s > 0]
                weights.append(sum(share))
        torch.testing.assert_close(found[item, 0], weighted(maps, weights), rtol=1e-5, atol=1e-7)


def test_cam_weighs_channels_by_the_classifier(averaging_net: AveragingNet, inputs: Tensor) -> None:
    found = explain(averaging_net, inputs, "cam", target=TARGET, layer="late").values
    with torch.no_grad():
        maps = averaging_net.maps(inputs)
    for item, target in enumerate(TARGET):
        by_hand = weighted(maps[item], averaging_net.head.weight[target].tolist())
        torch.testing.assert_close(found[item, 0], by_hand)


def test_promises_of_networks_that_average(averaging_net: AveragingNet, inputs: Tensor) -> None:
    found = explain(averaging_net, inputs, ("cam", "grad_cam", "hires_cam"), target=TARGET, layer="late")
    bias = averaging_net.head.bias.detach()[TARGET]
    cam, score = found["cam"].values, found["cam"].score
    torch.testing.assert_close(cam.flatten(1).mean(1) + bias, score)
    torch.testing.assert_close(found["hires_cam"].values.flatten(1).sum(1) + bias, score)
    torch.testing.assert_close(cam, cam[0].numel() * found["grad_cam"].values)


def test_promises_of_a_trained_network(mobilenet: nn.Module, photographs: Tensor) -> None:
    found = explain(mobilenet, photographs, ("cam", "grad_cam", "hires_cam"), target=[56, 243], layer="features.18")
    bias = mobilenet.classifier[1].bias.detach()[[56, 243]]
    cam, score = found["cam"].values, found["cam"].score
    torch.testing.assert_close(cam.flatten(1).mean(1) + bias, score, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["hires_cam"].values.flatten(1).sum(1) + bias, score, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cam, 16 * found["grad_cam"].values, rtol=1e-4, atol=1e-4)
    assert cam.shape == (2, 1, 4, 4)


def test_cam_looks_through_a_rectifier_before_the_average() -> None:
    net, inputs = AveragingNet(), tiny_inputs()
    before = explain(net, inputs, "cam", target=TARGET, layer="second").values
    behind = explain(net, inputs, "cam", target=TARGET, layer="late").values
    torch.testing.assert_close(before, behind)


def test_cam_refuses_networks_that_do_not_average(flattening_net: FlatteningNet, inputs: Tensor) -> None:
    with pytest.raises(ValueError, match=r"cam needs a network that averages this layer over space .* use grad_cam"):
        explain(flattening_net, inputs, "cam", target=TARGET, layer="late")


@pytest.mark.parametrize("method", [*SLOW, "cam"])
def test_the_layer_by_any_of_its_names(method: str) -> None:
    net, inputs = AveragingNet(), tiny_inputs()
    by_name = explain(net, inputs, method, target=TARGET, layer="second").values
    for layer in (2, -1, ("second",), net.second):
        torch.testing.assert_close(explain(net, inputs, method, target=TARGET, layer=layer).values, by_name)
    by_default = explain(net, inputs, method, target=TARGET).values
    torch.testing.assert_close(by_default, explain(net, inputs, method, target=TARGET, layer="late").values)


@pytest.mark.parametrize("method", SLOW)
def test_a_layer_written_over_in_place_is_what_the_layer_gave(method: str) -> None:
    net, inputs = AveragingNet(), tiny_inputs()  # whose `norm` is followed by a ReLU in place
    found = explain(net, inputs, method, target=TARGET, layer="norm").values

    def rest(maps: Tensor) -> Tensor:
        return net.classify(net.late(net.second(net.pool(maps.clamp(min=0)))))

    with torch.no_grad():
        maps = net.norm(net.first(inputs))
    assert maps.min() < 0
    grads = slopes(scores(rest, TARGET), maps)
    for item in range(2):
        torch.testing.assert_close(found[item, 0], SLOW[method](maps[item], grads[item]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", SLOW)
def test_a_map_of_zeros_gives_zeros(method: str) -> None:
    net, inputs = AveragingNet(), tiny_inputs()
    with torch.no_grad():
        net.second.bias.fill_(-1e3)
    with pytest.warns(MapWarning, match="the map of layer 'late' is zero everywhere: nothing that"):
        found = explain(net, inputs, method, target=TARGET, layer="late").values
    assert torch.equal(found, torch.zeros_like(found))
