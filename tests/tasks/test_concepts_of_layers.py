"""Channels of features, tokens and channels-last layers: found, placed and drawn as those of maps are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cnnviz import LayerAt, Preprocessing, top_activations
from cnnviz.targets import top
from cnnviz.tasks import concept_sheet, patch_sheet, receptive_field, top_channels
from cnnviz.testing.nets import SmallNet
from cnnviz_plugins.relevance import composite, epsilon

PLAIN = Preprocessing((0.0,) * 3, (1.0,) * 3)


class Tokens(nn.Module):
    """Patches as tokens (N, 1 + T, C), one for the class first; with a layer that gives them channels last."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.patches, self.own = nn.Conv2d(3, 5, 4, 4), nn.Parameter(torch.rand(1, 1, 5))
            self.norm, self.last, self.fc = nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        grid = self.norm(self.patches(x).permute(0, 2, 3, 1))
        tokens = self.last(torch.cat([self.own.expand(len(x), -1, -1), grid.flatten(1, 2)], 1))
        scores: Tensor = self.fc(tokens.mean(1))
        return scores


def noise(items: int, *size: int) -> Tensor:
    return torch.rand(items, 3, *size, generator=torch.Generator().manual_seed(1))


def maps(net: Tokens, x: Tensor) -> Tensor:
    """(N, C, H, W) of what ``norm`` gives, by hand."""
    with torch.no_grad():
        patches = net.patches(x)
        return torch.stack([net.norm(patches[..., row, :].mT) for row in range(patches.shape[2])], 1).movedim(3, 1)


@pytest.mark.parametrize("layer", ["norm", "last", LayerAt("last", layout="tokens", grid=(2, 3), extra=1)])
def test_units_of_tokens_are_where_the_patches_are(layer: Any) -> None:
    net, x = Tokens(), noise(4, 8, 12)
    values = maps(net, x)
    found = top_activations(net, [x[:3], x[3:]], layer, np.array([4, 0]), 2)
    for channel, best in found.items():
        strengths = values[:, channel].flatten(1).max(1)
        order = strengths.values.argsort(descending=True).tolist()[:2]
        assert [each.number for each in best] == order
        assert [each.at for each in best] == [divmod(int(strengths.indices[n]), 3) for n in order]
        assert [each.activation for each in best] == pytest.approx(strengths.values[order].tolist(), rel=1e-5)
    with pytest.raises(ValueError, match=r"there is no channel 5 in layer .*; it has 5, numbered 0 to 4"):
        top_activations(net, [x], layer, [5])


def test_relevance_of_tokens_is_that_of_their_channels() -> None:
    net, x = Tokens(), noise(3, 8, 12)
    parts = (maps(net, x).relu() * net.fc.weight.detach()[2][:, None, None] / 7).double()
    for sums, channels in zip(parts.sum((2, 3)), top_channels(net, x, "last", 5, target=2), strict=True):
        order = sums.argsort(descending=True).tolist()
        assert [each.channel for each in channels] == order
        assert [each.relevance for each in channels] == pytest.approx(sums[order].tolist(), rel=1e-4)
    channel = int(parts.sum((0, 2, 3)).argmax())
    found = top_activations(net, [x], "last", [channel], 3, by="relevance", target=2)[channel]
    assert [each.number for each in found] == parts.sum((2, 3))[:, channel].argsort(descending=True).tolist()
    assert [each.at for each in found] == [divmod(int(parts[one.number, channel].argmax()), 3) for one in found]
    assert receptive_field(net, x, "last", (1, 2), channel) == (slice(4, 8), slice(8, 12))
    sheet = concept_sheet(net, "last", {channel: found}, x[:1], target=2, preprocessing=PLAIN)
    assert (sheet != 255).any()


def test_units_of_tokens_are_not_projected() -> None:
    net, x = Tokens(), noise(1, 8, 12)
    with pytest.raises(ValueError, match=r"layer 'last' does not give \(N, C, \*spatial\), and single units are"):
        patch_sheet(net, "last", top_activations(net, [x], "last", [0, 1, 2, 3, 4]), preprocessing=PLAIN)
    drawn = patch_sheet(net, "patches", top_activations(net, [x], "patches", range(5)), "gradient", preprocessing=PLAIN)
    assert (drawn != 255).any()


def test_features_are_found_by_relevance() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    x = noise(5, 4, 4)
    with torch.no_grad():
        features = net[:3](x)
    parts = features * net[3].weight.detach()[1]
    channel = int(parts.sum(0).argmax())
    found = top_activations(net, [x], "2", [channel], 5, by="relevance", target=1)[channel]
    order = parts[:, channel].argsort(descending=True).tolist()
    assert [each.number for each in found] == [number for number in order if parts[number, channel] > 0]
    assert [each.relevance for each in found] == pytest.approx(
        [float(parts[n.number, channel]) for n in found], rel=1e-4
    )
    assert all(each.at == () for each in found)
    assert found[0].activation == pytest.approx(float(features[order[0], channel]))
    assert top_channels(net, x, "2", 1, target=1)[0][0].channel == int(parts[0].argmax())
    assert concept_sheet(net, "2", {channel: found[:1]}, preprocessing=PLAIN).ndim == 3


class Ends(nn.Module):
    """Ends in a ReLU on a map of the classes, which is the last map there is, and no good place for a heatmap."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.features, self.classes = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 1)
            self.relu = nn.ReLU()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.classes(self.features(x))).mean((2, 3))


def test_the_layer_that_was_found_is_told_and_named_from_then_on() -> None:
    net, x = Ends(), noise(2, 8, 8)
    found = top_channels(net, x, target=1)
    assert found.layer == "features"
    assert [each.channel for each in found[0]] == [
        each.channel for each in top_channels(net, x, "features", target=1)[0]
    ]
    with pytest.raises(ValueError, match="without a name, the layer may be another one for each input"):
        concept_sheet(net, None, top_activations(net, [x], None, [0]), x[:1])


def test_a_convolution_before_a_batch_norm_is_refused_by_all() -> None:
    net, x = SmallNet(), noise(2, 8, 8)
    said = "layer 'first' is one operation with the batch norm behind it"
    with pytest.raises(LookupError, match=said):
        top_channels(net, x, "first")
    with pytest.raises(LookupError, match=said):
        top_activations(net, [x], "first", [0], by="relevance")
    with pytest.raises(LookupError, match=said):
        concept_sheet(net, "first", {0: []}, x[:1], preprocessing=PLAIN)


def test_ties_zeros_and_more_channels_than_there_are() -> None:
    net, x = Ends(), noise(1, 8, 8)
    with torch.no_grad():
        net.features.weight.copy_(torch.ones(4, 1, 1, 1).expand(4, 3, 3, 3))
        net.features.bias.zero_()
        net.classes.weight[:, :, 0, 0] = torch.tensor([2.0, -1.0, 2.0, 0.0])
        net.classes.bias.zero_()
    (found,) = top_channels(net, x, "features", 9, target=0, composite=composite(conv=epsilon(1e-9)))
    assert [each.channel for each in found] == [0, 2, 3, 1]  # of equal ones the first is first
    assert [each.share for each in found] == pytest.approx([0.4, 0.4, 0.0, -0.2], rel=1e-5)
    with torch.no_grad():
        net.classes.weight.zero_()
        net.classes.bias.fill_(1.0)
    with pytest.warns(UserWarning, match="zero everywhere"):
        (found,) = top_channels(net, x, "features", 1, target=0)
    assert (found[0].channel, found[0].relevance, found[0].share) == (0, 0.0, 0.0)


@pytest.mark.parametrize("by", ["activation", "relevance"])
def test_what_is_no_number_is_refused(by: Any) -> None:
    net, x = Ends(), noise(1, 8, 8)
    for channels in ("3", 3, [1.5], [True], None):
        with pytest.raises(ValueError, match="channels: give whole numbers, not"):
            top_activations(net, [x], "features", channels, by=by)
    for count in (2.5, "2", True, None):
        with pytest.raises(ValueError, match="count: give whole numbers, not"):
            top_activations(net, [x], "features", [1], count, by=by)  # type: ignore[arg-type]  # is refused
    with pytest.raises(ValueError, match="count: give whole numbers, not"):
        top_channels(net, x, "features", 2.5)  # type: ignore[arg-type]  # is refused
    with pytest.raises(TypeError, match="layer_relevance has no setting 'colour'; it takes layer, composite"):
        top_channels(net, x, "features", colour=3)
    for ask in (
        lambda target: top_channels(net, x, "features", target=target),
        lambda target: top_activations(net, [x], "features", [0], by="relevance", target=target),
        lambda target: concept_sheet(net, "features", {0: []}, target=target),
    ):
        with pytest.raises(TypeError, match=r"top\(count=2\) is several questions, and one is asked here"):
            ask(top(2))
    with pytest.raises(ValueError, match="no channels are given to be drawn"):
        concept_sheet(net, "features", {})


def test_a_pictures_channels_share_its_passes() -> None:
    net, x = Ends(), noise(1, 8, 8)
    found = dict.fromkeys(range(4), top_activations(net, [x], "features", [0], 1)[0][:0])
    concept_sheet(net, "features", found, x, target=1, preprocessing=PLAIN)  # which layers there are is found once
    passes: list[int] = []
    net.classes.register_forward_hook(lambda module, args, output: passes.append(len(output)))
    concept_sheet(net, "features", found, x, target=1, preprocessing=PLAIN)
    assert passes == [1, 1]  # one finds the shares, one the places of all four


def test_pictures_of_a_class_are_told_on_the_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []
    monkeypatch.setattr(
        "cnnviz.tasks.concept_sheets.sheet", lambda rows: told.extend(c for row in rows for c, _ in row)
    )
    net, x = Ends(), noise(2, 8, 8)
    found = top_activations(net, [x], "features", [0, 1], 2)
    named = ["a", "b " * 60, "c"]
    concept_sheet(net, "features", found, x[:1], target=1, preprocessing=PLAIN, categories=named)
    shares = {each.channel: each.share for each in top_channels(net, x[:1], "features", target=1)[0]}
    for (channel, best), (left, right) in zip(found.items(), zip(told[::2], told[1::2], strict=True), strict=True):
        assert left == [f"f:{channel}: {shares[channel]:.1%} of the relevance", f"for {named[1]}"]
        ranks = " to ".join(dict.fromkeys(f"{each.rank:.3g}" for each in (best[0], best[-1]))) if best else ""
        assert right == ([f"activation {ranks}"] if best else ["nothing excites it"])
