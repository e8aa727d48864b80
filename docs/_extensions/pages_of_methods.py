"""Pages made of docstrings and signatures when the documentation is built, so that they cannot go stale.

``cnnviz-methods:: attributions`` lists a registry, ``cnnviz-api::`` the public names. Nothing is listed by hand.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util.nodes import nested_parse_with_titles

import cnnviz
from cnnviz.cli.method_options import annotation
from cnnviz.registry.registry import Method
from cnnviz.registry.setting_meanings import meaning_of

FOR_PLUGINS = ("cnnviz.testing",)
KINDS = ("attribution", "metric", "renderer", "synthesis", "backend")
"""Of methods that plugins offer, each with a check."""
PACKAGES = (
    *("cnnviz.objectives", "cnnviz.formulas", "cnnviz.drawing", "cnnviz.feature_visualization", "cnnviz.images"),
    *("cnnviz.explanations", "cnnviz.tasks", "cnnviz.datasets", "cnnviz.models"),
)
"""Whose public names are documented after those of ``cnnviz`` itself."""
SHAPE = re.compile(r"(?<![\w`])\((?:[^()`]*\*spatial|(?:K\*)?N,[^()`]*)\)")  # whose stars are no emphasis


class _Written(Directive):
    """A directive that is the reStructuredText it writes."""

    def run(self) -> list[nodes.Node]:
        source = StringList(list(self.lines()), source="the docstrings of cnnviz")
        node = nodes.section(document=self.state.document)
        nested_parse_with_titles(self.state, source, node)
        return node.children

    def lines(self) -> Iterator[str]:
        raise NotImplementedError


class Methods(_Written):
    """Every method of a registry: its name, its docstring, its settings with their defaults."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        registry = getattr(cnnviz, self.arguments[0])
        for name in registry:
            if registry.origin(name).partition(" ")[0] != "cnnviz":
                continue  # what else is installed where the pages are built is not cnnviz's to document
            yield from _page(name, registry[name])


class Api(_Written):
    """Every public name, by the group or the room that lists it, and what plugin authors test with."""

    def lines(self) -> Iterator[str]:
        for group, names in _groups(Path(cnnviz.__file__).with_suffix(".pyi")).items():
            if not names:
                continue  # packages, which have sections of their own
            yield from _heading(group[0].upper() + group[1:], "-")
            for name in names:
                yield from _documented("cnnviz", name)
        for package in PACKAGES:
            module = import_module(package)
            yield from (*_heading(package, "-"), f".. automodule:: {package}", "")
            for name in sorted(_public(module), key=str.lower):
                yield from _documented(package, name)
        for package in FOR_PLUGINS:
            yield from (*_heading(package, "-"), f".. automodule:: {package}", "")
            for name in ("checks", *(f"check_{kind}" for kind in KINDS)):
                yield from (f".. autofunction:: {package}.{name}", "")


def _groups(stub: Path) -> dict[str, list[str]]:
    """The names that a stub lists below each of its comments."""
    groups: dict[str, list[str]] = {}
    for line in stub.read_text().splitlines():
        if line.startswith("# "):
            names = groups.setdefault(line.removeprefix("# "), [])
        elif " import " in line and not line.startswith("from . "):
            names.append(line.rpartition(" as ")[2])
    return groups


def _public(module: ModuleType) -> list[str]:
    listed: list[str] | None = getattr(module, "__all__", None)
    return [name for name in vars(module) if not name.startswith("_")] if listed is None else listed


def _page(name: str, method: Method[Any]) -> Iterator[str]:
    yield from _heading(name, "-")
    yield from _literal((inspect.getdoc(method.build) or "").splitlines())
    yield ""
    if not method.settings:
        yield from ("It has no settings.", "")
        return
    yield from (".. list-table::", "   :header-rows: 1", "")
    rows = [("setting", "type", "default", "what it is")]
    rows += [
        (name, annotation(method, name), _default(setting), meaning_of(method, name))
        for name, setting in method.settings.items()
    ]
    for number, row in enumerate(rows):
        for place, cell in enumerate(row):
            written = f"``{cell}``" if number and cell and place < 3 else cell
            yield f"   {'*' if place == 0 else ' '} - {written}"
    yield ""


def _literal(lines: Iterable[str]) -> list[str]:
    """The docstring with its shapes, such as (N, C, *spatial), as code."""
    return [SHAPE.sub(lambda shape: f"``{shape[0]}``", line) for line in lines]


def _default(setting: inspect.Parameter) -> str:
    return "" if setting.default is inspect.Parameter.empty else repr(setting.default)


def _heading(text: str, line: str) -> Iterable[str]:
    return (text, line * len(text), "")


def _kind(found: Any) -> str:
    if isinstance(found, type) and not typing.get_origin(found):
        return "classes"
    return "functions" if isinstance(found, FunctionType) else "values"


def _documented(package: str, name: str) -> Iterator[str]:
    value = getattr(import_module(package), name)
    kind = _kind(value)
    if kind == "values":
        if typing.get_origin(value) is None:
            yield from (f".. autodata:: {package}.{name}", "   :no-value:", "")
        else:  # the docstring would be that of NumPy's arrays
            yield from (f".. py:data:: {package}.{name}", "")
    elif kind == "classes":
        # what a part of a formula has beside its settings is the core's business
        members = [] if cnnviz.Expr in value.__bases__ else ["   :members:"]
        excluded = "   :exclude-members: compute, plan, parts, automatic"
        yield from (f".. autoclass:: {package}.{name}", *members, excluded, "")
    else:
        yield from (f".. autofunction:: {package}.{name}", "")


def _process(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Sections such as Args become fields; in attributes napoleon would take what is before a colon for a type."""
    if what in ("function", "method", "class"):
        lines[:] = GoogleDocstring(lines, Config(napoleon_use_rtype=False), what=what).lines()
    lines[:] = _literal(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _process)
    app.add_directive("cnnviz-methods", Methods)
    app.add_directive("cnnviz-api", Api)
    return {"parallel_read_safe": True}
