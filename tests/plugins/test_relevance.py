"""Layer-wise relevance propagation beside tables of single contributions, closed forms, and zennit."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import cnnviz
from cnnviz import Call, explain, gradient, rule
from cnnviz.formulas import MapWarning
from cnnviz.images.resampling import spread
from cnnviz_plugins.relevance import alpha_beta, composite, epsilon, flat, gamma, w_square, z_box, z_plus

lrp, grad_cam = cnnviz.attributions["lrp"], cnnviz.attributions["grad_cam"]
TARGET = 1
E = 1e-6
LOW, HIGH = -3.0, 2.5
BOX = cnnviz.Preprocessing(mean=(0.4, 0.5), std=(0.2, 0.25))


def small(seed: int = 0) -> nn.Sequential:
    """Two convolutions with biases, rectified, pooled and classified."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 2), nn.ReLU(inplace=True)
        return nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 4)).double().eval()


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def table(layer: nn.Module, x: Tensor, weight: Callable[[Tensor], Tensor] = lambda w: w) -> tuple[Tensor, Tensor]:
    """What each input, moved by itself, gives to each output, (inputs, outputs); and what is added, (outputs,)."""
    layer = copy.deepcopy(layer)
    with torch.no_grad():
        layer.weight.copy_(weight(layer.weight))  # type: ignore[operator]  # it is a parameter
        added = layer(torch.zeros_like(x)).flatten()
        units = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape[1:])
        return (layer(units).flatten(1) - added) * x.reshape(-1, 1), added


def stable(total: Tensor, e: float = E) -> Tensor:
    return total + torch.where(total >= 0, e, -e)


Shared = tuple[Tensor, Tensor]
"""Relevance of the inputs, (inputs,), and what was taken by biases, a number."""


def by_epsilon(z: Tensor, b: Tensor, r: Tensor, e: float = E) -> Shared:
    share = r / stable(z.sum(0) + b, e)
    return (z * share).sum(1), (share * b).sum()


def by_plus(z: Tensor, b: Tensor, r: Tensor) -> Shared:
    return by_epsilon(z.clamp(min=0), b.clamp(min=0), r)


def by_minus(z: Tensor, b: Tensor, r: Tensor) -> Shared:
    return by_epsilon(z.clamp(max=0), b.clamp(max=0), r)


def by_alpha_beta(alpha: float, beta: float) -> Callable[[Tensor, Tensor, Tensor], Shared]:
    def shared(z: Tensor, b: Tensor, r: Tensor) -> Shared:
        (up, up_bias), (down, down_bias) = by_plus(z, b, alpha * r), by_minus(z, b, beta * r)
        return up - down, up_bias - down_bias

    return shared


def by_gamma(factor: float) -> Callable[[Tensor, Tensor, Tensor], Shared]:
    def shared(z: Tensor, b: Tensor, r: Tensor) -> Shared:
        total, bias = torch.zeros(len(z), dtype=z.dtype), torch.zeros((), dtype=z.dtype)
        y = z.sum(0) + LIVE_BIAS
        for j in range(z.shape[1]):
            if y[j] == 0:
                continue
            more = (lambda t: t.clamp(min=0)) if y[j] > 0 else (lambda t: t.clamp(max=0))
            column, added = z[:, j] + factor * more(z[:, j]), b[j] + factor * more(b[j])
            whole = column.sum() + added
            whole = whole + (E if whole >= 0 else -E)
            total, bias = total + column / whole * r[j], bias + added / whole * r[j]
        return total, bias

    return shared


LIVE_BIAS = torch.zeros(())
"""The bias that the network really has, by which gamma knows the sign of an output; set for each layer."""
Rules = dict[str, Callable[[Tensor, Tensor, Tensor], Shared]]
RULES: dict[Any, Callable[[Tensor, Tensor, Tensor], Shared]] = {
    epsilon(): by_epsilon,
    epsilon(0.5): lambda z, b, r: by_epsilon(z, b, r, 0.5),
    z_plus(): by_plus,
    alpha_beta(): by_alpha_beta(2, 1),
    alpha_beta(1, 0): by_alpha_beta(1, 0),
    gamma(): by_gamma(0.25),
}


def by_hand(net: nn.Sequential, x: Tensor, rules: Sequence[Any], ignore: bool = False) -> Shared:
    """Relevance of the input, and what biases took, layer by layer; ``rules`` for the layers with weights, in order."""
    global LIVE_BIAS
    given = [x]
    for layer in net:
        given.append(layer(given[-1].clone()).detach())
    r = torch.zeros_like(given[-1]).flatten()
    r[TARGET] = given[-1].flatten()[TARGET]
    lost, left = torch.zeros((), dtype=x.dtype), list(rules)
    for layer, values in zip(reversed(net), reversed(given[:-1]), strict=True):
        if hasattr(layer, "weight"):
            z, LIVE_BIAS = table(layer, values)
            chosen = left.pop()
            b = torch.zeros_like(LIVE_BIAS) if ignore else LIVE_BIAS
            if isinstance(chosen, flat | w_square):
                ones, _ = table(
                    layer, torch.ones_like(values), torch.ones_like if isinstance(chosen, flat) else torch.square
                )
                r = (ones * (r / stable(ones.sum(0)))).sum(1)
                continue
            if isinstance(chosen, z_box):
                low, _ = table(layer, torch.full_like(values, LOW), lambda w: w.clamp(min=0))
                high, _ = table(layer, torch.full_like(values, HIGH), lambda w: w.clamp(max=0))
                z = z - low - high
                r = (z * (r / stable(z.sum(0)))).sum(1)
                continue
            r, taken = RULES[chosen](z, b, r)
            lost = lost + taken
        elif isinstance(layer, nn.AvgPool2d):
            units = torch.eye(values.numel(), dtype=x.dtype).reshape(-1, *values.shape[1:])
            z = layer(units).flatten(1) * values.reshape(-1, 1)
            total = z.sum(0)
            r = (z / torch.where(total == 0, 1, total) * r).sum(1)
    return r.reshape(x.shape), lost


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("chosen", RULES, ids=repr)
def test_a_rule_divides_as_a_table_of_contributions_does(chosen: Any, ignore: bool) -> None:
    net, x = small(), drawn(1, 2, 5, 5)
    of = composite(conv=chosen, linear=epsilon())
    expected, _ = by_hand(net, x, [chosen, chosen, epsilon()], ignore)
    found = explain(net, x, "lrp", composite=of, target=TARGET, bias="ignore" if ignore else "absorb").values
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("first", [flat(), w_square(), z_box(LOW, HIGH)], ids=repr)
def test_the_first_layer_has_a_rule_of_its_own(first: Any) -> None:
    net, x = small(), drawn(1, 2, 5, 5)
    x[0, 0, 2] = 0  # relevance of a zero is no multiple of it
    expected, _ = by_hand(net, x, [first, z_plus(), epsilon()])
    found = explain(net, x, "lrp", composite=composite(first, z_plus(), epsilon()), target=TARGET).values
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert found[0, 0, 2].abs().min() > 0 or isinstance(first, z_box)


@pytest.mark.parametrize("chosen", RULES, ids=repr)
def test_what_biases_and_the_stabilizer_took_completes_the_score(chosen: Any) -> None:
    net, x = small(), drawn(1, 2, 5, 5)
    _, taken = by_hand(net, x, [chosen, chosen, epsilon()])
    found = explain(net, x, "lrp", composite=composite(conv=chosen, linear=epsilon()), target=TARGET, bias="report")
    biases, stabilizer = (found.notes[f"relevance_of_{name}"] for name in ("biases", "stabilizer"))
    assert biases.shape == stabilizer.shape == (1, 1, 5, 5)
    torch.testing.assert_close(biases.sum(), taken, rtol=1e-9, atol=1e-12)
    together = found.values.sum() + biases.sum() + stabilizer.sum()
    torch.testing.assert_close(together, found.score[0], rtol=1e-12, atol=1e-12)
    assert found.notes["completeness_gap"].abs().max() < 1e-12


def test_a_bias_is_told_at_its_place() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(16, 2, bias=False)).double().eval()
    x = drawn(1, 1, 4, 4)
    found = explain(net, x, "lrp", composite=composite(epsilon(0), epsilon(0), epsilon(0)), target=0, bias="report")
    expected = net[2].weight[0].reshape(1, 1, 4, 4) * net[0].bias
    torch.testing.assert_close(found.notes["relevance_of_biases"], expected.detach())
    torch.testing.assert_close(found.values, x * (net[0].weight * net[2].weight[0].reshape(1, 1, 4, 4)).detach())


@pytest.mark.parametrize("size", [(7, 5), (3, 11), (4, 4)])
def test_spreading_keeps_sums_and_places(size: tuple[int, int]) -> None:
    values = drawn(2, 3, 4, 6)
    torch.testing.assert_close(spread(values, size).sum((2, 3)), values.sum((2, 3)))
    one = torch.zeros(1, 1, 2)
    one[0, 0, 1] = 1
    torch.testing.assert_close(spread(one, (5,))[0, 0], torch.tensor([0, 0, 0.2, 0.4, 0.4]))


def random_norms(net: nn.Module) -> nn.Module:
    draws = torch.Generator().manual_seed(3)
    for norm in net.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None:
            for values, mean, spread_of in (
                (norm.running_mean, 0.0, 0.1),
                (norm.weight, 1.0, 0.6),
                (norm.bias, 0.0, 0.1),
            ):
                values.data = mean + spread_of * torch.randn(values.shape, generator=draws, dtype=values.dtype)
            assert norm.running_var is not None
            norm.running_var.copy_(0.5 + torch.rand(norm.running_var.shape, generator=draws, dtype=torch.float64))
    return net.eval()


def pair(kind: str) -> tuple[nn.Module, nn.Module, tuple[int, ...]]:
    """A layer with weights, its batch norm, and the shape of an input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        made: dict[str, tuple[nn.Module, nn.Module, tuple[int, ...]]] = {
            "conv": (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (1, 4, 6, 6)),
            "no bias": (nn.Conv1d(4, 6, 3, bias=False), nn.BatchNorm1d(6), (1, 4, 8)),
            "transposed": (nn.ConvTranspose2d(4, 6, 3, groups=2, stride=2), nn.BatchNorm2d(6), (1, 4, 3, 3)),
            "linear": (nn.Linear(5, 6), nn.BatchNorm1d(6), (1, 5)),
        }
        return made[kind]


@pytest.mark.parametrize("kind", ["conv", "no bias", "transposed", "linear"])
def test_a_batch_norm_is_one_operation_with_the_layer_before_it(kind: str) -> None:
    layer, norm, shape = pair(kind)
    net = random_norms(nn.Sequential(layer, norm, nn.Sigmoid(), nn.Flatten(), nn.LazyLinear(3)).double())
    x = drawn(*shape)
    net(x)
    merged = copy.deepcopy(net)
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()  # type: ignore[operator]  # tensors
    with torch.no_grad():
        for channel in range(6):
            if kind == "transposed":
                merged[0].weight[(channel // 3) * 2 : (channel // 3) * 2 + 2, channel % 3] *= scale[channel]
            else:
                merged[0].weight[channel] *= scale[channel]
        bias = (0 if layer.bias is None else layer.bias) - norm.running_mean  # type: ignore[operator]  # tensors
        merged[0].bias = nn.Parameter(bias * scale + norm.bias)
    merged[1] = nn.Identity()
    torch.testing.assert_close(merged(x), net(x))
    of = composite(conv=z_plus(), linear=z_plus())
    expected, found = (explain(each, x, "lrp", composite=of, target=1).values for each in (merged, net))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


class Branched(nn.Module):
    """A sum and a concatenation, written as functions; its second convolution is registered first."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            self.second, self.first = nn.Conv2d(3, 3, 1), nn.Conv2d(2, 3, 1)
            self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        y = x + self.second(x)
        return self.head(torch.cat([y, x], 1).mean((2, 3)))


def test_a_residual_sum_gives_each_branch_its_part() -> None:
    net, x = Branched().double().eval(), drawn(1, 2, 4, 4)
    given = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(net(given)[0, TARGET], given)  # LRP-0 of rectified layers is input x gradient
    found = explain(net, x, "lrp", composite=composite(conv=epsilon(0), linear=epsilon(0)), target=TARGET)
    torch.testing.assert_close(found.values, x * expected, rtol=1e-9, atol=1e-12)


def test_the_first_layer_is_found_by_what_reads_the_input() -> None:
    net, x, firsts = Branched().double().eval(), drawn(1, 2, 4, 4), []

    def see(call: Call, grad: Tensor) -> Tensor:
        firsts.append((tuple(call.weight.shape), call.first, call.last))
        return call.vjp(grad)

    seen = cnnviz.Rule("seen", dict.fromkeys((torch.conv2d, F.linear), see), follows=True)
    explain(net, x, gradient(rule=seen), target=0)
    assert sorted(firsts) == [((3, 2, 1, 1), True, False), ((3, 3, 1, 1), False, False), ((3, 6), False, True)]
    firsts.clear()
    explain(net, x, gradient("second", seen), target=0)  # also where no gradient of the input is asked for
    assert firsts == [((3, 6), False, True)]


WEIGHT, BIAS = drawn(4, 6, seed=5), drawn(4, seed=6)
SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: F.linear(x, WEIGHT, BIAS),
    "linear by name": lambda x: F.linear(weight=WEIGHT, bias=BIAS, input=x),
    "@": lambda x: x @ WEIGHT.T + BIAS,
    "mm": lambda x: torch.mm(x, WEIGHT.T) + BIAS,
    "mm by name": lambda x: torch.mm(x, mat2=WEIGHT.T) + BIAS,
    "constant on the left": lambda x: (WEIGHT @ x.T).T + BIAS,
    "addmm": lambda x: torch.addmm(BIAS, x, WEIGHT.T),
    "addmm scaled": lambda x: torch.addmm(-BIAS / 2, x, -WEIGHT.T / 3, beta=-2, alpha=-3),
    "baddbmm": lambda x: torch.baddbmm(BIAS, x[:, None], WEIGHT.T.expand(len(x), 6, 4))[:, 0],
    "einsum": lambda x: torch.einsum("oi,ni->no", WEIGHT, x) + BIAS,
    "einsum of a list": lambda x: torch.einsum("ni,oi->no", [x, WEIGHT]) + BIAS,
    "bilinear": lambda x: F.bilinear(x, x.new_ones(len(x), 1), WEIGHT[:, :, None], BIAS),
    "conv": lambda x: F.conv1d(x[..., None], WEIGHT[..., None], BIAS)[..., 0],
    "transposed": lambda x: F.conv_transpose1d(x[..., None], WEIGHT.T[..., None], BIAS)[..., 0],
    "aten": lambda x: torch.ops.aten.linear.default(x, WEIGHT, BIAS),
}
ADDED = {"@", "mm", "mm by name", "constant on the left", "einsum", "einsum of a list"}
"""Those whose bias is an operation of its own."""


class Spelled(nn.Module):
    def __init__(self, spelling: str):
        super().__init__()
        self.spelling = spelling

    def forward(self, x: Tensor) -> Tensor:
        return SPELLINGS[self.spelling](x).sigmoid()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_weights_are_known_however_a_product_is_spelled(spelling: str) -> None:
    found: list[Tensor] = []

    def changed(call: Call, grad: Tensor) -> Tensor:
        half = call.with_weights(lambda w: w.clamp(min=0), lambda b: b * 2)
        bias = 0 if call.bias is None else call.bias
        found.extend([half.output.reshape(2, -1), call.with_weights(torch.abs).output.reshape(2, -1)])
        torch.testing.assert_close(call.with_weights(lambda w: w).output + bias, call.output)
        return half.vjp(grad)

    names = (F.linear, torch.matmul, torch.addmm, torch.baddbmm, torch.einsum, F.bilinear, torch.conv1d)
    x = drawn(2, 6)
    net = Spelled(spelling).eval()
    changing = cnnviz.Rule("changed", dict.fromkeys((*names, torch.conv_transpose1d), changed))
    values = explain(net, x, gradient(rule=changing), target=2).values
    added = 0 if spelling in ADDED else 2 * BIAS
    order = (lambda t: t.reshape(4, 2).T) if spelling == "constant on the left" else (lambda t: t)
    torch.testing.assert_close(order(found[0]), x @ WEIGHT.T.clamp(min=0) + added)
    torch.testing.assert_close(order(found[1]), x @ WEIGHT.T.abs())
    slope = torch.sigmoid(x @ WEIGHT.T + BIAS)[:, 2:3]
    torch.testing.assert_close(values, slope * (1 - slope) * WEIGHT[2].clamp(min=0))


def test_weights_of_other_operations_are_not_known() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 3), nn.Tanh()).double().eval()

    @rule(torch.tanh)
    def weighing(call: Call, grad: Tensor) -> Tensor:
        return grad * call.weight

    with pytest.raises(LookupError, match=r"^tanh has no weights here: they are known of convolutions"):
        explain(net, drawn(1, 2, 4), gradient(rule=weighing), target=0)


class Curves(nn.Module):
    """Norms, gates, quotients, a softmax, attention and curves: everything that is not linear in one operand."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            self.conv, self.gate = nn.Conv2d(2, 6, 3, padding=1), nn.Linear(6, 6)
            self.group, self.instance, self.layer = (
                nn.GroupNorm(2, 6),
                nn.InstanceNorm2d(6, affine=True),
                nn.LayerNorm(6),
            )
            self.batch, self.rms = nn.BatchNorm2d(6), nn.RMSNorm(6)
            self.attention, self.head = nn.MultiheadAttention(6, 2, batch_first=True), nn.Bilinear(6, 6, 3)
            for norm in (self.group, self.instance, self.layer, self.batch):
                nn.init.normal_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.group(self.conv(x)))
        x = self.batch(x) + self.instance(x)
        x = F.hardswish(x) * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        tokens = self.layer(x.flatten(2).transpose(1, 2))
        tokens = self.rms(tokens + self.attention(tokens, tokens, tokens)[0])
        tokens = F.glu(torch.cat([tokens, tokens.cos()], 2)) / (1 + tokens.square().mean(2, keepdim=True))
        pooled = (tokens * tokens.mean(2, keepdim=True).softmax(1)).sum(1)
        return self.head(pooled, torch.exp(pooled / 4)) + 0.3


@pytest.mark.parametrize("product", ["gate", "halves"])
def test_every_operation_tells_what_it_takes(product: str) -> None:
    net, x = random_norms(Curves().double()), drawn(2, 2, 5, 6)
    for name in ("epsilon_plus", "epsilon_plus_flat"):
        found = explain(net, x, "lrp", composite=name, target=[0, 2], bias="report", product=product)
        assert found.notes["completeness_gap"].abs().max() < 1e-10
        alone = [
            explain(net, x[n : n + 1], "lrp", composite=name, target=2 * n, bias="report", product=product)
            for n in (0, 1)
        ]
        for note in ("relevance_of_biases", "relevance_of_stabilizer"):
            torch.testing.assert_close(found.notes[note], torch.cat([each.notes[note] for each in alone]))
        torch.testing.assert_close(found.values, torch.cat([each.values for each in alone]))


def test_a_norm_holds_its_deviation_constant() -> None:
    net = nn.Sequential(nn.Flatten(), nn.LayerNorm(6), nn.Linear(6, 2, bias=False)).double().eval()
    nn.init.normal_(net[1].weight)
    x = drawn(1, 6)
    deviation = (x.var(1, unbiased=False) + net[1].eps).sqrt()
    slope = net[2].weight[0] * net[1].weight / deviation
    found = explain(net, x, "lrp", composite=composite(linear=epsilon(0)), target=0).values
    torch.testing.assert_close(found, (x * (slope - slope.mean())).detach())


def test_a_gate_gets_nothing_and_halves_are_halves() -> None:
    class Gated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * x[:, :1].exp()).sum(1, keepdim=True)

    x = drawn(1, 3)
    gated = explain(Gated().eval(), x, "lrp", target=0).values
    torch.testing.assert_close(gated, x * x[:, :1].exp())
    halves = explain(Gated().eval(), x, "lrp", target=0, product="halves").values
    expected = gated / 2
    expected[0, 0] += gated.sum() / 2
    torch.testing.assert_close(halves, expected)


LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(6, 4, bias=False)).double().eval()


@pytest.mark.parametrize("start", ["one_hot", "clrp1", "clrp2", "sglrp"])
def test_relevance_starts_at_other_outputs(start: str) -> None:
    x, weight = drawn(1, 6), LINEAR[1].weight.detach()
    contributions, scores = x[0] * weight, (weight @ x[0])
    likely, own = scores.softmax(0), F.one_hot(torch.tensor(TARGET), 4).double()
    starts = {
        "one_hot": own,
        "clrp2": scores[TARGET] * (own - (1 - own) / 3),
        "sglrp": likely[TARGET] * (own - likely),
    }
    if start == "clrp1":
        plus = contributions[TARGET].clamp(min=0), (-contributions[TARGET]).clamp(min=0)
        expected = scores[TARGET] * (plus[0] / stable(plus[0].sum()) - plus[1] / stable(plus[1].sum()))
        of = composite(linear=z_plus())
    else:
        expected, of = (starts[start][:, None] / scores[:, None] * contributions).sum(0), composite(linear=epsilon(0))
    found = explain(LINEAR, x, "lrp", composite=of, target=TARGET, start=start).values
    torch.testing.assert_close(found[0], expected)
    if start == "clrp1":  # of epsilon both would be the same
        by_default = explain(LINEAR, x, "lrp", target=TARGET, start=start).values
        torch.testing.assert_close(by_default[0], expected)


def test_excitation_backprop_and_its_contrast() -> None:
    net, x = small(), drawn(1, 2, 5, 5)
    given = net[:6](x).detach()[0]
    z = given * net[6].weight[TARGET].detach()
    plus, minus = (part.clamp(min=0) / stable(part.clamp(min=0).sum()) for part in (z, -z))
    assert float((plus - minus).clamp(min=0).sum()) > 0.1
    for contrastive, expected in ((False, plus), (True, (plus - minus).clamp(min=0))):
        found = explain(net, x, "excitation_backprop", layer="4", contrastive=contrastive, target=TARGET).values
        torch.testing.assert_close(found, expected.reshape(1, 3, 2, 2).sum(1, keepdim=True), rtol=1e-6, atol=1e-9)


def test_maps_of_layers_are_made_of_relevance() -> None:
    net, x = small(), drawn(2, 2, 5, 5)
    maps, target = net[:4](x).detach(), [1, 2]
    relevance = explain(net, x, "layer_relevance", layer="3", target=target).values
    torch.testing.assert_close(
        relevance.sum((1, 2, 3)), explain(net, x, "lrp", layer="3", target=target).values.sum((1, 2, 3))
    )
    contrast = explain(net, x, "layer_relevance", layer="3", target=target, start="clrp2").values
    for name, values in (("lrp_cam", relevance), ("relevance_cam", contrast)):
        expected = (values.sum((2, 3), keepdim=True) * maps).sum(1, keepdim=True)
        torch.testing.assert_close(explain(net, x, name, layer="3", target=target).values, expected)
        torch.testing.assert_close(explain(net, x, name, layer="3", target=target, relu=True).values, expected.relu())


def test_the_layer_of_a_class_is_that_of_its_contrast() -> None:
    """A network without a linear layer, whose last maps are the classes themselves: these are no layer of a class."""
    net = nn.Sequential(small()[:4], nn.Dropout(), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net, x = net.double().eval(), drawn(2, 2, 5, 5)
    layer = explain(net, x, "grad_cam", target=TARGET).recipe.partition("'")[2].partition("'")[0]
    assert layer != "3"
    for method in ("relevance_cam", "lrp_cam"):
        asked, named = (explain(net, x, method, target=TARGET, **more) for more in ({}, {"layer": layer}))
        torch.testing.assert_close(asked.values, named.values, rtol=0, atol=0)


class Skipping(nn.Module):
    """Its input is read by two layers, one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) + x).mean((2, 3))


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"composite": "epsilon_minus"}, ValueError, "there is no composite 'epsilon_minus'; it is epsilon_plus"),
        ({"composite": 3}, TypeError, "composite is 3; give a string|composite is a int"),
        (
            {"composite": "epsilon_gamma_box"},
            ValueError,
            "z_box needs the lowest and highest values .* give low and high",
        ),
        ({"composite": composite(depthwise=gamma())}, LookupError, "rule 'lrp' changes nothing in Sequential: none of"),
        ({"bias": "absorbed"}, ValueError, "there is no bias='absorbed'"),
        ({"start": "two_hot"}, ValueError, "there is no start 'two_hot'"),
        ({"bias": "report", "layer": "0"}, ValueError, "bias='report' tells of all layers"),
    ],
)
def test_what_can_not_be_had_is_refused(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as told:
        explain(small(), drawn(1, 2, 5, 5), "lrp", target=0, **settings)
    assert "\n" not in str(told.value)


def test_rules_refuse_what_keeps_no_sum() -> None:
    with pytest.raises(ValueError, match=r"^alpha_beta: alpha=2 and beta=2 do not keep the sum of relevance; give"):
        alpha_beta(2, 2)


@pytest.mark.parametrize("first", [flat(), w_square()], ids=repr)
def test_a_blind_first_layer_is_the_only_way_to_the_input(first: Any) -> None:
    net = Skipping().double().eval()
    with pytest.raises(
        ValueError, match="the input also reaches a later layer than the first, where flat and w_square"
    ):
        explain(net, drawn(1, 2, 4, 4), "lrp", composite=composite(first, z_plus()), target=0)
    boxed = composite(z_box(LOW, HIGH), epsilon())
    found = explain(net, drawn(1, 2, 4, 4), "lrp", composite=boxed, target=0, bias="report")
    assert found.notes["completeness_gap"].abs().max() < 1e-12


def test_the_box_is_that_of_the_preprocessing() -> None:
    net, x = small(), drawn(1, 2, 5, 5)
    found = explain(net, x, "lrp", composite="epsilon_gamma_box", preprocessing=BOX, target=TARGET).values
    weight = net[0].weight.detach()
    low, high = ((bound - torch.tensor([0.4, 0.5])) / torch.tensor([0.2, 0.25]) for bound in (0, 1))
    low, high = (bound.double().view(1, 2, 1, 1) for bound in (low, high))
    of = composite(conv=gamma(), linear=epsilon())
    relevance = explain(net, x, "layer_relevance", layer="0", target=TARGET, composite=of).values
    conv = lambda values, w: F.conv2d(values.expand_as(x), w, padding=1)  # noqa: E731
    parts = (x, weight), (low, weight.clamp(min=0)), (high, weight.clamp(max=0))
    whole = conv(*parts[0]) - conv(*parts[1]) - conv(*parts[2])
    share = relevance / stable(whole)
    back = [values * F.conv_transpose2d(share, w, padding=1) for values, w in parts]
    torch.testing.assert_close(found, back[0] - back[1] - back[2], rtol=1e-9, atol=1e-12)


def test_a_changed_input_has_no_known_bounds() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x / 2)

    with pytest.raises(ValueError, match="this model changes it before its first layer; choose another rule there"):
        explain(Scaled().eval(), drawn(1, 2, 5, 5), "lrp", composite="epsilon_gamma_box", preprocessing=BOX, target=0)


def test_starvation_is_told_with_the_way_out() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4, 1)).double().eval()
    for weight, value in ((net[0].weight, 0.1), (net[0].bias, 5.0), (net[3].weight, 1.0), (net[3].bias, 0.0)):
        nn.init.constant_(weight, value)
    x = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    words = "only 0.02 of the score reaches the input, as biases, softmaxes and the stabilizer took the rest; try bias="
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = explain(net, x, "lrp", target=0)
    assert len(told) == 1
    assert told[0].category is MapWarning
    assert str(told[0].message).startswith(words)
    torch.testing.assert_close(found.notes["completeness_gap"], torch.tensor([0.4 - 20.4]).double(), rtol=1e-4, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ignoring = explain(net, x, "lrp", target=0, bias="ignore")
    torch.testing.assert_close(ignoring.values.sum(), ignoring.score[0], rtol=1e-4, atol=0)


def test_other_methods_of_the_same_pass_are_as_they_were() -> None:
    net = random_norms(
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3)).double()
    )
    x = drawn(2, 2, 5, 5)
    asked = {
        "lrp": lrp(),
        "gradient": "gradient",
        "grad_cam": grad_cam(layer="0"),
        "guided_backprop": "guided_backprop",
    }
    together = explain(net, x, list(asked.values()), target=[0, 1])
    for method, found in zip(asked.values(), together.values(), strict=True):
        torch.testing.assert_close(found.values, explain(net, x, method, target=[0, 1]).values, rtol=1e-12, atol=1e-14)
    alone, beside = [lrp(layer="0")], [lrp(), lrp(layer="0")]
    for methods in (alone, beside, ["layer_relevance"], ["lrp_cam"]):
        settings = {"layer": "0"} if isinstance(methods[0], str) else {}
        with pytest.raises(LookupError, match=r"^layer '0' is one operation with the batch norm behind it under rule"):
            explain(net, x, methods, target=[0, 1], **settings)
    assert explain(net, x, "lrp", layer="1", target=[0, 1]).values.any()


def test_a_batch_norm_of_tokens_leaves_the_layer_before_it_alone() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps, self.mixed, self.norm, self.head = (
                *(nn.Conv2d(2, 3, 3), nn.Linear(3, 3), nn.BatchNorm1d(9), nn.Linear(3, 4)),
            )

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.head(self.norm(self.mixed(self.maps(x).flatten(2).mT)).relu().mean(1))
            return scores

    torch.manual_seed(0)
    net, x = Tokens().double().eval(), drawn(2, 2, 5, 5)
    nn.init.uniform_(net.norm.running_var, 0.5, 2)  # type: ignore[arg-type]  # there are statistics
    alone = explain(net, x, lrp(layer="mixed"), target=[0, 1]).values
    beside = explain(net, x, [lrp(), lrp(layer="mixed")], target=[0, 1])
    assert alone.any()
    torch.testing.assert_close([*beside.values()][1].values, alone, rtol=1e-12, atol=1e-14)


def hand_folded(net: nn.Module) -> nn.Module:
    """A copy in which every batch norm is in the convolution before it."""
    net = copy.deepcopy(net)
    modules = list(net.named_modules())
    for (name, conv), (norm_name, norm) in itertools.pairwise(modules):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            for place, value in ((name, fuse_conv_bn_eval(conv, norm)), (norm_name, nn.Identity())):
                parent, _, last = place.rpartition(".")
                setattr(net.get_submodule(parent), last, value)
    return net


COMPOSITES = {
    "epsilon_plus": "EpsilonPlus",
    "epsilon_gamma_box": "EpsilonGammaBox",
    "epsilon_alpha2_beta1": "EpsilonAlpha2Beta1",
    "epsilon_plus_flat": "EpsilonPlusFlat",
    "epsilon_alpha2_beta1_flat": "EpsilonAlpha2Beta1Flat",
}


def random_net(name: str) -> nn.Module:
    """A network of torchvision or timm with random weights and statistics."""
    models = pytest.importorskip("torchvision.models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        library, _, known = name.rpartition(":")
        if library == "timm":
            net = pytest.importorskip("timm").create_model(known)
        else:
            net = getattr(models, name)(**({"init_weights": False} if name in ("googlenet", "inception_v3") else {}))
    return random_norms(net.double())


def asks_all(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--all-situations"))


@pytest.mark.parametrize("name", ["squeezenet1_0", "resnet18", "vgg11_bn", "resnet50"])
def test_composites_are_zennits(name: str, request: pytest.FixtureRequest) -> None:
    zennit = pytest.importorskip("zennit.composites", reason="zennit is not installed")
    canonizers = pytest.importorskip("zennit.torchvision")
    some = {"squeezenet1_0": list(COMPOSITES)[1:3], "resnet18": list(COMPOSITES)[:1] + list(COMPOSITES)[3:4]}
    chosen = list(COMPOSITES) if asks_all(request) else some.get(name, [])
    if not chosen:
        pytest.skip("asked with --all-situations")
    net, x = random_net(name), drawn(1, 3, 48, 48)
    folded = hand_folded(net)
    for ours in chosen:
        box = {"low": LOW, "high": HIGH} if "box" in ours else {}
        blocks = [canonizers.ResNetCanonizer()] if "resnet" in name else []
        bounds = {bound: torch.tensor(value) for bound, value in box.items()}
        with getattr(zennit, COMPOSITES[ours])(**bounds, canonizers=blocks).context(folded) as theirs:
            given = x.clone().requires_grad_()
            scores = theirs(given)
            (relevance,) = torch.autograd.grad(scores, given, F.one_hot(torch.tensor([3]), 1000).double())
        expected = relevance * scores[0, 3].detach()
        found = explain(net, x, "lrp", composite=ours, target=3, **box).values
        assert F.cosine_similarity(found.flatten(), expected.flatten(), 0) >= 0.9999999
        torch.testing.assert_close(found.sum(), expected.sum(), rtol=1e-3, atol=1e-6)


def test_excitation_backprop_is_zennits() -> None:
    zennit = pytest.importorskip("zennit.composites", reason="zennit is not installed")
    net, x = random_net("squeezenet1_0"), 100 * drawn(1, 3, 64, 64)  # so that stabilizers are small beside it
    maps: list[Tensor] = []
    with zennit.ExcitationBackprop(zero_params="bias").context(net) as theirs:
        handle = theirs.features[9].register_forward_hook(lambda module, args, output: maps.append(output))
        scores = theirs(x.clone().requires_grad_())
        (expected,) = torch.autograd.grad(scores, maps[0], F.one_hot(torch.tensor([3]), 1000).double())
        handle.remove()
    found = explain(net, x, "excitation_backprop", layer="features.9", target=3).values
    torch.testing.assert_close(found, expected.sum(1, keepdim=True), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.sum(), expected.sum(), rtol=1e-4, atol=0)


COMPLETE = ("mobilenet_v3_small", "timm:convnext_atto")
SLOW = (
    *("alexnet", "squeezenet1_0", "vgg11_bn", "resnet18", "googlenet", "regnet_y_400mf", "densenet121", "mobilenet_v2"),
    *("shufflenet_v2_x0_5", "efficientnet_b0", "convnext_tiny", "mnasnet0_5", "swin_t"),
    *("timm:resnetv2_50", "timm:mobilenetv4_conv_small"),
)


@pytest.mark.parametrize("name", [*COMPLETE, *SLOW])
def test_input_biases_and_stabilizer_are_the_score(name: str, request: pytest.FixtureRequest) -> None:
    if name in SLOW and not asks_all(request):
        pytest.skip("asked with --all-situations")
    net, x = random_net(name), drawn(1, 3, 64, 64)
    found = explain(net, x, "lrp", target=3, bias="report")
    parts = [found.values, found.notes["relevance_of_biases"], found.notes["relevance_of_stabilizer"]]
    assert abs(float(sum(part.sum() for part in parts) - found.score[0])) <= 1e-9
    assert all(part.any() for part in parts[:1])


KEPT = {"squeezenet1_0": 1e-3, "resnet18": 1e-3}
KEPT_SLOW = {
    **dict.fromkeys(("vgg11_bn", "googlenet", "regnet_y_400mf", "densenet121", "convnext_tiny"), 1e-3),
}


@pytest.mark.parametrize("name", [*KEPT, *KEPT_SLOW])
def test_without_biases_the_score_reaches_the_input(name: str, request: pytest.FixtureRequest) -> None:
    if name in KEPT_SLOW and not asks_all(request):
        pytest.skip("asked with --all-situations")
    found = explain(random_net(name), 10 * drawn(1, 3, 64, 64), "lrp", target=3, bias="ignore")
    share = float(found.values.sum() / found.score[0])
    assert abs(share - 1) <= (KEPT | KEPT_SLOW)[name]


@pytest.mark.parametrize(
    ("name", "bias", "way"),
    [
        ("shufflenet_v2_x0_5", "ignore", "a composite with gamma"),
        ("mobilenet_v2", "ignore", "a composite with gamma"),
        ("mobilenet_v3_small", "ignore", "a composite with gamma"),
        ("mobilenet_v3_small", "absorb", "bias='ignore', or a composite with gamma"),
    ],
)
def test_networks_whose_units_live_by_biases_are_told_of(
    name: str, bias: str, way: str, request: pytest.FixtureRequest
) -> None:
    if name != "shufflenet_v2_x0_5" and not asks_all(request):
        pytest.skip("asked with --all-situations")
    with pytest.warns(MapWarning, match=rf"of the score reaches the input, .*; try {way}, and bias="):
        explain(random_net(name), drawn(1, 3, 64, 64), "lrp", target=3, bias=bias)


def test_an_unpaired_batch_norm_passes_relevance_on_without_biases() -> None:
    net = random_norms(nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2, bias=False)).double())
    x = drawn(1, 2, 2, 2)
    expected = net[0](x).detach() * net[2].weight[1].detach().reshape(1, 2, 2, 2)
    found = explain(net, x, "lrp", composite=composite(linear=epsilon(0)), target=1, bias="ignore").values
    torch.testing.assert_close(found, expected)
