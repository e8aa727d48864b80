"""Pages made of docstrings and signatures when the documentation is built, so that they cannot go stale.

``cnnviz-methods:: attributions`` lists a registry, ``cnnviz-api::`` the public names. Nothing is listed by hand.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util.nodes import nested_parse_with_titles

import cnnviz
from cnnviz import drawing
from cnnviz.cli.method_options import annotation
from cnnviz.registry.registry import Method

FOR_PLUGINS = ("cnnviz.testing",)
SHAPE = re.compile(r"(?<![\w`])\((?:[^()`]*\*spatial|(?:K\*)?N,[^()`]*)\)")  # whose stars are no emphasis
HEADINGS = {"functions": "Functions", "classes": "Classes", "values": "Values and types"}


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
    """Every name in ``cnnviz.__all__``, by kind, and what plugin authors test with."""

    def lines(self) -> Iterator[str]:
        kinds: dict[str, list[str]] = {kind: [] for kind in HEADINGS}
        for name in sorted(cnnviz.__all__, key=str.lower):
            kinds[_kind(getattr(cnnviz, name))].append(name)
        for kind, names in kinds.items():
            yield from _heading(HEADINGS[kind], "-")
            for name in names:
                yield from _documented(kind, name)
        yield from _heading(drawing.__name__, "-")
        yield from (f".. automodule:: {drawing.__name__}", "")
        for name in sorted(drawing.__all__, key=str.lower):
            kind = _kind(getattr(drawing, name))
            directive = {"functions": "autofunction", "classes": "autoclass", "values": "py:data"}[kind]
            members = ["   :members:"] if kind == "classes" else []
            yield from (f".. {directive}:: {drawing.__name__}.{name}", *members, "")
        for module in FOR_PLUGINS:
            yield from _heading(module, "-")
            yield from (f".. automodule:: {module}", "")
            for name in ("check_attribution", "check_metric", "check_renderer", "check_synthesis"):
                yield from (f".. autofunction:: {module}.{name}", "")


def _page(name: str, method: Method[Any]) -> Iterator[str]:
    yield from _heading(name, "-")
    yield from _literal((inspect.getdoc(method.build) or "").splitlines())
    yield ""
    if not method.settings:
        yield from ("It has no settings.", "")
        return
    yield from (".. list-table::", "   :header-rows: 1", "")
    rows = [("setting", "type", "default")]
    rows += [(name, annotation(method, name), _default(setting)) for name, setting in method.settings.items()]
    for number, row in enumerate(rows):
        for place, cell in enumerate(row):
            written = f"``{cell}``" if number and cell else cell
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


def _documented(kind: str, name: str) -> Iterator[str]:
    if kind == "values":
        yield from (f".. autodata:: cnnviz.{name}", "   :no-value:", "")
    elif kind == "classes":
        # what a part of a formula has beside its settings is the core's business
        members = [] if cnnviz.Expr in getattr(cnnviz, name).__bases__ else ["   :members:"]
        yield from (
            f".. autoclass:: cnnviz.{name}",
            *members,
            "   :exclude-members: compute, plan, parts, automatic",
            "",
        )
    else:
        yield from (f".. autofunction:: cnnviz.{name}", "")


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
