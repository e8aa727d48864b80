"""What detectors give, in one form: for each image its boxes, with scores of classes and their graph.

Known are lists of dicts as torchvision's detectors give them; ``(N, 4 + K, A)`` and ``(N, A, 4 + 1 + K)`` as YOLO's
give them; and dicts with "pred_logits" (or "logits") and "pred_boxes" as DETR's give them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.nested import is_result_of_each, mapped

BoxesOf: TypeAlias = Callable[[Any], tuple[Tensor, Tensor, Tensor | None]]
"""Of a detector's output for one image: boxes (A, 4) as x1, y1, x2, y2 in the input, probabilities (A, K), objectness
(A,) or None."""
THRESHOLD = 0.25
"""Proposals with lower scores are not found, unless the caller says otherwise."""
OVERLAP = 0.5
"""Proposals of one class that overlap more are one detection."""


@dataclass(frozen=True, eq=False)
class Proposals:
    """All boxes of one image, (A, 4) as x1, y1, x2, y2 in pixels of the input, with what is said about each."""

    boxes: Tensor
    classes: Tensor
    """(A, K) probabilities of the classes; of ``final`` ones the score, in the column of the label."""
    objectness: Tensor | None
    """(A,) the probability that the box holds anything; None where the model gives none."""
    scores: Tensor
    """(A, K) what of="class" reads: logits where the model gives them, else the probabilities."""
    final: bool
    """True for detections that were thresholded and suppressed: another pass has other ones, in another order."""
    suppressed: bool
    """True if no two of them are of one object."""

    def confidence(self) -> tuple[Tensor, Tensor]:
        """The score of each box and its label, (A,) both."""
        if not self.classes.shape[1]:
            return self.classes.new_zeros(0), torch.zeros(0, dtype=torch.int64, device=self.classes.device)
        probability, label = self.classes.max(1)
        return (probability if self.objectness is None else probability * self.objectness), label

    def found(self, threshold: float | None) -> Tensor:
        """The numbers of the boxes that count as detections, (D,): of raw proposals by score, without repetitions."""
        from torchvision.ops import nms  # takes a second to import, and only detectors need it

        score, label = (tensor.detach() for tensor in self.confidence())
        if self.final:
            numbers = torch.arange(len(score), device=score.device)
            return numbers if threshold is None else numbers[score >= threshold]
        order = score.argsort(descending=True, stable=True)
        order = order[score[order] >= (THRESHOLD if threshold is None else threshold)]
        if self.suppressed:
            return order
        kept, boxes = torch.zeros_like(label, dtype=torch.bool), self.boxes.detach().float()
        # not batched_nms, which keeps classes apart by moving their boxes, and moves negative places onto other boxes
        for own in set(label[order].tolist()):
            rivals = order[label[order] == own]
            kept[rivals[nms(boxes[rivals], score[rivals].float(), OVERLAP)]] = True
        return order[kept[order]]


def proposals_of(output: Any, inputs: Tensor, boxes: BoxesOf | None = None) -> list[Proposals]:
    """The boxes of each image; ``boxes`` reads outputs of other forms. Raises TypeError or ValueError for these."""
    items = len(inputs)
    if boxes is not None:
        return [_adapted(boxes, _row(output, item, items), items) for item in range(items)]
    if isinstance(output, list | tuple) and len(output) == items and all(map(_is_final, output)):
        return [_final(result) for result in output]
    if isinstance(output, dict) and "pred_boxes" in output:
        return _queries(output, inputs)
    if isinstance(output, list | tuple) and output and isinstance(output[0], Tensor):
        output = output[0]  # ultralytics gives the maps behind it too
    if isinstance(output, Tensor) and output.ndim == 3 and len(output) == items and min(output.shape[1:]) > 4:
        return _anchors(output)
    given = f"{tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
    raise TypeError(
        f"the model gives {given}, in which no boxes are known; give boxes=, a function of the output for one image to "
        "(boxes (A, 4), probabilities (A, K), objectness (A,) or None)"
    )


def box_iou(boxes: Tensor, box: Tensor) -> Tensor:
    """The overlap of boxes (A, 4) with one box (4,): intersection over union, (A,), differentiable."""
    low, high = torch.maximum(boxes[:, :2], box[:2]), torch.minimum(boxes[:, 2:], box[2:])
    shared = (high - low).clamp(min=0).prod(1)
    union = _area(boxes) + _area(box[None]) - shared
    return shared / union.clamp(min=torch.finfo(boxes.dtype).tiny)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)


def _is_final(result: Any) -> bool:
    return isinstance(result, dict) and {"boxes", "labels", "scores"} <= set(result)


def _row(output: Any, item: int, items: int) -> Any:
    """The output for one image, still a batch of one; or its own result, of a list of results."""
    if is_result_of_each(output, items):
        return output[item]
    return mapped(lambda tensor: tensor[item : item + 1] if tensor.shape[:1] == (items,) else tensor, output)


def _adapted(read: BoxesOf, output: Any, items: int) -> Proposals:
    boxes, classes, objectness = read(output)
    shapes = [tuple(boxes.shape), tuple(classes.shape), None if objectness is None else tuple(objectness.shape)]
    count = len(boxes)
    fits = boxes.shape == (count, 4) and classes.ndim == 2 and len(classes) == count
    if not fits or (objectness is not None and objectness.shape != (count,)):
        raise ValueError(f"boxes= gave {shapes}; it gives (A, 4), (A, K) and (A,) or None for one image")
    return Proposals(boxes, classes, objectness, classes, final=False, suppressed=False)


def _final(result: dict[str, Tensor]) -> Proposals:
    labels, scores = result["labels"], result["scores"]
    columns = int(labels.max()) + 1 if len(labels) else 0
    own = F.one_hot(labels, columns).bool() if len(labels) else labels.new_zeros(0, 0).bool()
    classes = torch.where(own, scores[:, None], scores.new_zeros(()))
    return Proposals(result["boxes"], classes, None, classes, final=True, suppressed=True)


def _queries(output: dict[str, Any], inputs: Tensor) -> list[Proposals]:
    """DETR's: boxes as centre and size, shares of the input; the last class means that there is nothing."""
    logits = output["pred_logits"] if "pred_logits" in output else output["logits"]
    height, width = inputs.shape[2:]
    boxes = _corners(output["pred_boxes"]) * output["pred_boxes"].new_tensor([width, height, width, height])
    classes = logits.softmax(-1)[..., :-1]
    rows = zip(boxes, classes, logits, strict=True)
    return [Proposals(box, own, None, logit[:, :-1], final=False, suppressed=True) for box, own, logit in rows]


def _anchors(output: Tensor) -> list[Proposals]:
    """YOLO's: boxes as centre and size in pixels. There are more boxes than numbers about each."""
    if output.shape[1] == output.shape[2]:
        raise ValueError(f"the model gives {tuple(output.shape)}, whose sides do not tell the boxes; give boxes=")
    with_objectness = output.shape[1] > output.shape[2]
    rows = output if with_objectness else output.transpose(1, 2)
    results = []
    for row in rows:
        boxes, rest = _corners(row[:, :4]), row[:, 4:]
        objectness, classes = (rest[:, 0], rest[:, 1:]) if with_objectness else (None, rest)
        results.append(Proposals(boxes, classes, objectness, classes, final=False, suppressed=False))
    return results


def _corners(boxes: Tensor) -> Tensor:
    centre, half = boxes[..., :2], boxes[..., 2:4] / 2
    return torch.cat([centre - half, centre + half], -1)
