"""Variants are asked together only where they don't change each other's scores: models that mix their batch show it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import randomized, tiny_inputs
from quick import quick
from torch import Tensor, nn

from cnnviz import Run, attributions, explain
from cnnviz.engine.device_policy import DevicePolicy
from cnnviz.objectives import channel
from cnnviz.run.options import RunOptions

TARGET = torch.tensor([1, 0])
FOLDING = ("rise", "feature_ablation", "lime", "kernel_shap", "shapley_sampling", "smoothgrad", "integrated_gradients")


class NormedByTheBatch(nn.Module):
    """Its norm keeps no statistics, and takes those of whatever is passed together."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4, track_running_stats=False)
        self.head = nn.Linear(4, 3)
        self.passed: list[int] = []
        randomized(self, seed=5)

    def forward(self, x: Tensor) -> Tensor:
        self.passed.append(len(x))
        return self.head(self.norm(self.first(x)).relu().mean((2, 3)))


class Plain(NormedByTheBatch):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        randomized(self, seed=5)


class OddsOut(Plain):
    """Scores are what is above the mean of those passed together."""

    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x)
        return found - found.mean(0)


def variants(count: int = 7, items: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, items, 2, 5, 6, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("items", [1, 2])
@pytest.mark.parametrize("net", [NormedByTheBatch, OddsOut, Plain])
@pytest.mark.parametrize("budget", [None, 1])
def test_scores_of_variants_are_those_of_each_batch_by_itself(
    net: Callable[[], nn.Module], items: int, budget: int | None
) -> None:
    model, every = net(), variants(items=items)
    with torch.no_grad():
        expected = torch.stack([model(each).gather(1, TARGET[:items, None])[:, 0] for each in every])
        run = Run(model, tiny_inputs(2, items), TARGET[:items], options=RunOptions(memory=budget))
        found = run.scores_of(len(every), lambda start, stop: every[start:stop])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", FOLDING)
def test_estimates_are_as_if_each_variant_was_asked_alone(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"target": 1, **quick(method)}
    found = explain(NormedByTheBatch(), tiny_inputs(2), method, **settings).values
    monkeypatch.setattr(DevicePolicy, "items_with_graph", lambda *about: 1)
    monkeypatch.setattr(DevicePolicy, "items_without_graph", lambda *about: 2)  # the batch, which stays together
    alone = explain(NormedByTheBatch(), tiny_inputs(2), method, **settings).values
    torch.testing.assert_close(found, alone, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("items", [1, 2])
@pytest.mark.parametrize("net", [NormedByTheBatch, OddsOut, Plain])
def test_windows_are_asked_about_one_by_one(net: Callable[[], nn.Module], items: int) -> None:
    model, inputs, target = net(), tiny_inputs(2, items), TARGET[:items]
    answer = explain(model, inputs, "occlusion", window=2, stride=2, baseline=0.25, target=target)

    def score(x: Tensor) -> Tensor:
        with torch.no_grad():
            return model(x).gather(1, target[:, None])[:, 0]

    for row, column in ((0, 0), (2, 4)):
        covered = inputs.clone()
        covered[:, :, row : row + 2, column : column + 2] = 0.25
        torch.testing.assert_close(answer.values[:, 0, row, column], score(inputs) - score(covered))


def test_a_target_may_mix_what_the_model_does_not() -> None:
    model, every = Plain(), variants()
    over_the_mean = lambda output: output[:, 1] - output[:, 1].mean()  # noqa: E731, a target as users write it
    with torch.no_grad():
        for target in (TARGET, over_the_mean):  # that the model does not mix is known by then
            run = Run(model, tiny_inputs(2), target)
            found = run.scores_of(len(every), lambda start, stop: every[start:stop])
        torch.testing.assert_close(found, torch.stack([over_the_mean(model(each)) for each in every]))


@pytest.mark.parametrize("items", [1, 2])
@pytest.mark.parametrize("mean", [Tensor.mean, lambda scores: float(scores.detach().mean())])
def test_what_a_model_tells_of_its_whole_batch_is_that_of_each_variant(
    mean: Callable[[Tensor], Any], items: int
) -> None:
    class TellsTheMean(Plain):
        def forward(self, x: Tensor) -> Any:
            scores = super().forward(x)
            return {"scores": scores, "mean": mean(scores)}

    def over_the_mean(output: Any) -> Any:
        return output["scores"][:, 1] - output["mean"]

    model, every = TellsTheMean(), variants(items=items)
    boxes = torch.tensor([[[row, row + 2], [row, row + 3]] for row in range(4)])
    with torch.no_grad():
        run = Run(model, tiny_inputs(2, items), over_the_mean)
        found = run.scores_of(len(every), lambda start, stop: every[start:stop])
        torch.testing.assert_close(found, torch.stack([over_the_mean(model(each)) for each in every]))
        found = run.scores_of_boxes(boxes, lambda number, item: torch.full((2, 2, 3), float(number)).double())
        for number in range(len(boxes)):
            changed = tiny_inputs(2, items)
            changed[:, :, number : number + 2, number : number + 3] = number
            torch.testing.assert_close(found[number], over_the_mean(model(changed)))


def test_what_the_operations_prove_costs_no_pass_and_is_found_anew_for_each_question() -> None:
    model, every = Plain(), variants()

    def passed() -> list[int]:
        model.passed.clear()
        with torch.no_grad():
            Run(model, tiny_inputs(2), TARGET).scores_of(len(every), lambda start, stop: every[start:stop])
        return model.passed

    assert passed() == [2, 14, 2], "the batch, which is measured; its variants; and the first of these alone"
    assert passed() == [14, 2], "the size of the batch is known"
    model.norm = NormedByTheBatch().norm
    assert passed() == [2, 14, *[2] * 7], "they change each other's scores, so that each is passed by itself"
    model.norm = Plain().norm
    assert passed() == [2, 14, 2]


class Fails(Plain):
    """Takes only inputs of two values."""

    def forward(self, x: Tensor) -> Tensor:
        if not bool((x.abs() == 2).all()):
            raise RuntimeError("neither 2 nor -2")
        return super().forward(x)


def test_a_model_that_takes_no_other_inputs_is_asked_one_by_one() -> None:
    model, every = Fails(), 2 * variants().sign()
    with torch.no_grad():
        run = Run(model, every[0], TARGET)
        found = run.scores_of(len(every), lambda start, stop: every[start:stop])
        expected = torch.stack([model(each).gather(1, TARGET[:, None])[:, 0] for each in every])
    torch.testing.assert_close(found, expected)


def test_what_is_found_leaves_nothing_behind() -> None:
    model, settings = Plain(), quick("rise")
    inputs = tiny_inputs(2)
    before = inputs.clone()
    first: Any = explain(model, inputs, attributions["rise"](**settings), target=1)
    again: Any = explain(model, inputs, attributions["rise"](**settings), target=1)
    assert torch.equal(first.values, again.values)
    assert torch.equal(inputs, before)
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def over_the_mean(x: Tensor) -> Tensor:
    return x - 1e-3 * x.mean(0, keepdim=True)


def quantized(x: Tensor) -> Tensor:
    step = x.abs().max() / 15
    return torch.round(x / step) * step


def without_copies(x: Tensor) -> Tensor:
    """What is nearly the same as another input counts half."""
    flat = x.flatten(1)
    near = (flat[:, None] - flat[None]).abs().amax(2) < 1e-9
    return x / near.sum(1).view(-1, 1, 1, 1).to(x.dtype)


def last_first(x: Tensor) -> Tensor:
    return torch.flip(x, [0])


class Scripted(Plain):
    """An operation that is not seen, and scores that are large beside what it does."""

    def __init__(self, func: Callable[[Tensor], Tensor]):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.func = torch.jit.script(func)

    def forward(self, x: Tensor) -> Tensor:
        self.passed.append(len(x))
        return self.head(self.func(self.norm(self.first(x))).mean((2, 3))) + 1000


@pytest.mark.parametrize("func", [swish, over_the_mean, quantized, without_copies, last_first])
@pytest.mark.parametrize("items", [1, 2])
def test_what_is_not_seen_is_tested_bit_by_bit(func: Callable[[Tensor], Tensor], items: int) -> None:
    model, every = Scripted(func), variants(items=items)
    every[3] = every[2]
    with torch.no_grad():
        expected = torch.stack([model(each).gather(1, TARGET[:items, None])[:, 0] for each in every])
        model.passed.clear()
        run = Run(model, tiny_inputs(2, items), TARGET[:items])
        found = run.scores_of(len(every), lambda start, stop: every[start:stop])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    chunk = 7 * items
    if func is swish:
        others = [*[chunk] * 5, items]
        assert model.passed == [items, chunk, *others], (
            "the batch, its variants, with other neighbours, the first alone"
        )
    else:
        assert model.passed[-6:] == [items] * 6


def test_it_is_tested_once_for_each_question_and_size_of_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    model, every = Scripted(swish), variants(9, items=1)
    monkeypatch.setattr(DevicePolicy, "items_without_graph", lambda *about: 3)
    with torch.no_grad():
        run = Run(model, tiny_inputs(2, 1), TARGET[:1])
        run.scores_of(len(every), lambda start, stop: every[start:stop])
        assert model.passed == [1, 3, *[3] * 5, 1, 3, 3]
        model.passed.clear()
        run.scores_of(len(every), lambda start, stop: every[start:stop])
        assert model.passed == [3, 3, 3]


class DecidesInPython(Plain):
    """A mean over the batch decides what is done with all of it."""

    def forward(self, x: Tensor) -> Tensor:
        scores = super().forward(x.exp())
        return scores * 3 if float(x.detach().mean()) > 0.2 else scores.tanh()


ASKED = (
    "fullgrad",
    "grad_cam",
    "gradient",
    "guided_backprop",
    "deeplift",
    *FOLDING,
    "occlusion",
    "ablation_cam",
    "score_cam",
)


@pytest.mark.parametrize("method", ASKED)
def test_a_batch_of_which_python_reads_values_is_answered_input_by_input(method: str) -> None:
    model, inputs = DecidesInPython(), tiny_inputs(2)
    inputs[0], inputs[1] = inputs[0].abs() + 0.3, -inputs[1].abs()
    settings = quick(method) | ({"layer": "first"} if method.endswith("cam") else {})
    if method == "deeplift":  # of which each baseline takes the way of its input
        settings["baseline"] = torch.stack([inputs[0] * 0 + 0.25, inputs[1] * 0])
        alike = [{"baseline": settings["baseline"][item : item + 1]} for item in range(2)]
    else:
        alike = [settings, settings]
    together = explain(model, inputs, method, target=1, **settings)
    for item in range(2):
        alone = explain(model, inputs[item : item + 1], method, target=1, **alike[item])
        torch.testing.assert_close(together.values[item : item + 1], alone.values, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(together.score[item : item + 1], alone.score)


def test_a_target_that_compares_the_inputs_of_its_batch_is_asked_about_whole_batches() -> None:
    model, inputs = Plain(), tiny_inputs(2)
    over_mean = lambda output: output[:, 1] - output[:, 1].mean()  # noqa: E731, a target as users write it
    answer = explain(model, inputs, "occlusion", window=2, stride=2, target=over_mean)
    covered = inputs.clone()
    covered[:, :, 2:4, 0:2] = 0
    with torch.no_grad():
        expected = over_mean(model(inputs)) - over_mean(model(covered))
    torch.testing.assert_close(answer.values[:, 0, 2, 0], expected)


class SharesItsScores(Plain):
    """What each input gets depends on how many there are."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / len(x)


@pytest.mark.parametrize("items", [1, 2])
def test_scores_that_depend_on_the_size_of_the_batch_are_those_of_the_batch(items: int) -> None:
    model, every = SharesItsScores(), variants(items=items)
    boxes = torch.tensor([[[row, row + 2], [row, row + 3]] for row in range(4)])
    with torch.no_grad():
        run = Run(model, tiny_inputs(2, items), TARGET[:items])
        found = run.scores_of(len(every), lambda start, stop: every[start:stop])
        expected = torch.stack([model(each).gather(1, TARGET[:items, None])[:, 0] for each in every])
        torch.testing.assert_close(found, expected)
        found = run.scores_of_boxes(boxes, lambda number, item: torch.full((2, 2, 3), float(number)).double())
        for number in range(len(boxes)):
            changed = tiny_inputs(2, items)
            changed[:, :, number : number + 2, number : number + 3] = number
            torch.testing.assert_close(found[number], model(changed).gather(1, TARGET[:items, None])[:, 0])


class ExitsEarly(nn.Module):
    """Goes on only where it is not sure of some input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.heads = nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3)])
        randomized(self, seed=5)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.first(x).relu()
        scores: Tensor = self.heads[0](maps.mean((2, 3)))
        if bool((scores.abs().amax(1) > 2).all()):
            return scores
        deep: Tensor = self.heads[1](self.second(maps).relu().mean((2, 3)))
        return deep


@pytest.mark.parametrize("settings", [{}, {"layer": "second"}])
@pytest.mark.parametrize("method", ["grad_cam", "score_cam", "ablation_cam", "activation"])
def test_a_layer_that_runs_for_some_inputs_is_refused(method: str, settings: dict[str, str]) -> None:
    model, inputs = ExitsEarly().eval(), tiny_inputs(2, 3)
    inputs = inputs * torch.tensor([0.1, 100.0, 0.1], dtype=inputs.dtype)[:, None, None, None]
    told = "layer 'second' did not run for input 1, for which the model takes another way than for input 0; choose"
    with pytest.raises(LookupError, match=told):
        explain(model, inputs, method, target=1, **settings)
    with pytest.raises(LookupError, match=told):
        explain(model, inputs, "gradient", target=channel("second", 1))
    found = explain(model, inputs, method, target=1, layer="first").values
    for item, values in enumerate(found):
        alone = explain(model, inputs[item : item + 1], method, target=1, layer="first").values
        torch.testing.assert_close(values[None], alone, rtol=1e-9, atol=1e-12)
    assert "'second'" in explain(model, inputs[:1], method, target=1).recipe
    assert "'first'" in explain(model, inputs[1:2], method, target=1).recipe
