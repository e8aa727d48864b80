"""Conditional relevance of layers of every kind, beside relevance propagation that is written out once more here.

Forks, residual sums, concatenations, a batch norm, layers that write in place, features and tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cnnviz
from cnnviz import LayerAt, explain, parse_formula
from cnnviz.objectives import class_score
from cnnviz.testing.nets import SmallNet
from cnnviz_plugins.relevance import composite, z_plus

TARGET, E = 1, 1e-6
conditional = cnnviz.attributions["conditional_relevance"]


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Forked(nn.Module):
    """A batch norm, then a residual sum beside another branch, and both concatenated."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.start = nn.Identity()
            self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.before, self.inside, self.beside = (
                nn.ReLU(inplace=True),
                nn.Conv2d(4, 4, 3, padding=1),
                nn.Conv2d(4, 3, 1),
            )
            self.summed, self.joined, self.behind = nn.ReLU(inplace=True), nn.Identity(), nn.Conv2d(7, 5, 3)
            self.last, self.pool, self.fc = nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Linear(5, 3)
            for values in (self.norm.running_mean, self.norm.weight, self.norm.bias):
                nn.init.normal_(values)
            nn.init.uniform_(self.norm.running_var, 0.5, 2)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        h = self.before(self.norm(self.conv(self.start(x))))
        y = self.summed(self.inside(h) + h)
        joined = self.joined(torch.cat([y, self.beside(h)], 1))
        scores: Tensor = self.fc(self.pool(self.last(self.behind(joined))).flatten(1))
        return scores


class _ZPlus(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.padding = padding
        return F.conv2d(x, weight, bias, padding=padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        pad, up, down = ctx.padding, weight.clamp(min=0), weight.clamp(max=0)
        output = F.conv2d(x, weight, bias, padding=pad)
        z = F.conv2d(x.clamp(min=0), up, bias.clamp(min=0), padding=pad) + F.conv2d(x.clamp(max=0), down, padding=pad)
        share = grad * output / (z + E)
        back = [F.conv_transpose2d(share, part, padding=pad) for part in (up, down)]
        return torch.where(x > 0, *back), None, None, None


def by_hand(net: Forked, x: Tensor, place: str, channels: list[int], target: Tensor) -> Tensor:
    """Relevance at the place, all others than the channels taken away, on to the input from this place alone."""
    x, held = x.clone().requires_grad_(), {}

    def at(name: str, values: Tensor) -> Tensor:
        held[name] = values.clone()
        return held[name]

    def conv(layer: nn.Conv2d, values: Tensor, pad: int = 0) -> Tensor:
        return _ZPlus.apply(values, layer.weight, layer.bias, pad)

    factor = net.norm.weight / (net.norm.running_var + net.norm.eps).sqrt()
    bias = (net.conv.bias - net.norm.running_mean) * factor + net.norm.bias
    merged = _ZPlus.apply(at("start", x), net.conv.weight * factor[:, None, None, None], bias, 1)
    h = at("before", at("norm", merged).relu())
    y = at("summed", (at("inside", conv(net.inside, h, 1)) + h).relu())
    joined = at("joined", torch.cat([y, at("beside", conv(net.beside, h))], 1))
    pooled = at("pool", at("last", at("behind", conv(net.behind, joined)).relu()).mean((2, 3), keepdim=True))
    scores = pooled.flatten(1) @ net.fc.weight.T + net.fc.bias
    told = scores / (scores + E * scores.sign())  # what the stabilizer of the last layer leaves
    score = (scores * told.detach()).gather(1, target[:, None]).sum()
    (grad,) = torch.autograd.grad(score, held[place], retain_graph=True)
    kept = torch.zeros_like(grad)
    kept[:, channels] = grad[:, channels]
    (found,) = torch.autograd.grad(held[place], x, kept)
    return (x * found).detach()


PLACES = ["start", "norm", "before", "inside", "summed", "beside", "joined", "behind", "last", "pool"]


@pytest.mark.parametrize("place", PLACES)
def test_only_what_goes_through_the_layer_goes_on(place: str) -> None:
    net, x, target = Forked(), drawn(3, 2, 7, 7), torch.tensor([0, 1, 2])
    found = explain(net, x, conditional(layer=place, channels=[0, 1]), target=target).values
    expected = by_hand(net, x, place, [0, 1], target)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))
    assert expected.any()


def test_every_kind_of_target_and_way_to_ask_gives_the_same() -> None:
    class Reads(Forked):
        """Looks at a value, so that each input is passed by itself."""

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(-x if x[0, 0, 0, 0].item() > 1e9 else x)

    x, target = drawn(3, 2, 7, 7), torch.tensor([TARGET] * 3)
    method, expected = conditional(layer="summed", channels=(1, 3)), by_hand(Forked(), x, "summed", [1, 3], target)
    net, by_items = Forked(), Reads()
    asked = [
        explain(net, x, method, target=lambda scores: scores[:, TARGET]),
        explain(net, x, method, target=class_score(TARGET)),
        explain(net, x, method, target=[class_score(TARGET)] * 3),
        explain(net, x, method, target=TARGET, memory=1),
        explain(by_items, x, method, target=TARGET),
        cnnviz.prepare(net, method, like=x, target=TARGET)(x),
    ]
    for found in asked:
        torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-12)
    single = explain(net.float(), x.float(), method, target=TARGET).values
    torch.testing.assert_close(single.double(), expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_what_first_layers_tell_is_not_mixed_among_conditions() -> None:
    net, x = Forked(), drawn(2, 2, 7, 7)
    settings: list[dict[str, Any]] = [
        {"layer": "before", "channels": (0, 2)},
        {"layer": "before", "channels": 1},
        {"layer": "summed", "channels": 1},
    ]
    methods = [conditional(composite="epsilon_plus_flat", **each) for each in settings]
    for method, found in zip(methods, explain(net, x, methods, target=TARGET).values(), strict=True):
        assert torch.equal(found.values, explain(net, x, method, target=TARGET).values)


def test_a_layer_that_a_batch_norm_reads_has_no_values_of_its_own() -> None:
    with pytest.raises(LookupError, match="layer 'conv' is one operation with the batch norm behind it"):
        explain(Forked(), drawn(1, 2, 7, 7), conditional(layer="conv", channels=0), target=TARGET)


def test_features_are_channels_too() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Flatten(), nn.Linear(18, 6, bias=False), nn.ReLU(inplace=True), nn.Linear(6, 3, bias=False)
        net = nn.Sequential(*layers).double().eval()
    x = 10 * drawn(2, 2, 3, 3)
    first, last = net[1].weight.detach(), net[3].weight[TARGET].detach()
    z = x.flatten(1)[:, None] * first  # (N, features, inputs)
    of_features = z.sum(2).relu() * last
    expected = torch.where(z.sum(2, keepdim=True) > 0, z, 0) * last[None, :, None]
    relevance = explain(net, x, "layer_relevance", layer="2", target=TARGET).values
    torch.testing.assert_close(relevance, of_features[..., None, None], rtol=1e-5, atol=0)
    for layer in ("1", "2", LayerAt("2", layout="raw")):
        found = explain(net, x, conditional(layer=layer, channels=(0, 3)), target=TARGET).values
        torch.testing.assert_close(found, expected[:, [0, 3]].sum(1).reshape(x.shape), rtol=1e-5, atol=1e-9)
        assert found.any()
    assert torch.equal(
        explain(net, x, conditional(layer="3", channels=TARGET), target=TARGET).values,
        explain(net, x, "lrp", target=TARGET).values,
    )


class Tokens(nn.Module):
    """Patches as tokens (N, 1 + T, C), a class token first, which all of the others are mixed into."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.patches, self.own = nn.Conv2d(3, 6, 4, 4), nn.Parameter(torch.randn(1, 1, 6))
            self.block, self.last = nn.Linear(6, 6), nn.Identity()
            self.fc = nn.Linear(6, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.own.expand(len(x), -1, -1) + tokens.mean(1, keepdim=True), tokens], 1)
        tokens = self.last(self.block(tokens).relu())
        scores: Tensor = self.fc(tokens.mean(1))
        return scores


def test_channels_of_tokens_are_the_last_dimension() -> None:
    net, x = Tokens(), drawn(2, 3, 8, 12)
    each = [explain(net, x, conditional(layer="last", channels=c), target=TARGET).values for c in range(6)]
    raw = LayerAt("last", layout="raw")  # in which the tokens are where channels are elsewhere
    own, places = (explain(net, x, conditional(layer=raw, channels=c), target=TARGET).values for c in (0, range(1, 7)))
    torch.testing.assert_close(sum(each, torch.zeros_like(x)), places, rtol=0, atol=1e-12)
    torch.testing.assert_close(own + places, explain(net, x, "lrp", target=TARGET).values, rtol=0, atol=1e-12)
    assert own.any()
    assert all(values.any() for values in each[:2])


def test_attention_is_divided_as_lrp_divides_it() -> None:
    net, x = SmallNet(attention=True).double(), drawn(1, 3, 8, 8)
    wholes = []
    for attention in ("attn_lrp", "cp_lrp"):
        parts = conditional(layer="pool", channels=range(6), attention=attention)
        wholes.append(explain(net, x, "lrp", attention=attention, target=TARGET).values)
        torch.testing.assert_close(explain(net, x, parts, target=TARGET).values, wholes[-1], rtol=0, atol=1e-10)
    assert not torch.allclose(*wholes)


@pytest.mark.parametrize("channels", [(1, 3), "1, 3", [np.int64(1), 3, 1], torch.tensor([1, 3])])
def test_channels_are_said_in_many_ways(channels: Any) -> None:
    net, x = Forked(), drawn(1, 2, 7, 7)
    found = explain(net, x, conditional(layer="summed", channels=channels), target=TARGET)
    assert torch.equal(
        found.values, explain(net, x, conditional(layer="summed", channels=[3, 1]), target=TARGET).values
    )
    if not isinstance(channels, Tensor):
        again = explain(net, x, parse_formula(found.recipe), target=TARGET)
        assert again.recipe == found.recipe
        assert torch.equal(again.values, found.values)


@pytest.mark.parametrize("channels", ["1,,2", "", "x", "1 3", torch.tensor([1.5]), torch.tensor(1)])
def test_what_is_no_channel_is_refused(channels: Any) -> None:
    with pytest.raises(ValueError, match="channels are numbers with commas between, such as 5,9, not"):
        conditional(layer="summed", channels=channels)


def test_a_rule_for_a_kind_of_layer_acts_on_both_sides() -> None:
    net, x = Forked(), drawn(1, 2, 7, 7)
    of = composite(conv=z_plus())
    parts = [conditional(layer="joined", channels=group, composite=of) for group in ((0, 2, 4, 6), (1, 3, 5))]
    found = [each.values for each in explain(net, x, parts, target=TARGET).values()]
    torch.testing.assert_close(sum(found), explain(net, x, "lrp", composite=of, target=TARGET).values)
