"""Situations that a quick way could answer wrong, and every attribution in them.

A situation is survived if each attribution gives what the slow way gives, or refuses where the situation allows that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from faults.references import CLASS, WINDOW, Turn, by_loops, loops_score, one_variant_at_a_time, pictures, unturned
from quick import OF_ANY_NETWORK, quick
from torch import Tensor, nn

from cnnviz import attributions, explain

NAMES = OF_ANY_NETWORK
LAYERED = [name for name in NAMES if "layer" in attributions[name].settings]
RULES = {
    *("guided_backprop", "deconvnet", "guided_grad_cam", "deeplift", "deeplift_shap", "fullgrad", "lrp"),
    "conditional_relevance",
}
"""Those that must see each operation between the input and the score."""
LEARNING = {"extremal_perturbation", "meaningful_perturbation"}
"""Those that learn a mask, so that rounding sends them another way."""
ERRORS = (ValueError, TypeError, LookupError)
"""What cnnviz raises for what it refuses."""


@dataclass(frozen=True)
class Situation:
    """A network and inputs, and what the right answer is computed from."""

    model: Callable[[], nn.Module]
    twin: Callable[[], nn.Module] | None = None
    """A plainly written network that computes the same; None: the model itself, asked in slow ways."""
    inputs: Callable[[], Tensor] = pictures
    layer: str = "conv2"
    """Of which class activation maps are asked."""
    names: Sequence[str] = tuple(NAMES)
    """The attributions that it applies to."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of single attributions."""
    or_refused: str | None = None
    """Words of the error (a pattern) with which attributions of RULES may refuse the network instead."""
    by_twin: bool = False
    """True to compare with the same question to the twin, where slow ways would take too long."""
    how: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of explain, of the quick answer alone."""
    tolerance: float = 1e-6
    """Of the largest value."""
    back: Turn = unturned
    """Turns a map of the layer to how the input lies, where the model mirrors or turns it."""


def pairs(situations: Mapping[str, Situation]) -> pytest.MarkDecorator:
    """Every situation with every attribution that it applies to, as parameters of a test."""
    return pytest.mark.parametrize(
        ("situation", "name"),
        [
            pytest.param(situation, name, id=f"{title}: {name}")
            for title, situation in situations.items()
            for name in situation.names
        ],
    )


def cross(situations: Iterable[str], names: Iterable[str] = NAMES) -> pytest.MarkDecorator:
    """Situations by their words, each with every attribution, as parameters ``case`` and ``name``."""
    every = list(names)
    cases = [pytest.param(case, name, id=f"{case}: {name}") for case in situations for name in every]
    return pytest.mark.parametrize(("case", "name"), cases)


def each(names: Iterable[str] = NAMES) -> pytest.MarkDecorator:
    """The attributions as the parameter ``name`` of a test that is one situation."""
    return pytest.mark.parametrize("name", [pytest.param(name, id=f": {name}") for name in names])


def settings(name: str, layer: str) -> dict[str, Any]:
    """Settings that make an attribution quick, at a layer if it has one."""
    chosen = quick(name) | ({"layer": "late" if name == "cam" else layer} if name in LAYERED else {})
    if name == "saliency_confusion":
        chosen["of"] = attributions["grad_cam"](layer=layer)
    return chosen | ({"window": WINDOW, "stride": WINDOW} if name == "occlusion" else {})


Answer = tuple[Tensor, Tensor] | str


def answer(name: str, model: nn.Module, x: Tensor, layer: str, **how: Any) -> Answer:
    """Values and scores, or the text of a refusal."""
    try:
        found = explain(model, x.clone(), name, **{"target": CLASS} | settings(name, layer) | how)
    except ERRORS as error:
        return str(error)
    return found.values, found.score


def slow_answer(name: str, model: nn.Module, x: Tensor, layer: str, *, back: Turn = unturned, **chosen: Any) -> Answer:
    """The same by loops where they are written here, and else of each input alone, a variant at a time."""
    if (values := by_loops(name, model, x, layer, chosen, back)) is not None:
        return values, loops_score(model, x)
    with one_variant_at_a_time():
        answers = [answer(name, model, each[None], layer, memory=1, **chosen) for each in x]
    refusals = [each for each in answers if isinstance(each, str)]
    if refusals:
        return refusals[0]
    values, scores = zip(*answers, strict=True)
    return torch.cat(values), torch.cat(scores)


def check(situation: Situation, name: str) -> None:
    """Fails where an attribution's answer is neither the slow one nor a refusal that the situation allows."""
    x, layer = situation.inputs(), situation.layer
    chosen = dict(situation.settings.get(name, {}))
    found = answer(name, situation.model(), x, layer, **situation.how, **chosen)
    if isinstance(found, str):
        assert "\n" not in found
        if situation.or_refused is not None and name in RULES and re.search(situation.or_refused, found):
            return
    twin = (situation.twin or situation.model)()
    if situation.by_twin:
        expected = answer(name, twin, x, layer, **chosen)
    else:
        expected = slow_answer(name, twin, x, layer, back=situation.back, **chosen)
    if isinstance(expected, str):
        assert found == expected
        return
    assert not isinstance(found, str), f"refused, and the slow way answers: {found}"
    close(found[0], expected[0], situation.tolerance)
    close(found[1], expected[1], max(situation.tolerance, 1e-6))


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    """Fails where a value is off by more than a share of the largest."""
    assert found.shape == expected.shape
    expected = expected.detach().double()
    scale = max(float(expected.abs().max()), 1e-12)
    off = float((found.double() - expected).abs().max()) / scale
    assert off <= tolerance, f"off by {off:.2g} of the largest value"
