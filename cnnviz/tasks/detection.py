"""What a detector finds in images, numbered as targets name it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.forward import forward
from cnnviz.engine.loans import borrows
from cnnviz.engine.validation import as_network, check_model
from cnnviz.explanations.inputs import called_with
from cnnviz.explanations.read_inputs import read_inputs
from cnnviz.images.in_notebooks import InNotebooks
from cnnviz.images.originals import At, Original, check_at
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.models.class_names import class_names
from cnnviz.models.loading import LoadedModel
from cnnviz.run.detector_outputs import BoxesOf, proposals_of


@dataclass(frozen=True)
class Detection:
    """One box that a detector found in an image."""

    number: int
    """What ``target=box(number)`` means."""
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels of the input, or of its original."""
    label: int
    """The class by number."""
    name: str | None
    """The class by name, where names are known."""
    score: float
    """Its probability, times that of holding anything where the model tells that apart."""


class Detections(InNotebooks, list[list[Detection]]):
    """What :func:`cnnviz.detect` gives: a list with the detections of each image."""


@borrows
def detect(
    model: nn.Module | LoadedModel | Callable[..., Any],
    images: Any,
    *,
    boxes: BoxesOf | None = None,
    threshold: float | None = None,
    preprocessing: Preprocessing | Any = None,
    categories: Sequence[str] | None = None,
    at: At = "input",
) -> Detections:
    """What does a detector find? For each image its detections, as ``target=box(number)`` numbers them.

    Args:
        model: in eval mode; it is never changed. Or any callable, TorchScript, an exported program or an ONNX session,
            see :func:`cnnviz.black_box`. Known are the outputs of torchvision's detectors; ``(N, 4 + K, A)``
            and ``(N, A, 4 + 1 + K)`` as YOLO's give them; and "pred_logits" (or "logits") and "pred_boxes" as DETR's
            give them.
        images: (N, C, H, W) or a list of (C, H, W), as the model takes them; pictures where the preprocessing is known.
        boxes: reads outputs of other forms: a function of the output for one image to boxes (A, 4) as x1, y1, x2, y2
            in pixels of the input, probabilities (A, K), and objectness (A,) or None.
        threshold: lower scores are left out. None: as torchvision's detectors are set, else 0.25. Raw proposals of one
            class that overlap by more than a half are one detection, by the highest score.
        preprocessing, categories: as for :func:`cnnviz.explain`.
        at: "original" gives boxes in pixels of the pictures that the inputs were cut out of.

    Raises:
        TypeError, ValueError: as :func:`cnnviz.explain`, and for outputs in which no boxes are known.
    """
    if isinstance(model, LoadedModel):
        preprocessing, categories = preprocessing or model.preprocessing, categories or model.categories
        model = model.module
    network = as_network(model)
    check_model(network)
    check_at(at)
    preprocessing = None if preprocessing is None else Preprocessing.of(preprocessing)
    read, originals = read_inputs(network, images, preprocessing)
    inputs, _ = called_with(network, read)
    output = forward(network, inputs)
    names = class_names(categories or ())
    with torch.no_grad():
        found = Detections()
        for image in proposals_of(output, inputs[0], boxes):
            scores, labels = image.confidence()
            rows = enumerate(image.found(threshold).tolist())
            found.append([_detection(n, image.boxes[row], labels[row], scores[row], names) for n, row in rows])
        if at == "original" and 0 in originals:
            size = (inputs[0].shape[2], inputs[0].shape[3])
            pairs = zip(found, originals[0], strict=True)
            return Detections(
                [each if known is None else _moved(each, known, size) for each in row] for row, known in pairs
            )
        return found


def _moved(detection: Detection, original: Original, size: tuple[int, int]) -> Detection:
    """The detection in pixels of the original that an input of this (height, width) was cut out of."""
    left, top, right, bottom = original.box
    down, across = (bottom - top) / size[0], (right - left) / size[1]
    x1, y1, x2, y2 = detection.box
    box = left + x1 * across, top + y1 * down, left + x2 * across, top + y2 * down
    return replace(detection, box=box)


def _detection(number: int, box: Tensor, label: Tensor, score: Tensor, names: tuple[str, ...]) -> Detection:
    x1, y1, x2, y2 = box.tolist()
    index = int(label)
    return Detection(number, (x1, y1, x2, y2), index, names[index] if index < len(names) else None, float(score))
