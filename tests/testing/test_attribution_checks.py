"""Each check of an attribution finds what is broken on purpose, and finds something that no other check finds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from broken import SEEDS, Broken, Check, found, name_of, pairs, settings_and_pages
from torch import Tensor, nn

import cnnviz
from cnnviz import Run
from cnnviz.feature_visualization import RandomNumbers
from cnnviz.testing import CLASSES, SmallNet, check_attribution
from cnnviz.testing import attributions as kit


def slopes(run: Run) -> Tensor:
    return run.gradient()


def after(change: Callable[[Run], object]) -> Callable[[Run], Tensor]:
    """The right values, and then something that must not be done."""

    def method(run: Run) -> Tensor:
        values = slopes(run)
        change(run)
        return values

    method.__name__ = change.__name__
    return method


# What is left behind


@after
def edits_a_weight(run: Run) -> None:
    with torch.no_grad():
        run.model.classifier.bias += 1


@after
def replaces_a_module(run: Run) -> None:
    run.model.relu = nn.ReLU()


@after
def trains(run: Run) -> None:
    run.model.relu.train()


@after
def leaks_a_hook(run: Run) -> None:
    run.model.third.register_forward_hook(lambda *_: None)


@after
def leaks_a_hook_on_a_weight(run: Run) -> None:
    if run.model.first.weight.requires_grad:
        run.model.first.weight.register_hook(lambda grad: None)


@after
def leaks_a_hook_on_every_module(run: Run) -> None:
    nn.modules.module.register_module_forward_hook(lambda *_: None)


@after
def keeps_a_note_on_a_layer(run: Run) -> None:
    run.model.third.kept = 1


@after
def goes_another_way(run: Run) -> None:
    run.model.forward = run.model.forward


@after
def freezes(run: Run) -> None:
    run.model.requires_grad_(False)


@after
def writes_into_the_input(run: Run) -> None:
    run.inputs.data.mul_(2)


@after
def draws_globally(run: Run) -> None:
    torch.rand(1)


@after
def draws_of_numpy(run: Run) -> None:
    np.random.rand()


@after
def draws_of_python(run: Run) -> None:
    random.random()


@after
def sets_the_default_dtype(run: Run) -> None:
    torch.set_default_dtype(torch.float64)


@after
def sets_the_threads(run: Run) -> None:
    torch.set_num_threads(torch.get_num_threads() + 1)


@after
def asks_for_determinism(run: Run) -> None:
    torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())


@after
def looks_for_anomalies(run: Run) -> None:
    torch.autograd.set_detect_anomaly(not torch.is_anomaly_enabled(), check_nan=False)


@after
def patches_relu(run: Run) -> None:
    F.relu = lambda x, inplace=False: x.clamp(min=0)


@after
def patches_a_class(run: Run) -> None:
    nn.ReLU.forward = lambda self, x: x.clamp(min=0)  # type: ignore[method-assign]


def goes_backward(run: Run) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        inputs = run.inputs.detach().clone().requires_grad_()
        run.model(inputs, *run.others)[torch.arange(len(inputs)), run.target].sum().backward()
    return inputs.grad


# Errors


def swallows(run: Run) -> Tensor:
    try:
        return slopes(run)
    except Exception:
        return run.inputs


def swallows_interrupts(run: Run) -> Tensor:
    try:
        return slopes(run)
    except KeyboardInterrupt:
        return run.inputs


def rewords(run: Run) -> Tensor:
    try:
        return slopes(run)
    except Exception as error:
        raise RuntimeError("something went wrong") from error


def leaks_a_hook_when_it_fails(run: Run) -> Tensor:
    handle = run.model.third.register_forward_hook(lambda *_: None)
    values = slopes(run)
    handle.remove()
    return values


# Values


def is_double(run: Run) -> Tensor:
    return slopes(run).double()


def gives_nan(run: Run) -> Tensor:
    return slopes(run) * torch.nan


def gives_one_map(run: Run) -> Tensor:
    return slopes(run).sum(1)


def gives_no_channel(run: Run) -> Tensor:
    return slopes(run)[:, :0]


def drops_an_input(run: Run) -> Tensor:
    return slopes(run)[:1]


def gives_an_array(run: Run) -> Any:
    return slopes(run).numpy()


def knows_class_2_only(run: Run) -> Tensor:
    values = slopes(run)
    return values if run.target is None else values * (run.target > 1).view(-1, *(1,) * (values.ndim - 1))


def gives_zeros(run: Run) -> Tensor:
    return slopes(run) * 0


def draws_globally_and_hides_it(run: Run) -> Tensor:
    with torch.random.fork_rng():
        values = slopes(run)
        return values * (1 + torch.rand(values.shape[1:]))


def is_random(run: Run) -> Tensor:
    values = slopes(run)
    noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(next(SEEDS)))
    return values + values.abs().max() * noise


def ignores_the_seed(run: Run) -> Tensor:
    values = slopes(run)
    noise = torch.rand(values.shape[1:], generator=torch.Generator().manual_seed(0))
    return values * (1 + noise.to(values))


def ignores_the_seed_of_draws(run: Run) -> Tensor:
    values = slopes(run)
    return values * (1 + RandomNumbers(0, 3).uniform(values.shape[1:]).to(values))


def ignores_the_model(run: Run) -> Tensor:
    if run.target is None:
        raise ValueError("this method is of a class; give one")
    return run.inputs * (1 + run.target.view(-1, *(1,) * (run.inputs.ndim - 1)))


def marks_the_input(run: Run) -> Tensor:
    run.inputs.detach().requires_grad_()  # no gradient passes what was made in inference mode
    return slopes(run)


def needs_gradients_on(run: Run) -> Tensor:
    weight = run.model.first.weight
    return slopes(run) + 0 * torch.autograd.grad((weight**2).sum(), weight)[0].sum()


def needs_gradients_of_weights(run: Run) -> Tensor:
    weight = run.model.first.weight
    with torch.enable_grad():
        return slopes(run) + 0 * torch.autograd.grad((weight**2).sum(), weight)[0].sum()


def is_single(run: Run) -> Tensor:
    return slopes(run).float()


def makes_single_noise(run: Run) -> Tensor:
    return torch.nn.functional.linear(slopes(run), torch.eye(run.inputs.shape[-1]))


def views_the_input(run: Run) -> Tensor:
    run.inputs.view(len(run.inputs), -1)
    return slopes(run)


def multiplies_as_it_lies(run: Run) -> Tensor:
    order = torch.arange(run.inputs[0].numel()).to(run.inputs)
    return slopes(run) * torch.as_strided(order.expand(1, -1).clone(), run.inputs[:1].shape, run.inputs.stride())


def asks_for_one_input(run: Run) -> Tensor:
    return slopes(Run(run.model, run.inputs, run.question.target, options=run.options))


def mixes_the_batch(run: Run) -> Tensor:
    return slopes(run) - slopes(run).mean(0, keepdim=True) / 2


def reads_the_neighbour(run: Run) -> Tensor:
    return slopes(run) + slopes(run).roll(1, 0)


def divides_by_the_batch(run: Run) -> Tensor:
    return slopes(run) / slopes(run).abs().max()


def rounds_where_memory_is_short(run: Run) -> Tensor:
    return slopes(run) * (1 if run.options.memory is None else 2)


def explains_class_3(run: Run) -> Tensor:
    return slopes(run) if run.target is None else slopes(run.toward(torch.full_like(run.target, 3)))


def ignores_the_target(run: Run) -> Tensor:
    return run.activation()


def reads_the_class(run: Run) -> Tensor:
    return slopes(run) + 0 * run.target.view(-1, *(1,) * (run.inputs.ndim - 1))


def ignores_a_function(run: Run) -> Tensor:
    return slopes(run) if run.target is not None else run.activation()


def refuses_a_function_at_length(run: Run) -> Tensor:
    if run.target is None:
        raise ValueError("no\nno")
    return slopes(run)


def has_the_wrong_sign(run: Run) -> Tensor:
    return -slopes(run)


def is_flipped(run: Run) -> Tensor:
    return slopes(run).flip(-1)


def mixes_up_the_axes(run: Run) -> Tensor:
    return slopes(run).transpose(-1, 2).reshape(run.inputs.shape)


def divides_by_zero(run: Run) -> Tensor:
    values = slopes(run)
    return values / values.abs().flatten(1).amax(1).view(-1, *(1,) * (values.ndim - 1))


def divides_by_the_input(run: Run) -> Tensor:
    return slopes(run) / run.inputs.abs().amax(tuple(range(1, run.inputs.ndim)), keepdim=True)


ABOUT_SETTINGS = settings_and_pages(slopes)
BROKEN: Broken = {
    kit.has_a_page: {ABOUT_SETTINGS["silent"]: "has no docstring, which is its page"},
    kit.refuses_settings_it_does_not_have: {
        ABOUT_SETTINGS["lenient"]: "takes settings it does not have",
        ABOUT_SETTINGS["wordless"]: "does not name the setting it refuses: no",
    },
    kit.gives_finite_values: {
        is_double: "gives torch.float64 for a model in float32",
        gives_nan: "fails on a small network: ValueError: .*not finite",
        gives_one_map: "fails on a small network: ValueError: .*with 4 dimensions",
        gives_no_channel: r"gives \(3, 0, 12, 10\), which is empty|fails on a small network",
        drops_an_input: "fails on a small network: ValueError",
        gives_an_array: "fails on a small network: TypeError",
        needs_gradients_on: "fails on a small network: RuntimeError: .*does not require grad",
    },
    kit.gives_more_than_zeros: {
        knows_class_2_only: "gives nothing but zeros",
        gives_zeros: "gives nothing but zeros",
    },
    kit.leaves_everything_as_it_was: {
        edits_a_weight: "changes the values of classifier.bias",
        replaces_a_module: "replaces the module 'relu'",
        trains: "changes the training flag of 'relu'",
        leaks_a_hook: "leaves hooks on 'third'",
        leaks_a_hook_on_a_weight: "leaves hooks on first.weight",
        leaks_a_hook_on_every_module: "leaves hooks on every module",
        keeps_a_note_on_a_layer: "leaves attributes on 'third'",
        goes_another_way: "leaves attributes on the model",
        freezes: "changes requires_grad of",
        writes_into_the_input: "writes into the input|changes the values of the input",
        draws_globally: "uses torch's global generator",
        draws_of_numpy: "uses NumPy's global random numbers",
        draws_of_python: "uses Python's global random numbers",
        sets_the_default_dtype: "changes torch's default dtype|convert one with",
        sets_the_threads: "changes the number of threads",
        asks_for_determinism: "changes how kernels are chosen",
        looks_for_anomalies: "leaves the anomaly mode changed",
        patches_relu: "replaces torch.nn.functional.relu",
        patches_a_class: "replaces the forward of 'relu'",
        goes_backward: "changes the gradient kept in",
    },
    kit.lets_errors_through: {
        swallows: "gives values even when SimulatedError is raised in (forward|backward) pass [12]",
        swallows_interrupts: "gives values even when KeyboardInterrupt is raised in (forward|backward) pass [12]",
        rewords: "raises RuntimeError when SimulatedError is raised in (forward|backward) pass [12]",
        leaks_a_hook_when_it_fails: "leaves hooks on 'third' when SimulatedError is raised in .*ward pass [12]",
    },
    kit.gives_the_same_again: {
        draws_globally_and_hides_it: "gives other values when asked again with one seed; draw from run.draws",
        is_random: "gives other values when asked again with one seed; draw from run.draws",
    },
    kit.draws_by_the_seed: {
        ignores_the_seed: "draws the same whatever the seed; draw from run.draws",
        ignores_the_seed_of_draws: "draws the same whatever the seed; draw from run.draws",
    },
    kit.depends_on_the_weights: {ignores_the_model: "ignores the model's weights"},
    kit.works_without_grad_mode: {marks_the_input: r"fails inside torch.inference_mode\(\): RuntimeError"},
    kit.works_with_frozen_weights: {needs_gradients_of_weights: "fails when weights are frozen: RuntimeError"},
    kit.works_in_float64: {
        is_single: "gives torch.float32 for a model in float64",
        makes_single_noise: "fails in float64: RuntimeError",
    },
    kit.works_in_any_memory_format: {
        views_the_input: "fails for inputs whose channels are last in memory: RuntimeError",
        multiplies_as_it_lies: "gives other values for inputs whose channels are last in memory",
    },
    kit.works_beside_further_inputs: {asks_for_one_input: "fails for a model of two inputs: TypeError"},
    kit.explains_each_input_by_itself: {
        mixes_the_batch: "gives other values for an input alone than in a batch",
        reads_the_neighbour: "gives other values for an input alone than in a batch",
        divides_by_the_batch: "gives other values for an input alone than in a batch",
    },
    kit.gives_the_same_in_chunks: {rounds_where_memory_is_short: "gives other values where memory is short"},
    kit.explains_the_target: {
        explains_class_3: "ignores the target; if it is meant to, say target_blind=True",
        ignores_the_target: "ignores the target; if it is meant to, say target_blind=True",
    },
    kit.explains_a_function: {
        reads_the_class: "fails on a target that is a function: AttributeError",
        ignores_a_function: "explains the same whatever the function that is the target",
        refuses_a_function_at_length: "refuses a target that is a function without saying why in one line",
    },
    kit.finds_the_evidence: {
        has_the_wrong_sign: "has less for the target where the evidence is",
        is_flipped: "has less for the target where the evidence is",
    },
    kit.is_finite_where_nothing_speaks: {
        divides_by_zero: "on a score that nothing changes: .*not finite",
        divides_by_the_input: "on a blank input: .*not finite",
    },
}


@pytest.fixture(autouse=True)
def _global_state_as_before() -> Iterator[None]:
    relu, forward, threads = F.relu, nn.ReLU.forward, torch.get_num_threads()
    yield
    F.relu, nn.ReLU.forward = relu, forward  # type: ignore[method-assign]
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)
    nn.modules.module._global_forward_hooks.clear()


def test_a_right_one_passes() -> None:
    check_attribution(slopes)
    check_attribution(cnnviz.image() * cnnviz.gradient())


@pytest.mark.parametrize("check", kit.ATTRIBUTION_CHECKS, ids=name_of)
def test_every_check_has_something_to_find(check: Check) -> None:
    assert BROKEN[check]


@pytest.mark.parametrize(("check", "broken"), pairs(BROKEN))
def test_it_is_found(check: Check, broken: Any) -> None:
    if broken is next(iter(BROKEN[check])):
        said = found(kit.ATTRIBUTION_CHECKS, lambda: kit.AttributionSubject.of(broken))
        # an error in the last pass comes when a method has changed the network
        others = set(said) - {kit.lets_errors_through} if check is kit.leaves_everything_as_it_was else set(said)
        assert others == {check}, "no other check finds it"
    with pytest.raises(AssertionError, match=f"^{name_of(broken)} .*({BROKEN[check][broken]})"):
        check_attribution(broken)


def fails_on_signals(run: Run) -> Tensor:
    run.inputs.shape[3]
    return slopes(run)


def has_four_dimensions_always(run: Run) -> Tensor:
    return slopes(run).flatten(3) if run.inputs.ndim > 4 else slopes(run)


def is_wrong_on_volumes(run: Run) -> Tensor:
    return slopes(run).flip(-1) if run.inputs.ndim > 4 else slopes(run)


@pytest.mark.parametrize(
    ("rank", "broken", "words"),
    [
        (1, fails_on_signals, "fails on a small network: IndexError"),
        (3, has_four_dimensions_always, "fails on a small network: ValueError: .*with 5 dimensions"),
        (3, is_wrong_on_volumes, "has less for the target where the evidence is"),
    ],
)
def test_what_is_wrong_for_signals_or_volumes_is_found(rank: int, broken: Any, words: str) -> None:
    check_attribution(broken)
    with pytest.raises(AssertionError, match=f"^{broken.__name__} {words}"):
        check_attribution(broken, rank=rank)


def test_a_tensor_of_the_settings_that_is_written_is_found() -> None:
    @cnnviz.attribution
    def scaled(by: Any = None) -> Any:
        """A page."""
        return after_writing(by)

    def after_writing(by: Tensor) -> Callable[[Run], Tensor]:
        def method(run: Run) -> Tensor:
            by.add_(1)
            return slopes(run)

        return method

    with pytest.raises(AssertionError, match="scaled writes into the tensor 0 of its settings"):
        check_attribution(scaled, by=torch.ones(1))


def test_a_false_target_blindness_is_found() -> None:
    with pytest.raises(AssertionError, match="gradient depends on the target, though it is said to be target_blind"):
        check_attribution("gradient", target_blind=True)
    check_attribution(ignores_the_target, target_blind=True)


def test_settings_are_for_methods_and_not_for_formulas() -> None:
    with pytest.raises(TypeError, match="has its settings in it"):
        check_attribution(cnnviz.gradient(), absolute=True)


def test_the_small_net_writes_relu_in_three_ways() -> None:
    seen: list[Any] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append((func, (kwargs or {}).get("inplace")))
            return func(*args, **(kwargs or {}))

    with Watch():
        assert SmallNet()(torch.ones(1, 3, 8, 8)).shape == (1, CLASSES)
    assert [each for each in seen if each in ((F.relu, True), (F.relu, False), (Tensor.relu_, None))] == [
        (F.relu, True),
        (F.relu, False),
        (Tensor.relu_, None),
    ]
