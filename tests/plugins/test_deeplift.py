"""DeepLIFT adds up at every kind of operation, however it is written, and is what its paper says."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import (
    SPELLINGS,
    AveragingNet,
    Halfway,
    LinearNet,
    Rectified,
    Residual,
    dense,
    randomized,
    slopes,
    tiny_inputs,
    untrained,
)
from torch import Tensor, nn
from torchvision import models

from cnnviz import Explanation, explain

TARGET = [2, 0]


def baseline_like(inputs: Tensor, seed: int = 8) -> Tensor:
    return torch.randn(inputs.shape, generator=torch.Generator().manual_seed(seed), dtype=inputs.dtype)


def gap(found: Explanation) -> float:
    """The note, relative to the difference of scores."""
    note = found.notes["completeness_gap"]
    return float((note / (found.values.flatten(1).double().sum(1) - note)).abs().max())


def ratio(change: Tensor, rise: Tensor) -> Tensor:
    """What comes out changes by, over what goes in changes by, one value at a time."""
    flat = [0.0 if into == 0 else out / into for into, out in zip(change.flatten(), rise.flatten(), strict=True)]
    return torch.tensor(flat, dtype=change.dtype).view_as(change)


# By hand


def pooled_multipliers(x: Tensor, b: Tensor, grad: Tensor) -> Tensor:
    """Max pooling by two of one item's maps (C, *spatial), window by window: rises to the one's maximum, falls to the
    other's."""
    given = torch.zeros_like(x)
    for channel, *corner in itertools.product(range(len(x)), *(range(size) for size in grad.shape[1:])):
        window = [
            (channel, *place) for place in itertools.product(*(range(2 * start, 2 * start + 2) for start in corner))
        ]
        high, low = max(window, key=lambda at: x[at]), max(window, key=lambda at: b[at])
        rise = x[high] - b[low]
        given[high if rise > 0 else low] += grad[(channel, *corner)] * rise
    return ratio(x - b, given)


def test_it_is_the_paper_s_by_matrices_and_loops(rank: int, inputs: Tensor) -> None:
    net, baselines = AveragingNet(rank), baseline_like(inputs)
    found = explain(net, inputs, "deeplift", target=TARGET, baseline=baselines)
    for x, b, target, values in zip(inputs, baselines, TARGET, found.values, strict=True):
        first, first_bias = dense(lambda each: net.norm(net.first(each)), tuple(x.shape))
        low_x, low_b = (first @ each.flatten() + first_bias for each in (x, b))
        maps_x, maps_b = (each.clamp(min=0).view(3, *x.shape[1:]) for each in (low_x, low_b))
        shrunk_x, shrunk_b = (net.pool(each[None])[0] for each in (maps_x, maps_b))
        second, second_bias = dense(net.second, tuple(shrunk_x.shape))
        high_x, high_b = (second @ each.flatten() + second_bias for each in (shrunk_x, shrunk_b))
        size = shrunk_x[0].numel()
        grad = (net.head.weight.detach()[target][:, None] / size).expand(4, size).flatten()
        grad = second.T @ (grad * ratio(high_x - high_b, high_x.clamp(min=0) - high_b.clamp(min=0)))
        grad = pooled_multipliers(maps_x, maps_b, grad.view_as(shrunk_x)).flatten()
        grad = first.T @ (grad * ratio(low_x - low_b, maps_x.flatten() - maps_b.flatten()))
        torch.testing.assert_close(values, (x - b) * grad.view_as(x), rtol=0, atol=1e-12)
    assert gap(found) < 1e-12


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_a_rectifier(spelling: str) -> None:
    curve, make = SPELLINGS[spelling]
    net, inputs = Rectified(2, make()), tiny_inputs()
    baselines = baseline_like(inputs)
    found = explain(net, inputs, "deeplift", target=TARGET, baseline=baselines)
    first, first_bias = dense(net.first, (2, 5, 6))
    second, second_bias = dense(net.second, (90,))
    for x, b, target, values in zip(inputs, baselines, TARGET, found.values, strict=True):
        below = [first @ each.flatten() + first_bias for each in (x, b)]
        above = [second @ curve.value(each) + second_bias for each in below]
        grad = net.head.weight.detach()[target]
        for (z, zero), matrix in ((above, second), (below, first)):
            grad = matrix.T @ (grad * ratio(z - zero, curve.value(z) - curve.value(zero)))
        torch.testing.assert_close(values, (x - b) * grad.view_as(x), rtol=0, atol=1e-10)


def test_reused_rectifiers_and_additions() -> None:
    net, inputs = Residual(), tiny_inputs()
    found = explain(net, inputs, "deeplift", target=TARGET, baseline=0.5)
    stem, stem_bias = dense(net.stem, (2, 5, 6))
    branch, branch_bias = dense(net.branch, (2, 5, 6))
    for x, target, values in zip(inputs, TARGET, found.values, strict=True):
        lows = [stem @ each.flatten() + stem_bias for each in (x, torch.full_like(x, 0.5))]
        sides = [branch @ low.clamp(min=0) + branch_bias for low in lows]
        tops = [low.clamp(min=0) + side.clamp(min=0) - 1 for low, side in zip(lows, sides, strict=True)]

        def back(grad: Tensor, z: list[Tensor]) -> Tensor:
            return grad * ratio(z[0] - z[1], z[0].clamp(min=0) - z[1].clamp(min=0))

        grad = back(net.head.weight.detach()[target], tops)
        grad = back(grad + branch.T @ back(grad, sides), lows)
        torch.testing.assert_close(values.flatten(), (x - 0.5).flatten() * (stem.T @ grad), rtol=0, atol=1e-12)


# Curves, against their mean slopes

CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    **{"sigmoid": torch.sigmoid, "tanh": torch.tanh, "softplus": F.softplus, "elu": lambda x: F.elu(x, 1.5)},
    **{"silu": F.silu, "gelu": F.gelu, "gelu-tanh": lambda x: F.gelu(x, approximate="tanh"), "mish": F.mish},
    **{"hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "relu6": F.relu6, "selu": F.selu, "celu": F.celu},
    **{"hardtanh": F.hardtanh, "softsign": F.softsign, "logsigmoid": F.logsigmoid, "tanhshrink": F.tanhshrink},
    **{"softshrink": F.softshrink, "leaky": F.leaky_relu, "clamp": lambda x: x.clamp(-0.3, 0.7), "relu": F.relu},
    **{"clamp_max": lambda x: x.clamp_max(0.2), "abs": abs, "exp": torch.exp, "square": lambda x: x**2},
    **{"cube": lambda x: x.pow(3), "log": lambda x: torch.log(x + 7), "sqrt": lambda x: (x + 7).sqrt()},
    **{"one over": lambda x: 1 / (x + 7), "two to the": lambda x: 2**x, "sin": torch.sin, "erf": torch.erf},
    **{
        "rsqrt": lambda x: torch.rsqrt(x + 7),
        "in place": lambda x: (1 * x).sigmoid_(),
        "module": nn.SiLU(inplace=True),
    },
    **{"less": lambda x: 1 - torch.tanh(-x), "divided": lambda x: x.div(-0.5), "expit": torch.special.expit},
}


class Curved(nn.Module):
    """A curve of every input value, added up with weights."""

    def __init__(self, curve: Callable[[Tensor], Tensor]):
        super().__init__()
        self.curve = curve

    def forward(self, x: Tensor) -> Tensor:
        values = self.curve(x * 1).flatten(1)
        return torch.stack([values.sum(1), values[:, ::2].sum(1) - 2 * values[:, 1::2].sum(1)], 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CURVES)
def test_a_curve_s_multiplier_is_its_mean_slope_however_small_the_change(name: str, dtype: torch.dtype) -> None:
    x = torch.linspace(-3.1, 3.3, 60, dtype=torch.float64).view(1, 3, 20).to(dtype)
    moves = torch.tensor([0.0, 1e-12, -1e-9, 1e-7, 3e-6, -1e-4, 2e-3, 0.04, -0.9, 2.7], dtype=torch.float64)
    b = (x.double() - moves.repeat(6).view_as(x)).to(dtype)
    found = explain(Curved(CURVES[name]).eval(), x, "deeplift", target=1, baseline=b)
    note, total = found.notes["completeness_gap"].abs(), found.values.double().abs().sum()
    assert note.max() < (1e-13 if dtype == torch.float64 else 4e-6) * total
    change = x.double() - b.double()
    middle = b.double() + change / 2
    half = change.abs().clamp(min=1e-6) / 2  # a slope at one place, where there is all but no change
    mean_slope = (CURVES[name](middle + half) - CURVES[name](middle - half)) / (2 * half)
    multipliers = found.values.double() / torch.tensor([1.0, -2.0]).repeat(30).view_as(x) / change.where(x != b, 1.0)
    tolerance = 1e-4 if dtype == torch.float64 else 1e-3
    torch.testing.assert_close(multipliers[x != b], mean_slope[x != b], rtol=tolerance, atol=tolerance)


# Operations of many values, against their slopes added up in small steps


def two(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[:, :2], x[:, 2:]


SCALE = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: F.softmax(x, 1),
    "softmax-method": lambda x: x.flatten(1).softmax(-1),
    "log_softmax": lambda x: torch.log_softmax(x, 2),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "group_norm": lambda x: F.group_norm(x, 2),
    "instance_norm": F.instance_norm,
    "local_response_norm": lambda x: F.local_response_norm(x, 3, alpha=0.7),
    "normalize": F.normalize,
    "norm": lambda x: x.norm(dim=2),
    "std": lambda x: x.std(2),
    "var": lambda x: torch.var(x, 1),
    "logsumexp": lambda x: x.logsumexp(1),
    "glu": lambda x: F.glu(x, 1),
    "product": lambda x: torch.mul(*two(x)),
    "product-operator": lambda x: two(x)[0] * two(x)[1],
    "product-in-place": lambda x: (two(x)[0] * 1).mul_(two(x)[1]),
    "product-by-itself": lambda x: x * x,
    "product-in-place-by-itself": lambda x: (y := x * 1).mul_(y),
    "product-broadcast": lambda x: x[:, :1] * x[:, 1:],
    "product-with-constant": lambda x: SCALE.to(x) * x * 3,
    "quotient": lambda x: two(x)[0] / (two(x)[1] + 4),
    "quotient-in-place": lambda x: (two(x)[0] * 1).div_(two(x)[1] + 4),
    "matmul": lambda x: x[:, :2] @ x[:, 2:].transpose(1, 2),
    "matmul-with-constant": lambda x: x @ SCALE.to(x),
    "bmm": lambda x: torch.bmm(x, x.transpose(1, 2)),
    "einsum": lambda x: torch.einsum("nci,nkc->nki", x[:, :2], x[:, 2:].transpose(1, 2)),
    "einsum-of-three": lambda x: torch.einsum("ni,ni,ni->n", x[:, 0], x[:, 1], x[:, 2])[:, None],
    "addcmul": lambda x: torch.addcmul(x[:, 0], x[:, 1], x[:, 2], value=0.5),
    "attention": lambda x: F.scaled_dot_product_attention(x, x + 1, x[..., :2]),
    "pow": lambda x: (two(x)[0] + 5) ** two(x)[1],
    "masked-softmax": lambda x: x.masked_fill(torch.ones(4, 3).triu(1).bool(), -torch.inf).softmax(-1),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_s_multipliers_are_its_mean_slopes(name: str) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out = OPERATIONS[name](x).flatten(1)
            return out @ torch.linspace(-1, 1.3, 3 * out.shape[1], dtype=x.dtype).sin().view(-1, 3)

    x, b = (torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(seed)).double() for seed in (1, 2))
    found = explain(Net().eval(), x, "deeplift", target=TARGET, baseline=b)
    steps = 100
    mean = torch.zeros_like(x)
    for step in range(steps):
        mean += slopes(lambda z: Net()(z)[range(2), TARGET], b + (step + 0.5) / steps * (x - b)) / steps
    torch.testing.assert_close(found.values, (x - b) * mean, rtol=0, atol=1e-3 * float(mean.abs().max()))
    assert found.notes["completeness_gap"].abs().max() < 1e-10
    single = explain(Net().eval(), x.float(), "deeplift", target=TARGET, baseline=b.float())
    assert single.notes["completeness_gap"].abs().max() < 2e-6 * max(1.0, float(found.values.abs().max()))


# Maxima, against loops

Windows = list[tuple[int, ...]]
MAXIMA: dict[str, tuple[Callable[[Tensor], Tensor], Windows]] = {
    "max_pool1d": (lambda x: F.max_pool1d(x, 2), [(0, 1), (2, 3), (4, 5)]),
    "max_pool1d-overlapping": (lambda x: F.max_pool1d(x, 3, 1), [(0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5)]),
    "max_pool1d-padded": (lambda x: nn.MaxPool1d(3, 2, 1)(x), [(0, 1), (1, 2, 3), (3, 4, 5)]),
    "max_pool1d-with-indices": (
        lambda x: nn.MaxPool1d(2, return_indices=True)(x)[0],
        [(0, 1), (2, 3), (4, 5)],
    ),
    "max_pool2d": (lambda x: F.max_pool2d(x.unflatten(2, (2, 3)), (2, 1)), [(0, 3), (1, 4), (2, 5)]),
    "max_pool3d": (lambda x: F.max_pool3d(x.unflatten(2, (1, 2, 3)), (1, 2, 3)), [(0, 1, 2, 3, 4, 5)]),
    "adaptive_max_pool1d": (lambda x: F.adaptive_max_pool1d(x, 2), [(0, 1, 2), (3, 4, 5)]),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x.unflatten(2, (2, 3)), (1, 3)), [(0, 3), (1, 4), (2, 5)]),
    "adaptive_max_pool3d": (
        lambda x: nn.AdaptiveMaxPool3d(1)(x.unflatten(2, (1, 2, 3))),
        [(0, 1, 2, 3, 4, 5)],
    ),
    "torch.max": (lambda x: torch.max(x, 2)[0][..., None], [(0, 1, 2, 3, 4, 5)]),
    "max-by-name": (lambda x: x.max(dim=2, keepdim=True).values, [(0, 1, 2, 3, 4, 5)]),
    "amax": (lambda x: x.unflatten(2, (2, 3)).amax((2,)), [(0, 3), (1, 4), (2, 5)]),
    "maximum": (lambda x: torch.maximum(x[..., :3], x[..., 3:]), [(0, 3), (1, 4), (2, 5)]),
    "max-of-two": (lambda x: x[..., :3].max(x[..., 3:]), [(0, 3), (1, 4), (2, 5)]),
}


@pytest.mark.parametrize("name", MAXIMA)
def test_a_maximum_s_rises_go_to_one_place_and_its_falls_to_another(name: str) -> None:
    operation, windows = MAXIMA[name]
    weights = [2.0, -3.0, 1.0, 0.5]

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            found = operation(x * 2).flatten(2).sum(1)
            return found @ torch.tensor(weights, dtype=x.dtype)[: len(windows), None]

    x, b = (torch.randn(2, 2, 6, generator=torch.Generator().manual_seed(seed)).double() for seed in (1, 2))
    found = explain(Net().eval(), x, "deeplift", target=0, baseline=b)
    given = torch.zeros_like(x)
    for item, channel in itertools.product(range(2), range(2)):
        row, zero = x[item, channel], b[item, channel]
        for weight, window in zip(weights, windows, strict=False):
            high, low = max(window, key=lambda at: row[at]), max(window, key=lambda at: zero[at])
            rise = 2 * (row[high] - zero[low])
            given[item, channel, high if rise > 0 else low] += weight * rise
    torch.testing.assert_close(found.values, given, rtol=0, atol=1e-12)


# Whole networks


NETWORKS = {"vgg11": 32, "alexnet": 64, "resnet18": 64, "googlenet": 64, "densenet121": 64, "efficientnet_b0": 64}


def vgg11() -> nn.Module:
    """Drawn once, as its own weights take seconds, and scaled so that signals do not fade on the way."""
    torch.manual_seed(0)
    net: nn.Module = models.vgg11(num_classes=10, init_weights=False).eval()
    with torch.no_grad():
        for weight in (each for each in net.parameters() if each.ndim > 1):
            weight *= 6**0.5
    return net


@pytest.mark.parametrize("name", NETWORKS)
def test_attributions_of_a_network_add_up(name: str) -> None:
    inputs = torch.randn(1, 3, NETWORKS[name], NETWORKS[name], generator=torch.Generator().manual_seed(1))
    net = vgg11() if name == "vgg11" else untrained(name)
    assert gap(explain(net, inputs, "deeplift", target=3)) < 1e-4


@pytest.mark.parametrize("baseline", [0.0, "blur"])
@pytest.mark.parametrize("name", ["squeezenet", "mobilenet"])
def test_attributions_of_a_trained_network_add_up(
    request: pytest.FixtureRequest, photographs: Tensor, name: str, baseline: Any
) -> None:
    net = request.getfixturevalue(name)
    found = explain(net, photographs[..., 16:96, 16:96], "deeplift", target=[56, 243], baseline=baseline)
    assert gap(found) < 1e-5


class Modern(nn.Module):
    """What newer networks have: gates, attention over places and channels, normalizations, branches that are chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.squeeze = nn.Conv2d(4, 4, 1)
        self.space = nn.Conv2d(2, 1, 3, padding=1)
        self.branches = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)])
        self.choice = nn.Linear(4, 8)
        self.gain = nn.Parameter(torch.ones(4, 1, 1))
        self.head = nn.Linear(4, 3)
        randomized(self, seed=3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm(self.stem(x)), inplace=True)
        x *= F.hardsigmoid(self.squeeze(F.adaptive_avg_pool2d(x, 1)))
        x = x * torch.sigmoid(self.space(torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)))
        x = F.max_pool2d(F.gelu(x * self.gain.exp()), 2)
        chosen = self.choice(x.mean((2, 3))).view(-1, 2, 4, 1, 1).softmax(1)
        x = sum(branch(x) * chosen[:, n] for n, branch in enumerate(self.branches))
        maps = x.flatten(2)
        maps = maps + (maps.transpose(1, 2) @ maps).softmax(-1).matmul(maps.transpose(1, 2)).transpose(1, 2)
        return self.head(F.layer_norm(maps.amax(2), (4,))).softmax(1)


def test_gates_attention_and_normalizations_add_up_for_each_input_alone() -> None:
    net, inputs = Modern(), tiny_inputs(items=3)
    together = explain(net, inputs, "deeplift", target=[0, 1, 2], baseline=0.2)
    assert gap(together) < 1e-10
    assert gap(explain(Modern().float(), inputs.float(), "deeplift", target=[0, 1, 2], baseline=0.2)) < 1e-4
    for item, target in enumerate([0, 1, 2]):
        alone = explain(net, inputs[item : item + 1], "deeplift", target=target, baseline=0.2)
        torch.testing.assert_close(alone.values[0], together.values[item], rtol=0, atol=1e-11)


READINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda output: output.softmax(1)[:, 1] ** 2,
    "quotient": lambda output: output[:, 1] / (output[:, 0] + 9),
    "product": lambda output: output[:, 1] * output[:, 0],
    "largest": lambda output: output.max(1).values,
    "norm": lambda output: output.norm(dim=1),
}


@pytest.mark.parametrize("reading", READINGS)
def test_the_function_that_reads_the_score_is_followed_too(reading: str) -> None:
    found = explain(AveragingNet(), tiny_inputs(), "deeplift", target=READINGS[reading], baseline=0.4)
    assert gap(found) < 1e-10


def test_what_mixes_the_batch_passes_its_gradient() -> None:
    class Mixes(AveragingNet):
        def forward(self, x: Tensor) -> Tensor:
            found = super().forward(x)
            return found + 0 * found.exp().sum().log() + 0 * found.amax() + 0 * (found.T @ found).softmax(0)[:1]

    inputs = tiny_inputs()
    mixed, apart = (explain(net, inputs, "deeplift", target=TARGET).values for net in (Mixes(), AveragingNet()))
    torch.testing.assert_close(mixed, apart, rtol=0, atol=1e-12)


def test_a_view_written_in_place() -> None:
    assert gap(explain(Halfway(), tiny_inputs(), "deeplift", target=TARGET, baseline=0.4)) < 1e-10


def test_what_is_not_known_shows_in_the_note() -> None:
    class Chooses(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x > 0, x, -0.5 * x).flatten(2).sum(2)

    found = explain(Chooses().eval(), tiny_inputs(), "deeplift", target=1, baseline=0.3)
    missed = found.values.sum((1, 2, 3)) - (found.score - Chooses()(torch.full((1, 2, 5, 6), 0.3))[0, 1])
    torch.testing.assert_close(found.notes["completeness_gap"], missed.double())
    assert missed.abs().min() > 0.1


def test_a_linear_network_needs_no_rule() -> None:
    net, inputs = LinearNet(), tiny_inputs()
    found = explain(net, inputs, ("deeplift", "input_x_gradient"), target=TARGET)
    torch.testing.assert_close(found["deeplift"].values, found["input_x_gradient"].values, rtol=0, atol=1e-12)


# captum, where it is right: linear layers between activations, and no overlapping pools

CAPTUM = {
    "rectifiers": (nn.ReLU(), nn.LeakyReLU(0.1), nn.ELU()),
    "curves": (nn.Sigmoid(), nn.Tanh(), nn.Softplus()),
    "pool": (nn.ReLU(), nn.MaxPool2d(2), nn.Tanh()),
}


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks and attributes:UserWarning")
@pytest.mark.parametrize("name", CAPTUM)
def test_it_agrees_with_captum(name: str) -> None:
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    layers: list[nn.Module] = []
    for place, each in enumerate(CAPTUM[name]):
        layers += [nn.Conv2d(4 if place else 2, 4, 3, padding=1), nn.BatchNorm2d(4), each]
    net = nn.Sequential(*layers, nn.Conv2d(4, 4, 3, padding=1), nn.Flatten(), nn.LazyLinear(3)).eval()
    net(torch.zeros(1, 2, 8, 8))
    randomized(net, 2)
    inputs, backgrounds = (
        torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(count)).double() for count in (2, 3)
    )
    ours = explain(net, inputs, "deeplift", target=TARGET, baseline=backgrounds[0]).values
    inputs.requires_grad_()
    backgrounds.requires_grad_()
    theirs = attr.DeepLift(net).attribute(inputs, backgrounds[:1], target=torch.tensor(TARGET)).detach()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)
    ours = explain(net, inputs, "deeplift_shap", target=TARGET, baselines=backgrounds).values
    theirs = attr.DeepLiftShap(net).attribute(inputs, backgrounds, target=torch.tensor(TARGET)).detach()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)
