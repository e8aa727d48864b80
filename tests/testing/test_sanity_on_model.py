"""Whether maps depend on the weights, asked of any network: known answers, and Spearman's correlation by loops."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from cnnviz import Run, black_box, demo, load_model
from cnnviz.testing import SmallNet, check_on_model
from cnnviz.testing.sanity.blind import blind
from cnnviz.testing.sanity.verdicts import of_random_weights
from cnnviz_plugins.attributions.backprop import gradient


def pictures(count: int, side: int = 12) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def slow_ranks(values: Sequence[float]) -> list[float]:
    """From 1; equal values share the mean of their ranks."""
    return [sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values]


def slow_spearman(one: Tensor, other: Tensor) -> float:
    first, second = slow_ranks(one.flatten().tolist()), slow_ranks(other.flatten().tolist())
    mean = (len(first) + 1) / 2
    both = sum((a - mean) * (b - mean) for a, b in zip(first, second, strict=True))
    own = sum((a - mean) ** 2 for a in first) * sum((b - mean) ** 2 for b in second)
    return float(both / own**0.5)


class Noting:
    """The gradient, which keeps the maps that it gave, and the weights that it was asked about."""

    def __init__(self) -> None:
        self.maps: list[Tensor] = []
        self.changed: list[list[str]] = []
        self.before: dict[str, Tensor] = {}

    def __call__(self, run: Run) -> Tensor:
        values = gradient()(run)
        weights = {name: each.detach().clone() for name, each in run.model.named_parameters() if each.ndim > 1}
        self.before = self.before or weights
        self.changed.append([name for name, each in weights.items() if not torch.equal(each, self.before[name])])
        self.maps.append(values.detach().abs().sum(1))
        return values


def test_figures_are_correlations_of_ranks_with_maps_of_random_weights() -> None:
    model, inputs, noting = SmallNet(2), pictures(3, 8), Noting()
    verdict = check_on_model(model, inputs, noting, target=1)  # type: ignore[arg-type]  # a plain callable
    own, *others = noting.maps
    layers = [name.removesuffix(".weight") for name in noting.before]
    assert [len(each) for each in noting.changed] == [0, 1, max(1, round(len(layers) / 4)), len(layers)]
    for name, other in zip(("output", "quarter", "all"), others, strict=True):
        expected = sum(slow_spearman(*pair) for pair in zip(own, other, strict=True)) / 3
        assert verdict.figures[name] == pytest.approx(expected, abs=1e-6)
    assert verdict.sentences == tuple(of_random_weights(*verdict.figures.values()))
    assert verdict.pictures == 3
    assert str(verdict).endswith("; on 3 pictures only, which tells little of others")


def test_edges_do_not_depend_on_the_weights_and_a_gradient_does() -> None:
    model, inputs = SmallNet(2), pictures(6)
    edges = check_on_model(model, inputs, blind("edges"))  # type: ignore[arg-type]  # a plain callable
    assert edges.sentences == ("does not depend on the weights",)
    assert edges.figures == {"output": 1, "quarter": 1, "all": 1}
    assert edges.untold == ""
    found = check_on_model(demo.network("demo"), demo.as_inputs(demo.pictures().pictures[:6, ::2, ::2]), "gradient")
    assert found.sentences == ("depends on the weights",)
    assert found.method == "gradient()"
    assert str(found) == "depends on the weights"


@pytest.mark.parametrize(
    ("figures", "sentences"),
    [
        ((1.0, 1.0, 0.9), ["does not depend on the weights"]),
        ((0.95, 0.7, 0.89), ["hardly heeds the upper layers", "does not depend on the class"]),
        ((0.95, 0.69, 0.1), ["does not depend on the class"]),
        ((0.94, 0.7, 0.1), ["hardly heeds the upper layers"]),
        ((0.94, 0.69, 0.1), ["depends on the weights"]),
    ],
)
def test_the_rules_at_their_limits(figures: tuple[float, float, float], sentences: list[str]) -> None:
    assert of_random_weights(*figures) == sentences


def test_the_model_is_borrowed() -> None:
    model, inputs = SmallNet(2), pictures(2)
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    check_on_model(model, inputs, "gradient")
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_one_seed_gives_one_verdict() -> None:
    first, second, other = (check_on_model(SmallNet(2), pictures(2), "gradient", seed=seed) for seed in (3, 3, 4))
    assert first == second
    assert first.figures != other.figures


def test_what_cannot_be_told_says_why() -> None:
    inputs = pictures(2)
    seen = check_on_model(black_box(SmallNet(2)), inputs, "feature_ablation")
    assert (seen.sentences, seen.pictures) == ((), 0)
    assert seen.untold == "the network is a black box, whose weights can't be made random"
    bare = nn.Sequential(nn.AvgPool2d(2), nn.Flatten()).eval()
    assert "has no weights to make random" in check_on_model(bare, inputs, "gradient", target=1).untold
    held = SmallNet(2)
    held.handle = (each for each in ())  # type: ignore[assignment]  # what can't be copied
    assert "can't be copied" in check_on_model(held, inputs, "gradient").untold


class OnlyWithItsWeights(SmallNet):
    """Raises an error of any kind where its weights are others."""

    def __init__(self, error: BaseException):
        super().__init__(2)
        self.error, self.known = error, [parameter.detach().clone() for parameter in self.parameters()]

    def forward(self, inputs: Tensor) -> Tensor:
        if not all(map(torch.equal, self.parameters(), self.known)):
            raise self.error
        return super().forward(inputs)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AssertionError("two\nlines"), "AssertionError: two lines"),
        (SystemExit(3), "SystemExit: 3"),
        (MemoryError(), "MemoryError"),
        (KeyError("place"), "place"),
        (NotImplementedError(), "NotImplementedError"),
    ],
)
def test_any_error_with_random_weights_is_told(error: BaseException, told: str) -> None:
    verdict = check_on_model(OnlyWithItsWeights(error), pictures(2), "gradient", target=0)
    assert (verdict.sentences, verdict.untold) == ((), told)


def nothing(run: Run) -> Tensor:
    return torch.zeros_like(run.inputs)


def test_maps_without_evidence_are_no_verdict() -> None:
    verdict = check_on_model(SmallNet(2), pictures(2), nothing)  # type: ignore[arg-type]
    assert str(verdict) == "no verdict; its maps are zero everywhere"


class EndsInReLU(nn.Module):
    """Scores behind a module or a function, as SqueezeNet's; trained so that all are positive."""

    def __init__(self, functional: bool):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv, self.scores = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)
        for each in self.parameters():
            each.data = torch.rand(each.shape, generator=generator)
        self.relu = nn.ReLU()
        self.functional = functional

    def forward(self, inputs: Tensor) -> Tensor:
        scores = self.scores(self.conv(inputs).relu().mean((2, 3), keepdim=True))
        return (scores.relu() if self.functional else self.relu(scores)).mean((2, 3))


def test_a_relu_that_scores_end_in_cuts_off_no_random_map() -> None:
    found = check_on_model(EndsInReLU(functional=False).eval(), pictures(6), "gradient")
    assert found.sentences
    cut = [
        check_on_model(EndsInReLU(functional=True).eval(), pictures(2), "gradient", seed=seed, target=0)
        for seed in range(4)
    ]
    told = [verdict for verdict in cut if "most maps are zero everywhere, which tells nothing" in verdict.untold]
    assert told
    assert all(verdict.sentences == () for verdict in told)


def test_a_loaded_model_is_asked_as_its_network_is() -> None:
    loaded, inputs = load_model("demo"), demo.as_inputs(demo.pictures().pictures[:1])
    assert check_on_model(loaded, inputs, "grad_cam") == check_on_model(loaded.module, inputs, "grad_cam")
