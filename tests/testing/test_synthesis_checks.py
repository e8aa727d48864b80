"""Each check of a synthesis finds what is broken on purpose, and finds something that no other check finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from broken import SEEDS, Broken, Check, found, name_of, pairs, settings_and_pages
from torch import Tensor

from cnnviz import Ascent, synthesis
from cnnviz.feature_visualization import FreeCanvas, RandomNumbers
from cnnviz.objectives import channel
from cnnviz.testing import check_synthesis
from cnnviz.testing import syntheses as kit


def climbed(ascent: Ascent, start: Tensor | None = None, steps: int = 2) -> Tensor:
    if start is None:
        start = ascent.draws.normal(ascent.shape(), ascent.dtype)
    canvas = FreeCanvas(start)
    return ascent.ascend(canvas, channel("second", 0), torch.optim.SGD(canvas.parameters, 10.0), steps)


def forgets_the_count(ascent: Ascent) -> Tensor:
    return climbed(ascent)[:1]


def forgets_the_size(ascent: Ascent) -> Tensor:
    return climbed(ascent)[..., :-1]


def gives_one_too_few_dimensions(ascent: Ascent) -> Tensor:
    return climbed(ascent)[0]


def gives_nan(ascent: Ascent) -> Tensor:
    return climbed(ascent) * torch.nan


def averages(ascent: Ascent) -> Tensor:
    made = climbed(ascent)
    return made.flatten(1).mean(1).view(-1, *(1,) * (made.ndim - 1)).expand_as(made).clone()


def makes_one_of_two(ascent: Ascent) -> Tensor:
    made = climbed(ascent).clone()
    made[1] = 0.5
    return made


def draws_of_numpy(ascent: Ascent) -> Tensor:
    made = climbed(ascent)
    np.random.rand()
    return made


def draws_of_torch(ascent: Ascent) -> Tensor:
    return climbed(ascent, torch.randn(ascent.shape()).to(ascent.dtype))


def forgets_a_gradient(ascent: Ascent) -> Tensor:
    next(ascent.model.parameters()).grad = None
    return climbed(ascent)


def leaks_a_hook(ascent: Ascent) -> Tensor:
    ascent.model.third.register_forward_hook(lambda *_: None)
    return climbed(ascent)


def leaves_it_frozen(ascent: Ascent) -> Tensor:
    ascent.model.requires_grad_(False)
    return climbed(ascent)


def swallows(ascent: Ascent) -> Tensor:
    try:
        return climbed(ascent)
    except Exception:
        return ascent.draws.normal(ascent.shape())


def goes_on(ascent: Ascent) -> Tensor:
    try:
        return climbed(ascent)
    except KeyboardInterrupt:
        return ascent.draws.normal(ascent.shape())


def rewords(ascent: Ascent) -> Tensor:
    try:
        return climbed(ascent)
    except Exception as error:
        raise RuntimeError("something went wrong") from error


def leaks_a_hook_when_it_fails(ascent: Ascent) -> Tensor:
    handle = ascent.model.third.register_forward_hook(lambda *_: None)
    made = climbed(ascent)
    handle.remove()
    return made


def draws_globally_and_hides_it(ascent: Ascent) -> Tensor:
    with torch.random.fork_rng():
        return climbed(ascent, torch.randn(ascent.shape(), dtype=ascent.dtype))


def is_random(ascent: Ascent) -> Tensor:
    noise = torch.Generator().manual_seed(next(SEEDS))
    return climbed(ascent, torch.randn(ascent.shape(), generator=noise, dtype=ascent.dtype))


def ignores_the_seed(ascent: Ascent) -> Tensor:
    noise = torch.Generator().manual_seed(0)
    return climbed(ascent, torch.randn(ascent.shape(), generator=noise, dtype=ascent.dtype))


def ignores_the_seed_of_draws(ascent: Ascent) -> Tensor:
    return climbed(ascent, RandomNumbers(0, 3).normal(ascent.shape(), ascent.dtype))


def ignores_the_weights(ascent: Ascent) -> Tensor:
    made = climbed(ascent)
    return torch.linspace(0, 1, made.numel(), dtype=made.dtype).view_as(made) ** 2


def needs_gradients_of_weights(ascent: Ascent) -> Tensor:
    weight = ascent.model.first.weight
    torch.autograd.grad((weight**2).sum(), weight)
    return climbed(ascent)


def is_single(ascent: Ascent) -> Tensor:
    return climbed(ascent).float()


def multiplies_float32(ascent: Ascent) -> Tensor:
    return torch.nn.functional.linear(climbed(ascent), torch.eye(ascent.shape()[-1]))


def climbs_twice(ascent: Ascent) -> Tensor:
    return climbed(ascent, climbed(ascent))


def makes_no_steps(ascent: Ascent) -> Tensor:
    seen = ascent.seen(torch.ones(ascent.shape(), dtype=ascent.dtype), "first").layer("first")
    return seen[:, :3] * torch.linspace(0, 1, seen.shape[-1], dtype=seen.dtype)


ABOUT_SETTINGS = settings_and_pages(climbed)
BROKEN: Broken = {
    kit.has_a_page: {ABOUT_SETTINGS["silent"]: "has no docstring, which is its page"},
    kit.refuses_settings_it_does_not_have: {
        ABOUT_SETTINGS["lenient"]: "takes settings it does not have",
        ABOUT_SETTINGS["wordless"]: "does not name the setting it refuses: no",
    },
    kit.makes_inputs_as_asked_for: {
        forgets_the_count: r"gives \(1, 3, 14, 12\) where \(2, 3, 14, 12\) is asked for",
        forgets_the_size: r"gives \(2, 3, 14, 11\) where \(2, 3, 14, 12\) is asked for",
        gives_one_too_few_dimensions: "fails on a small network: ValueError",
        gives_nan: "fails on a small network: ValueError: .*not finite",
    },
    kit.makes_more_than_one_number: {
        averages: "gives one number everywhere",
        makes_one_of_two: "gives one number everywhere",
    },
    kit.leaves_everything_as_it_was: {
        draws_of_numpy: "uses NumPy's global random numbers",
        draws_of_torch: "seeds or uses torch's global generator",
        forgets_a_gradient: "changes the gradient kept in first.weight",
        leaks_a_hook: "leaves hooks on 'third'",
        leaves_it_frozen: "changes requires_grad of first.weight",
    },
    kit.lets_errors_through: {
        swallows: "gives inputs even when SimulatedError is raised in forward pass 1",
        goes_on: "says it is finished when KeyboardInterrupt is raised in forward pass 1",
        rewords: "raises RuntimeError when SimulatedError is raised in forward pass 1",
        leaks_a_hook_when_it_fails: "leaves hooks on 'third' when SimulatedError is raised in forward pass 1",
    },
    kit.makes_the_same_again: {
        draws_globally_and_hides_it: "makes other inputs when asked again with one seed; draw from ascent.draws",
        is_random: "makes other inputs when asked again with one seed; draw from ascent.draws",
    },
    kit.draws_by_the_seed: {
        ignores_the_seed: "draws the same whatever the seed; draw from ascent.draws",
        ignores_the_seed_of_draws: "draws the same whatever the seed; draw from ascent.draws",
    },
    kit.depends_on_the_weights: {ignores_the_weights: "ignores the model's weights"},
    kit.works_with_frozen_weights: {needs_gradients_of_weights: "fails when weights are frozen: RuntimeError"},
    kit.works_in_float64: {
        is_single: "computes in float32 for a model in float64",
        multiplies_float32: "fails in float64: RuntimeError",
    },
    kit.tells_of_every_step: {
        climbs_twice: "tells of .* steps; see ascent.expect",
        makes_no_steps: "makes no steps; climb with ascent.ascend",
    },
}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_right_one_passes(rank: int) -> None:
    check_synthesis(climbed, rank=rank)


@pytest.mark.parametrize("check", kit.SYNTHESIS_CHECKS, ids=name_of)
def test_every_check_has_something_to_find(check: Check) -> None:
    assert BROKEN[check]


@pytest.mark.parametrize(("check", "broken"), pairs(BROKEN))
def test_it_is_found(check: Check, broken: Callable[[Ascent], Tensor]) -> None:
    if broken is next(iter(BROKEN[check])):
        said = found(kit.SYNTHESIS_CHECKS, lambda: kit.SynthesisSubject.of(broken))
        assert [*said] == [check], "no other check finds it"
    with pytest.raises(AssertionError, match=f"^{name_of(broken)} .*({BROKEN[check][broken]})"):
        check_synthesis(broken)


def test_a_tensor_of_the_settings_that_is_written_is_found() -> None:
    @synthesis
    def painted(start: Any) -> Callable[[Ascent], Tensor]:
        """A page."""

        def make(ascent: Ascent) -> Tensor:
            start.add_(1)
            return climbed(ascent)

        return make

    with pytest.raises(AssertionError, match="painted writes into the tensor 0 of its settings"):
        check_synthesis(painted, start=torch.ones(3, 14, 12))


def fails_on_signals(ascent: Ascent) -> Tensor:
    ascent.shape()[3]
    return climbed(ascent)


def test_what_is_wrong_for_signals_is_found() -> None:
    check_synthesis(fails_on_signals)
    with pytest.raises(AssertionError, match="fails_on_signals fails on a small network: IndexError"):
        check_synthesis(fails_on_signals, rank=1)
