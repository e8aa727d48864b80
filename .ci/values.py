"""What every method gives, kept in a file and compared later: the proof that a change of code changes no value.

``python .ci/values.py record FILE.safetensors`` keeps values, recipes and refusals of every attribution, metric
and synthesis, on the bundled networks and a trained SqueezeNet, with many settings and kinds of questions.
``python .ci/values.py compare FILE.safetensors`` makes them again. It prints, and ends with status 1 for, texts
that are others and tensors that differ by more than the bar of their kind, relative to the largest value of each.

Weights and photographs are looked for at ``../shared/assets``, or where ``CNNVIZ_ASSETS`` points.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import cnnviz
from cnnviz import demo

ASSETS = Path(os.environ.get("CNNVIZ_ASSETS") or Path(__file__).parents[2] / "shared" / "assets")
SEED = 3
BAR = 1e-6
BARS = {"channels last": 1e-4, "bfloat16": float("inf"), "class_image": float("inf")}
"""Of float32, whose rounding shows; of what is reported only: half precision, and a blur that is to change."""
FLOOR = 1e-3
"""The least that notes and metrics are compared to: the gap of a complete method is nothing but rounding."""

FEW = {"samples": 16, "steps": 6, "masks": 32, "permutations": 2, "pieces": 12, "top": 4, "step": 0.2, "stops": 3}
PARTICULAR: dict[str, dict[str, Any]] = {
    "ablation_cam": {"channels": 16},
    "class_image": {"target": 3},
    "deep_dream": {"octaves": 2},
    "extremal_perturbation": {"lr": 8.0},  # with shorter steps the mask is still whole
    "feature_image": {"layer": "layer2", "channel": 5},
    "inversion": {"layer": "layer2"},
    "kernel_shap": {"samples": 48},  # which it needs to tell pieces apart
    "multiscale_ascent": {"layer": "layer2.0.conv2", "channel": 5, "scales": 3, "start": 24, "blur": 3},
    "score_cam": {"channels": 16},
}
OTHERS: dict[str, tuple[Any, ...]] = {
    "at": ("middle", "2,3"), "baseline": ("mean", "blur"), "baselines": ("black",), "canvas": ("pixels",),
    "channels": (7,), "factor": (1.6,), "interpolation": ("nearest",), "layer": ("layer2",),
    "of": ("guided_backprop", "layer_cam"), "per": ("section", "interval"), "perturb": ("square",),
    "quadrature": ("left", "right", "middle", "trapezoid", "captum-trapezoid"), "scale": ("score",),
    "score": ("logit", "probability"), "segments": ("equal", "quickshift"), "similarity": ("ssim", "hog"),
    "sign": ("positive", "magnitude", "signed"), "values": ("shares",), "window": (20,),
    "class_image.start": ("noise",), "inversion.of": (), "mask_iou.by": ("segmentation",),
    "projections.by": ("mean", "max"), "projections.channels": ("5,9",), "projections.start": ("unit",),
    "randomization.order": ("independent",), "road.order": ("most", "least"),
}  # fmt: skip
"""Values of settings that are no default, by the setting, some of one method only; of flags and numbers see below."""

Settings = Mapping[str, Any]
Answer = Mapping[str, Tensor | str]
Case = tuple[str, Callable[[], Answer]]


@dataclass(frozen=True)
class Subject:
    """A network with a batch of inputs."""

    model: cnnviz.LoadedModel | nn.Module
    inputs: Tensor


def bundled(name: str, dtype: torch.dtype = torch.float64) -> Subject:
    model = cnnviz.load_model(name)
    model.module.to(dtype)
    return Subject(model, demo.as_inputs(demo.pictures(name).pictures[:2]).to(dtype))


def squeezenets() -> dict[str, Subject]:
    """SqueezeNet as trained on ImageNet with two photographs, in float64 and float32; none where files are absent."""
    weights, photographs = ASSETS / "models" / "squeezenet1_0-imagenet.pth", ASSETS / "images" / "seed"
    if not (weights.is_file() and photographs.is_dir()):
        print(f"squeezenet1_0 is skipped: {weights} or {photographs} is not there; set CNNVIZ_ASSETS")
        return {}
    subjects = {}
    for name, size, dtype in (("squeezenet1_0", 112, torch.float64), ("float32", 224, torch.float32)):
        model = cnnviz.load_model("squeezenet1_0", weights=weights, size=size)
        model.module.to(dtype)
        pictures = [Image.open(photographs / f"{shown}.png").convert("RGB") for shown in ("snake", "cat_dog")]
        subjects[name] = Subject(model, torch.stack([*map(model.preprocessing, pictures)]).to(dtype))
    return subjects


def untrained(rank: int) -> Subject:
    """A small network for signals, images or volumes."""
    torch.manual_seed(rank)
    kinds = ("Conv", "BatchNorm", "MaxPool", "AdaptiveAvgPool")
    conv, norm, pool, mean = (getattr(nn, f"{kind}{rank}d") for kind in kinds)
    body = [conv(2, 6, 3, padding=1), norm(6), nn.ReLU(), pool(2), conv(6, 8, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*body, mean(1), nn.Flatten(), nn.Linear(8, 5)).double().eval()
    nn.init.uniform_(body[1].running_mean, -0.5, 0.5)
    return Subject(model, torch.randn(2, 2, *(24, 12, 10)[:rank], dtype=torch.float64))


def public(name: str) -> Any:
    """A part of formulas or an objective: from the top level, or from a module of such."""
    modules = [f"cnnviz.{module}" for module in ("objectives", "formulas") if find_spec(f"cnnviz.{module}")]
    homes = [cnnviz, *map(import_module, modules)]
    return getattr(next((home for home in homes if hasattr(home, name)), cnnviz), name)


def built(name: str, method: Any, settings: Settings | None = None) -> Any:
    """A method with settings that make it quick, or others."""
    few = {key: value for key, value in FEW.items() if key in inspect.signature(method).parameters}
    return method(**{**few, **PARTICULAR.get(name, {}), **(settings or {})})


def variations(name: str, method: Any) -> Iterator[dict[str, Any]]:
    """One setting at a time with another value than its default: a flag turned, half a number, another word."""
    for setting, parameter in inspect.signature(method).parameters.items():
        default = parameter.default
        values = OTHERS.get(f"{name}.{setting}", OTHERS.get(setting, ()))
        if isinstance(default, bool | float) and not values:
            values = (not default,) if isinstance(default, bool) else (default / 2 or 0.5,)
        yield from ({setting: value} for value in values if value != default)


def explained(subject: Subject, method: Any, **question: Any) -> Answer:
    """All that explanations tell; of several methods in one call each under its name."""
    answers = cnnviz.explain(subject.model, subject.inputs, method, seed=SEED, **question)
    contents: dict[str, Tensor | str] = {}
    for name, answer in ({"": answers} if isinstance(answers, cnnviz.Explanation) else answers).items():
        parts = {key: getattr(answer, key) for key in ("values", "score", "target", "recipe", "renderer", "objective")}
        parts |= {f"note {key}": note for key, note in answer.notes.items()}
        contents |= {f"{name} {key}".strip(): value for key, value in parts.items() if value is not None}
    return contents


def attributed(subject: Subject, name: str, settings: Settings | None = None, **question: Any) -> Answer:
    formula = built(name, cnnviz.attributions[name], settings)
    return {"repr": repr(formula), **explained(subject, formula, **question)}


def scored(subject: Subject, attribution: str, name: str, settings: Settings | None = None) -> Answer:
    """The middle of the input is said to be the evidence."""
    model, formula = subject.model, cnnviz.attributions[attribution]()
    metric, masks = built(name, cnnviz.metrics[name], settings), torch.zeros_like(subject.inputs[:, 0])
    middle: Any = tuple(slice(length // 4, -(length // 4)) for length in masks.shape[1:])
    masks[(..., *middle)] = 1
    explanation = cnnviz.explain(model, subject.inputs, formula, seed=SEED)
    # an explanation keeps its seed; before it did, evaluate took it
    keeps = {} if hasattr(explanation, "options") else {"seed": SEED}
    scores = cnnviz.evaluate(explanation, metric, masks=masks, model=model, attribution=formula, **keeps)
    return {"scores": scores, "repr": repr(metric)}


def synthesized(subject: Subject, name: str, settings: Settings | None = None, count: int = 1) -> Answer:
    given = {"of": subject.inputs[:1, ..., :48, :48]} if name == "inversion" else {}
    synthesis = built(name, cnnviz.syntheses[name], {**given, **(settings or {})})
    made = cnnviz.synthesize(subject.model, synthesis, size=48, count=count, seed=SEED, snapshots=2)
    notes = {f"note {key}": note for key, note in made.notes.items()}
    shots = {f"snapshot {step}": inputs for step, inputs in made.snapshots.items()}
    texts = {"recipe": made.recipe, "repr": repr(synthesis)}
    return {"inputs": made.inputs, "history": made.history, **notes, **shots, **texts}


def formulas() -> dict[str, Any]:
    """Methods as they are written by hand."""
    activation, gradient, image, toward, upsample = map(
        public, ("activation", "gradient", "image", "toward", "upsample")
    )
    noted, over, path, noisy, at, score = map(public, ("noted", "over", "path", "noisy", "at", "score"))
    grad_cam, guided = cnnviz.attributions["grad_cam"](), cnnviz.attributions["guided_backprop"]()
    smoothgrad, vargrad = cnnviz.attributions["smoothgrad"], cnnviz.attributions["vargrad"]
    start, sharp = public("baseline_input")("blur"), guided * upsample(grad_cam.relu())
    way = (image() - start) * over(gradient(), path(steps=6, baseline=start))
    return {
        "sharp": sharp,
        "smooth grad_cam": smoothgrad(of=grad_cam, samples=6),
        "smooth sharp": smoothgrad(of=sharp, samples=6),
        "varying": vargrad(of="input_x_gradient", samples=6, sigma=0.3),
        "toward a class": grad_cam - toward(grad_cam, 3),
        "toward the prediction": toward(gradient(), public("prediction")()) - gradient() / 2,
        "toward a channel": toward(gradient(), public("channel")("layer3", 3)),
        "noted": noted(way, "lost_by_blur", score() - at(score(), start)),
        "variance": over(gradient() ** 2, noisy(4, 0.1), "variance"),
        "by hand": torch.sum(torch.mean(gradient(None), (2, 3), keepdim=True) * activation(), 1, keepdim=True),
    }


def attribution_cases(honest: Subject, single: Subject, trained: Mapping[str, Subject]) -> Iterator[Case]:
    """Every attribution: on several networks, with each of its settings, asked in several ways."""
    names, channel = list(cnnviz.attributions), public("channel")("layer3", 3)
    softmax = Subject(nn.Sequential(cnnviz.load_model("demo").module.double(), nn.Softmax(1)).eval(), honest.inputs)
    subjects = {"demo": honest, "demo-shortcut": bundled("demo-shortcut"), **trained}
    subjects |= {"signals": untrained(1), "volumes": untrained(3)}
    questions: dict[str, tuple[Subject, dict[str, Any]]] = {
        **{f"attribution/{network}": (subject, {}) for network, subject in subjects.items() if network != "float32"},
        "question/classes": (honest, {"target": [3, 5]}),
        "question/name": (honest, {"target": "star"}),
        "question/channel": (honest, {"target": channel}),
        "question/objective": (honest, {"target": channel - 0.5 * public("neuron")("layer2", 3)}),
        "question/function": (honest, {"target": lambda output: output[:, 0] - output[:, 1]}),
        "question/fold": (honest, {"fold": True}),
        "question/memory": (honest, {"memory": 1}),
        "softmax/after": (softmax, {}),
        "softmax/before": (softmax, {"before_softmax": True}),
        "channels last/demo": (single, {}),
        "bfloat16/demo": (single, {"precision": "bfloat16"}),
    }
    for question, (subject, how) in questions.items():
        yield from ((f"{question}/{name}", partial(attributed, subject, name, **how)) for name in names)
    for name in ("grad_cam", "gradient", "guided_backprop", "deconvnet") if trained else ():
        yield f"channels last/squeezenet1_0/{name}", partial(attributed, trained["float32"], name)
    for name in names:
        for settings in variations(name, cnnviz.attributions[name]):
            yield f"setting/{name}/{settings}", partial(attributed, honest, name, settings)
    yield from ((f"formula/{name}", partial(explained, honest, formula)) for name, formula in formulas().items())
    yield "together/formulas", partial(explained, honest, [*formulas().values()])
    methods = ["gradient", "grad_cam", "layer_cam", "smoothgrad", "vargrad", "rise"]
    yield "together/methods", partial(explained, honest, methods, samples=6, masks=16)


def metric_cases(honest: Subject) -> Iterator[Case]:
    """Every metric, and each of its settings."""
    subjects = {"signals": untrained(1), "images": honest, "volumes": untrained(3)}
    for name, method in cnnviz.metrics.items():
        for kind, subject in subjects.items():
            for attribution in ("grad_cam", "gradient"):
                yield f"metric/{kind}/{attribution}/{name}", partial(scored, subject, attribution, name)
        for settings in variations(name, method):
            yield f"metric/setting/{name}/{settings}", partial(scored, honest, "gradient", name, settings)


def synthesis_cases(honest: Subject) -> Iterator[Case]:
    """Every synthesis, each of its settings, and what it may be made for; ``class_image`` is a kind of its own."""
    objective = public("channel")("layer2", 5) + 0.1 * public("class_score")(3)
    nothing, picture = {"layer": None, "channel": None}, honest.inputs[:1, ..., :48, :48]
    goals: dict[str, list[Settings]] = {
        "deep_dream": [{"start": picture}, {"layer": "layer2", "channel": 5}, {"objective": objective}],
        "feature_image": [{**nothing, "target": 3}, {**nothing, "objective": objective}],
    }
    for name, method in cnnviz.syntheses.items():
        kind = name if name in BARS else f"synthesis/{name}"
        yield f"{kind}/two", partial(synthesized, honest, name, count=2)
        for settings in variations(name, method):
            yield f"{kind}/{settings}", partial(synthesized, honest, name, settings)
        for number, goal in enumerate(goals.get(name, [])):
            yield f"{kind}/goal {number}", partial(synthesized, honest, name, goal)


def cases() -> Iterator[Case]:
    """Everything that is asked, by kind and name."""
    honest = bundled("demo")
    yield from attribution_cases(honest, bundled("demo", torch.float32), squeezenets())
    yield from metric_cases(honest)
    yield from synthesis_cases(honest)


def answers() -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts by case and part; a refusal is a text."""
    tensors: dict[str, Tensor] = {}
    texts: dict[str, str] = {}
    for kind, group in groupby(cases(), lambda case: case[0].partition("/")[0]):
        start = time.perf_counter()
        for case, ask in group:
            try:
                answer = ask()
            except Exception as error:
                answer = {"refusal": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}
            for part, content in answer.items():
                if isinstance(content, Tensor):
                    tensors[f"{case}: {part}"] = content.detach().clone().contiguous()
                else:
                    texts[f"{case}: {part}"] = content
        print(f"{kind} took {time.perf_counter() - start:.1f} s", flush=True)
    return tensors, texts


def difference(name: str, reference: Tensor, now: Tensor) -> float:
    """The largest, relative to the largest value of the reference; NaN for another shape or type."""
    if reference.shape != now.shape or reference.dtype != now.dtype:
        return float("nan")
    if not reference.numel():
        return 0.0
    peak = float(reference.double().abs().max())
    peak = max(peak, FLOOR) if "note " in name or name.startswith("metric/") else peak
    largest = float((now.double() - reference.double()).abs().max())
    return largest / peak if peak else float("inf" if largest else 0)


def compare(path: Path) -> int:
    """Print what differs from the file, and by how much each kind does at most; the number of differences."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
        texts: dict[str, str] = json.loads(file.metadata()["texts"])
    tensors_now, texts_now = answers()
    distances = {name: difference(name, tensors[name], tensors_now[name]) for name in tensors if name in tensors_now}
    differing = {name: "is missing" for name in tensors if name not in tensors_now}
    differing |= {name: "is new" for name in tensors_now if name not in tensors}
    for name in sorted(texts.keys() | texts_now.keys()):
        if texts.get(name) != texts_now.get(name):
            differing[name] = f"was {texts.get(name)!r}, is {texts_now.get(name)!r}"
    kinds: dict[str, list[float]] = {}
    for name, distance in distances.items():
        kind = name.partition("/")[0]
        kinds.setdefault(kind, []).append(distance)
        if not distance <= BARS.get(kind, BAR):
            shapes = f"{tuple(tensors[name].shape)}, now {tuple(tensors_now[name].shape)}"
            differing[name] = f"differs by {distance:.2e} ({shapes})"
    for name, what in sorted(differing.items()):
        print(f"{name:70} {what}")
    for kind, relative in kinds.items():
        print(f"{kind:14} {len(relative):5} tensors, largest difference {max(relative):.1e}, bar {BARS.get(kind, BAR)}")
    print(f"{len(distances)} tensors and {len(texts)} texts compared, {len(differing)} differences")
    return len(differing)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)  # so that sums keep their order
    if options.command == "compare":
        return min(1, compare(options.file))
    tensors, texts = answers()
    save_file(tensors, options.file, {"texts": json.dumps(texts)})
    print(f"{len(tensors)} tensors and {len(texts)} texts kept in {options.file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
