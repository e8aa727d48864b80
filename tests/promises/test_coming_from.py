"""Pages for users of other libraries: our calls run, and the names and arguments of the peers are those installed."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    "zennit": ("zennit.composites", "zennit.attribution", "zennit.torchvision", "zennit.rules"),
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


class Functional(nn.Module):
    """Rectifiers that are functions, or with ``module`` one module that is called twice."""

    def __init__(self, module: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        self.relu = nn.ReLU() if module else None

    def forward(self, x: Tensor) -> Tensor:
        rectified: Callable[[Tensor], Tensor] = self.relu or F.relu
        features = rectified(self.second(rectified(self.first(x))))
        scores: Tensor = self.head(features.mean((2, 3)))
        return scores


def hooks(model: nn.Module) -> int:
    kept = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, name)) for module in model.modules() for name in kept)


def readme_says(question: str) -> dict[str, str]:
    """A row of the README's table of answers."""
    row = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| {question}"))
    return dict(zip(("cnnviz", "captum", "grad-cam", "torchcam"), row.strip("|").split("|")[1:], strict=True))


def grad_cam_of(library: str, model: nn.Module, x: Tensor) -> Any:
    """What a library gives for a Grad-CAM, and has to be kept alive."""
    if library == "cnnviz":
        return cnnviz.explain(model, x, "grad_cam", target=1, layer="second")
    if library == "captum":
        attr = pytest.importorskip("captum.attr", reason="captum is not installed")
        return attr.LayerGradCam(model, model.second).attribute(x, target=1)
    if library == "grad-cam":
        pgc = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        made = pgc.GradCAM(model, [model.second])
        return made, made(x, [ClassifierOutputTarget(1)] * len(x))
    methods = pytest.importorskip("torchcam.methods", reason="torchcam is not installed")
    extractor = methods.GradCAM(model, "second")
    return extractor, extractor(1, model(x))


@pytest.mark.parametrize("library", ["cnnviz", "captum", "grad-cam", "torchcam"])
def test_hooks_and_training_mode_are_as_the_readme_says(library: str) -> None:
    x = torch.randn(2, 3, 12, 12)
    model = Functional().eval()
    kept = grad_cam_of(library, model, x)
    assert readme_says("Are hooks left")[library].strip() == ("yes" if hooks(model) else "no")
    del kept
    model = Functional().train()
    said = readme_says("What happens to a model in training mode?")[library].strip()
    if library == "cnnviz":
        with pytest.raises(ValueError, match="training mode"):
            grad_cam_of(library, model, x)
        assert said == "refused"
    else:
        assert grad_cam_of(library, model, x) is not None
        assert said == ("explained" if model.training else "switched to eval mode")


@pytest.mark.filterwarnings("ignore:Setting:UserWarning")
def test_rules_are_as_the_readme_says() -> None:
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    pgc = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    x, model = torch.randn(1, 3, 12, 12), Functional().eval()
    slope = cnnviz.explain(model, x, "gradient", target=1).values
    assert not torch.allclose(cnnviz.explain(model, x, "guided_backprop", target=1).values, slope)
    torch.testing.assert_close(attr.GuidedBackprop(model).attribute(x.clone().requires_grad_(), target=1), slope)
    theirs = torch.from_numpy(pgc.GuidedBackpropReLUModel(model, "cpu")(x.clone(), 1)).permute(2, 0, 1)[None]
    torch.testing.assert_close(theirs, slope)
    said = readme_says("Does guided backprop see")
    assert [said[name].strip() for name in ("cnnviz", "captum", "grad-cam")] == ["yes", *["no, gives the gradient"] * 2]

    twice = Functional(module=True).eval()
    found = cnnviz.explain(twice, x, "deeplift", target=1)
    score, blank = twice(x)[0, 1], twice(torch.zeros_like(x))[0, 1]
    torch.testing.assert_close(found.values.sum(), (score - blank).detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError, match="A Module ReLU"):
        attr.DeepLift(twice).attribute(x.clone().requires_grad_(), target=1)
    said = readme_says("Does DeepLIFT take")
    assert [said[name].strip() for name in ("cnnviz", "captum")] == ["yes", "no, fails"]


@pytest.mark.parametrize("name", ["GuidedBackprop", "DeepLift"])
def test_torchcam_has_none_of_them(name: str) -> None:
    methods = pytest.importorskip("torchcam.methods", reason="torchcam is not installed")
    assert not hasattr(methods, name)
