"""Inputs (N, F) without spatial extent: features are covered like the places of a signal."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from nets import randomized
from torch import Tensor, nn

from cnnviz import explain


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = randomized(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def rows(items: int = 3) -> Tensor:
    return torch.randn(items, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def score(net: nn.Module, x: Tensor, kept: Tensor, baseline: Tensor) -> Tensor:
    """The second score of one row with the other features replaced."""
    with torch.no_grad():
        return net(torch.where(kept, x, baseline)[None])[0, 1]


BASELINE = torch.tensor([0.5, -1.0, 0.0, 2.0, 0.25], dtype=torch.float64)


def test_occlusion_moves_a_window_along_the_features() -> None:
    net, inputs = Table(), rows()
    found = explain(net, inputs, "occlusion", target=1, window=2, stride=1, baseline=BASELINE).values
    assert found.shape == inputs.shape
    whole = torch.ones(5, dtype=torch.bool)
    for item, x in enumerate(inputs):
        drops = []
        for begin in range(4):
            kept = whole.clone()
            kept[begin : begin + 2] = False
            drops.append(score(net, x, whole, BASELINE) - score(net, x, kept, BASELINE))
        for feature in range(5):
            covering = [drop for begin, drop in enumerate(drops) if begin <= feature < begin + 2]
            torch.testing.assert_close(found[item, feature], torch.stack(covering).mean())


@pytest.mark.parametrize("segments", ["auto", "equal", torch.tensor([0, 0, 1, 2, 1])])
def test_feature_ablation_replaces_features(segments: str | Tensor) -> None:
    net, inputs = Table(), rows()
    found = explain(net, inputs, "feature_ablation", target=1, segments=segments, baseline=BASELINE).values
    ids = segments if isinstance(segments, Tensor) else torch.arange(5)
    whole = torch.ones(5, dtype=torch.bool)
    for item, x in enumerate(inputs):
        for feature in range(5):
            drop = score(net, x, whole, BASELINE) - score(net, x, ids != ids[feature], BASELINE)
            torch.testing.assert_close(found[item, feature], drop)


def test_kernel_shap_of_all_subsets_is_the_mean_over_all_orders() -> None:
    net, inputs = Table(), rows(2)
    found = explain(net, inputs, "kernel_shap", target=1, baseline=BASELINE).values
    for item, x in enumerate(inputs):
        gains = torch.zeros(5, dtype=torch.float64)
        for order in permutations(range(5)):
            kept = torch.zeros(5, dtype=torch.bool)
            for feature in order:
                before = score(net, x, kept, BASELINE)
                kept[feature] = True
                gains[feature] += score(net, x, kept, BASELINE) - before
        torch.testing.assert_close(found[item], gains / 120, rtol=1e-8, atol=1e-9)


def test_a_segment_keeps_the_mean_of_its_features_by_default() -> None:
    """LIME of a linear network has its weights times the distance to the mean of each segment, in the limit."""
    weights = torch.tensor([2.0, -1.0, 0.5, 3.0, -2.0], dtype=torch.float64)
    net = nn.Linear(5, 1, bias=False).double().eval()
    with torch.no_grad():
        net.weight.copy_(weights[None])
    inputs, ids = rows(1), torch.tensor([0, 0, 1, 1, 1])
    found = explain(net, inputs, "lime", target=0, segments=ids, ridge=0.0, samples=200).values[0]
    for number in range(2):
        inside = ids == number
        expected = (weights * (inputs[0] - inputs[0][inside].mean()))[inside].sum()
        torch.testing.assert_close(found[inside], expected.expand(int(inside.sum())), rtol=1e-8, atol=1e-9)


class _Signal(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x[:, 0])


@pytest.mark.parametrize("method", ["occlusion", "feature_ablation", "kernel_shap", "lime", "shapley_sampling", "rise"])
def test_features_are_those_of_a_signal_of_one_channel(method: str) -> None:
    net, inputs = Table(), rows()
    found = explain(net, inputs, method, target=1, baseline=0.3)
    same = explain(_Signal(net).eval(), inputs[:, None], method, target=1, baseline=0.3)
    torch.testing.assert_close(found.values, same.values[:, 0])
    torch.testing.assert_close(found.inputs, inputs)
    for name, note in found.notes.items():
        torch.testing.assert_close(note, same.notes[name][:, 0])


@pytest.mark.parametrize("baseline", ["blur", "mean"])
def test_a_baseline_of_neighbours_is_refused(baseline: str) -> None:
    with pytest.raises(ValueError, match=f"the baseline '{baseline}' is made of neighbouring places"):
        explain(Table(), rows(), "occlusion", target=1, baseline=baseline)


def unflattening() -> nn.Module:
    return randomized(
        nn.Sequential(
            nn.Unflatten(1, (1, 4, 4)),
            nn.Conv2d(1, 4, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 2),
        )
    )


@pytest.mark.parametrize("method", ["guided_grad_cam", "score_cam"])
def test_a_map_has_no_place_in_an_input_that_the_model_unflattens(method: str) -> None:
    inputs = torch.randn(2, 16, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"the input is \(2, 16\), without spatial extent: a map"):
        explain(unflattening(), inputs, method, target=1, layer="1")
