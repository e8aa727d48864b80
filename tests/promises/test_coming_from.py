"""Pages for users of other libraries: our calls run, and the names and arguments of the peers are those installed."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import cnnviz
from cnnviz.registry.peer_names import METHODS, squeezed
from cnnviz.registry.registry import registries

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "coming-from").glob("*.md"))
ROW = re.compile(r"^\| `([^`]+)` \| `([^`]+)` \|", re.M)
CODE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
PEERS = {
    "captum": ("captum.attr", "captum.metrics", "captum.attr._utils.visualization"),
    "pytorch-grad-cam": (
        *("pytorch_grad_cam", "pytorch_grad_cam.utils.model_targets", "pytorch_grad_cam.utils.image"),
        *("pytorch_grad_cam.metrics.road", "pytorch_grad_cam.metrics.cam_mult_image"),
        "pytorch_grad_cam.utils.reshape_transforms",
    ),
    "torchcam": ("torchcam.methods", "torchcam.metrics", "torchcam.utils"),
}
"""The modules that have the names of a page."""


def rows(page: Path) -> list[tuple[str, str]]:
    return [(peers, ours) for peers, ours in ROW.findall(page.read_text())]


def tables() -> list[Any]:
    return [pytest.param(page, id=page.stem) for page in PAGES if rows(page)]


@pytest.mark.parametrize("page", tables())
def test_our_calls_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in CODE.findall(page.read_text()):
        exec(compile(block, str(page), "exec"), names)
    names["x"] = names["x"][..., ::3, ::3]  # small, so that many passes are quick
    if "result" in names:
        names["result"] = cnnviz.explain(names["model"], names["x"], "grad_cam")
    assert len(rows(page)) > 8
    for _, ours in rows(page):
        answer = eval(compile(ours, f"{page.name}: {ours}", "eval"), names)
        assert answer is not None, ours


def calls(written: str) -> list[ast.Call]:
    """The calls in what a peer's user writes, the outer ones first."""
    return [node for node in ast.walk(ast.parse(written, mode="eval")) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("name", PEERS)
def test_names_and_arguments_of_the_peer_exist(name: str) -> None:
    pytest.importorskip(PEERS[name][0], reason=f"{name} is not installed")
    modules = [importlib.import_module(module) for module in PEERS[name]]
    looked_up = 0
    for written, _ in rows(ROOT / "docs" / "coming-from" / f"{name}.md"):
        for call in calls(written):
            made = owner(call, modules, written)
            if made is None:
                continue
            looked_up += 1
            accepted = inspect.signature(made).parameters
            if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in accepted.values()):
                continue  # it passes them on
            unknown = {keyword.arg for keyword in call.keywords} - set(accepted)
            assert not unknown, f"{written}: {made} takes no {unknown}"
    assert looked_up > 10


def owner(call: ast.Call, modules: list[Any], written: str) -> Any:
    """The peer's function or class that a call calls; None for a call of what another call gave."""
    match call.func:
        case ast.Name(id=name):
            return attribute(modules, name, written)
        case ast.Attribute(attr=method, value=ast.Call(func=ast.Name(id=name))):
            return getattr(attribute(modules, name, written), method)
    return None


def attribute(modules: list[Any], name: str, written: str) -> Any:
    holding = [module for module in modules if hasattr(module, name)]
    assert holding, f"{written}: there is no {name} in {[module.__name__ for module in modules]}"
    return getattr(holding[0], name)


def test_the_tables_and_the_hints_of_errors_agree() -> None:
    """A peer's name that an error's hint knows stands beside the same method of ours in the tables."""
    ours = {name for registry in registries for name in registry}
    checked = 0
    for page in PAGES:
        for written, call in rows(page):
            beginning = re.match(r"(?:quantus\.)?(\w+)\(", written)
            hint = METHODS.get(squeezed(beginning[1])) if beginning else None
            if hint is None or "NoiseTunnel" in written or "smooth_samples" in written:
                continue  # the same name for several methods: what it is given decides
            named = set(re.findall(r'"(\w+)"', call)) & ours
            assert hint[0] in named, f"{page.name}: {written} is {named}, and a hint says {hint[0]}"
            checked += 1
    assert checked > 15
