"""Integrated gradients and gradients under noise, against loops over slopes and against closed forms."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from nets import AveragingNet, FlatteningNet, LinearNet, PowerNet, scores, slopes, tiny_inputs
from scipy.ndimage import correlate1d
from torch import Tensor, nn

import cnnviz
from cnnviz import Preprocessing, Run, explain
from cnnviz.formulas import noisy, path
from cnnviz.run.options import RunOptions

TARGET = [2, 0]
QUADRATURES = ("gauss-legendre", "left", "right", "middle", "trapezoid", "captum-trapezoid")


def rule(quadrature: str, n: int) -> list[tuple[float, float]]:
    """Places in 0..1 and their weights."""
    if quadrature == "gauss-legendre":  # of 3: the textbook's
        assert n == 3
        far = 0.6**0.5
        return [(0.5 - far / 2, 5 / 18), (0.5, 8 / 18), (0.5 + far / 2, 5 / 18)]
    if quadrature == "left":
        return [(k / n, 1 / n) for k in range(n)]
    if quadrature == "right":
        return [((k + 1) / n, 1 / n) for k in range(n)]
    if quadrature == "middle":
        return [((k + 0.5) / n, 1 / n) for k in range(n)]
    edges = [k / (n - 1) for k in range(n)]
    ends = {edge: 0.0 for edge in edges}
    for low, high in pairwise(edges):  # each piece counts half for either of its ends
        ends[low] += (high - low) / 2
        ends[high] += (high - low) / 2
    shrink = (n - 1) / n if quadrature == "captum-trapezoid" else 1.0
    return [(place, weight * shrink) for place, weight in ends.items()]


@pytest.mark.parametrize("quadrature", QUADRATURES)
@pytest.mark.parametrize("kind", [AveragingNet, FlatteningNet], ids=("averaging", "flattening"))
def test_integrated_gradients_is_the_sum_along_the_path(
    kind: type[nn.Module], rank: int, inputs: Tensor, quadrature: str
) -> None:
    net = kind(rank)
    begin = 0.3 * tiny_inputs(rank, seed=9)  # a constant would have ties wherever the network pools
    found = explain(
        net, inputs, "integrated_gradients", target=TARGET, baseline=begin, steps=3, quadrature=quadrature
    ).values
    by_hand = torch.zeros_like(inputs)
    for place, weight in rule(quadrature, 3):
        between = begin + place * (inputs - begin)
        by_hand += weight * (inputs - begin) * slopes(scores(net, TARGET), between)
    torch.testing.assert_close(found, by_hand, rtol=0, atol=1e-6)


SQUARE = {  # what the mean of the places is, which is all that the square's gradient asks of a rule
    "gauss-legendre": lambda n: 1 / 2,
    "left": lambda n: (n - 1) / (2 * n),
    "right": lambda n: (n + 1) / (2 * n),
    "middle": lambda n: 1 / 2,
    "trapezoid": lambda n: 1 / 2,
}


@pytest.mark.parametrize("steps", [2, 7, 50])
@pytest.mark.parametrize("quadrature", SQUARE)
def test_closed_form_of_a_square(rank: int, inputs: Tensor, quadrature: str, steps: int) -> None:
    net = PowerNet(2, rank)
    found = explain(
        net, inputs, "integrated_gradients", target=TARGET, baseline=-0.5, steps=steps, quadrature=quadrature
    )
    weight, reach = net.weight.detach()[TARGET], inputs + 0.5
    place = SQUARE[quadrature](steps)
    torch.testing.assert_close(found.values, reach * 2 * weight * (-0.5 + place * reach))
    with torch.no_grad():
        start = net(torch.full_like(inputs, -0.5))
    gap = found.values.flatten(1).sum(1) - (found.score - torch.stack([start[0, 2], start[1, 0]]))
    torch.testing.assert_close(found.notes["completeness_gap"], gap, rtol=1e-9, atol=1e-9)
    if place == 1 / 2:
        torch.testing.assert_close(gap, torch.zeros_like(gap), rtol=0, atol=1e-9)
    else:
        assert gap.abs().min() > 1e-3


def test_captums_trapezoid_is_the_trapezoid_less_one_step() -> None:
    net, inputs = PowerNet(2), tiny_inputs()
    settings = {"target": TARGET, "steps": 10}
    right = explain(net, inputs, "integrated_gradients", **settings, quadrature="trapezoid").values
    captums = explain(net, inputs, "integrated_gradients", **settings, quadrature="captum-trapezoid").values
    torch.testing.assert_close(captums, 0.9 * right)


@pytest.mark.parametrize(("power", "steps"), [(4, 2), (6, 3)])
def test_gauss_legendre_is_exact_for_polynomials(power: int, steps: int) -> None:
    net, inputs = PowerNet(power), tiny_inputs()
    found = explain(net, inputs, "integrated_gradients", target=TARGET, steps=steps, baseline=0.7).values
    torch.testing.assert_close(found, net.weight.detach()[TARGET] * (inputs**power - 0.7**power))


@pytest.mark.parametrize("quadrature", QUADRATURES[:-1])
def test_a_linear_network_has_each_input_times_its_weight(rank: int, inputs: Tensor, quadrature: str) -> None:
    net = LinearNet(rank)
    found = explain(net, inputs, "integrated_gradients", target=TARGET, baseline=0.2, steps=4, quadrature=quadrature)
    weight = net.head.weight.detach()[TARGET].view_as(inputs)
    torch.testing.assert_close(found.values, weight * (inputs - 0.2))


def blurred(x: Tensor, sigma: float) -> Tensor:
    radius = int(np.ceil(3 * sigma))
    bell = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    values = x.numpy()
    for axis in range(2, x.ndim):
        values = correlate1d(values, bell / bell.sum(), axis=axis, mode="nearest")
    return torch.from_numpy(values)


def channel(x: Tensor, values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, -1, *(1,) * (x.ndim - 2)).expand_as(x)


def channel_means(x: Tensor) -> Tensor:
    means = [[float(c.mean()) for c in item] for item in x]
    return torch.tensor(means, dtype=torch.float64).view(*x.shape[:2], *(1,) * (x.ndim - 2)).expand_as(x)


BASELINES: dict[str, tuple[object, Callable[[Tensor], Tensor]]] = {
    "number": (0.25, lambda x: torch.full_like(x, 0.25)),
    "black": ("black", lambda x: channel(x, [-0.5 / 0.2, -0.4 / 0.3])),
    "white": ("white", lambda x: channel(x, [0.5 / 0.2, 0.6 / 0.3])),
    "mean": ("mean", channel_means),
    "blur": ("blur", lambda x: blurred(x, 1.0)),
    "formula": (cnnviz.image() * 0.5, lambda x: x / 2),
}


@pytest.mark.parametrize("name", BASELINES)
def test_baselines(rank: int, inputs: Tensor, name: str) -> None:
    net, (baseline, expected) = PowerNet(4, rank), BASELINES[name]
    about = Preprocessing(mean=(0.5, 0.4), std=(0.2, 0.3))
    found = explain(net, inputs, "integrated_gradients", target=TARGET, baseline=baseline, steps=2, preprocessing=about)
    by_hand = net.weight.detach()[TARGET] * (inputs**4 - expected(inputs) ** 4)
    torch.testing.assert_close(found.values, by_hand, rtol=1e-6, atol=1e-6)
    assert found.notes["completeness_gap"].abs().max() < 1e-6


def test_blur_grows_with_the_input() -> None:
    inputs = torch.randn(1, 1, 60, 80, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Flatten(), nn.Linear(4800, 2)).double().eval()
    found = explain(net, inputs, cnnviz.formulas.baseline_input("blur"))
    torch.testing.assert_close(found.values, blurred(inputs, 3.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", ["whole", "one-item", "per-channel"])
def test_a_tensor_as_baseline(shape: str) -> None:
    net, inputs = PowerNet(2), tiny_inputs()
    sizes = {"whole": inputs.shape, "one-item": (1, *inputs.shape[1:]), "per-channel": (1, 2, 1, 1)}
    baseline = torch.randn(sizes[shape], dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = explain(net, inputs, "integrated_gradients", target=TARGET, baseline=baseline, steps=2).values
    torch.testing.assert_close(found, net.weight.detach()[TARGET] * (inputs**2 - baseline**2))


def test_a_tensor_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the baseline is \(3, 5\), which does not fit an input of \(2, 2, 5, 6\)"):
        explain(PowerNet(2), tiny_inputs(), "integrated_gradients", target=TARGET, baseline=torch.zeros(3, 5))


@pytest.mark.parametrize(("name", "part"), [("squeezenet", 0.5), ("mobilenet", 0.85)])
def test_completeness_of_trained_networks(
    name: str, part: float, photographs: Tensor, request: pytest.FixtureRequest
) -> None:
    """From a fainter picture; from grey the score has so many kinks that thousands of steps would be needed."""
    net, start = request.getfixturevalue(name), part * photographs
    settings = {"baseline": start, "steps": 40, "quadrature": "middle"}
    found = explain(net, photographs, "integrated_gradients", target=[56, 243], **settings)
    added = found.score - scores(net, [56, 243])(start)
    assert added.abs().max() > 0.05 * found.score.abs().max()
    gap = found.values.double().flatten(1).sum(1) - added
    torch.testing.assert_close(found.notes["completeness_gap"], gap, rtol=0, atol=1e-4)
    assert (gap.abs() <= 1e-3 * found.score.abs()).all()


@pytest.mark.parametrize("name", ["squeezenet", "mobilenet"])
def test_sum_is_the_integrated_change_of_the_score(
    name: str, photographs: Tensor, request: pytest.FixtureRequest
) -> None:
    """The score's own differences along the path, weighted by the same rule, however well that rule integrates."""
    net, inputs = copy.deepcopy(request.getfixturevalue(name)).double(), photographs.double()
    found = explain(net, inputs, "integrated_gradients", target=[56, 243], steps=3).values
    score = scores(net, [56, 243])
    changes = [
        weight * (score((place + 1e-7) * inputs) - score((place - 1e-7) * inputs)) / 2e-7
        for place, weight in rule("gauss-legendre", 3)
    ]
    torch.testing.assert_close(found.flatten(1).sum(1), sum(changes), rtol=1e-3, atol=1e-3)


# Noise


def draws(net: nn.Module, inputs: Tensor, samples: int, sigma: float, seed: int = 0) -> list[Tensor]:
    """The noisy inputs themselves, drawn one at a time."""
    run = Run(net, inputs, options=RunOptions(seed=seed))
    return [noisy(samples, sigma).draw(run, k, k + 1)[0] for k in range(samples)]


@pytest.mark.parametrize("method", ["smoothgrad", "smoothgrad_squared", "vargrad"])
@pytest.mark.parametrize("kind", [AveragingNet, FlatteningNet], ids=("averaging", "flattening"))
def test_maps_under_noise_from_the_same_draws(kind: type[nn.Module], rank: int, inputs: Tensor, method: str) -> None:
    net = kind(rank)
    found = explain(net, inputs, method, target=TARGET, samples=4, sigma=0.2).values
    slow = [slopes(scores(net, TARGET), x) for x in draws(net, inputs, 4, 0.2)]
    mean = sum(slow) / 4
    by_hand = {
        "smoothgrad": mean,
        "smoothgrad_squared": sum(grad**2 for grad in slow) / 4,
        "vargrad": sum((grad - mean) ** 2 for grad in slow) / 4,
    }
    torch.testing.assert_close(found, by_hand[method], rtol=0, atol=1e-6)
    assert float((slow[0] - slow[1]).abs().max()) > 1e-3  # else noise would make no difference


def test_noise_is_a_share_of_each_inputs_range(rank: int, inputs: Tensor) -> None:
    inputs = torch.cat([inputs, 3 * inputs[:1], torch.zeros_like(inputs[:1])])
    noise = torch.stack(draws(nn.Identity(), inputs, 400, 0.2)) - inputs
    for item, x in enumerate(inputs):
        reach = max(places := x.flatten().tolist()) - min(places)
        scaled = noise[:, item] / (0.2 * reach or 1)
        assert abs(float(scaled.mean())) < 0.05
        assert abs(float(scaled.std()) - (reach > 0)) < 0.05
    alike = noise[:, 0] / noise[:, 0].abs().max()
    torch.testing.assert_close(noise[:, 2] / noise[:, 2].abs().max(), alike)  # one draw for the whole batch
    flat = noise[:, 0].flatten(1)
    corner = torch.corrcoef(flat[:, :6].T) - torch.eye(6, dtype=torch.float64)
    assert corner.abs().max() < 0.25  # values of a draw are independent, and
    assert abs(float(torch.corrcoef(torch.stack([flat[:-1, 0], flat[1:, 0]]))[0, 1])) < 0.2  # so are draws


def test_seeds_decide_the_noise() -> None:
    net, inputs = FlatteningNet(), tiny_inputs()
    first, again = (explain(net, inputs, "smoothgrad", target=TARGET, samples=3, seed=7).values for _ in range(2))
    assert torch.equal(first, again)
    other = explain(net, inputs, "smoothgrad", target=TARGET, samples=3, seed=1007).values
    assert not torch.allclose(first, other)
    for known, drawn in zip(draws(net, inputs, 3, 0.1, seed=7), draws(net, inputs, 3, 0.1, seed=1007), strict=True):
        assert not torch.allclose(known, drawn)


def test_a_linear_network_is_the_same_under_any_noise(rank: int, inputs: Tensor) -> None:
    net = LinearNet(rank)
    methods = ("smoothgrad", "smoothgrad_squared", "vargrad")
    found = explain(net, inputs, methods, target=TARGET, samples=7, sigma=0.5)
    weight = net.head.weight.detach()[TARGET].view_as(inputs)
    torch.testing.assert_close(found["smoothgrad"].values, weight)
    torch.testing.assert_close(found["smoothgrad_squared"].values, weight**2)
    torch.testing.assert_close(found["vargrad"].values, torch.zeros_like(weight), rtol=0, atol=1e-28)


def test_a_square_has_the_moments_of_its_noise(rank: int, inputs: Tensor) -> None:
    net = PowerNet(2, rank)
    found = explain(net, inputs, ("smoothgrad", "smoothgrad_squared", "vargrad"), target=TARGET, samples=9, sigma=0.3)
    slope = 2 * net.weight.detach()[TARGET]
    drawn = np.stack([x.numpy() for x in draws(net, inputs, 9, 0.3)])
    torch.testing.assert_close(found["smoothgrad"].values, slope * torch.from_numpy(drawn.mean(0)))
    torch.testing.assert_close(found["smoothgrad_squared"].values, slope**2 * torch.from_numpy((drawn**2).mean(0)))
    torch.testing.assert_close(found["vargrad"].values, slope**2 * torch.from_numpy(drawn.var(0)))


def test_no_noise_is_the_gradient() -> None:
    net, inputs = FlatteningNet(), tiny_inputs()
    found = explain(net, inputs, ("smoothgrad", "vargrad", "gradient"), target=TARGET, samples=3, sigma=0.0)
    torch.testing.assert_close(found["smoothgrad"].values, found["gradient"].values)
    assert found["vargrad"].values.abs().max() < 1e-28


@pytest.mark.parametrize("of", ["input_x_gradient", "guided_backprop", "grad_cam", "integrated_gradients"])
def test_noise_over_any_method(of: str) -> None:
    net, inputs = AveragingNet(), tiny_inputs()
    found = explain(net, inputs, ("smoothgrad", "vargrad"), target=TARGET, of=of, samples=3)
    slow = torch.stack([explain(net, x, of, target=TARGET).values for x in draws(net, inputs, 3, 0.15)])
    torch.testing.assert_close(found["smoothgrad"].values, slow.mean(0), rtol=0, atol=1e-9)
    torch.testing.assert_close(found["vargrad"].values, slow.var(0, correction=0), rtol=0, atol=1e-9)


def test_noise_keeps_explaining_the_class_that_was_predicted() -> None:
    net, inputs = FlatteningNet(), tiny_inputs()
    found = explain(net, inputs, "smoothgrad", samples=20, sigma=2.0)  # noise that changes the prediction
    assert found.target is not None
    named = explain(net, inputs, "smoothgrad", target=found.target, samples=20, sigma=2.0)
    torch.testing.assert_close(found.values, named.values)
    with torch.no_grad():
        predicted = torch.stack([net(x).argmax(1) for x in draws(net, inputs, 20, 2.0)])
    assert (predicted != found.target).any()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: path(0), "gauss-legendre needs at least 1 steps, not 0"),
        (lambda: path(1, quadrature="trapezoid"), "trapezoid needs at least 2 steps, not 1"),
        (lambda: path(quadrature="simpson"), "there is no quadrature 'simpson'; there are gauss-legendre, left"),
        (
            lambda: path(baseline=torch.zeros_like),
            "there is no baseline zeros_like; it is a number, a tensor, or black",
        ),  # type: ignore[arg-type]
        (lambda: path(baseline="grey"), "there is no baseline 'grey'; it is a number, a tensor, or black, white"),
        (lambda: noisy(0), "noise needs at least 1 sample, not 0"),
        (lambda: noisy(sigma=-0.1), "sigma is -0.1; a share of the input's range is not negative"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
