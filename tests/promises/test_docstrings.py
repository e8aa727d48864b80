"""Docstrings of public names say what a caller must know: shapes of tensors, and that errors are raised."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cnnviz
from cnnviz import attributions, metrics, syntheses

PACKAGE = Path(cnnviz.__file__).parent
FACES = (
    *(
        "cnnviz",
        "cnnviz.objectives",
        "cnnviz.targets",
        "cnnviz.formulas",
        "cnnviz.drawing",
        "cnnviz.feature_visualization",
    ),
    *("cnnviz.images", "cnnviz.explanations", "cnnviz.tasks", "cnnviz.models"),
)
SIZE = r"(?:\d*[NCKHWFLDMSR]|count|rank|\*\w+|K\*N|stop - start)"
SHAPE = re.compile(rf"\((?:[^()`]*[,*])?\s*{SIZE}\b[^()`]*(?:\([^()]*\))?[^()`]*\)")
INHERITED = {"__init__", "__call__", "compute", "plan", "parts", "automatic", "text", "recipe"}
"""Documented by the class, or by what a formula is."""


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    for face in FACES:
        module = importlib.import_module(face)
        names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
        for name in names:
            value = getattr(module, name)
            if inspect.isfunction(value):
                yield f"{face}.{name}", value
            elif inspect.isclass(value) and value.__module__.startswith("cnnviz"):
                for own, member in vars(value).items():
                    member = getattr(member, "fget", None) or getattr(member, "func", None) or member
                    if inspect.isfunction(member) and not own.startswith("_") and own not in INHERITED:
                        yield f"{face}.{name}.{own}", member


def takes_or_returns_tensors(function: Callable[..., Any]) -> bool:
    return any("Tensor" in str(annotation) for annotation in inspect.get_annotations(function).values())


CALLABLES = dict(public_callables())


@pytest.mark.parametrize("name", CALLABLES)
def test_every_public_callable_is_documented(name: str) -> None:
    assert CALLABLES[name].__doc__, f"{name} has no docstring"


@pytest.mark.parametrize("name", [name for name, value in CALLABLES.items() if takes_or_returns_tensors(value)])
def test_tensors_come_with_their_shapes(name: str) -> None:
    text = CALLABLES[name].__doc__ or ""
    assert SHAPE.search(text) or "any shape" in text or "same shape" in text, f"{name}: {text}"


METHODS = {f"{r.group}.{name}": r[name] for r in (attributions, metrics, syntheses) for name in r}


@pytest.mark.parametrize("name", METHODS)
def test_methods_say_shape_and_source(name: str) -> None:
    text = inspect.getdoc(METHODS[name].build) or ""
    assert SHAPE.search(text), f"{name}: no shape in {text!r}"
    assert re.search(r"\b(19|20)\d\d\b", text) or "neural_viz" in text, f"{name}: no source in {text!r}"


REFUSING = [name for name, method in METHODS.items() if "raise " in inspect.getsource(method.build)]


@pytest.mark.parametrize("name", REFUSING)
def test_methods_that_refuse_settings_say_so(name: str) -> None:
    assert "Raises" in (inspect.getdoc(METHODS[name].build) or ""), name
