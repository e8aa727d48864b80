"""A function as target is called with outputs of whole batches, wherever the scores of variants are computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from nets import randomized, tiny_inputs
from quick import PERTURBING, quick
from torch import Tensor, nn

from cnnviz import Run, evaluate, explain
from cnnviz.objectives import feature_distance
from cnnviz.run.options import RunOptions

ITEMS, CLASSES = 3, torch.tensor([2, 0, 1])
NUMBERS = torch.arange(ITEMS)


class Dense(nn.Module):
    """Scores of every place, (N, 3, 5, 6)."""

    def __init__(self, wrapped: Callable[[Tensor], Any] = lambda scores: scores) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 1)
        self.wrapped = wrapped
        randomized(self)

    def forward(self, x: Tensor) -> Any:
        return self.wrapped(self.last(self.layer(self.first(x).relu()).relu()))


def by_place(output: Tensor) -> Tensor:
    """Each input's own class; the function knows how many inputs there are."""
    assert len(output) == ITEMS, "only whole batches are read"
    return output[NUMBERS, CLASSES].mean((1, 2))


def one_by_one(net: nn.Module, inputs: Tensor, method: str, **settings: Any) -> Tensor:
    answers = [
        explain(net, x[None], method, target=lambda output, c=c: output[:, c].mean((1, 2)), **settings).values
        for x, c in zip(inputs, CLASSES, strict=True)
    ]
    return torch.cat(answers)


METHODS = sorted(
    (PERTURBING - {"rise", "d_rise"}) | {"gradient", "integrated_gradients", "smoothgrad", "gradient_shap"}
)


@pytest.mark.parametrize("memory", [None, 1])
@pytest.mark.parametrize("method", METHODS)
def test_a_function_that_knows_places_gives_each_input_its_own_map(method: str, memory: int | None) -> None:
    net, inputs = Dense(), tiny_inputs(2, ITEMS)
    settings = quick(method) | ({"score": "logit"} if method == "score_cam" else {})
    settings |= (
        {"segments": "equal"} if method in ("lime", "kernel_shap", "shapley_sampling", "feature_ablation") else {}
    )
    settings |= {"layer": "layer"} if method.endswith("_cam") else {}
    found = explain(net, inputs, method, target=by_place, memory=memory, **settings).values
    torch.testing.assert_close(found, one_by_one(net, inputs, method, **settings), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("metric", ["deletion", "insertion", "average_drop"])
def test_metrics_read_whole_batches(metric: str) -> None:
    net, inputs = Dense(), tiny_inputs(2, ITEMS)
    answer = explain(net, inputs, "gradient", target=by_place, memory=1)
    found = evaluate(answer, metric, model=net, target=by_place)
    for item, c in enumerate(CLASSES.tolist()):
        of_class = lambda output, c=c: output[:, c].mean((1, 2))  # noqa: E731, a target as users write it
        alone = explain(net, inputs[item : item + 1], "gradient", target=of_class)
        torch.testing.assert_close(found[item : item + 1], evaluate(alone, metric, model=net, target=of_class))


@dataclass
class Answer:
    scores: Tensor


WRAPPED: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "dict": (lambda scores: {"out": scores}, lambda output: output["out"]),
    "tuple": (lambda scores: (scores, scores * 2), lambda output: output[0]),
    "dataclass": (Answer, lambda output: output.scores),
    "list of results": (
        lambda scores: [{"out": row} for row in scores],
        lambda output: torch.stack([row["out"] for row in output]),
    ),
}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("method", ["occlusion", "ablation_cam", "integrated_gradients"])
def test_rows_are_exchanged_in_outputs_of_any_kind(kind: str, method: str) -> None:
    wrap, read = WRAPPED[kind]
    inputs, settings = tiny_inputs(2, ITEMS), quick(method)
    settings |= {"layer": "layer"} if method.endswith("_cam") else {}
    found = explain(Dense(wrap), inputs, method, target=lambda output: by_place(read(output)), **settings).values
    torch.testing.assert_close(found, one_by_one(Dense(), inputs, method, **settings), rtol=1e-6, atol=1e-9)


def test_the_other_inputs_are_as_they_were_while_one_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnviz.run.perturbation.is_independent", lambda passes: True)  # it passes noise as well
    net, inputs = Dense(), tiny_inputs(2, ITEMS)
    rows: list[Tensor] = []

    def read(output: Tensor) -> Tensor:
        rows.append(output)
        return output.mean((1, 2, 3))

    with torch.no_grad():
        plain = net(inputs)
        Run(net, inputs, read).scores_of_boxes(
            torch.tensor([[[0, 2], [0, 2]], [[1, 3], [2, 4]]]), lambda number, item: torch.ones(2, 2, 2)
        )
    for output in rows:
        same = [torch.equal(row, other) or torch.allclose(row, other) for row, other in zip(output, plain, strict=True)]
        assert sum(same) >= ITEMS - 1, "no more than one row differs"


def test_a_part_of_a_batch_is_read_at_its_place() -> None:
    net, inputs = Dense(), tiny_inputs(2, ITEMS)
    with torch.no_grad():
        run = Run(net, inputs, by_place, options=RunOptions(memory=1))
        variants = torch.stack([inputs, inputs * 0.5])
        expected = torch.stack([by_place(net(variant)) for variant in variants])
        torch.testing.assert_close(run.scores_of(2, lambda start, stop: variants[start:stop]), expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_function_for_each_input_reads_that_inputs_output(method: str) -> None:
    net, inputs = Dense(), tiny_inputs(2, ITEMS)
    settings = quick(method) | ({"score": "logit"} if method == "score_cam" else {})
    settings |= {"segments": "equal"} if "pieces" in settings else {}
    settings |= {"layer": "layer"} if method.endswith("_cam") else {}
    functions = [lambda output, c=c: output[:, c].mean((1, 2)) for c in CLASSES.tolist()]
    found = explain(net, inputs, method, target=functions, **settings).values
    torch.testing.assert_close(found, one_by_one(net, inputs, method, **settings), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ([by_place] * 2, ValueError, "there are 2 targets for 3 inputs; give one, or one for each"),
        ([by_place, 1, 2], TypeError, "some targets are functions and some are not"),
        ([lambda output: output.mean()] * 3, ValueError, r"the target function gave \(\); it returns one score"),
    ],
)
def test_a_function_for_each_input_must_be_one(target: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        explain(Dense(), tiny_inputs(2, ITEMS), "gradient", target=target)


class Curved(nn.Module):
    """(N, 3), of which a target function takes a product."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 3)
        randomized(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))


def test_deeplift_follows_the_function_of_each_input() -> None:
    net, inputs = Curved(), tiny_inputs(2, 2)
    functions = [lambda output: output[:, 0] * output[:, 1], lambda output: output[:, 2] * output[:, 0]]
    found = explain(net, inputs, "deeplift", target=functions)
    assert found.notes["completeness_gap"].abs().max() < 1e-12
    for item, function in enumerate(functions):
        alone = explain(net, inputs[item : item + 1], "deeplift", target=function).values
        torch.testing.assert_close(found.values[item : item + 1], alone)


# Objectives with something for each input


class Goals(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4, 3)
        randomized(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu().mean((2, 3)))


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("method", ["feature_ablation", "occlusion", "ablation_cam", "integrated_gradients"])
def test_an_objective_with_features_for_each_input_reads_whole_batches(method: str, before: bool) -> None:
    """Whatever was asked of the model before, and however its inputs are passed."""
    net, inputs, settings = Goals(), tiny_inputs(2, ITEMS), quick(method)
    settings |= {"segments": "equal"} if "pieces" in settings else {}
    settings |= {"layer": "body"} if method.endswith("_cam") else {}
    with torch.no_grad():
        goals = net.body(tiny_inputs(2, ITEMS, seed=8))
    if before:
        explain(net, inputs, method, target=0, **settings)
    found = explain(net, inputs, method, target=feature_distance("body", goals), **settings).values
    for item in range(ITEMS):
        objective = feature_distance("body", goals[item : item + 1])
        alone = explain(net, inputs[item : item + 1], method, target=objective, **settings).values
        torch.testing.assert_close(found[item : item + 1], alone, rtol=1e-6, atol=1e-9)


def test_a_mixture_that_another_class_shows_is_found() -> None:
    class MixesOne(Goals):
        def forward(self, x: Tensor) -> Tensor:
            scores = super().forward(x)
            return torch.cat([scores[:, :2], scores[:, 2:] - scores[:, 2:].mean()], 1)

    net, inputs = MixesOne(), tiny_inputs(2, ITEMS)
    explain(net, inputs, "feature_ablation", target=0, segments="equal", pieces=4)
    found = explain(net, inputs, "feature_ablation", target=2, segments="equal", pieces=4).values
    fresh = explain(MixesOne(), inputs, "feature_ablation", target=2, segments="equal", pieces=4).values
    torch.testing.assert_close(found, fresh)
    assert not torch.allclose(
        found, explain(Goals(), inputs, "feature_ablation", target=2, segments="equal", pieces=4).values
    )


def test_another_input_that_makes_the_model_mix_is_noticed() -> None:
    class MixesByAnother(Goals):
        def forward(self, x: Tensor, strength: Tensor) -> Tensor:
            scores = super().forward(x)
            return scores - strength.max() * scores.mean(0)

    inputs, settings = tiny_inputs(2, ITEMS), {"target": 0, "segments": "equal", "pieces": 4}
    on, off = torch.ones(ITEMS, 1, dtype=torch.float64), torch.zeros(ITEMS, 1, dtype=torch.float64)
    net = MixesByAnother()
    explain(net, (inputs, off), "feature_ablation", **settings)
    found = explain(net, (inputs, on), "feature_ablation", **settings).values
    torch.testing.assert_close(found, explain(MixesByAnother(), (inputs, on), "feature_ablation", **settings).values)
    assert not torch.allclose(found, explain(net, (inputs, off), "feature_ablation", **settings).values)


def test_another_input_may_decide_which_layer_is_the_last() -> None:
    class Chooses(Goals):
        def __init__(self) -> None:
            super().__init__()
            self.more = randomized(nn.Conv2d(4, 4, 1))

        def forward(self, x: Tensor, deep: Tensor) -> Tensor:
            maps = self.body(x).relu()
            return self.head((self.more(maps) if bool(deep.any()) else maps).mean((2, 3)))

    net, inputs = Chooses(), tiny_inputs(2, ITEMS)
    on, off = torch.ones(ITEMS, 1, dtype=torch.float64), torch.zeros(ITEMS, 1, dtype=torch.float64)
    recipes = [explain(net, (inputs, flag), "grad_cam", target=0).recipe for flag in (off, on, off)]
    assert recipes == ["grad_cam(layer='body')", "grad_cam(layer='more')", "grad_cam(layer='body')"]


# Boxes of a layer


@pytest.mark.parametrize("layer", ["first", "layer"])
def test_boxes_of_a_layer_are_those_of_whole_passes(layer: str) -> None:
    net, inputs = Dense(), tiny_inputs(2, ITEMS)
    boxes = torch.tensor([[[0, 2], [0, 2]], [[1, 3], [2, 5]], [[4, 5], [0, 6]], [[0, 5], [3, 4]]])
    noise = torch.randn(len(boxes), ITEMS, 4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def place(number: int) -> tuple[slice, ...]:
        return (slice(None), *(slice(begin, end) for begin, end in boxes[number].tolist()))

    with torch.no_grad():
        run = Run(net, inputs, by_place)
        found = run.scores_of_boxes(boxes, lambda number, item: noise[number, item][place(number)], layer)
        expected = torch.empty_like(found)
        for number in range(len(boxes)):
            for item in range(ITEMS):
                changed = run.activation(layer).clone()
                changed[item][place(number)] = noise[number, item][place(number)]
                handle = net.get_submodule(layer).register_forward_hook(lambda *_, changed=changed: changed)
                expected[number, item] = by_place(net(inputs))[item]
                handle.remove()
    torch.testing.assert_close(found, expected)


def test_no_variants_have_no_scores() -> None:
    run = Run(Dense(), tiny_inputs(2, ITEMS), by_place)
    assert run.scores_from("layer", 0, lambda start, stop, item: torch.empty(0)).shape == (0, ITEMS)
    assert run.scores_of_boxes(torch.empty(0, 2, 2).long(), lambda number, item: torch.empty(0)).shape == (0, ITEMS)
