"""How each peer is asked for the map that one of our methods gives, and where the two maps must agree.

Every peer is asked as its own documentation does, from the model to the map. Its map is as it is before it clips,
resizes and normalizes it, which it does all the same. lucent is not measured: it can't be installed beside torch of
today, whose older versions it pins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.networks import CLASSIFIERS, Network

LIBRARIES = {"captum": "captum", "grad-cam": "pytorch_grad_cam", "torchcam": "torchcam", "zennit": "zennit"}
"""What is installed, and what is imported."""
STEPS, SAMPLES, WINDOW, STRIDE, CELLS = 50, 25, 32, 16, 7
SIGMA = 0.15


@dataclass(frozen=True)
class Question:
    """A network, inputs and targets that ours and the peer's method explain."""

    network: Network
    inputs: Tensor
    target: Tensor
    """(N,) class indices."""
    batch: int | None = None
    """How many inputs the peer may evaluate at once, where all of them do not fit into memory."""

    @property
    def cells(self) -> Tensor:
        """The input cut into 7 x 7 squares, numbered, (1, 1, H, W)."""
        rows, columns = (torch.arange(size) * CELLS // size for size in self.inputs.shape[2:])
        return (rows[:, None] * CELLS + columns)[None, None].to(self.inputs.device)


Ask = Callable[[Question], Tensor]
Passes = Callable[[Question], float]
Differs = Callable[[Question], str]


@dataclass(frozen=True)
class Peer:
    """One library's way to one of our maps."""

    library: str
    ask: Ask
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of our method, so that it is the peer's variant; a function of the question where that decides."""
    alike: Callable[[Tensor], Tensor] = lambda ours: ours
    """Our map as the peer gives it."""
    differs: Differs = lambda question: ""
    """Why the maps are not compared, if they are not."""
    passes: Passes = lambda question: 3
    """About how many forward passes of the batch it takes, to know beforehand what would take too long."""
    signless: bool = False
    """Whether the maps agree but for a sign, which the mathematics leaves open."""
    most: int | None = None
    """The largest batch that the peer answers."""
    copies: int = 1
    """How many inputs it makes of each and evaluates at once, unless it is told otherwise."""
    in_parts: bool = True
    """Whether it can be told otherwise."""


def resolved(settings: Mapping[str, Any], question: Question) -> dict[str, Any]:
    """The settings with those that are functions of the question computed."""
    return {name: value(question) if callable(value) else value for name, value in settings.items()}


def captum(name: str, *, layer: bool = False, noise: bool = False, **settings: Any) -> Ask:
    """Its attribution, of a layer or averaged over noise where it is told to."""

    def ask(question: Question) -> Tensor:
        from captum import attr

        method = getattr(attr, name)(question.network.module, *([question.network.target] if layer else []))
        method = attr.NoiseTunnel(method) if noise else method
        inputs = question.inputs.clone().requires_grad_()
        maps: Tensor = method.attribute(inputs, target=question.target, **resolved(settings, question))
        return maps.detach()

    return ask


def deviation(question: Question) -> float:
    """Captum's noise has one deviation for all inputs; ours is a share of the range of each one."""
    return SIGMA * float(question.inputs.max() - question.inputs.min())


def black(question: Question) -> Tensor:
    return torch.zeros_like(question.inputs[:1])


def samples_at_once(question: Question) -> int | None:
    return None if question.batch is None else max(1, question.batch // len(question.inputs))


def grad_cam(name: str) -> Ask:
    def ask(question: Question) -> Tensor:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        maps: list[Any] = []
        with getattr(pytorch_grad_cam, name)(question.network.module, [question.network.target]) as cam:
            whole = cam.get_cam_image

            def keep(*args: Any, **kwargs: Any) -> Any:
                maps.append(whole(*args, **kwargs))
                return maps[-1]

            cam.get_cam_image = keep
            targets = [ClassifierOutputTarget(label) for label in question.target.tolist()]
            picture = cam(question.inputs.clone(), targets)
        return torch.from_numpy(np.asarray((maps or [picture])[0]))[:, None]

    return ask


def grad_cams_guided_backprop(question: Question) -> Tensor:
    from pytorch_grad_cam import GuidedBackpropReLUModel

    made = GuidedBackpropReLUModel(question.network.module)
    picture = made(question.inputs.clone(), target_category=int(question.target[0]))
    return torch.from_numpy(picture.transpose(2, 0, 1).copy())[None]


def torchcam(name: str, *settings: Any) -> Ask:
    def ask(question: Question) -> Tensor:
        from torchcam import methods

        model, target = question.network.module, question.target.tolist()
        if name == "ScoreCAM":
            arguments: list[Any] = [32, tuple(question.inputs.shape[1:])]
        else:
            arguments = [CLASSIFIERS[question.network.name]] if name == "CAM" else list(settings)
        with getattr(methods, name)(model, question.network.layer, *arguments) as extractor:
            scores = model(question.inputs.clone().requires_grad_())
            maps: Tensor = extractor(target, scores, normalized=False)[0]
        return maps.detach()[:, None]

    return ask


def zennit(attributor: str, composite: str | None = None, **settings: Any) -> Ask:
    def ask(question: Question) -> Tensor:
        from zennit import attribution, composites

        model = question.network.module
        rules = None if composite is None else getattr(composites, composite)()
        one_hot = torch.eye(1000, device=question.inputs.device)[question.target]
        with getattr(attribution, attributor)(model, composite=rules, **settings) as explainer:
            maps: Tensor = explainer(question.inputs.clone().requires_grad_(), one_hot)[1]
        return maps.detach()

    return ask


def zennits_relevance(composite: str, at_layer: bool = False, **settings: Any) -> Ask:
    """Relevance that starts with one at the target: of the input, or of the layer, added up over its channels."""

    def ask(question: Question) -> Tensor:
        from zennit import composites
        from zennit.torchvision import ResNetCanonizer

        net, target = question.network, question.target
        blocks = [ResNetCanonizer()] if net.name.startswith("resnet") else []
        maps: list[Tensor] = []
        with getattr(composites, composite)(canonizers=blocks, **settings).context(net.module) as changed:
            maps.append(question.inputs.clone().requires_grad_())
            keep = net.target.register_forward_hook(lambda module, args, output: maps.append(output))
            scores = changed(maps[0])
            keep.remove()
            one_hot = torch.eye(scores.shape[1], device=scores.device)[target]
            (relevance,) = torch.autograd.grad(scores, maps[at_layer], one_hot)
        return relevance.sum(1, keepdim=True) if at_layer else relevance

    return ask


def never(why: str) -> Differs:
    return lambda question: why


def on(names: tuple[str, ...], why: str) -> Differs:
    return lambda question: why if question.network.name in names else ""


def windows(question: Question) -> float:
    return math.prod(math.ceil((size - WINDOW) / STRIDE) + 1 for size in question.inputs.shape[2:])


def channels(question: Question) -> float:
    return question.network.channels


RELU6 = on(("mobilenet_v2",), "the peer lets gradients through ReLU6 unchanged")
SUMS = on(("mobilenet_v2",), "the peer has no canonizer for the network's sums, and doubles relevance at each")
DRAWN = never("each draws its own noise")
NOISE = {"samples": SAMPLES, "sigma": SIGMA}
NOISY: Passes = lambda question: 2.5 * SAMPLES  # noqa: E731
PATH: Passes = lambda question: 2.5 * STEPS  # noqa: E731
OCCLUSION = {"window": WINDOW, "stride": STRIDE}


def every_channel(ours: Tensor) -> Tensor:
    """Our map, where the peer says the same of each channel."""
    return ours.expand(-1, 3, *ours.shape[2:])


def noise_tunnel(kind: str) -> Peer:
    """Captum's gradient averaged over noise."""
    ask = captum(
        "Saliency",
        noise=True,
        abs=False,
        nt_type=kind,
        nt_samples=SAMPLES,
        nt_samples_batch_size=samples_at_once,
        stdevs=deviation,
    )
    return Peer("captum", ask, NOISE, differs=DRAWN, passes=NOISY, copies=SAMPLES)


METHODS: dict[str, tuple[Peer, ...]] = {
    "grad_cam": (
        Peer("captum", captum("LayerGradCam", layer=True)),
        Peer("grad-cam", grad_cam("GradCAM")),
        Peer("torchcam", torchcam("GradCAM"), alike=torch.relu),
    ),
    "grad_cam_plus_plus": (
        Peer("grad-cam", grad_cam("GradCAMPlusPlus")),
        Peer("torchcam", torchcam("GradCAMpp"), differs=never("its weights stay undivided, a gradient's cube")),
    ),
    "xgrad_cam": (
        Peer("grad-cam", grad_cam("XGradCAM")),
        Peer("torchcam", torchcam("XGradCAM"), {"epsilon": 1e-8}, alike=torch.relu),
    ),
    "hires_cam": (
        Peer("captum", lambda q: captum("LayerGradientXActivation", layer=True)(q).sum(1, keepdim=True)),
        Peer("grad-cam", grad_cam("HiResCAM")),
    ),
    "layer_cam": (
        Peer("grad-cam", grad_cam("LayerCAM")),
        Peer("torchcam", torchcam("LayerCAM"), alike=torch.relu),
    ),
    "cam": (Peer("torchcam", torchcam("CAM")),),
    "eigen_cam": (Peer("grad-cam", grad_cam("EigenCAM"), {"centred": True}, signless=True),),
    "eigen_grad_cam": (Peer("grad-cam", grad_cam("EigenGradCAM"), {"centred": True}, signless=True),),
    "fullgrad": (
        Peer("grad-cam", grad_cam("FullGrad"), differs=never("it scales every channel by itself, the paper does not")),
    ),
    "gradient": (
        Peer("captum", captum("Saliency", abs=False)),
        Peer("zennit", zennit("Gradient")),
    ),
    "input_x_gradient": (Peer("captum", captum("InputXGradient")),),
    "guided_backprop": (
        Peer("captum", captum("GuidedBackprop"), differs=RELU6),
        Peer("grad-cam", grad_cams_guided_backprop, differs=RELU6, most=1),
        Peer("zennit", zennit("Gradient", "GuidedBackprop"), differs=RELU6),
    ),
    "deconvnet": (
        Peer("captum", captum("Deconvolution"), differs=RELU6),
        Peer("zennit", zennit("Gradient", "DeconvNet"), differs=RELU6),
    ),
    "guided_grad_cam": (
        Peer("captum", captum("GuidedGradCam", layer=True), {"interpolation": "nearest"}, differs=RELU6),
    ),
    "deeplift": (
        Peer(
            "captum",
            captum("DeepLift"),
            differs=never("the peer reads stale gradients where two nonlinearities adjoin (its issue 1104)"),
            passes=lambda question: 6,
        ),
    ),
    "lrp": (Peer("zennit", zennits_relevance("EpsilonPlus"), {"start": "one_hot", "layer": None}, differs=SUMS),),
    "excitation_backprop": (
        Peer("zennit", zennits_relevance("ExcitationBackprop", at_layer=True, zero_params="bias"), differs=SUMS),
    ),
    "integrated_gradients": (
        Peer(
            "captum",
            captum("IntegratedGradients", n_steps=STEPS, internal_batch_size=lambda q: q.batch),
            {"steps": STEPS},
            passes=PATH,
            copies=STEPS,
        ),
        Peer(
            "zennit", zennit("IntegratedGradients", n_iter=STEPS), {"steps": STEPS, "quadrature": "right"}, passes=PATH
        ),
    ),
    "smoothgrad": (
        noise_tunnel("smoothgrad"),
        Peer("zennit", zennit("SmoothGrad", noise_level=SIGMA, n_iter=SAMPLES), NOISE, differs=DRAWN, passes=NOISY),
    ),
    "smoothgrad_squared": (noise_tunnel("smoothgrad_sq"),),
    "vargrad": (noise_tunnel("vargrad"),),
    "gradient_shap": (
        Peer(
            "captum",
            captum("GradientShap", n_samples=SAMPLES, stdevs=deviation, baselines=black),
            NOISE,
            differs=DRAWN,
            passes=NOISY,
            copies=SAMPLES,
            in_parts=False,
        ),
    ),
    "occlusion": (
        Peer(
            "captum",
            captum("Occlusion", sliding_window_shapes=(3, WINDOW, WINDOW), strides=(3, STRIDE, STRIDE)),
            OCCLUSION,
            alike=every_channel,
            passes=windows,
        ),
    ),
    "feature_ablation": (
        Peer(
            "captum",
            captum("FeatureAblation", feature_mask=lambda q: q.cells),
            {"segments": lambda question: question.cells},
            alike=every_channel,
            passes=lambda question: CELLS**2,
        ),
    ),
    "score_cam": (
        # each with its variant of the paper's
        Peer("grad-cam", grad_cam("ScoreCAM"), settings={"align_corners": True}, passes=channels),
        Peer("torchcam", torchcam("ScoreCAM"), settings={"norm_before": True}, alike=torch.relu, passes=channels),
    ),
    "ablation_cam": (Peer("grad-cam", grad_cam("AblationCAM"), passes=channels),),
}
