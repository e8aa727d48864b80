"""Concept relevance propagation beside masked backward passes by hand and by zennit, and its sums."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cnnviz
from cnnviz import explain
from cnnviz_plugins.relevance import composite, epsilon, flat, gamma, z_plus

TARGET, E = 1, 1e-6
conditional = cnnviz.attributions["conditional_relevance"]


def small(bias: bool = True) -> nn.Sequential:
    """Three convolutions, rectified, pooled and classified."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convs = [nn.Conv2d(*sizes, bias=bias) for sizes in ((2, 4, 3), (4, 5, 2), (5, 3, 2))]
        layers = [layer for conv in convs for layer in (conv, nn.ReLU())]
        return nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 4, bias=bias)).double().eval()


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """A layer as a dense matrix, (inputs, outputs), and what it adds, (outputs,)."""
    with torch.no_grad():
        added = layer(torch.zeros_like(x)).flatten()
        return layer(torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape[1:])).flatten(1) - added, added


def by_hand(net: nn.Sequential, x: Tensor, place: int, channels: list[int], bias: bool) -> Tensor:
    """Relevance of one input by z_plus in convolutions and epsilon in the last layer, masked behind layer ``place``."""
    given = [x]
    for layer in net:
        given.append(layer(given[-1]).detach())
    r = torch.zeros(given[-1].numel(), dtype=x.dtype)
    r[TARGET] = given[-1][0, TARGET]
    for number in reversed(range(len(net))):
        layer, values, output = net[number], given[number], given[number + 1]
        if number == place:
            mask = torch.zeros_like(output)
            mask[:, channels] = 1
            r = r * mask.flatten()
        if isinstance(layer, nn.ReLU | nn.Flatten):
            continue
        weights, added = matrix(layer, values)
        z = weights * values.reshape(-1, 1)
        if isinstance(layer, nn.Conv2d):
            z, added = z.clamp(min=0), added.clamp(min=0)
        total = z.sum(0) + (added if bias else 0)
        stabilizer = 0 if isinstance(layer, nn.AvgPool2d) else torch.where(total >= 0, E, -E)
        r = (z / torch.where(total == 0, 1, total + stabilizer) * r).sum(1)
    return r.reshape(x.shape)


@pytest.mark.parametrize("bias", ["absorb", "ignore"])
@pytest.mark.parametrize(("layer", "channels"), [("3", [2]), ("3", [4, 0, 4]), ("2", [1, 3]), ("4", [2])])
def test_it_is_relevance_masked_at_the_layer(layer: str, channels: list[int], bias: str) -> None:
    net, x = small(), drawn(2, 2, 8, 8)
    found = explain(net, x, conditional(layer=layer, channels=channels, bias=bias), target=TARGET).values
    expected = torch.cat([by_hand(net, one[None], int(layer), channels, bias == "absorb") for one in x])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert found.any()


@pytest.mark.parametrize(
    "chosen",
    [
        "epsilon_plus",
        "epsilon_plus_flat",
        composite(conv=gamma(0.5), linear=epsilon(1e-3)),
        composite(flat(), z_plus()),
    ],
    ids=repr,
)
def test_all_channels_together_are_the_whole(chosen: Any) -> None:
    net, x = small(), drawn(2, 2, 8, 8)
    each = [conditional(layer="3", channels=channel, composite=chosen, bias="ignore") for channel in range(5)]
    whole = explain(net, x, "lrp", composite=chosen, bias="ignore", target=TARGET).values
    parts = [explain(net, x, one, target=TARGET).values for one in each]
    torch.testing.assert_close(sum(parts, torch.zeros_like(whole)), whole, rtol=0, atol=1e-9)
    together = explain(
        net, x, conditional(layer="3", channels=range(5), composite=chosen, bias="ignore"), target=TARGET
    )
    torch.testing.assert_close(together.values, whole, rtol=0, atol=1e-9)


def test_a_channels_values_sum_to_its_relevance() -> None:
    net, x = small(bias=False), 10 * drawn(3, 2, 8, 8)  # so that the stabilizer is small beside it
    relevance = explain(net, x, "layer_relevance", layer="3", target=TARGET).values.sum((2, 3))
    for channel in range(5):
        found = explain(net, x, conditional(layer="3", channels=channel), target=TARGET)
        torch.testing.assert_close(found.values.sum((1, 2, 3)), relevance[:, channel], rtol=1e-5, atol=1e-9)
        gap = found.values.sum((1, 2, 3)) - relevance[:, channel]
        torch.testing.assert_close(found.notes["completeness_gap"], gap, rtol=0, atol=1e-12)


def test_the_most_relevant_channel_of_each_input_is_taken() -> None:
    net, x = small(), drawn(6, 2, 8, 8)
    relevance = explain(net, x, "layer_relevance", layer="3", target=TARGET).values.sum((2, 3))
    found = explain(net, x, conditional(layer="3"), target=TARGET)
    assert found.notes["channel"].tolist() == relevance.argmax(1).tolist()
    assert len(set(found.notes["channel"].tolist())) > 1
    for one, channel, values in zip(x, found.notes["channel"].tolist(), found.values, strict=True):
        alone = explain(net, one[None], conditional(layer="3", channels=channel), target=TARGET).values[0]
        torch.testing.assert_close(values, alone, rtol=0, atol=1e-12)


def test_variants_of_a_batch_are_asked_about_their_own_parts() -> None:
    net, x = small(), drawn(2, 2, 8, 8)
    shift = torch.full_like(x, 0.3)
    moved = explain(net, x, cnnviz.at(conditional(layer="3"), cnnviz.image() + shift), target=TARGET).values
    torch.testing.assert_close(moved, explain(net, x + shift, conditional(layer="3"), target=TARGET).values)
    smooth = explain(net, x, "smoothgrad", of=conditional(layer="3"), samples=3, sigma=0.0, target=TARGET).values
    torch.testing.assert_close(smooth, explain(net, x, conditional(layer="3"), target=TARGET).values)


def test_conditions_share_the_forward_pass_and_the_first_backward() -> None:
    net, x = small(), drawn(1, 2, 8, 8)
    passes: list[str] = []
    net[0].register_forward_hook(lambda module, args, output: passes.append("forward"))

    @lru_cache
    def counting() -> Any:
        def rule(call: Any, grad: Tensor, shares: Any) -> Any:
            passes.append("before" if call.weight.shape[1] == 2 else "at" if call.weight.shape[1] == 4 else "behind")
            return z_plus()(call, grad, shares)

        return rule

    of = composite(conv=counting(), linear=epsilon())
    methods = [conditional(layer="3", channels=channel, composite=of) for channel in range(4)]
    alone = explain(net, x, methods[2], target=TARGET).values  # which layers there are is found once
    passes.clear()
    found = explain(net, x, methods, target=TARGET)
    assert torch.equal(found[list(found)[2]].values, alone)
    assert Counter(passes) == {"forward": 1, "behind": 1, "at": 4, "before": 4}


def test_a_masked_backward_pass_of_zennit_gives_the_same() -> None:
    zennit = pytest.importorskip("zennit.composites", reason="zennit is not installed")
    net, x = small(), 100 * drawn(2, 2, 8, 8)

    def masked(grad: Tensor) -> Tensor:
        kept = torch.zeros_like(grad)
        kept[:, [1, 4]] = grad[:, [1, 4]]
        return kept

    with zennit.EpsilonPlus().context(net) as theirs:
        handle = theirs[3].register_forward_hook(lambda module, args, output: (output.register_hook(masked), None)[1])
        given = x.clone().requires_grad_()
        scores = theirs(given)
        (relevance,) = torch.autograd.grad(scores, given, scores.detach() * F.one_hot(torch.tensor([TARGET] * 2), 4))
        handle.remove()
    found = explain(net, x, conditional(layer="3", channels=[1, 4]), target=TARGET).values
    torch.testing.assert_close(found, relevance, rtol=0, atol=1e-6)


def test_layers_of_features_and_repeated_layers() -> None:
    net, x = small(), drawn(2, 2, 8, 8)
    of_map = explain(net, x, conditional(layer="6", channels=[0, 2]), target=TARGET).values
    flattened = explain(net, x, conditional(layer="7", channels=[0, 2]), target=TARGET).values  # is read as that map
    torch.testing.assert_close(flattened, of_map, rtol=0, atol=1e-12)
    features = cnnviz.LayerAt("8", layout="raw")
    scores = explain(net, x, conditional(layer=features, channels=TARGET), target=TARGET).values
    torch.testing.assert_close(scores, explain(net, x, "lrp", target=TARGET).values, rtol=0, atol=1e-12)
    twice = nn.Sequential(net[0], relu := nn.ReLU(), net[2], relu, *net[4:]).eval()
    with pytest.raises(ValueError, match="layer '1' runs several times, and the score is not divided among its calls"):
        explain(twice, x, conditional(layer="1", channels=0), target=TARGET)


@pytest.mark.parametrize(
    ("channels", "words"),
    [(5, "there is no channel 5 in the layer; it has 5, numbered 0 to 4"), (-1, "no channel -1"), ([], "no channels")],
)
def test_channels_there_are_not_are_refused(channels: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        explain(small(), drawn(1, 2, 8, 8), conditional(layer="3", channels=channels), target=TARGET)


def test_what_biases_took_is_not_reported_of_channels() -> None:
    with pytest.raises(ValueError, match="there is no bias='report' of single channels; it is 'absorb' or 'ignore'"):
        conditional(layer="3", bias="report")
