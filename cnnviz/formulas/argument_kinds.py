"""Which kinds of values an argument of a formula's text takes, as its annotation says.

A method checks numbers and texts itself. A formula where a layer is meant would show in the middle of a run only.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import torch

from cnnviz.engine.backward_rules import Rule
from cnnviz.engine.layers import INPUT, LayerAt
from cnnviz.formulas.baseline_contributions import compared
from cnnviz.formulas.baselines import backgrounds
from cnnviz.formulas.expr import Expr
from cnnviz.formulas.sample_points import between, noisy, path
from cnnviz.run.objectives import Objective

_KINDS: tuple[tuple[Any, str, str], ...] = (
    (compared, "a comparison", r"\bcompared\b|\bExpr\b|Baseline|Formula"),
    (Expr, "a formula", r"\bExpr\b|baseline_input|\bBaselines?\b|\bFormula\b"),
    (Objective, "a target", r"Objective"),
    (between, "points on ways", r"\bWays\b"),
    (backgrounds, "backgrounds", r"\bPoints\b|\bbackgrounds\b"),
    ((path, noisy), "points", r"\bPoints\b"),
    (Rule, "a rule", r"\bRule\b"),
    (LayerAt, "a layer", r"\bLayer"),
    (type(INPUT), "INPUT", r"InputPlace"),
    (torch.dtype, "a kind of number", r"dtype"),
    (
        str,
        "a text",
        r"\bstr\b|Layer|Literal|Class|Baseline|BoxScore|Reduction|Quadrature|Spread|Fuse",
    ),
    (bool, "True or False", r"\bbool\b"),
    (int, "a whole number", r"\bint\b|\bfloat\b|Layer|Class|Baseline"),
    (float, "a number", r"\bfloat\b|Baseline"),
    (list, "a list", r"\blist\b|Layer|[sS]equence|tuple|Baseline"),
    (tuple, "a tuple", r"\btuple\b|Layer|[sS]equence|Baseline"),
    (type(None), "None", r"\bNone\b|Optional|Layer"),
)
"""Kinds of values, what they are called, and the words in annotations that allow them; the first that fits counts."""


_PLAIN = (str, int, float, list, tuple, type(None))


def kind_of(value: Any) -> str:
    """What a value is called in messages."""
    return next((told for kind, told, _ in _KINDS if isinstance(value, kind)), f"a {type(value).__name__}")


def takes(annotation: Any, value: Any, plain: bool = True) -> bool:
    """False where an annotation says that an argument takes no value of this kind; True where it says nothing.

    Args:
        annotation: as text or as a type.
        value: what is given.
        plain: False leaves numbers, texts, lists and None to whoever takes them.
    """
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    if annotation is inspect.Parameter.empty or re.search(r"\bAny\b", text):
        return True
    if isinstance(value, list | tuple) and not all(takes(annotation, each, plain=False) for each in value):
        return False
    words = next((words for kind, _, words in _KINDS if isinstance(value, kind)), None)
    left_out = not plain and isinstance(value, _PLAIN)
    return words is None or left_out or re.search(words, text) is not None
