"""Each check of a renderer finds what is broken on purpose, and finds something that no other check finds."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from broken import SEEDS, Broken, Check, found, name_of, pairs, settings_and_pages
from numpy.typing import NDArray

from cnnviz import Explanation
from cnnviz.testing import check_renderer
from cnnviz.testing import renderers as kit

Pictures = NDArray[np.uint8]


def shades(explanation: Explanation) -> Pictures:
    if explanation.inputs.ndim != 4:
        raise ValueError("shades draws images; for others use something else")
    if explanation.values.isnan().any():
        raise ValueError("there is NaN in the values")
    values = explanation.values.detach().double().sum(1).abs()
    values = values / values.amax((1, 2), keepdim=True).clamp(min=1e-12)
    return np.repeat((values * 255).round().numpy().astype(np.uint8)[..., None], 3, -1)


def refuses_everything(explanation: Explanation) -> Pictures:
    raise ValueError("no")


def refuses_at_length(explanation: Explanation) -> Pictures:
    raise ValueError("no\nno")


def gives_floats(explanation: Explanation) -> Any:
    return shades(explanation) / 255


def gives_a_tensor(explanation: Explanation) -> Any:
    return torch.from_numpy(shades(explanation))


def drops_a_picture(explanation: Explanation) -> Pictures:
    return shades(explanation)[:1]


def has_alpha(explanation: Explanation) -> Pictures:
    return np.concatenate([shades(explanation), shades(explanation)[..., :1]], -1)


def fails_on_signals(explanation: Explanation) -> Pictures:
    explanation.inputs.shape[3]
    return shades(explanation)


def knows_three_channels_only(explanation: Explanation) -> Pictures:
    if explanation.inputs.shape[1] == 4:
        raise IndexError("channels")
    return shades(explanation)


def draws_of_numpy(explanation: Explanation) -> Pictures:
    return shades(explanation) + np.uint8(0 * np.random.rand())


def draws_of_torch(explanation: Explanation) -> Pictures:
    return shades(explanation) + np.uint8(0 * torch.rand(1).item())


def draws_of_python(explanation: Explanation) -> Pictures:
    return shades(explanation) + np.uint8(0 * random.random())


def writes_values(explanation: Explanation) -> Pictures:
    drawn = shades(explanation)
    explanation.values.clamp_(min=0)
    return drawn


def writes_inputs(explanation: Explanation) -> Pictures:
    drawn = shades(explanation)
    explanation.inputs.add_(1)
    return drawn


def keeps_figures_open(explanation: Explanation) -> Pictures:
    import matplotlib.pyplot as plt

    drawn = shades(explanation)
    plt.figure()
    return drawn


def sets_the_style(explanation: Explanation) -> Pictures:
    import matplotlib

    drawn = shades(explanation)
    matplotlib.rcParams["font.size"] += 1
    return drawn


def silences_numpy(explanation: Explanation) -> Pictures:
    np.seterr(all="ignore" if np.geterr()["divide"] != "ignore" else "warn")
    return shades(explanation)


def draws_globally_and_hides_it(explanation: Explanation) -> Pictures:
    state = np.random.get_state()
    drawn = shades(explanation) ^ np.uint8(np.random.randint(1, 255))
    np.random.set_state(state)
    return drawn


def flickers(explanation: Explanation) -> Pictures:
    return shades(explanation) ^ np.uint8(next(SEEDS) % 255)


def draws_the_first_again_and_again(explanation: Explanation) -> Pictures:
    return np.repeat(shades(explanation)[:1], len(explanation), 0)


def numbers_them(explanation: Explanation) -> Pictures:
    drawn = shades(explanation)
    drawn[:, 0, 0] = np.arange(len(drawn), dtype=np.uint8)[:, None]
    return drawn


def views_the_values(explanation: Explanation) -> Pictures:
    explanation.values.view(len(explanation), -1)
    return shades(explanation)


def reads_as_it_lies(explanation: Explanation) -> Pictures:
    values = explanation.values
    there = torch.as_strided(values.flatten().clone(), values.shape, values.stride())
    return shades(Explanation(there, explanation.inputs, None, explanation.score, "")) | shades(explanation)


def knows_no_bfloat16(explanation: Explanation) -> Pictures:
    shades(explanation)
    explanation.values.numpy()
    return shades(explanation)


def refuses_float64(explanation: Explanation) -> Pictures:
    if explanation.values.dtype == torch.float64:
        raise ValueError("too precise")
    return shades(explanation)


def asks_for_the_class(explanation: Explanation) -> Pictures:
    drawn = shades(explanation)
    explanation.target.tolist()
    return drawn


def draws_nan(explanation: Explanation) -> Pictures:
    values = explanation.values.nan_to_num()
    return shades(Explanation(values, explanation.inputs, None, explanation.score, ""))


def fails_on_nan(explanation: Explanation) -> Pictures:
    if explanation.values.isnan().any():
        raise FloatingPointError("nan")
    return shades(explanation)


def shows_nothing(explanation: Explanation) -> Pictures:
    return np.zeros_like(shades(explanation))


def stretches_blanks(explanation: Explanation) -> Pictures:
    drawn = shades(explanation)
    return drawn if drawn.any() else np.full_like(drawn, 255)


def divides_by_zero(explanation: Explanation) -> Pictures:
    shades(explanation)
    values = explanation.values.detach().double().sum(1).abs().numpy()
    return np.repeat((values / values.max((1, 2), keepdims=True) * 255).astype(np.uint8)[..., None], 3, -1)


ABOUT_SETTINGS = settings_and_pages(shades)  # type: ignore[arg-type]
BROKEN: Broken = {
    kit.has_a_page: {ABOUT_SETTINGS["silent"]: "has no docstring, which is its page"},
    kit.refuses_settings_it_does_not_have: {
        ABOUT_SETTINGS["lenient"]: "takes settings it does not have",
        ABOUT_SETTINGS["wordless"]: "does not name the setting it refuses: no",
    },
    kit.draws_some_inputs: {
        refuses_everything: "refuses everything: signals, images and volumes",
        refuses_at_length: "without saying why in one line",
        gives_floats: "gives float64 for values .*, not a uint8 array",
        gives_a_tensor: "gives Tensor for values .*, not a uint8 array",
        drops_a_picture: r"gives \(1, .*, 3\) for values",
        has_alpha: r"gives \(2, .*, 4\) for values",
        fails_on_signals: "fails on values .*: IndexError",
        knows_three_channels_only: "fails on values .*: IndexError",
    },
    kit.leaves_everything_as_it_was: {
        draws_of_numpy: "uses NumPy's global random numbers",
        draws_of_torch: "uses torch's global generator",
        draws_of_python: "uses Python's global random numbers",
        writes_values: "writes into the values",
        writes_inputs: "writes into the inputs",
        keeps_figures_open: "leaves a pyplot figure open",
        sets_the_style: "changes matplotlib's rcParams",
        silences_numpy: "changes NumPy's error handling",
    },
    kit.draws_the_same_again: {
        draws_globally_and_hides_it: "draws one explanation in two ways",
        flickers: "draws one explanation in two ways",
    },
    kit.draws_each_input_in_its_place: {
        draws_the_first_again_and_again: "draws another picture for an input whose place in the batch is another",
        numbers_them: "draws another picture for an input whose place in the batch is another",
    },
    kit.draws_any_memory_format: {
        views_the_values: "fails on values .* with channels last in memory: RuntimeError",
        reads_as_it_lies: "draws another picture with channels last in memory",
    },
    kit.draws_every_precision: {
        knows_no_bfloat16: "fails on values .*bfloat16",
        refuses_float64: "refuses torch.float64, and draws float32",
    },
    kit.draws_without_a_class: {asks_for_the_class: "fails on values .* without a class: AttributeError"},
    kit.refuses_nan: {
        draws_nan: "draws NaN; refuse it with a ValueError",
        fails_on_nan: "fails on values .* with NaN in it: FloatingPointError",
    },
    kit.shows_the_values: {
        shows_nothing: "draws the same picture whatever the values",
        stretches_blanks: "shows evidence on a blank map",
        divides_by_zero: "fails on values .*: RuntimeWarning: invalid value",
    },
}


@pytest.fixture(autouse=True)
def _global_state_as_before() -> Iterator[None]:
    import matplotlib
    import matplotlib.pyplot as plt

    with matplotlib.rc_context(), warnings.catch_warnings(), np.errstate():
        yield
        plt.close("all")


def test_a_right_one_passes() -> None:
    check_renderer(shades)


@pytest.mark.parametrize("check", kit.RENDERER_CHECKS, ids=name_of)
def test_every_check_has_something_to_find(check: Check) -> None:
    assert BROKEN[check]


@pytest.mark.parametrize(("check", "broken"), pairs(BROKEN))
def test_it_is_found(check: Check, broken: Callable[[Explanation], Any]) -> None:
    if broken is next(iter(BROKEN[check])):
        said = found(kit.RENDERER_CHECKS, lambda: kit.RendererSubject.of(broken))
        assert [*said] == [check], "no other check finds it"
    with pytest.raises(AssertionError, match=f"^{name_of(broken)} .*({BROKEN[check][broken]})"):
        check_renderer(broken)
