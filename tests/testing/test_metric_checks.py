"""Each check of a metric finds what is broken on purpose, and finds something that no other check finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from broken import SEEDS, Broken, Check, found, name_of, pairs, settings_and_pages
from torch import Tensor

from cnnviz import Trial
from cnnviz.feature_visualization import RandomNumbers
from cnnviz.testing import check_metric
from cnnviz.testing import metrics as kit


def mean_inside(trial: Trial) -> Tensor:
    return (trial.evidence * trial.masks).flatten(1).mean(1)


def refuses_everything(trial: Trial) -> Tensor:
    raise ValueError("no")


def refuses_at_length(trial: Trial) -> Tensor:
    raise ValueError("no\nno")


def drops_an_input(trial: Trial) -> Tensor:
    return mean_inside(trial)[:1]


def gives_one_number(trial: Trial) -> Any:
    return float(mean_inside(trial).mean())


def knows_images_only(trial: Trial) -> Tensor:
    trial.masks.shape[3]
    return mean_inside(trial)


def gives_nan(trial: Trial) -> Tensor:
    return mean_inside(trial) * torch.nan


def uses_global_numbers(trial: Trial) -> Tensor:
    return mean_inside(trial) + 0 * torch.rand(len(trial))


def writes_values(trial: Trial) -> Tensor:
    trial.explanation.values.clamp_(min=0)
    return mean_inside(trial)


def writes_masks(trial: Trial) -> Tensor:
    scores = mean_inside(trial)
    trial.masks.fill_(True)
    return scores


def trains_the_model(trial: Trial) -> Tensor:
    trial.run.model.train()
    return mean_inside(trial)


def leaks_a_hook(trial: Trial) -> Tensor:
    trial.run.model.third.register_forward_hook(lambda *_: None)
    return mean_inside(trial)


def asks_the_model(trial: Trial) -> Tensor:
    return mean_inside(trial) * trial.run.scores(trial.run.inputs * 0.5).sigmoid()


def swallows(trial: Trial) -> Tensor:
    try:
        return asks_the_model(trial)
    except Exception:
        return mean_inside(trial)


def swallows_interrupts(trial: Trial) -> Tensor:
    try:
        return asks_the_model(trial)
    except KeyboardInterrupt:
        return mean_inside(trial)


def rewords(trial: Trial) -> Tensor:
    try:
        return asks_the_model(trial)
    except Exception as error:
        raise RuntimeError("something went wrong") from error


def leaks_a_hook_when_it_fails(trial: Trial) -> Tensor:
    handle = trial.run.model.third.register_forward_hook(lambda *_: None)
    scores = asks_the_model(trial)
    handle.remove()
    return scores


def draws_globally_and_hides_it(trial: Trial) -> Tensor:
    with torch.random.fork_rng():
        return mean_inside(trial) + torch.rand(1)


def is_random(trial: Trial) -> Tensor:
    return mean_inside(trial) + torch.rand(len(trial), generator=torch.Generator().manual_seed(next(SEEDS)))


def ignores_the_seed(trial: Trial) -> Tensor:
    return mean_inside(trial) + torch.rand(1, generator=torch.Generator().manual_seed(0))


def ignores_the_seed_of_draws(trial: Trial) -> Tensor:
    return mean_inside(trial) + RandomNumbers(0, 3).uniform((1,))


def compares_items(trial: Trial) -> Tensor:
    return mean_inside(trial) - mean_inside(trial).mean() / 2


def doubles_where_memory_is_short(trial: Trial) -> Tensor:
    return mean_inside(trial) * (1 if trial.run.options.memory is None else 2)


def goes_backward_through_masks(trial: Trial) -> Tensor:
    with torch.enable_grad():
        evidence = trial.evidence.clone().requires_grad_()
        weighted = evidence * trial.masks  # which can't be kept for that if they were made in inference mode
        (slope,) = torch.autograd.grad(weighted.sum(), evidence)
    return mean_inside(trial) + 0 * slope.flatten(1).mean(1)


def ignores_values(trial: Trial) -> Tensor:
    return trial.masks.flatten(1).float().mean(1)


def divides_by_zero(trial: Trial) -> Tensor:
    return mean_inside(trial) / trial.evidence.flatten(1).sum(1)


def wants_the_inputs_size(trial: Trial) -> Tensor:
    return (trial.explanation.values * trial.masks[:, None]).flatten(1).abs().mean(1)


def knows_float32_only(trial: Trial) -> Tensor:
    trial.explanation.values.numpy()
    return mean_inside(trial)


def multiplies_float32(trial: Trial) -> Tensor:
    return mean_inside(trial) + 0 * (trial.run.inputs.flatten(1) @ torch.ones(trial.run.inputs[0].numel()))


def fails_without_masks(trial: Trial) -> Tensor:
    try:
        return mean_inside(trial)
    except ValueError as error:
        raise TypeError("masks") from error


def fails_without_a_model(trial: Trial) -> Tensor:
    inside = mean_inside(trial)
    try:
        return inside + 0 * trial.run.score
    except ValueError as error:
        raise KeyError("model") from error


ABOUT_SETTINGS = settings_and_pages(mean_inside)
BROKEN: Broken = {
    kit.has_a_page: {ABOUT_SETTINGS["silent"]: "has no docstring, which is its page"},
    kit.refuses_settings_it_does_not_have: {
        ABOUT_SETTINGS["lenient"]: "takes settings it does not have",
        ABOUT_SETTINGS["wordless"]: "does not name the setting it refuses: no",
    },
    kit.scores_some_inputs: {
        refuses_everything: "refuses everything: signals, images and volumes",
        refuses_at_length: "without saying why in one line",
        drops_an_input: r"on inputs .* gave \(1,\); a metric gives one number for each input, \(3,\)",
        gives_one_number: "fails on inputs .*: TypeError",
        knows_images_only: "fails on inputs .*: IndexError",
        gives_nan: "on inputs .* not finite",
    },
    kit.leaves_everything_as_it_was: {
        uses_global_numbers: "seeds or uses torch's global generator",
        writes_values: "writes into the values",
        writes_masks: "writes into the masks",
        trains_the_model: "changes the training flag of the model",
        leaks_a_hook: "leaves hooks on 'third'",
    },
    kit.lets_errors_through: {
        swallows: "gives scores even when SimulatedError is raised in forward pass",
        swallows_interrupts: "gives scores even when KeyboardInterrupt is raised in forward pass",
        rewords: "raises RuntimeError when SimulatedError is raised in forward pass",
        leaks_a_hook_when_it_fails: "leaves hooks on 'third' when SimulatedError is raised in forward pass",
    },
    kit.scores_the_same_again: {
        draws_globally_and_hides_it: "scores one explanation in two ways; draw from trial.run.draws",
        is_random: "scores one explanation in two ways; draw from trial.run.draws",
    },
    kit.draws_by_the_seed: {
        ignores_the_seed: "draws the same whatever the seed; draw from trial.run.draws",
        ignores_the_seed_of_draws: "draws the same whatever the seed; draw from trial.run.draws",
    },
    kit.scores_each_input_by_itself: {compares_items: "gives another score for an input alone than in a batch"},
    kit.scores_the_same_in_chunks: {doubles_where_memory_is_short: "gives other scores where memory is short"},
    kit.works_without_grad_mode: {goes_backward_through_masks: r"inside torch.inference_mode\(\): RuntimeError"},
    kit.depends_on_the_values: {ignores_values: "gives the same score whatever the values"},
    kit.takes_every_map: {
        divides_by_zero: "on inputs .*, a blank map: what divides_by_zero gives has 3 values that are not finite",
        wants_the_inputs_size: "fails on inputs .*, a coarse map: RuntimeError",
        knows_float32_only: "fails on inputs .*, bfloat16 values: TypeError",
        multiplies_float32: "fails on float64 values and model: RuntimeError",
    },
    kit.says_what_it_misses: {
        fails_without_masks: "fails on no masks: TypeError",
        fails_without_a_model: "fails on no model: KeyError",
    },
}


def test_a_right_one_passes() -> None:
    check_metric(mean_inside)
    check_metric(asks_the_model)


@pytest.mark.parametrize("check", kit.METRIC_CHECKS, ids=name_of)
def test_every_check_has_something_to_find(check: Check) -> None:
    assert BROKEN[check]


@pytest.mark.parametrize(("check", "broken"), pairs(BROKEN))
def test_it_is_found(check: Check, broken: Callable[[Trial], Tensor]) -> None:
    if broken is next(iter(BROKEN[check])):
        said = found(kit.METRIC_CHECKS, lambda: kit.MetricSubject.of(broken))
        assert [*said] == [check], "no other check finds it"
    with pytest.raises(AssertionError, match=f"^{name_of(broken)} .*({BROKEN[check][broken]})"):
        check_metric(broken)
