"""Every method keeps the promises of the kit, and the kit notices each promise that is broken."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from quick import quick
from torch import Tensor, nn

import cnnviz
from cnnviz import Explanation, Run, attribution, attributions, renderers
from cnnviz.registry.registry import Method
from cnnviz.testing import SmallNet, check_attribution, check_renderer


@pytest.mark.parametrize("name", attributions)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_every_attribution_passes(name: str, rank: int) -> None:
    check_attribution(name, target_blind=name in ("eigen_cam", "activation", "projections"), rank=rank, **quick(name))


@pytest.mark.parametrize("name", renderers)
def test_every_renderer_passes(name: str) -> None:
    check_renderer(name)


def test_the_small_net_writes_relu_in_three_ways() -> None:
    seen: list[Any] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append((func, (kwargs or {}).get("inplace")))
            return func(*args, **(kwargs or {}))

    with Watch():
        SmallNet()(torch.ones(1, 3, 8, 8))
    assert [each for each in seen if each in ((F.relu, True), (F.relu, False), (Tensor.relu_, None))] == [
        (F.relu, True),
        (F.relu, False),
        (Tensor.relu_, None),
    ]


# Attributions that break a promise each; all else about them is right


def slopes(run: Run) -> Tensor:
    return run.gradient()


def edits_the_model(run: Run) -> Tensor:
    with torch.no_grad():
        run.model.classifier.bias += 1
    return slopes(run)


def counts_in_batch_norm(run: Run) -> Tensor:
    found = slopes(run)
    run.model.norm.num_batches_tracked += 1
    return found


def replaces_a_module(run: Run) -> Tensor:
    found = slopes(run)
    run.model.relu = nn.ReLU()
    return found


def trains(run: Run) -> Tensor:
    found = slopes(run)
    run.model.dropout.train()
    return found


def leaks_a_hook(run: Run) -> Tensor:
    run.model.third.register_forward_hook(lambda *_: None)
    return slopes(run)


def leaks_a_hook_when_it_fails(run: Run) -> Tensor:
    handle = run.model.third.register_forward_hook(lambda *_: None)
    found = slopes(run)
    handle.remove()
    return found


def goes_backward(run: Run) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        inputs = run.inputs.detach().clone().requires_grad_()
        run.model(inputs)[torch.arange(len(inputs)), run.target].sum().backward()
    return inputs.grad


def freezes(run: Run) -> Tensor:
    found = slopes(run)
    run.model.requires_grad_(False)
    return found


def asks_the_input(run: Run) -> Tensor:
    run.inputs.requires_grad_(not run.inputs.requires_grad)
    return slopes(run)


def writes_into_the_input(run: Run) -> Tensor:
    found = slopes(run)
    with torch.no_grad():
        run.inputs.data.mul_(2)
    return found


def ignores_the_target(run: Run) -> Tensor:
    return run.activation()


def ignores_the_model(run: Run) -> Tensor:
    return run.inputs * (1 + run.target.view(-1, *(1,) * (run.inputs.ndim - 1)))


def mixes_the_batch(run: Run) -> Tensor:
    return slopes(run) - slopes(run).mean(0, keepdim=True) / 2


def is_random(run: Run) -> Tensor:
    found = slopes(run)
    return found + found.abs().max() * torch.randn(found.shape, generator=torch.Generator().manual_seed(next(SEEDS)))


SEEDS = iter(range(10**6))


def draws_globally(run: Run) -> Tensor:
    return slopes(run) * torch.rand(1)


def gives_nan(run: Run) -> Tensor:
    return slopes(run) * torch.nan


def gives_zeros(run: Run) -> Tensor:
    return slopes(run) * 0


def gives_one_map(run: Run) -> Tensor:
    return slopes(run).sum(1)


def is_single(run: Run) -> Tensor:
    return slopes(run).float()


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


def sets_the_default_dtype(run: Run) -> Tensor:
    found = slopes(run)
    torch.set_default_dtype(torch.float64)
    return found


def needs_gradients_on(run: Run) -> Tensor:
    weight = run.model.first.weight
    return slopes(run) + 0 * torch.autograd.grad((weight**2).sum(), weight)[0].sum()


BROKEN: dict[Callable[[Run], Tensor], str] = {
    edits_the_model: "changes the values of classifier.bias",
    counts_in_batch_norm: "changes the values of norm.num_batches_tracked",
    replaces_a_module: "replaces the module 'relu'",
    trains: "changes the training flag of 'dropout'",
    leaks_a_hook: "leaves hooks on 'third'",
    leaks_a_hook_when_it_fails: "leaves hooks on 'third' when SimulatedError is raised in forward pass [12]",
    goes_backward: "changes the gradient kept in",
    freezes: "changes requires_grad of",
    asks_the_input: "changes requires_grad of the input",
    writes_into_the_input: "writes into the input|changes the values of the input",
    ignores_the_target: "ignores the target; if it is meant to, say target_blind=True",
    ignores_the_model: "ignores the model's weights|gives values even when",
    mixes_the_batch: "gives other values for an input alone than in a batch",
    is_random: "gives other values when asked again with one seed; draw from run.generator",
    draws_globally: "uses torch's global generator; draw from run.generator",
    gives_nan: "fails on a small network: ValueError: .*not finite",
    gives_zeros: "gives nothing but zeros",
    gives_one_map: "fails on a small network: ValueError: .*with 4 dimensions",
    is_single: "gives torch.float32 for a model in float64",
    swallows: "gives values even when SimulatedError is raised in forward pass [12]",
    swallows_interrupts: "gives values even when KeyboardInterrupt is raised in forward pass [12]",
    rewords: "raises RuntimeError when SimulatedError is raised in forward pass [12]",
    sets_the_default_dtype: "changes torch's default dtype",
    needs_gradients_on: "fails on a small network: RuntimeError: .*does not require grad",
}


def test_a_right_one_passes() -> None:
    check_attribution(slopes)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda each: each.__name__)
def test_the_kit_catches_an_attribution_that(broken: Callable[[Run], Tensor]) -> None:
    try:
        with pytest.raises(AssertionError, match=f"^{broken.__name__} .*({BROKEN[broken]})"):
            check_attribution(broken)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_kit_catches_a_false_target_blindness() -> None:
    with pytest.raises(AssertionError, match="gradient depends on the target, though it is said to be target_blind"):
        check_attribution("gradient", target_blind=True)


class Lenient(Method[Any]):
    def bind(self, *args: Any, **settings: Any) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name in self.settings}


class Wordless(Method[Any]):
    def bind(self, *args: Any, **settings: Any) -> dict[str, Any]:
        if settings.keys() - self.settings.keys():
            raise TypeError("no")
        return settings


def documented() -> Any:
    """A page."""
    return slopes


@pytest.mark.parametrize("check", [check_attribution, check_renderer])
def test_the_kit_catches_settings_that_are_overlooked(check: Callable[..., None]) -> None:
    with pytest.raises(AssertionError, match="documented takes settings it does not have"):
        check(Lenient(documented))
    with pytest.raises(AssertionError, match="documented does not name the setting it refuses: no"):
        check(Wordless(documented))


def test_the_kit_catches_a_page_that_is_missing() -> None:
    @attribution
    def silent() -> Any:
        return cnnviz.gradient()

    with pytest.raises(AssertionError, match="silent has no docstring, which is its page"):
        check_attribution(silent)


def test_settings_are_for_methods_and_not_for_formulas() -> None:
    with pytest.raises(TypeError, match="has its settings in it"):
        check_attribution(cnnviz.gradient(), absolute=True)


def test_a_formula_passes() -> None:
    check_attribution(cnnviz.image() * cnnviz.gradient())


# Renderers that break a promise each


def shades(explanation: Explanation) -> NDArray[np.uint8]:
    if explanation.inputs.ndim != 4:
        raise ValueError("shades draws images; for others use something else")
    values = explanation.values.detach().double().sum(1).abs()
    values = values / values.amax((1, 2), keepdim=True).clamp(min=1e-12)
    return np.repeat((values * 255).round().numpy().astype(np.uint8)[..., None], 3, -1)


def divides_by_zero(explanation: Explanation) -> NDArray[np.uint8]:
    shades(explanation)
    values = explanation.values.detach().double().sum(1).abs().numpy()
    return np.repeat((values / values.max((1, 2), keepdims=True) * 255).astype(np.uint8)[..., None], 3, -1)


def stretches_blanks(explanation: Explanation) -> NDArray[np.uint8]:
    drawn = shades(explanation)
    return drawn if drawn.any() else np.full_like(drawn, 255)


def gives_floats(explanation: Explanation) -> Any:
    return shades(explanation) / 255


def drops_a_picture(explanation: Explanation) -> NDArray[np.uint8]:
    return shades(explanation)[:1]


def has_alpha(explanation: Explanation) -> NDArray[np.uint8]:
    return np.concatenate([shades(explanation), shades(explanation)[..., :1]], -1)


def writes_values(explanation: Explanation) -> NDArray[np.uint8]:
    drawn = shades(explanation)
    explanation.values.clamp_(min=0)
    return drawn


def writes_inputs(explanation: Explanation) -> NDArray[np.uint8]:
    drawn = shades(explanation)
    explanation.inputs.add_(1)
    return drawn


def shows_nothing(explanation: Explanation) -> NDArray[np.uint8]:
    return np.zeros_like(shades(explanation))


def flickers(explanation: Explanation) -> NDArray[np.uint8]:
    return shades(explanation) ^ np.uint8(next(SEEDS) % 2)


def draws_numbers(explanation: Explanation) -> NDArray[np.uint8]:
    return shades(explanation) + np.uint8(0 * np.random.rand())


def keeps_figures_open(explanation: Explanation) -> NDArray[np.uint8]:
    import matplotlib.pyplot as plt

    drawn = shades(explanation)
    plt.figure()
    return drawn


def sets_the_style(explanation: Explanation) -> NDArray[np.uint8]:
    import matplotlib

    drawn = shades(explanation)
    matplotlib.rcParams["font.size"] += 1
    return drawn


def knows_float32_only(explanation: Explanation) -> NDArray[np.uint8]:
    shades(explanation)
    explanation.values.numpy()
    return shades(explanation)


def fails_on_signals(explanation: Explanation) -> NDArray[np.uint8]:
    explanation.inputs.shape[3]
    return shades(explanation)


def refuses_at_length(explanation: Explanation) -> NDArray[np.uint8]:
    raise ValueError("no\nno")


def refuses_everything(explanation: Explanation) -> NDArray[np.uint8]:
    raise ValueError("no")


BROKEN_RENDERERS: dict[Callable[[Explanation], Any], str] = {
    divides_by_zero: "fails on values .*: RuntimeWarning: invalid value",
    stretches_blanks: "shows evidence on a blank map",
    gives_floats: "gives float64 for values .*, not a uint8 array",
    drops_a_picture: r"gives \(1, .*, 3\) for values",
    has_alpha: r"gives \(2, .*, 4\) for values",
    writes_values: "writes into the values",
    writes_inputs: "writes into the inputs",
    shows_nothing: "draws the same picture whatever the values",
    flickers: "draws one explanation in two ways",
    draws_numbers: "uses NumPy's global random numbers",
    keeps_figures_open: "leaves a pyplot figure open",
    sets_the_style: "changes matplotlib's rcParams",
    knows_float32_only: "bfloat16.*fails|fails on values .*bfloat16",
    fails_on_signals: "fails on values .*: IndexError",
    refuses_at_length: "without saying why in one line",
    refuses_everything: "refuses everything: signals, images and volumes",
}


def test_a_right_renderer_passes() -> None:
    check_renderer(shades)


@pytest.mark.parametrize("broken", BROKEN_RENDERERS, ids=lambda each: each.__name__)
def test_the_kit_catches_a_renderer_that(broken: Callable[[Explanation], Any]) -> None:
    import matplotlib
    import matplotlib.pyplot as plt

    with matplotlib.rc_context(), warnings.catch_warnings():
        with pytest.raises(AssertionError, match=f"^{broken.__name__} .*({BROKEN_RENDERERS[broken]})"):
            check_renderer(broken)
        plt.close("all")
