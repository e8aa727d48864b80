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
    """Why does this network give these inputs these scores? Asked of everyone."""

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


def captum(name: str, *, layer: bool = False, **settings: Any) -> Ask:
    def ask(question: Question) -> Tensor:
        from captum import attr

        model = question.network.module
        made = getattr(attr, name)(model, question.network.target) if layer else getattr(attr, name)(model)
        inputs = question.inputs.clone().requires_grad_()
        found: Tensor = made.attribute(inputs, target=question.target, **settings)
        return found.detach()

    return ask


def captum_path(question: Question) -> Tensor:
    return captum("IntegratedGradients", n_steps=STEPS, internal_batch_size=question.batch)(question)


def captum_noise(kind: str) -> Ask:
    """Its noise is one deviation for all inputs; ours a share of each one's range."""

    def ask(question: Question) -> Tensor:
        from captum import attr

        deviation = SIGMA * float(question.inputs.max() - question.inputs.min())
        at_once = None if question.batch is None else max(1, question.batch // len(question.inputs))
        made = attr.NoiseTunnel(attr.Saliency(question.network.module))
        settings: dict[str, Any] = {"nt_samples": SAMPLES, "nt_samples_batch_size": at_once, "stdevs": deviation}
        inputs = question.inputs.clone().requires_grad_()
        found: Tensor = made.attribute(inputs, nt_type=kind, target=question.target, abs=False, **settings)
        return found.detach()

    return ask


def captum_shap(question: Question) -> Tensor:
    deviation = SIGMA * float(question.inputs.max() - question.inputs.min())
    zero = torch.zeros_like(question.inputs[:1])
    return captum("GradientShap", baselines=zero, n_samples=SAMPLES, stdevs=deviation)(question)


def captum_cells(question: Question) -> Tensor:
    return captum("FeatureAblation", feature_mask=question.cells)(question)


def grad_cam(name: str) -> Ask:
    def ask(question: Question) -> Tensor:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        kept: list[Any] = []
        with getattr(pytorch_grad_cam, name)(question.network.module, [question.network.target]) as cam:
            whole = cam.get_cam_image

            def keep(*args: Any, **kwargs: Any) -> Any:
                kept.append(whole(*args, **kwargs))
                return kept[-1]

            cam.get_cam_image = keep
            picture = cam(question.inputs.clone(), [ClassifierOutputTarget(each) for each in question.target.tolist()])
        return torch.from_numpy(np.asarray((kept or [picture])[0]))[:, None]

    return ask


def grad_cams_guided_backprop(question: Question) -> Tensor:
    from pytorch_grad_cam import GuidedBackpropReLUModel

    made = GuidedBackpropReLUModel(question.network.module)
    found = made(question.inputs.clone(), target_category=int(question.target[0]))
    return torch.from_numpy(found.transpose(2, 0, 1).copy())[None]


def torchcam(name: str, *settings: Any) -> Ask:
    def ask(question: Question) -> Tensor:
        from torchcam import methods

        model, target = question.network.module, question.target.tolist()
        if name == "ScoreCAM":
            given: list[Any] = [32, tuple(question.inputs.shape[1:])]
        else:
            given = [CLASSIFIERS[question.network.name]] if name == "CAM" else list(settings)
        with getattr(methods, name)(model, question.network.layer, *given) as extractor:
            scores = model(question.inputs.clone().requires_grad_())
            found: Tensor = extractor(target, scores, normalized=False)[0]
        return found.detach()[:, None]

    return ask


def zennit(attributor: str, composite: str | None = None, **settings: Any) -> Ask:
    def ask(question: Question) -> Tensor:
        from zennit import attribution, composites

        model = question.network.module
        used = None if composite is None else getattr(composites, composite)()
        wanted = torch.eye(1000, device=question.inputs.device)[question.target]
        with getattr(attribution, attributor)(model, composite=used, **settings) as made:
            found: Tensor = made(question.inputs.clone().requires_grad_(), wanted)[1]
        return found.detach()

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
DRAWN = never("each draws its own noise")
NOISE = {"samples": SAMPLES, "sigma": SIGMA}
NOISY: Passes = lambda question: 2.5 * SAMPLES  # noqa: E731
PATH: Passes = lambda question: 2.5 * STEPS  # noqa: E731
OCCLUSION = {"window": WINDOW, "stride": STRIDE}


def every_channel(ours: Tensor) -> Tensor:
    """Our map, where the peer says the same of each channel."""
    return ours.expand(-1, 3, *ours.shape[2:])


def noise_tunnel(kind: str) -> Peer:
    return Peer("captum", captum_noise(kind), NOISE, differs=DRAWN, passes=NOISY, copies=SAMPLES)


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
    "integrated_gradients": (
        Peer("captum", captum_path, {"steps": STEPS}, passes=PATH, copies=STEPS),
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
            captum_shap,
            {"samples": SAMPLES, "sigma": SIGMA},
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
            captum_cells,
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
