"""A box of a detector as target: one detection of the plain pass, or an object that was missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.feature_extraction import Seen
from cnnviz.run.detector_outputs import BoxesOf, Proposals, box_iou, proposals_of
from cnnviz.run.objectives import Combined
from cnnviz.run.output_targets import Bound, Class, OutputTarget
from cnnviz.run.plain_pass import PlainPass
from cnnviz.run.targets import class_index

BoxScore = Literal["class", "overlap", "x1", "y1", "x2", "y2", "objectness", "match"]
SIDES = ("x1", "y1", "x2", "y2")
SCORES = ("class", "overlap", *SIDES, "objectness", "match")
SAME = 0.5
"""A detection of a variant is the same one if it overlaps the reference by this or more."""


class Reference(NamedTuple):
    """What was found in the plain pass, a row for each input."""

    box: Tensor
    """(N, 4) as x1, y1, x2, y2."""
    label: Tensor
    """(N,) the class; -1: any."""
    number: Tensor
    """(N,) the number of the box among all proposals; -1: nothing was found there."""
    among: Tensor
    """(N,) how many proposals there were."""
    classes: Tensor
    """(N, K) probabilities of the classes, of the box or of the object that is looked for."""


@dataclass(frozen=True, eq=False, repr=False)
class box(OutputTarget):
    """One detection: why is it found, why there, why as this class?

    Args:
        which: its number in :func:`cnnviz.detect`'s list; a class by name, for its detection with the highest score;
            or x1, y1, x2, y2 in pixels of the input, for an object there that may have been missed.
        label: the class of an object given by its box, by number or name; None is any.
        at: (x, y), for a class: of its detections that hold this place the one with the highest score, else the
            nearest.
        of: "class", the score of its class, a logit where the model gives one; "objectness"; "overlap" with the box of
            the plain pass; "x1", "y1", "x2", "y2", a side in pixels; or "match", the largest product of overlap, cosine
            of the class probabilities, and objectness (or score, of final detections) of all boxes: how well the
            detection is found again (Petsiuk et al., 2021, arXiv:2006.03204).
        boxes: reads outputs of other detectors: a function of the output for one image.
        threshold: as for :func:`cnnviz.detect`.

    The box is found in the plain pass. Variants read the same proposal. Of detectors that give final detections only,
    they read the detection of the same class that overlaps it most, by half or more; where there is none, scores are 0
    and sides are as they were.
    """

    which: int | str | tuple[float, float, float, float]
    label: Class | None = None
    at: tuple[float, float] | None = None
    of: BoxScore = "class"
    boxes: BoxesOf | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.of not in SCORES:
            raise ValueError(f"a box has no {self.of!r}; it is {', '.join(SCORES)}")
        if not isinstance(self.which, int | str):
            corners = tuple(map(float, self.which))
            if len(corners) != 4 or not (corners[0] < corners[2] and corners[1] < corners[3]):
                raise ValueError(f"the box {tuple(self.which)} is no x1, y1, x2, y2 with x1 < x2 and y1 < y2")
            object.__setattr__(self, "which", corners)

    def find(self, plain: PlainPass) -> Reference:
        """The box of each input, (N, 4), with its class and its number."""
        images = proposals_of(plain.seen.output, plain.seen.inputs, self.boxes)
        rows = [self._reference(image, item, plain) for item, image in enumerate(images)]
        # of final detections each image tells of as many classes as were found in it
        width = max(len(row.classes) for row in rows)
        padded = [row._replace(classes=F.pad(row.classes, (0, width - len(row.classes)))) for row in rows]
        return Reference(*map(torch.stack, zip(*padded, strict=True)))

    def scores(self, seen: Seen, reference: Reference) -> Tensor:
        """What is asked of each box, (N,)."""
        images = proposals_of(seen.output, seen.inputs, self.boxes)
        rows = [Reference(*row) for row in zip(*reference, strict=True)]
        return torch.stack([self._score(image, row) for image, row in zip(images, rows, strict=True)])

    def _reference(self, image: Proposals, item: int, plain: PlainPass) -> Reference:
        boxes, classes = image.boxes.detach(), image.classes.detach()
        if not isinstance(self.which, tuple):
            number = self._detection(image, item, plain)
            return _reference(boxes[number], int(classes[number].argmax()), number, len(boxes), classes[number])
        label = -1 if self.label is None else class_index(self.label, plain.categories)
        place, number = boxes.new_tensor(self.which), -1
        wanted = classes.new_zeros(max(classes.shape[1], label + 1))
        if label >= 0:
            wanted[label] = 1
        if len(boxes) and not image.final:
            if label >= classes.shape[1]:
                raise ValueError(f"there is no class {label}; the model has {classes.shape[1]}")
            likely = classes[:, label] if label >= 0 else classes.amax(1)
            number = int((box_iou(boxes, place) * likely).argmax())
            wanted = wanted if label >= 0 else classes[number]
        return _reference(place, label, number, len(boxes), wanted)

    def _detection(self, image: Proposals, item: int, plain: PlainPass) -> int:
        """The number of the detection among all proposals of an image."""
        found = image.found(self.threshold)
        way_out = "give a box (x1, y1, x2, y2) for what was missed, or a lower threshold"
        if isinstance(self.which, int):
            if not 0 <= self.which < len(found):
                raise ValueError(
                    f"there is no box {self.which} in input {item}, where {len(found)} were found; {way_out}"
                )
            return int(found[self.which])
        label = class_index(self.which, plain.categories)
        score, labels = (tensor.detach()[found] for tensor in image.confidence())
        own = labels == label
        if not bool(own.any()):
            raise ValueError(f"no {self.which!r} was found in input {item}; {way_out}")
        found, score = found[own], score[own]
        if self.at is not None:
            boxes, place = image.boxes.detach()[found], image.boxes.new_tensor(self.at)
            inside = ((boxes[:, :2] <= place) & (place <= boxes[:, 2:])).all(1)
            distance = ((boxes[:, :2] + boxes[:, 2:]) / 2 - place).norm(dim=1)
            score = score.where(inside, -torch.inf) if bool(inside.any()) else -distance
        return int(found[int(score.argmax())])

    def _score(self, image: Proposals, reference: Reference) -> Tensor:
        """The number for one image, ()."""
        label = int(reference.label)
        if self.of == "match":
            return _match(image, reference)
        number = _same(image, reference)
        if number is None:
            nothing = _zero(image)
            return nothing + reference.box[SIDES.index(self.of)].to(nothing) if self.of in SIDES else nothing
        if self.of == "class":
            scores = image.scores[number]
            return scores[label] if label >= 0 else scores.amax()
        if self.of == "objectness":
            if image.objectness is None:
                raise ValueError("the model gives no objectness of its boxes; say of='class' or of='match'")
            return image.objectness[number]
        own = image.boxes[number]
        return box_iou(own[None], reference.box.to(own))[0] if self.of == "overlap" else own[SIDES.index(self.of)]


def boxes_of(target: Any) -> Tensor | None:
    """The boxes that a target is about, (N, B, 4) as x1, y1, x2, y2 in pixels of the input; None for other targets."""
    if isinstance(target, Bound) and isinstance(target.of, box):
        place: Tensor = target.reference.box
        return place[:, None]
    if isinstance(target, Combined):
        sides = [found for side in (target.left, target.right) if (found := boxes_of(side)) is not None]
        return torch.cat(sides, 1) if sides else None
    if isinstance(target, Sequence) and not isinstance(target, str):
        each = [found for part in target if (found := boxes_of(part)) is not None]
        return torch.cat(each) if each and len(each) == len(target) and len({e.shape[1] for e in each}) == 1 else None
    return None


def matching(target: Any) -> Any:
    """A box as target, or one for each input, read by how well it is found again; None for other targets."""
    if isinstance(target, Bound) and isinstance(target.of, box):
        return Bound(replace(target.of, of="match"), target.reference)
    if isinstance(target, list | tuple):
        each = tuple(map(matching, target))
        return None if None in each else each
    return None


def _reference(place: Tensor, label: int, number: int, among: int, classes: Tensor) -> Reference:
    whole = torch.tensor([label, number, among], device=place.device)
    return Reference(place, whole[0], whole[1], whole[2], classes)


def _same(image: Proposals, reference: Reference) -> int | None:
    """The number of the box in another pass; None where it is not found."""
    if not image.final and len(image.boxes) == int(reference.among):
        return int(reference.number)
    if not len(image.boxes):
        return None
    overlap, label = box_iou(image.boxes.detach(), reference.box.to(image.boxes)), int(reference.label)
    if label >= 0:
        overlap = overlap.where(image.confidence()[1] == label, -1)
    number = int(overlap.argmax())
    return number if overlap[number] >= SAME else None


def _match(image: Proposals, reference: Reference) -> Tensor:
    if not len(image.boxes):
        return _zero(image)
    classes, wanted = image.classes, reference.classes.to(image.classes)
    width = max(classes.shape[1], len(wanted))
    classes = F.pad(classes, (0, width - classes.shape[1]))
    wanted = F.pad(wanted, (0, width - len(wanted)))
    overlap = box_iou(image.boxes, reference.box.to(image.boxes))
    similarity = torch.cosine_similarity(classes, wanted[None], dim=1) if bool(wanted.any()) else 1.0
    sure = classes.amax(1) if image.final else image.objectness
    product = overlap * similarity if sure is None else overlap * similarity * sure
    return product.amax()


def _zero(image: Proposals) -> Tensor:
    """Zero, with the graph of what was found: its gradient is zero, which is so."""
    return (image.boxes.sum() + image.scores.sum()) * 0
