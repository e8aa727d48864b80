"""Projections of channels are what a deconvolutional network written out by hand gives (Zeiler & Fergus, 2014)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import CONV, POOL, randomized
from torch import Tensor, nn

from cnnviz import Explanation, attributions, explain, renderers
from cnnviz.objectives import channel, feature_map, strongest
from cnnviz.tasks import receptive_field

TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
UNPOOL = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}
ITEMS = {1: (37,), 2: (23, 31), 3: (11, 13, 12)}


def alexnet_like(rank: int) -> nn.Sequential:
    """Strides, padding and groups, pools that do not overlap, rectifiers in place; then a head."""
    conv, pool = CONV[rank], POOL[rank]
    net = nn.Sequential(
        conv(2, 4, 5, stride=2, padding=2), nn.ReLU(inplace=True), pool(2),
        conv(4, 6, 3, padding=1, groups=2), nn.ReLU(inplace=True),
        conv(6, 6, 3, padding=2, dilation=2), nn.ReLU(inplace=True), pool(2),
        nn.Flatten(), nn.LazyLinear(5),
    )  # fmt: skip
    net(torch.zeros(1, 2, *ITEMS[rank]))
    randomized(net, seed=40 + rank)
    return net


def inputs_of(rank: int, items: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(items, 2, *ITEMS[rank], generator=generator, dtype=torch.float64)


def deconvnet_by_hand(net: nn.Sequential, depth: int, x: Tensor, number: int, unit: bool) -> Tensor:
    """Up to the layer at ``depth``, remembering sizes and switches; then back by unpooling, rectifying, filtering."""
    rank = x.ndim - 2
    met: list[tuple[nn.Module, torch.Size, Tensor | None]] = []
    maps = x
    with torch.no_grad():
        for layer in net[: depth + 1]:
            size, switches = maps.shape, None
            if isinstance(layer, POOL[rank]):
                maps, switches = getattr(F, f"max_pool{rank}d")(maps, layer.kernel_size, return_indices=True)
            else:
                maps = F.relu(maps) if isinstance(layer, nn.ReLU) else layer(maps)
            met.append((layer, size, switches))
        signal = torch.zeros_like(maps)
        signal[:, number] = maps[:, number]
        if unit:
            flat = signal.flatten(1)
            keep = torch.zeros_like(flat).scatter(1, flat.argmax(1, keepdim=True), 1.0)
            signal = (flat * keep).view_as(signal)
        signal = F.relu(signal)
        for layer, size, switches in reversed(met):
            if switches is not None:
                signal = UNPOOL[rank](signal, switches, layer.kernel_size, output_size=size[2:])
            elif isinstance(layer, nn.ReLU):
                signal = F.relu(signal)
            else:
                signal = _filtered(layer, signal, size)
    return signal


def _filtered(layer: Any, signal: Tensor, size: torch.Size) -> Tensor:
    """The transposed convolution with the same weights, without bias, to the size that went in."""
    windows = zip(
        size[2:], signal.shape[2:], layer.stride, layer.padding, layer.dilation, layer.kernel_size, strict=True
    )
    surplus = [
        length - ((short - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1)
        for length, short, stride, padding, dilation, kernel in windows
    ]
    return TRANSPOSED[signal.ndim - 2](
        signal, layer.weight, None, layer.stride, layer.padding, surplus, layer.groups, layer.dilation
    )


def each(explanation: Explanation) -> Tensor:
    """(N, K, C, *spatial)."""
    return explanation.values.unflatten(1, (explanation.notes["channel"].shape[1], -1))


@pytest.mark.parametrize("start", ["map", "unit"])
@pytest.mark.parametrize("depth", [1, 3, 4, 6, 7], ids=["relu", "before relu", "grouped", "dilated", "pooled"])
def test_projections_equal_the_transposed_network(rank: int, depth: int, start: str) -> None:
    net, x = alexnet_like(rank), inputs_of(rank)
    found = each(explain(net, x, "projections", layer=str(depth), channels=(3, 0, 2), start=start))
    assert found.any()
    for place, number in enumerate((3, 0, 2)):
        torch.testing.assert_close(found[:, place], deconvnet_by_hand(net, depth, x, number, unit=start == "unit"))


def test_objectives_project_like_it_where_the_layer_is_rectified() -> None:
    net, x = alexnet_like(2), inputs_of(2)
    whole = explain(net, x, "deconvnet", target=feature_map("6", 1)).values
    torch.testing.assert_close(whole, deconvnet_by_hand(net, 6, x, 1, unit=False))
    score = explain(net, x, "deconvnet", target=strongest("6", 1))
    by_hand = deconvnet_by_hand(net, 6, x, 1, unit=True)
    torch.testing.assert_close(score.values * score.score.view(-1, 1, 1, 1), by_hand)  # a unit that is 1 to begin with


class Deconvolved(torch.autograd.Function):
    """A rectifier whose backward is one too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.clamp(min=0)


class Residual(nn.Module):
    """Functional, with a shortcut and pools that overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.sum, self.head = nn.Identity(), nn.Linear(4, 3)
        self.rectified = torch.relu
        randomized(self, seed=7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.rectified(self.first(x)), 3, stride=2)
        x = self.sum(self.rectified(x + self.inner(self.rectified(x))))
        return self.head(x.mean((2, 3)))


def test_elsewhere_they_equal_the_gradient_under_a_rule_written_by_hand() -> None:
    net, by_hand, x = Residual(), Residual(), inputs_of(2)
    by_hand.rectified = Deconvolved.apply
    seen: list[Tensor] = []
    by_hand.sum.register_forward_hook(lambda module, args, output: seen.append(output))
    leaf = x.clone().requires_grad_()
    by_hand(leaf)
    found = each(explain(net, x, "projections", layer="sum", channels="0,2"))
    for place, number in enumerate((0, 2)):
        begun = torch.zeros_like(seen[0])
        begun[:, number] = seen[0][:, number].detach()
        (expected,) = torch.autograd.grad(seen[0], leaf, begun, retain_graph=True)
        torch.testing.assert_close(found[:, place], expected)


def test_the_strongest_channels_of_each_input_come_first() -> None:
    net, x = alexnet_like(2), inputs_of(2, items=3)
    maps = F.relu(net[:6](x.clone())).flatten(2)  # of layer 5, before its rectifier
    for settings, strengths in (
        ({}, maps.mean(2)),
        ({"by": "max"}, maps.amax(2)),
        ({"start": "unit"}, maps.amax(2)),
        ({"start": "unit", "by": "mean"}, maps.mean(2)),
    ):
        shown = explain(net, x, "projections", layer=3, top=4, **settings)
        order = strengths.sort(1, descending=True)
        assert shown.notes["channel"].tolist() == order.indices[:, :4].tolist()
        torch.testing.assert_close(shown.notes["activation"], order.values[:, :4])
        assert len(set(map(tuple, shown.notes["channel"].tolist()))) > 1  # else one would do for all
        for item in range(3):
            alone = [explain(net, x[item : item + 1], "projections", layer=3, top=4, **settings).values]
            torch.testing.assert_close(shown.values[item : item + 1], alone[0])
    assert explain(net, x, "projections", layer=3, top=100).notes["channel"].shape == (3, 6)


def test_one_forward_pass_and_a_backward_for_each_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    net, counted, grad = alexnet_like(2), {"forward": 0, "backward": 0}, torch.autograd.grad

    def counting(*args: Any, **kwargs: Any) -> Any:
        counted["backward"] += 1
        return grad(*args, **kwargs)

    def forward(module: nn.Module, args: Any) -> None:
        counted["forward"] += 1

    monkeypatch.setattr(torch.autograd, "grad", counting)
    net[0].register_forward_pre_hook(forward)
    explain(net, inputs_of(2, items=1), "projections", layer="6", top=5)
    assert counted == {"forward": 1, "backward": 5}
    explain(net, inputs_of(2), "projections", layer="6", channels=(1, 2))
    assert counted == {"forward": 2, "backward": 7}


def test_other_methods_carry_back_too() -> None:
    net, x = alexnet_like(2), inputs_of(2)
    found = explain(net, x, "projections", layer="6", channels=4, of="guided_backprop")
    torch.testing.assert_close(found.values, explain(net, x, "guided_backprop", target=feature_map("6", 4)).values)
    assert found.recipe == "projections(layer='6', channels=4, of=guided_backprop())"


def test_networks_of_smooth_activations_are_told_the_way_out() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.LazyLinear(3)).eval()
    x = torch.randn(1, 2, 9, 9)
    net(x)
    with pytest.raises(
        LookupError, match=r"rule 'deconvnet' changes nothing in Sequential: .* the setting smooth=True"
    ):
        explain(net, x, "projections", layer="2")
    assert explain(net, x, "projections", layer="2", of=attributions["deconvnet"](smooth=True)).values.any()


def test_before_the_first_activation_the_gradient_is_the_projection() -> None:
    net, x = alexnet_like(2), inputs_of(2)
    for smooth, way_out in ((False, "the setting smooth=True"), (True, "where there is no activation, gradient is")):
        with pytest.raises(LookupError, match=way_out):
            explain(net, x, "projections", layer="0", of=attributions["deconvnet"](smooth=smooth))
    found = explain(net, x, "projections", layer="0", channels=1, of="gradient").values
    torch.testing.assert_close(found, deconvnet_by_hand(net, 0, x, 1, unit=False))


class Named(nn.Module):
    """Gives no scores of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = alexnet_like(2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.net(x)}


def test_the_target_changes_nothing_and_lets_any_output_pass() -> None:
    x = inputs_of(2)
    expected = explain(alexnet_like(2), x, "projections", layer="6", channels=2, target=[4, 1]).values
    found = explain(Named().eval(), x, "projections", layer="net.6", channels=2, target=channel("net.6", 0)).values
    torch.testing.assert_close(found, expected)


def test_layers_without_spatial_extent_are_projected_too() -> None:
    net, x = alexnet_like(2), inputs_of(2)
    found = explain(net, x, "projections", layer="9", top=2)
    assert found.values.shape == (2, 4, *ITEMS[2])
    assert found.values.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": "2,6"}, "there is no channel 6; the layer has 6, numbered 0 to 5"),
        ({"channels": (-1,)}, "there is no channel -1; the layer has 6, numbered 0 to 5"),
        ({"channels": "two"}, "channels are numbers with commas between, such as 5,9, not 'two'"),
        ({"channels": ()}, "no channels are named; give at least one, or None for the strongest"),
        ({"top": 0}, "top=0 shows nothing; use 1 or more"),
        ({"start": "place"}, "there is no start 'place'; it is 'map', all of a channel, or 'unit', its strongest"),
        ({"by": "median"}, "there is no strength by 'median'; it is 'mean' or 'max'"),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        explain(alexnet_like(2), inputs_of(2), "projections", layer="6", **settings)


def test_half_precision_does_not_overflow() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)).eval()
    x = torch.randn(1, 2, 12, 12)
    net(x)
    with torch.no_grad():
        net[0].weight.mul_(60)
    net.to(torch.bfloat16)
    values = explain(net, x.bfloat16(), "projections", layer="1", channels=(0,)).values
    assert values.isfinite().all()
    strong = net.to(torch.float16)
    with torch.no_grad():
        assert strong(x.half()).isfinite().all()
    half = explain(strong, x.half(), "projections", layer="1", channels=(0,)).values
    torch.testing.assert_close(half.float(), values.float(), rtol=0.05, atol=0.05 * float(values.abs().max()))


# Trained


def test_a_projected_unit_lies_within_its_receptive_field(squeezenet: nn.Module, photographs: Tensor) -> None:
    layer, number = "features.7", 20
    seen: list[Tensor] = []
    handle = squeezenet.get_submodule(layer).register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        squeezenet(photographs)
    handle.remove()
    shown = explain(squeezenet, photographs, "projections", layer=layer, channels=number, start="unit")
    for item in range(len(photographs)):
        units = seen[0][item, number]
        place = int(units.argmax())
        field = receptive_field(squeezenet, photographs, layer, divmod(place, units.shape[1]), number)
        inside = torch.zeros(photographs.shape[2:], dtype=torch.bool)
        inside[field] = True
        energy = shown.values[item].abs().sum(0)
        assert inside.float().mean() < 0.5
        assert energy[~inside].max() == 0
        assert (energy[inside] > 0).float().mean() > 0.5


def test_projections_of_trained_channels_lie_on_the_object(squeezenet: nn.Module, photographs: Tensor) -> None:
    """The snake winds from the upper left to the right; sand is what is left over, and its middle left is empty."""
    assert photographs.shape[2:] == (112, 112)
    guided = explain(squeezenet, photographs[:1], "projections", layer="features.12", top=6, of="guided_backprop")
    energy = each(guided)[0].abs().sum((0, 1))
    red = photographs[0, 0] - photographs[0, 1]  # bands of the snake are red or dark, sand is neither
    dark = photographs[0].mean(0) < -0.8
    snake = (red > 1.2) | dark
    assert 0.05 < snake.float().mean() < 0.4
    assert energy[snake].mean() > 2 * energy[~snake].mean()


# Drawn


def drawn(explanation: Explanation, **settings: Any) -> np.ndarray[Any, Any]:
    return explanation.render(**settings)


def test_images_are_drawn_beside_the_picture_six_in_a_row() -> None:
    net, x = alexnet_like(2), inputs_of(2)
    shown = explain(net, x, "projections", layer="6", channels=(0, 1, 2, 3, 4, 5))
    six, three = drawn(shown), drawn(shown, columns=3)
    assert len(six) == 2
    assert six.shape[2] > 1.5 * three.shape[2]
    assert three.shape[1] > 1.5 * six.shape[1]
    gray = (six == 128).all(-1).mean()
    assert 0.05 < gray < 0.9  # zero is middle gray, and not everything is


def test_contrast_stretches_away_from_the_mean() -> None:
    net, x = alexnet_like(2), inputs_of(2, items=1)
    shown = explain(net, x, "projections", layer="6", channels=(4,))
    plain, twice = (drawn(shown, style="minmax", contrast=contrast)[0].astype(float) for contrast in (1, 2))
    part = (plain != twice).any(-1)
    assert part.any()
    assert twice[part].std() > 1.3 * plain[part].std()


@pytest.mark.parametrize("rank", [1, 3])
def test_signals_and_volumes_are_drawn_as_usual_for_them(rank: int) -> None:
    net, x = alexnet_like(rank), inputs_of(rank)
    one, two = (drawn(explain(net, x, "projections", layer="6", channels=numbers)) for numbers in ((0,), (0, 3)))
    assert two.shape[1] * two.shape[2] == 2 * one.shape[1] * one.shape[2]


def test_titles_are_the_channel_and_its_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    from PIL import ImageDraw

    text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda self, at, says, **how: (said.append(says), text(self, at, says, **how))
    )
    shown = explain(alexnet_like(2), inputs_of(2, items=1), "projections", layer="6", channels=(5, 2))
    drawn(shown)
    strengths = shown.notes["activation"][0].tolist()
    assert said == [f"f:5 {strengths[0]:.2f}", f"f:2 {strengths[1]:.2f}"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": 0}, "columns=0 leaves no place for a picture; use 1 or more"),
        ({"contrast": 0}, "contrast=0 leaves nothing to see; use a number above 0, such as 2"),
        ({"percentile": 0}, "percentile=0 is out of range; use one above 0 and up to 100"),
        ({"style": "sepia"}, "there is no style 'sepia'; use zero, minmax, std"),
    ],
)
def test_wrong_settings_of_the_picture_are_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        renderers["by_channel"](**settings)


def test_values_are_kept_with_their_channels(tmp_path: Path) -> None:
    shown = explain(alexnet_like(2), inputs_of(2), "projections", layer="6", top=3)
    shown.save(tmp_path / "kept.safetensors")
    again = Explanation.load(tmp_path / "kept.safetensors")
    assert again.notes["channel"].tolist() == shown.notes["channel"].tolist()
    np.testing.assert_array_equal(drawn(again), drawn(shown))


def test_the_automatic_layer_is_that_of_the_score_and_not_that_of_a_channel() -> None:
    """The last layer of a network of dense scores holds them, and is passed over; it has fewer channels, too."""
    net = nn.Sequential(nn.Conv2d(2, 9, 3, padding=1), nn.ReLU(), nn.Conv2d(9, 3, 1))
    randomized(net, seed=3)
    net.eval()
    passes: list[int] = []
    net.register_forward_hook(lambda *_: passes.append(1))
    target, x = lambda output: output[:, 1].mean((1, 2)), inputs_of(2)
    for settings in ({}, {"channels": (0, 1)}, {"channels": (8,)}):
        expected = explain(net, x, "projections", target=target, layer="1", **settings)
        explain(net, x, "projections", target=target, **settings)  # the layers are known from now on
        passes.clear()
        found = explain(net, x, "projections", target=target, **settings)
        assert len(passes) <= 1 + len(x) * (not settings) + (not settings)
        assert found.recipe.startswith("projections(layer='1'")
        torch.testing.assert_close(found.values, expected.values)
        torch.testing.assert_close(found.notes["channel"], expected.notes["channel"])
