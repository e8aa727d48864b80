"""Registries and methods in notebooks. Listing a registry loads no method: what it is stands in its source."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cnnviz.pages.notebook.page import Page, Rows
from cnnviz.registry.origins import origin_of
from cnnviz.registry.registry import Method, Registry, registries
from cnnviz.registry.setting_meanings import meaning_of


def of_registry(answer: Registry[Any]) -> Page:
    """A row for each method: its name, what it is and who offers it."""
    offered = _offered(answer)
    rows = [(name, _summary(answer, name, offered), answer.origin(name)) for name in answer]
    told = [f'{answer.group}["{next(iter(answer), "name")}"] shows the settings of one.'] if rows else []
    title = f"{len(rows)} {answer.group.rpartition('.')[2]}"
    parts = [Rows((answer.kind, "what it is", "from"), rows, (True, True, True), len(rows), code=True)]
    return Page(title, told, parts if rows else [], code=False)


def of_method(answer: Method[Any]) -> Page:
    """What its documentation says, and its settings."""
    text = inspect.getdoc(answer.build) or "It has no documentation."
    told = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    kind = next((each.kind for each in registries if answer.name in each and _is(each, answer)), "method")
    rows = [(name, _default(setting), meaning_of(answer, name)) for name, setting in answer.settings.items()]
    if not rows:
        return Page(f"{answer.name}()", [*told, f"This {kind} has no settings."])
    table = Rows(("setting", "default", "what it is"), rows, (True, True, True), len(rows), code=True)
    return Page(f"{answer.name}(…)", told, [table])


def _is(registry: Registry[Any], method: Method[Any]) -> bool:
    try:
        return registry[method.name] is method
    except Exception:  # one of that name in another registry may not load
        return False


def _default(setting: inspect.Parameter) -> str:
    return "none: it must be given" if setting.default is inspect.Parameter.empty else repr(setting.default)


def _summary(registry: Registry[Any], name: str, offered: Mapping[tuple[str, str], EntryPoint]) -> str:
    """What the method is: of one that is loaded as it says, else as its source says."""
    entry = offered.get((name.rpartition(":")[2], registry.origin(name)))
    if entry is not None and entry.module not in sys.modules:
        return summary_in_source(entry.module, entry.attr)
    try:
        summary: str = registry[name].summary
    except Exception as error:
        return f"does not load: {' '.join(str(error).split())}"
    return summary


def _offered(registry: Registry[Any]) -> dict[tuple[str, str], EntryPoint]:
    """The entry points of installed packages, by name and origin; what this process registered has none."""
    return {(each.name, origin_of(each)): each for each in entry_points(group=registry.group)}


@lru_cache(maxsize=1024)
def summary_in_source(module: str, attribute: str) -> str:
    """The first paragraph of a function's documentation, read without importing anything of it; else nothing."""
    file = _file(module)
    try:
        tree = ast.parse(file.read_text("utf-8")) if file is not None else ast.Module([], [])
    except (OSError, SyntaxError, ValueError):
        return ""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == attribute:
            return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    return ""


def _file(module: str) -> Path | None:
    """The source of a module; none of the packages that it is in is imported."""
    first, *others = module.split(".")
    try:
        spec = find_spec(first)
    except (ImportError, ValueError):
        return None
    for place in range(len(others)):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join([first, *others[: place + 1]]), list(spec.submodule_search_locations))
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None
