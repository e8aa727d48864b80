"""How many passes through the model a formula may take for one input, told before any is made."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from cnnviz.formulas.attribution import ConfiguredAttribution
from cnnviz.formulas.baseline_contributions import along, compared
from cnnviz.formulas.expectation import over
from cnnviz.formulas.expr import Expr
from cnnviz.formulas.terms import at, procedure
from cnnviz.registry.registry import attributions


def passes_at_most(formula: Expr) -> int:
    """The number of passes forward (each with its way back) of one input, as far as a formula tells it.

    Points, ways and baselines are counted; nested ones multiply, and equal parts count once, as they are computed. What
    a procedure does is not known: it counts as many passes as the product of its method's whole-number settings, so
    that 1000 masks of 7 x 7 cells count 7000. Methods whose passes follow from the input's or a layer's size, such as
    ``occlusion`` and ``score_cam``, take more than is told.
    """
    return max(1, sum(map(_count, set(_counted(formula)))))


def _counted(formula: Expr) -> Iterator[Expr]:
    """The parts that tell how many passes they take; the others are read from the pass that there is."""
    if isinstance(formula, over | along | compared | at) or _is_procedure(formula):
        yield formula
        return
    for part in formula.parts():
        yield from _counted(part)


def _count(formula: Expr) -> int:
    if isinstance(formula, over):
        return formula.points.count * passes_at_most(formula.of)
    if isinstance(formula, along):
        return formula.ways.count * passes_at_most(formula.of)
    if isinstance(formula, compared):
        return 2 * formula.baselines.count
    if isinstance(formula, at):
        return passes_at_most(formula.of) + passes_at_most(formula.inputs)
    assert isinstance(formula, ConfiguredAttribution)
    inside = {part for _, each in formula.formulas for part in _counted(each)}
    beside = {part for each in formula.parts() for part in _counted(each)} - inside
    own = prod(map(_factor, _settings(formula).values())) * prod(passes_at_most(each) for _, each in formula.formulas)
    return own * max(1, sum(map(_count, beside)))


def _settings(formula: ConfiguredAttribution) -> dict[str, Any]:
    """All settings with their values, those of the defaults too. A layer's number is no number of passes."""
    name = formula.method.name
    defaults = attributions[name].settings if name in attributions else {}
    settings = {key: parameter.default for key, parameter in defaults.items()} | dict(formula.method.settings)
    return {key: value for key, value in settings.items() if key != "layer"}


def _factor(value: Any) -> int:
    return abs(value) if isinstance(value, int) and not isinstance(value, bool) and value else 1


def _is_procedure(formula: Expr) -> bool:
    """True for a method that asks the model in a way of its own."""
    if not isinstance(formula, ConfiguredAttribution):
        return False
    function = formula.method.function
    return not isinstance(function, Expr) or _has_procedure(function)


def _has_procedure(formula: Expr) -> bool:
    """True if it is its own, and not that of a method inside of it."""
    if isinstance(formula, ConfiguredAttribution):
        return False
    return isinstance(formula, procedure) or any(map(_has_procedure, formula.parts()))
