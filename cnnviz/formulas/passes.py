"""How many passes through the model a formula may take for one input, told before any is made."""

from __future__ import annotations

from math import prod
from typing import Any

from cnnviz.formulas.attribution import ConfiguredAttribution
from cnnviz.formulas.baseline_contributions import along, compared
from cnnviz.formulas.expectation import over
from cnnviz.formulas.expr import Expr
from cnnviz.formulas.terms import procedure
from cnnviz.registry.registry import attributions


def passes_at_most(formula: Expr) -> int:
    """The number of passes forward (each with its way back) of one input, as far as a formula tells it.

    Points, ways and baselines are counted; nested ones multiply. What a procedure does is not known: it counts as many
    passes as the product of its method's whole-number settings, so that 1000 masks of 7 x 7 cells count 7000. A part
    that is used twice counts twice, although it is computed once. Methods whose passes follow from the input's or a
    layer's size, such as ``occlusion`` and ``score_cam``, take more than is told.
    """
    if isinstance(formula, over):
        return formula.points.count * passes_at_most(formula.of)
    if isinstance(formula, along):
        return formula.ways.count * passes_at_most(formula.of)
    if isinstance(formula, compared):
        return 2 * formula.baselines.count
    if isinstance(formula, ConfiguredAttribution):
        return _of_method(formula)
    return max(1, sum(map(passes_at_most, formula.parts())))


def _of_method(formula: ConfiguredAttribution) -> int:
    known = formula.method.function
    own = passes_at_most(known) if isinstance(known, Expr) else 1
    if isinstance(known, Expr) and not _has_procedure(known):
        return own
    inside = prod(passes_at_most(each) for _, each in formula.formulas)
    return own * inside * prod(map(_factor, _settings(formula).values()))


def _settings(formula: ConfiguredAttribution) -> dict[str, Any]:
    """All settings with their values, those of the defaults too. A layer's number is no number of passes."""
    name = formula.method.name
    defaults = attributions[name].settings if name in attributions else {}
    settings = {key: parameter.default for key, parameter in defaults.items()} | dict(formula.method.settings)
    return {key: value for key, value in settings.items() if key != "layer"}


def _factor(value: Any) -> int:
    return abs(value) if isinstance(value, int) and not isinstance(value, bool) and value else 1


def _has_procedure(formula: Expr) -> bool:
    return isinstance(formula, procedure) or any(map(_has_procedure, formula.parts()))
