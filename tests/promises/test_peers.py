"""Agreement with captum, grad-cam and torchcam on real networks, and where a peer is wrong, with a third way.

Differences are of the peak: 1e-4 in float32, 1e-6 in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import untrained
from torch import Tensor, nn

from cnnviz import explain
from cnnviz.engine.speed import memory_format as layouts

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks and attributes:UserWarning"),
]


@dataclass(frozen=True)
class Case:
    name: str
    net: nn.Module
    inputs: Tensor
    layer: str
    target: tuple[int, int]

    def ours(self, method: str, *, layer: str | None = None, **settings: Any) -> Tensor:
        if method in CAMS:
            settings["layer"] = layer or self.layer
        return explain(self.net, self.inputs, method, target=self.target, **settings).values

    @property
    def module(self) -> nn.Module:
        return self.net.get_submodule(self.layer)


CAMS = {
    *("cam", "grad_cam", "grad_cam_plus_plus", "xgrad_cam", "hires_cam", "layer_cam"),
    *("eigen_cam", "eigen_grad_cam", "guided_grad_cam"),
}
LAYERS = {  # the last one that nothing after it writes over
    "squeezenet1_0": "features.12",
    "mobilenet_v2": "features.18",
    "resnet18": "layer4",
    "vgg11_bn": "features.27",
    "densenet121": "features.denseblock4",
    "googlenet": "inception5b",
    "efficientnet_b0": "features.8",
    "convnext_tiny": "features.7",
    "shufflenet_v2_x0_5": "conv5",
    "regnet_y_400mf": "trunk_output",
}
TRAINED = {"squeezenet1_0": "squeezenet", "mobilenet_v2": "mobilenet"}
DOUBLE = ("squeezenet1_0", "shufflenet_v2_x0_5", "regnet_y_400mf")
CASES = [f"{name}-float32" for name in LAYERS] + [f"{name}-float64" for name in DOUBLE]
RELU_MODULES = ("squeezenet1_0", "resnet18", "vgg11_bn", "shufflenet_v2_x0_5", "regnet_y_400mf")
AVERAGED = {"mobilenet_v2": "classifier.1", "resnet18": "fc", "googlenet": "fc", "shufflenet_v2_x0_5": "fc"}
AVERAGED |= {"regnet_y_400mf": "fc"}


@pytest.fixture(autouse=True)
def same_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peers' order in memory: in another one float32 rounds to the other side of a rectifier here and there.

    Either order is off from float64 by as much; that the order changes nothing else is tested with the fast settings.
    """
    monkeypatch.setattr(layouts, "SMALLEST", 2**62)


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    name, precision = request.param.split("-")
    if name in TRAINED:
        net, inputs = request.getfixturevalue(TRAINED[name]), request.getfixturevalue("photographs")[..., 16:96, 16:96]
    else:
        net, inputs = untrained(name), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    dtype = getattr(torch, precision)
    net = copy.deepcopy(net).to(dtype)
    return Case(name, net, inputs.to(dtype), LAYERS[name], (56, 243) if name in TRAINED else (3, 7))


def among(*names: str) -> pytest.MarkDecorator:
    """Ask only of these networks."""
    cases = [case for case in CASES if case.split("-")[0] in names]
    return pytest.mark.parametrize("case", cases, indirect=True, scope="module")


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest, relative to the peak."""
    assert ours.shape == theirs.shape
    peak = theirs.abs().max()
    assert peak > 1e-9, "the peer's map is empty"
    return float((ours - theirs).abs().max() / peak)


def allowed(case: Case, loosest: float = 0.0) -> float:
    return max(1e-4 if case.inputs.dtype == torch.float32 else 1e-6, loosest)


# captum: each gives ours and theirs


def captum(case: Case, name: str, *, layer: bool = False, **settings: Any) -> Tensor:
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    made = getattr(attr, name)(case.net, case.module) if layer else getattr(attr, name)(case.net)
    inputs = case.inputs.clone().requires_grad_()
    found: Tensor = made.attribute(inputs, target=torch.tensor(case.target), **settings)
    return found.detach()


QUADRATURES = {  # few steps: the rules are compared, not how well they integrate; captum rounds their places to float32
    "gausslegendre": ("gauss-legendre", 4),
    "riemann_left": ("left", 4),
    "riemann_right": ("right", 4),
    "riemann_middle": ("middle", 4),
    "riemann_trapezoid": ("captum-trapezoid", 5),
}
CAPTUM: dict[str, Callable[[Case], tuple[Tensor, Tensor]]] = {
    "Saliency": lambda c: (c.ours("gradient", absolute=True), captum(c, "Saliency")),
    "Saliency-signed": lambda c: (c.ours("gradient"), captum(c, "Saliency", abs=False)),
    "InputXGradient": lambda c: (c.ours("input_x_gradient"), captum(c, "InputXGradient")),
    "LayerGradCam": lambda c: (c.ours("grad_cam"), captum(c, "LayerGradCam", layer=True)),
    "LayerGradCam-relu": lambda c: (
        c.ours("grad_cam", relu=True),
        captum(c, "LayerGradCam", layer=True, relu_attributions=True),
    ),
    "LayerGradientXActivation": lambda c: (
        c.ours("hires_cam"),
        captum(c, "LayerGradientXActivation", layer=True).sum(1, keepdim=True),
    ),
}
CAPTUM_RULES: dict[str, Callable[[Case], tuple[Tensor, Tensor]]] = {
    "GuidedBackprop": lambda c: (c.ours("guided_backprop"), captum(c, "GuidedBackprop")),
    "Deconvolution": lambda c: (c.ours("deconvnet"), captum(c, "Deconvolution")),
    "GuidedGradCam": lambda c: (
        c.ours("guided_grad_cam", interpolation="nearest"),
        captum(c, "GuidedGradCam", layer=True),
    ),
}


@pytest.mark.parametrize("method", CAPTUM)
def test_captum(case: Case, method: str) -> None:
    assert difference(*CAPTUM[method](case)) <= allowed(case)


def integrated_gradients(case: Case, theirs: str) -> float:
    quadrature, steps = QUADRATURES[theirs]
    start = case.inputs.flip(0)  # not a constant picture, where every pool has ties that rounding decides
    # both one step at a time: rounding, which the batch decides, turns ReLUs of untrained networks on and off
    ours = case.ours("integrated_gradients", steps=steps, quadrature=quadrature, baseline=start, memory=1)
    settings = {"n_steps": steps, "method": theirs, "internal_batch_size": len(start)}
    return difference(ours, captum(case, "IntegratedGradients", baselines=start, **settings))


def test_captums_integrated_gradients(case: Case) -> None:
    assert integrated_gradients(case, "gausslegendre") <= allowed(case)


@among(*TRAINED, "shufflenet_v2_x0_5")
@pytest.mark.parametrize("theirs", list(QUADRATURES)[1:])
def test_captums_other_quadratures(case: Case, theirs: str) -> None:
    assert integrated_gradients(case, theirs) <= allowed(case)


@among(*RELU_MODULES)
@pytest.mark.parametrize("method", CAPTUM_RULES)
def test_captums_rules(case: Case, method: str) -> None:
    assert difference(*CAPTUM_RULES[method](case)) <= allowed(case)


class _Ruled(torch.autograd.Function):
    """An activation whose backward is written here, put in the place of PyTorch's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Callable[[Tensor], Tensor], guided: bool) -> Tensor:
        ctx.activation, ctx.guided = activation, guided
        ctx.save_for_backward(x)
        return activation(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        positive = torch.where(grad > 0, grad, 0)
        if not ctx.guided:
            return positive, None, None
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(ctx.activation(x).sum(), x)
        return positive * slope, None, None


def by_patching(case: Case, guided: bool, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The rule's map where every activation of PyTorch is one of ours."""
    relu, silu, gelu, sigmoid = torch.relu, F.silu, F.gelu, torch.sigmoid
    plain: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": relu,
        "relu6": lambda x: x.clamp(0, 6),
        "hardtanh": lambda x: x.clamp(0, 6),  # which is what nn.ReLU6 calls
        "silu": silu,
        "gelu": gelu,
    }
    with monkeypatch.context() as patched:
        for name, activation in plain.items():
            ruled = lambda x, *args, activation=activation, **kwargs: _Ruled.apply(x, activation, guided)  # noqa: E731
            patched.setattr(F, name, ruled)
        patched.setattr(torch, "sigmoid", lambda x: _Ruled.apply(x, sigmoid, guided))
        inputs = case.inputs.clone().requires_grad_()
        score = case.net(inputs)[[0, 1], list(case.target)].sum()
        (found,) = torch.autograd.grad(score, inputs)
    return found


@among(*(name for name in LAYERS if name != "regnet_y_400mf"))  # whose sigmoids are no rectifiers
@pytest.mark.parametrize("method", ["GuidedBackprop", "Deconvolution"])
def test_rules_by_another_way_which_captum_misses(case: Case, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functional ReLUs, ReLU6 and smooth activations captum leaves as they are, without a word."""
    ours, guided = ("guided_backprop", True) if method == "GuidedBackprop" else ("deconvnet", False)
    expected = by_patching(case, guided, monkeypatch)
    smooth = case.name in ("efficientnet_b0", "convnext_tiny")
    assert difference(case.ours(ours, smooth=smooth), expected) <= allowed(case)
    if case.name not in RELU_MODULES:
        assert difference(captum(case, method), expected) > 1e-2


# grad-cam: maps as they are before it clips, resizes and normalizes them


def grad_cam(case: Case, method: str, layer: str | None = None) -> Tensor:
    pgc = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    kept: list[np.ndarray[Any, Any]] = []
    with getattr(pgc, method)(case.net, [case.net.get_submodule(layer or case.layer)]) as cam:
        whole = cam.get_cam_image
        cam.get_cam_image = lambda *args, **kwargs: kept.append(whole(*args, **kwargs)) or kept[-1]
        cam(case.inputs.clone().requires_grad_(), [ClassifierOutputTarget(index) for index in case.target])
    case.net.zero_grad()
    return torch.from_numpy(kept[0])[:, None]


GRAD_CAM = {
    "GradCAM": "grad_cam",
    "GradCAMPlusPlus": "grad_cam_plus_plus",
    "XGradCAM": "xgrad_cam",
    "HiResCAM": "hires_cam",
    "LayerCAM": "layer_cam",
}


@pytest.mark.parametrize("method", GRAD_CAM)
def test_grad_cam(case: Case, method: str) -> None:
    assert difference(case.ours(GRAD_CAM[method]), grad_cam(case, method)) <= allowed(case)


@pytest.mark.parametrize(("method", "ours"), [("EigenCAM", "eigen_cam"), ("EigenGradCAM", "eigen_grad_cam")])
def test_grad_cams_components_but_for_their_sign(case: Case, method: str, ours: str) -> None:
    for mine, theirs in zip(case.ours(ours, centred=True), grad_cam(case, method), strict=True):
        together = torch.corrcoef(torch.stack([mine.flatten().double(), theirs.flatten().double()]))
        assert abs(float(together[0, 1])) > 1 - 1e-6
        sign = together[0, 1].sign().to(mine.dtype)
        assert difference(sign * mine, theirs.to(mine)) <= allowed(case, loosest=1e-4)  # it rounds to float32


@among(*TRAINED, "resnet18")  # clipping, resizing and normalizing are the same for every network
@pytest.mark.parametrize("method", GRAD_CAM)
def test_grad_cams_pictures(case: Case, method: str) -> None:
    pgc = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    from pytorch_grad_cam.utils.image import scale_cam_image
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with getattr(pgc, method)(case.net, [case.module]) as cam:
        theirs = cam(case.inputs.clone(), [ClassifierOutputTarget(index) for index in case.target])
    case.net.zero_grad()
    size = tuple(case.inputs.shape[:1:-1])
    ours = scale_cam_image(scale_cam_image(np.maximum(case.ours(GRAD_CAM[method])[:, 0].numpy(), 0), size))
    assert theirs.max() > 0.9
    assert np.abs(ours - theirs).max() <= 1e-4


OVERWRITTEN = {"densenet121": "features", "vgg11_bn": "features.26"}  # a ReLU in place follows


@among(*OVERWRITTEN)
@pytest.mark.parametrize("peer", ["grad-cam", "torchcam"])
def test_layers_that_peers_let_the_network_write_over(case: Case, peer: str) -> None:
    name = OVERWRITTEN[case.name]
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()

    handle = case.net.get_submodule(name).register_forward_hook(keep)
    score = case.net(case.inputs)[[0, 1], list(case.target)].sum()
    handle.remove()
    (grads,) = torch.autograd.grad(score, kept)
    by_hand = torch.einsum("nk,nkhw->nhw", grads.mean((2, 3)), kept[0].detach())[:, None]
    assert difference(case.ours("grad_cam", layer=name), by_hand) <= allowed(case)
    if peer == "grad-cam":
        assert difference(grad_cam(case, "GradCAM", name), by_hand) > 1e-2
    else:
        assert difference(torchcam(case, "GradCAM", layer=name), by_hand.relu()) > 1e-2


# torchcam: maps before it normalizes them


def torchcam(case: Case, method: str, *args: Any, layer: str | None = None, **settings: Any) -> Tensor:
    methods = pytest.importorskip("torchcam.methods", reason="torchcam is not installed")
    with getattr(methods, method)(case.net, layer or case.layer, *args) as extractor:
        scores = case.net(case.inputs.clone().requires_grad_())
        found: Tensor = extractor(list(case.target), scores, normalized=False, **settings)[0]
    return found.detach()[:, None]


TORCHCAM: dict[str, tuple[str, dict[str, float]]] = {
    "GradCAM": ("grad_cam", {}),
    "XGradCAM": ("xgrad_cam", {"epsilon": 1e-8}),
    "LayerCAM": ("layer_cam", {}),
}


@pytest.mark.parametrize("method", TORCHCAM)
def test_torchcam(case: Case, method: str) -> None:
    ours, settings = TORCHCAM[method]
    assert difference(case.ours(ours, **settings).relu(), torchcam(case, method)) <= allowed(case)


@among(*AVERAGED)
def test_torchcams_cam(case: Case) -> None:
    assert difference(case.ours("cam"), torchcam(case, "CAM", AVERAGED[case.name])) <= allowed(case)


def test_torchcam_leaves_grad_cam_plus_plus_undivided(case: Case) -> None:
    """Its division is of a copy, so that the weights stay a gradient's cube; ours is grad-cam's, above."""
    theirs = torchcam(case, "GradCAMpp")
    kept: list[Tensor] = []
    handle = case.module.register_forward_hook(lambda module, args, output: kept.append(output))
    score = case.net(case.inputs)[[0, 1], list(case.target)].sum()
    handle.remove()
    (grads,) = torch.autograd.grad(score, kept)
    cubes = (grads.relu() ** 3).sum((2, 3))
    undivided = torch.einsum("nk,nkhw->nhw", cubes, kept[0].detach())[:, None].relu()
    assert difference(undivided, theirs) <= allowed(case)
    assert difference(case.ours("grad_cam_plus_plus").relu(), theirs) > 1e-2
