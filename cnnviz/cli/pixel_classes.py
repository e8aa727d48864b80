"""The class of every pixel of an input, from a network that scores pixels; and the file of several such results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from cnnviz.cli.batch_explain import like_weights
from cnnviz.cli.outputs import VALUES
from cnnviz.drawing import class_overlay
from cnnviz.drawing.input_images import draw_inputs
from cnnviz.drawing.montage import Cell, sheet
from cnnviz.engine.forward import forward
from cnnviz.images.writing import encoded
from cnnviz.models.loading import LoadedModel
from cnnviz.models.segmentation_net import SegmentationNet


@dataclass(frozen=True, eq=False)
class PixelClasses:
    """One input (1, C, *spatial), the scores (1, classes, *spatial) of its pixels, the activations of the decoder."""

    title: str
    model: LoadedModel
    inputs: Tensor
    scores: Tensor
    activations: Mapping[str, Tensor]

    @property
    def classes(self) -> NDArray[np.int64]:
        """The class of each pixel, (*spatial)."""
        classes: NDArray[np.int64] = self.scores[0].argmax(0).numpy()
        return classes

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all classes, by number."""
        known = self.model.categories or ()
        numbers = range(self.scores.shape[1])
        return tuple(known[number] if number < len(known) else f"class {number}" for number in numbers)

    @property
    def summary(self) -> str:
        """The class with most pixels, the background aside, and its share."""
        shares = class_overlay.class_shares(self.classes)
        first = min(shares, key=lambda number: class_overlay.is_background(self.names[number]))
        return f"{self.names[first]} {shares[first]:.1%}"

    def row(self) -> list[Cell]:
        """The picture, its classes, the legend, and the stages of the decoder. Raises ValueError if it is no image."""
        if self.inputs.ndim != 4:
            shape = tuple(self.inputs.shape)
            raise ValueError(f"an input {shape} is no image; keep its classes with -o FILE.safetensors")
        picture = draw_inputs(self.inputs, self.model.preprocessing)[0]
        overlay = class_overlay.overlay_classes(picture, self.classes, self.names)
        legend = class_overlay.class_legend(self.classes, self.names)
        foreground = np.array([not class_overlay.is_background(name) for name in self.names])[self.classes]
        stages = class_overlay.decoder_stages(self.activations, 0, foreground)
        return [([self.title], picture), (["classes"], overlay), ([], legend), *stages]


def pixel_classes(title: str, model: LoadedModel, inputs: Tensor, stages: bool) -> PixelClasses:
    """The classes of an input (1, C, *spatial); with ``stages`` the decoder's activations too.

    Raises TypeError where there is no decoder to show, ValueError for a model that does not score pixels.
    """
    if stages and not isinstance(model.module, SegmentationNet):
        raise TypeError(
            f"--stages draws the decoder of a cnnviz.models.SegmentationNet, which {model.name} is not; leave it out"
        )
    output, activations = _forward(model, inputs, stages)
    scores = output["out"] if isinstance(output, Mapping) and "out" in output else output  # as torchvision has it
    if not isinstance(scores, Tensor) or scores.ndim != inputs.ndim or scores.shape[2:] != inputs.shape[2:]:
        result = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(
            f"{model.name} gives {result} for an input {tuple(inputs.shape)}, not scores of every pixel; "
            "use demo-segmentation, or a cnnviz.models.SegmentationNet of your own"
        )
    activations = {name: activation.cpu() for name, activation in activations.items()}
    return PixelClasses(title, model, inputs, scores.float().cpu(), activations)


def file_content(results: Sequence[PixelClasses], suffix: str) -> bytes:
    """A picture with a row for each; or scores (N, classes, *spatial) and classes (N, *spatial).

    Raises ValueError for scores of different sizes.
    """
    if suffix.lower() != VALUES:
        return encoded(sheet([result.row() for result in results]), suffix)
    if len({result.scores.shape for result in results}) > 1:
        raise ValueError("the pictures reach the model in different sizes; give --size, or draw them with -o maps/")
    scores = torch.cat([result.scores for result in results])
    return save({"scores": scores, "classes": scores.argmax(1)}, {"categories": json.dumps(results[0].names)})


def _forward(model: LoadedModel, inputs: Tensor, stages: bool) -> tuple[Any, dict[str, Tensor]]:
    """The model's output, and if it has a decoder whose stages are wanted, the activations there."""
    inputs = like_weights(inputs, model.module)
    output = forward(model.module, [inputs])
    if not (stages and isinstance(model.module, SegmentationNet)):
        return output, {}
    with torch.no_grad():
        return output, model.module.activations(inputs)
