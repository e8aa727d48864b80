"""Pages made of docstrings and signatures when the documentation is built, so that they cannot go stale.

``cnnviz-methods:: attributions`` lists a registry, ``cnnviz-package:: cnnviz.images`` the public names of a package,
and ``cnnviz-api::`` names of cnnviz itself, which the page of the API groups; a test compares them with the stub.
"""

from __future__ import annotations

import inspect
import re
import sys
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

sys.path.insert(0, str(Path(__file__).parent))

import facts
from families import FAMILIES

SHAPE = re.compile(r"(?<![\w`])\((?:[^()`]*\*spatial|(?:K\*)?N,[^()`]*)\)")  # whose stars are no emphasis


class _Written(Directive):
    """A directive that is the reStructuredText it writes."""

    def run(self) -> list[nodes.Node]:
        for file in (*Path(__file__).parent.iterdir(), Path(__file__).parents[1] / "sanity.md"):
            self.state.document.settings.env.note_dependency(str(file))  # a change makes the page anew
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
        # what else is installed where the pages are built is not cnnviz's to document
        names = [name for name in registry if registry.origin(name).partition(" ")[0] == "cnnviz"]
        if registry is not cnnviz.attributions:
            for name in names:
                yield from _page(name, registry[name], facts.pictures(registry.kind, name))
            return
        if set(names) != {name for _, family in FAMILIES.values() for name in family}:
            raise ValueError("docs/_extensions/families.py does not list every attribution once")
        for title, (sentence, family) in FAMILIES.items():
            yield from (*_heading(title, "-"), sentence, "")
            for name in family:
                yield from _page(name, registry[name], facts.of_attribution(name), "~")
                # other pages link to the section by this label
                env = self.state.document.settings.env
                env.get_domain("std").anonlabels[f"method-{name}"] = (env.docname, name.replace("_", "-"))


class Api(_Written):
    """Public names of ``cnnviz``, which the page lists by what they are for."""

    has_content = True

    def lines(self) -> Iterator[str]:
        for name in " ".join(self.content).split():
            yield from _documented("cnnviz", name)


class Package(_Written):
    """Every public name of a package."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        package = self.arguments[0]
        yield from (f".. automodule:: {package}", "")
        for name in sorted(public_names(import_module(package)), key=str.lower):
            yield from _documented(package, name)


def public_names(module: ModuleType) -> list[str]:
    """Without what a module without a list of names has imported."""
    listed: list[str] | None = getattr(module, "__all__", None)
    if listed is not None:
        return listed
    return [
        name for name, value in vars(module).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    ]


def _page(name: str, method: Method[Any], more: Iterable[str] = (), line: str = "-") -> Iterator[str]:
    """A section: the docstring, what else is known of the method, its settings."""
    yield from _heading(name, line)
    summary, _, details = (inspect.getdoc(method.build) or "").partition("\n\n")
    yield from (*_literal(summary.splitlines()), "", *more)
    yield from (*_literal(details.splitlines()), "")
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
        if typing.get_origin(value) is None and type(value).__module__ != "builtins":
            yield from (f".. autodata:: {package}.{name}", "   :no-value:", "")
        else:  # the docstring would be that of dict, or of NumPy's arrays
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
    app.add_directive("cnnviz-package", Package)
    return {"parallel_read_safe": True}
