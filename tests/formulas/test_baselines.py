"""Means over a set of baselines: what they are worth against Shapley values, what they cost, and what they refuse."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import AveragingNet, Cramped, FlatteningNet, LinearNet, PowerNet, randomized, tiny_inputs
from PIL import Image
from torch import Tensor, nn

from cnnviz import attributions, explain
from cnnviz.cli.method_options import converted
from cnnviz.engine import device_policy
from cnnviz.engine.device_policy import CPU
from cnnviz.formulas import backgrounds, between
from cnnviz.images.preprocessing import IMAGENET
from cnnviz.images.reading import read_input

TARGET = [2, 0]
EVERY = ("deeplift_shap", "gradient_shap", "expected_gradients")


def several(count: int, like: Tensor, seed: int = 4) -> Tensor:
    return torch.randn(count, *like.shape[1:], generator=torch.Generator().manual_seed(seed), dtype=like.dtype)


# What they are


def test_deeplift_shap_is_the_mean_of_deeplift() -> None:
    net, inputs = AveragingNet(), tiny_inputs()
    known = several(5, inputs)
    found = explain(net, inputs, "deeplift_shap", target=TARGET, baselines=known)
    each = [explain(net, inputs, "deeplift", target=TARGET, baseline=baseline) for baseline in known]
    torch.testing.assert_close(found.values, torch.stack([one.values for one in each]).mean(0), rtol=0, atol=1e-12)
    assert found.notes["completeness_gap"].abs().max() < 1e-12
    mean = torch.stack([net(baseline[None])[0, TARGET] for baseline in known]).mean(0)
    total = found.values.flatten(1).sum(1)
    torch.testing.assert_close(total, found.score - mean, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_one_baseline_may_be_anything_a_baseline_is(name: str) -> None:
    net, inputs = FlatteningNet(), tiny_inputs()
    blurred = explain(net, inputs, name, target=TARGET, baselines="blur").values
    assert not torch.allclose(blurred, explain(net, inputs, name, target=TARGET).values)
    half = explain(net, inputs, name, target=TARGET, baselines=0.5).values
    same = explain(net, inputs, name, target=TARGET, baselines=torch.full((1, 2, 1, 1), 0.5)).values
    torch.testing.assert_close(same, half, rtol=0, atol=1e-12)


def shapley(score: Callable[[Tensor], float], x: Tensor, known: Tensor) -> Tensor:
    """Every order-free marginal gain: of features taken from the input where the others come from a baseline."""
    size, found = x.numel(), torch.zeros(x.numel(), dtype=torch.float64)
    worth = {}
    for mask in itertools.product([False, True], repeat=size):
        chosen = torch.tensor(mask).view_as(x)
        worth[mask] = sum(score(torch.where(chosen, x, baseline)) for baseline in known) / len(known)
    for mask, feature in itertools.product(worth, range(size)):
        if not mask[feature]:
            added = (*mask[:feature], True, *mask[feature + 1 :])
            many = sum(mask)
            share = math.factorial(many) * math.factorial(size - many - 1) / math.factorial(size)
            found[feature] += share * (worth[added] - worth[mask])
    return found.view_as(x)


class Separate(nn.Module):
    """Piecewise linear in each value by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.Conv1d(6, 12, 1, groups=6)
        self.head = nn.Linear(12, 3)
        randomized(self, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.slopes(x.view(-1, 6, 1)).relu_().flatten(1))


class OnePiece(nn.Module):
    """A network of rectifiers, each of which is on, or off, for all that the tests ask."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        randomized(self, 3)
        with torch.no_grad():
            self.first.bias += torch.tensor([20.0, -20.0] * 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(nn.functional.max_pool1d(self.first(x.flatten(1)).relu()[:, None], 1)[:, 0])


class Gates(nn.Module):
    """Pairs of values that scale each other."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        gated = flat[:, :3] * (2 * flat[:, 3:])
        return torch.stack([gated.sum(1), gated[:, 0] - gated[:, 1], gated[:, 2]], 1)


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)
        randomized(self, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


@pytest.mark.parametrize("kind", [Flat, Separate, OnePiece, Gates])
def test_they_are_shapley_values_where_the_network_lets_them(kind: type[nn.Module]) -> None:
    net = kind().eval()
    inputs = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(1)).double()
    known = several(3, inputs)
    found = explain(net, inputs, "deeplift_shap", target=TARGET, baselines=known).values
    with torch.no_grad():
        exact = [shapley(lambda z, n=n: float(net(z[None])[0, TARGET[n]]), inputs[n], known) for n in range(2)]
    torch.testing.assert_close(found, torch.stack(exact), rtol=0, atol=1e-12)
    if kind in (Flat, OnePiece):
        sampled = explain(net, inputs, "expected_gradients", target=TARGET, baselines=known, samples=6).values
        torch.testing.assert_close(sampled, torch.stack(exact), rtol=0, atol=1e-12)


# Expectations, where they are known in closed form


@pytest.mark.parametrize("sigma", [0.0, 0.4])
def test_gradient_shap_of_a_linear_network_is_the_difference_times_the_weight(sigma: float) -> None:
    net, inputs = LinearNet(), tiny_inputs()
    weight = net.head.weight.detach()[TARGET].view_as(inputs)
    found = explain(net, inputs, "gradient_shap", target=TARGET, baselines=0.3, samples=5, sigma=sigma)
    torch.testing.assert_close(found.values, (inputs - 0.3) * weight, rtol=0, atol=1e-12)
    assert found.notes["completeness_gap"].abs().max() < 1e-12


@pytest.mark.parametrize(
    ("name", "samples"), [("gradient_shap", 40), ("expected_gradients", 40), ("expected_gradients", 3)]
)
def test_baselines_are_drawn_from_the_set(name: str, samples: int) -> None:
    net, inputs = LinearNet(), tiny_inputs()
    known = several(7, inputs)
    found = explain(net, inputs, name, target=TARGET, baselines=known, samples=samples).values
    mean = inputs - found / net.head.weight.detach()[TARGET].view_as(inputs)  # of the baselines that were drawn
    torch.testing.assert_close(mean[0], mean[1], rtol=0, atol=1e-10)  # every input meets the same
    times = torch.linalg.lstsq(known.flatten(1).T, mean[0].flatten()[:, None]).solution[:, 0] * samples
    torch.testing.assert_close(times, times.round(), rtol=0, atol=1e-8)
    assert int(times.round().sum()) == samples
    least, most = times.round().min(), times.round().max()
    assert most - least == 1 if name == "expected_gradients" else most - least > 1


def test_expected_gradients_of_all_baselines_equally_often_are_exact() -> None:
    net, inputs = LinearNet(), tiny_inputs()
    known = several(5, inputs)
    found = explain(net, inputs, "expected_gradients", target=TARGET, baselines=known, samples=15)
    weight = net.head.weight.detach()[TARGET].view_as(inputs)
    torch.testing.assert_close(found.values, (inputs - known.mean(0)) * weight, rtol=0, atol=1e-12)
    assert found.notes["completeness_gap"].abs().max() < 1e-12


def test_points_lie_on_the_whole_way_and_spread_evenly() -> None:
    net, inputs = PowerNet(2), tiny_inputs()
    exact = inputs**2 * net.weight.detach()[TARGET]  # from zero; the gradient is proportional to the place on the way
    worst = {}
    for name, sigma in (("gradient_shap", {"sigma": 0.0}), ("expected_gradients", {})):
        ratios = [
            float((explain(net, inputs, name, target=TARGET, samples=60, seed=seed, **sigma).values / exact).mean())
            for seed in range(5)
        ]
        assert len(set(ratios)) == 5
        worst[name] = max(abs(each - 1) for each in ratios)
    assert 0.01 < worst["gradient_shap"] < 0.3
    assert worst["expected_gradients"] < 0.01


def test_noise_is_met_at_the_end_of_the_way_and_not_counted() -> None:
    net, inputs = PowerNet(2), tiny_inputs()
    run = explain(net, inputs, "gradient_shap", target=TARGET, samples=400, sigma=0.3).values
    exact = inputs**2 * net.weight.detach()[TARGET]
    likeness = torch.corrcoef(torch.stack([run.flatten(), exact.flatten()]))[0, 1]
    assert 0.9 < likeness < 0.99999


def test_draws_depend_on_the_seed_and_their_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    net, inputs = FlatteningNet(), tiny_inputs()
    known = several(3, inputs)
    for name in EVERY[1:]:
        how: dict[str, Any] = {"target": TARGET, "baselines": known, "samples": 11}
        monkeypatch.setattr(device_policy, "CPU", replace(CPU, graph_items=64))
        found = explain(net, inputs, name, **how).values
        small = explain(net, inputs, name, memory=1, **how).values
        torch.testing.assert_close(small, found, rtol=0, atol=1e-12)
        alone = explain(net, inputs[1:], name, **how | {"target": TARGET[1]}).values
        torch.testing.assert_close(alone, found[1:], rtol=0, atol=1e-12)
        assert not torch.allclose(explain(net, inputs, name, seed=1, **how).values, found)


# What they cost


@contextmanager
def counted(net: nn.Module) -> Iterator[list[int]]:
    """How many items each forward pass had."""
    items: list[int] = []
    handle = net.register_forward_hook(lambda module, args, output: items.append(len(output)))
    try:
        yield items
    finally:
        handle.remove()


def test_a_baseline_is_one_more_pass_and_the_inputs_pass_serves_all_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    net, inputs, known = AveragingNet(), tiny_inputs(items=1), several(8, tiny_inputs())
    monkeypatch.setattr("cnnviz.run.perturbation.is_independent", lambda passes: True)  # a pass, once for each model
    with counted(net) as items:
        explain(net, inputs, "deeplift", target=1)
    assert items == [1, 1]  # the question, of which the graph serves, and the baseline; the note asks for nothing more
    with counted(net) as items:
        explain(net, inputs, "deeplift_shap", target=1, baselines=known)
    assert items == [1, 2, 2, 2, 2, 2]  # the question; then two copies, and their baselines four times


@pytest.mark.parametrize("name", EVERY)
def test_memory_does_not_grow_with_the_number_of_baselines(name: str) -> None:
    inputs, known = tiny_inputs(items=1), several(100, tiny_inputs())
    with counted(net := FlatteningNet()) as items:
        explain(net, inputs, name, target=1, baselines=known)
    assert sum(items) >= 100
    assert max(items) <= (CPU.graph_items or 0)


@pytest.mark.parametrize("name", EVERY)
def test_any_budget_and_too_little_memory_give_the_same(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    inputs, known = tiny_inputs(items=1), several(9, tiny_inputs())
    small = explain(FlatteningNet(), inputs, name, target=1, baselines=known, memory=1).values
    monkeypatch.setattr(device_policy, "CPU", replace(CPU, graph_items=64))
    large = explain(FlatteningNet(), inputs, name, target=1, baselines=known).values
    torch.testing.assert_close(small, large, rtol=0, atol=1e-12)
    cramped = Cramped()
    cramped.most = 3
    survived = explain(cramped, inputs, name, target=1, baselines=known).values
    torch.testing.assert_close(survived, large, rtol=0, atol=1e-12)


def test_it_goes_where_formulas_go() -> None:
    net, inputs = AveragingNet(), tiny_inputs()
    known = several(4, inputs)
    inner = attributions["deeplift_shap"](baselines=known)
    found = explain(net, inputs, "smoothgrad", target=TARGET, of=inner, samples=2, sigma=0.0).values
    torch.testing.assert_close(found, explain(net, inputs, inner, target=TARGET).values, rtol=0, atol=1e-12)
    split = explain(net, inputs, "saliency_confusion", target=TARGET, of="deeplift").values
    assert split.shape == (2, 4, *inputs.shape[2:])


# What they refuse


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [(3, 2, 4, 6), (2, 5, 6), (3, 2, 5, 6, 1), (4, 3, 5, 6)])
def test_baselines_of_another_shape_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"the baselines are \(.*which does not fit.*give \(K, 2, 5, 6\)") as caught:
        explain(AveragingNet(), tiny_inputs(), name, target=TARGET, baselines=torch.zeros(shape).double())
    assert "\n" not in str(caught.value)


def test_what_can_t_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the baselines are \(0, 3, 5\); give at least one"):
        backgrounds(torch.zeros(0, 3, 5))
    with pytest.raises(ValueError, match="there is no baseline 'grey'; it is a number, a tensor, or black"):
        backgrounds("grey")
    with pytest.raises(ValueError, match="needs at least 1 sample, not 0"):
        between(backgrounds(), 0)
    with pytest.raises(ValueError, match="a share of the input's range is not negative"):
        between(backgrounds(), 3, sigma=-1)
    with pytest.raises(ValueError, match="there is no spread 'odd'; there are random, even"):
        between(backgrounds(), 3, "odd")  # type: ignore[arg-type]


# From the command line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        Image.new("RGB", (20, 16), (80 * number, 10, 200)).save(tmp_path / f"{number}.png")
    return tmp_path


def read(path: Path) -> Tensor:
    return read_input(path, IMAGENET)


def given(setting: str, text: object, method: str = "deeplift_shap") -> Any:
    return converted(attributions[method], {setting: str(text)}, read)[setting]


def test_a_folder_of_pictures_is_a_set_of_baselines(folder: Path) -> None:
    expected = torch.stack([read(folder / f"{number}.png") for number in range(3)])
    assert torch.equal(given("baselines", folder), expected)
    assert torch.equal(given("baselines", folder / "1.png"), expected[1:2])
    assert torch.equal(given("baseline", folder / "1.png", "deeplift"), expected[1])
    assert given("baselines", "0.5") == 0.5
    assert given("baselines", "blur") == "blur"


def test_a_folder_that_can_t_be_read_is_told_in_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder, not a picture; name a file in it"):
        given("baseline", folder, "integrated_gradients")
    (folder / "broken.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"'.*broken\.png' is not a picture that can be read"):
        given("baselines", folder)
    with pytest.raises(FileNotFoundError, match=r"no file or folder '.*none\.png'"):
        given("baselines", folder / "none.png")
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no pictures"):
        given("baselines", empty)
