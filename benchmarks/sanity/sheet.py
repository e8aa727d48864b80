"""One row of maps for each method: of a drawn picture, with random weights, of the tag, and of a photograph."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

from benchmarks import networks
from benchmarks.sanity.subjects import ATTENDING, FINE, subject
from cnnviz import Preprocessing, Run, demo, explain
from cnnviz.demo import drawing
from cnnviz.drawing.text import font
from cnnviz.explanations import evidence
from cnnviz.images.preprocessing import IMAGENET
from cnnviz_plugins.metrics.randomization import randomize

SIDE, MARGIN, LABEL = 96, 5, 158  # pixels
COLUMNS = 2
SEED = 11

Picture = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Question:
    """A picture, the network that is asked about it, and what stands above."""

    title: str
    model: nn.Module
    inputs: Tensor
    preprocessing: Preprocessing
    target: int | None = None
    """None: what the network predicts."""


def sheet(methods: Sequence[str]) -> Picture:
    """The picture, (H, W, 3): methods one below the other, in as many columns as ``COLUMNS``."""
    cases = questions()
    attending = [*_of_drawn(demo.TRANSFORMER), *cases[3:]]
    strips = [_strip(method, attending if method in ATTENDING else cases) for method in methods if method != FINE]
    down = -(-len(strips) // COLUMNS)
    blank = np.full_like(strips[0], 255)
    strips += [blank] * (down * COLUMNS - len(strips))
    columns = [np.concatenate([_head(cases), *strips[place : place + down]]) for place in range(0, len(strips), down)]
    return np.concatenate(columns, 1)


def questions() -> list[Question]:
    """The networks and inputs on which every method is shown."""
    tagged = demo.as_inputs(drawing.draw(3, SEED, held_out=True, tag="true").pictures[2:])
    cases = _of_drawn("demo")
    cases.append(Question("demo-shortcut", demo.network("demo-shortcut"), tagged, demo.preprocessing()))
    if networks.weights_of("mobilenet_v2").is_file():
        photograph = networks.pictures(4, 192, spread=True)[:1]
        trained = networks.network("mobilenet_v2", torch.device("cpu")).module
        cases.append(Question("mobilenet_v2", trained, photograph, IMAGENET))
    return cases


def _of_drawn(name: str) -> list[Question]:
    """A bundled network with its weights, with some, and with none of them, about one drawn picture."""
    model, preprocessing = demo.network(name), demo.preprocessing()
    drawn = demo.as_inputs(drawing.draw(3, SEED, held_out=True).pictures[2:])
    target = int(model(drawn).argmax())
    return [
        Question(name, model, drawn, preprocessing, target),
        Question("upper quarter\nrandom", _random(model, drawn, 0.25), drawn, preprocessing, target),
        Question("all random", _random(model, drawn, 1.0), drawn, preprocessing, target),
    ]


def _random(model: nn.Module, inputs: Tensor, share: float) -> nn.Module:
    """A copy that has forgotten the share of its layers next to the output."""
    other, run = copy.deepcopy(model), Run(model, inputs)
    names = run.layers.execution_order()[::-1]
    for place, name in enumerate(names[: round(share * len(names))]):
        randomize(other.get_submodule(name), run.draws(place))
    return other


def _strip(method: str, cases: Sequence[Question]) -> Picture:
    """A method's name and its maps, from black to bright; gray where it refuses."""
    cells = [_lettered(method.replace("_", "_\n") if len(method) > 19 else method, LABEL)]
    for question in cases:
        try:
            attribution, _ = subject(method, question.inputs.shape[-1])
            with warnings.catch_warnings(action="ignore"):
                answer = explain(question.model, question.inputs, attribution, target=question.target)
                values = evidence(answer)[0]
            cells.append(_framed(_coloured(values)))
        except (ValueError, LookupError, TypeError):
            cells.append(_framed(np.full((SIDE, SIDE, 3), 200, np.uint8)))
    return np.concatenate(cells, 1)


def _head(cases: Sequence[Question]) -> Picture:
    pictures = [_lettered("", LABEL)]
    for question in cases:
        values = question.preprocessing.inverse(question.inputs)[0].movedim(0, -1).clamp(0, 1).numpy()
        picture = _framed((values * 255).round().astype(np.uint8))
        pictures.append(np.concatenate([_lettered(question.title, picture.shape[1], 34, 12), picture]))
    pictures[0] = np.full((pictures[1].shape[0], LABEL, 3), 255, np.uint8)
    return np.concatenate(pictures, 1)


def _coloured(values: Tensor) -> Picture:
    """A map by its brightest hundredth, in the colours of fire."""
    peak = float(values.flatten().quantile(0.995)) or float(values.max()) or 1.0
    coloured = matplotlib.colormaps["inferno"]((values / peak).clamp(0, 1).numpy())[..., :3]
    return np.asarray((coloured * 255).round(), np.uint8)


def _framed(picture: Picture) -> Picture:
    resized = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    return np.pad(resized, ((0, MARGIN), (0, MARGIN), (0, 0)), constant_values=255)


def _lettered(text: str, width: int, height: int = SIDE + MARGIN, letters: int = 14) -> Picture:
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).multiline_text((4, height // 2), text, "black", font(letters), anchor="lm")
    return np.asarray(image)
