"""What an audit reads of a batch: heat, classes, masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cnnviz.explanations.explanation import Explanation
from cnnviz.images.annotations import Annotations, mask_in_file, read_annotations
from cnnviz.images.originals import Original
from cnnviz.models.class_names import class_names
from cnnviz.tasks.labels import class_number

BY = ("auto", "label", "predicted")


def read_batch(
    batch: Any, method: str | None, by: str, masks: str | Path | NDArray[Any] | None, sign: Any, most: int, side: int
) -> dict[str, Any]:
    """The arguments of :func:`audit_maps` for a batch."""
    if by not in BY:
        raise ValueError(f"there is no by={by!r}; it is {', '.join(BY)}")
    if sign == "signed":
        raise ValueError("sign='signed' is no heat, because shares need values of one sign; use 'auto' or 'positive'")
    if most < 1:
        raise ValueError(f"most={most} leaves no map; use 1 or more")
    name = _method_of(batch, method)
    given = masks if isinstance(masks, np.ndarray) else None
    if given is not None and (given.ndim != 3 or len(given) != len(batch)):
        raise ValueError(f"masks {given.shape} are none of {len(batch)} items; give (items, H, W)")
    table = batch.table()
    answered = np.array([row["status"] == "ok" for row in table], np.bool_)
    numbers = np.flatnonzero(answered)
    if not len(numbers):
        raise ValueError("the batch has no answered items; there is nothing to audit")
    total = len(numbers)
    if total > most:
        numbers = numbers[np.linspace(0, total - 1, most).astype(int)]
    view, rows = batch[numbers][name], [table[number] for number in numbers]
    first: Explanation = view[0]
    if first.values.ndim != 4:
        raise ValueError(f"{name} gave maps {tuple(first.values.shape)}, and an audit is of pictures")
    heat = view.maps(size=(side, side), sign=sign)[:, 0]
    told = by if by != "auto" else "label" if any(row["label"] is not None for row in rows) else "predicted"
    if all(row[told] is None for row in rows):
        raise ValueError(f"no item of the batch has a {told} class; use by='{_other(told)}'")
    labels, predicted = (_classes(rows, key, first) for key in ("label", "predicted"))
    arguments: dict[str, Any] = {}
    own = [view.mask_file(number) for number in range(len(view))] if masks is None else []
    if masks is not None or any(own):
        inside, masked = _masks(view, given[numbers] if given is not None else masks, own, side)
        arguments = {"masks": inside, "masked": masked}
    return arguments | {
        "heat": heat.double().numpy(),
        "classes": [_name(value, first) for value in (labels if told == "label" else predicted)],
        "ids": [row["id"] for row in rows],
        "native": tuple(first.values.shape[2:]),
        "right": [_right(label, guess) for label, guess in zip(labels, predicted, strict=True)],
        "method": name,
        "by": told,
        "of": total,
        "explanation_of": lambda number: view[int(number)],
    }


def _other(by: str) -> str:
    return "predicted" if by == "label" else "label"


def _method_of(batch: Any, method: str | None) -> str:
    methods: tuple[str, ...] = batch.methods
    if method is None:
        if len(methods) != 1:
            raise ValueError(f"the batch has the methods {', '.join(methods)}; name the one that is audited")
        return methods[0]
    if method not in methods:
        raise LookupError(f"there is no method {method!r} in the batch; it has {', '.join(methods)}")
    return method


def _classes(rows: Sequence[Mapping[str, Any]], key: str, like: Explanation) -> list[int | str | None]:
    """The class of each row by number; by its text where the network has no class of that name."""
    names = None if like.categories is None else class_names(like.categories)
    known: dict[int | str, int | str] = {}
    for value in {row[key] for row in rows if row[key] is not None}:
        try:
            known[value] = class_number(str(value), names, f"{key} {value!r}")
        except LookupError:
            known[value] = str(value)
    return [None if row[key] is None else known[row[key]] for row in rows]


def _name(value: int | str | None, like: Explanation) -> str | None:
    return like.name_of(value) if isinstance(value, int) else value


def _right(label: int | str | None, predicted: int | str | None) -> bool | None:
    """Whether the prediction is right; None where one is not known, or the label is no class of the network."""
    return label == predicted if isinstance(label, int) and isinstance(predicted, int) else None


def _masks(
    view: Any, masks: Any, own: Sequence[Path | None], side: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """How much of each cell is inside, (n, side, side), and which maps have a mask.

    ``own`` are the masks that the items have themselves, where no others are given.
    """
    if isinstance(masks, np.ndarray):
        return np.stack([_coverage(mask != 0, side) for mask in masks]), np.ones(len(view), np.bool_)
    originals = [_original(view, number) for number in range(len(view))]
    paths = [Path(each.path) for each in originals if each is not None and each.path is not None]
    annotations = None if masks is None else read_annotations(masks, pictures=paths)
    inside, masked, why = np.zeros((len(view), side, side)), np.zeros(len(view), np.bool_), ""
    for number, original in enumerate(originals):
        try:
            inside[number] = _inside(annotations or _Own(own[number]), original, side)
            masked[number] = True
        except LookupError as error:
            why = why or str(error.args[0])
    if not masked.any():
        raise ValueError(f"no picture of the batch has a mask in {masks or 'its source'}: {why}")
    return inside, masked


@dataclass(frozen=True)
class _Own:
    """The annotation of one picture, a file that its item names."""

    file: Path | None

    def mask(self, path: Path, size: tuple[int, ...]) -> NDArray[np.bool_]:
        """See :class:`cnnviz.images.annotations.Annotations`."""
        if self.file is None:
            raise LookupError(f"'{path}' has no mask")
        inside = mask_in_file(self.file)
        if inside.shape != size:
            raise ValueError(f"mask '{self.file}' is {inside.shape}, and '{path}' {size}; they need one size")
        return inside


def _original(view: Any, number: int) -> Original | None:
    originals: Sequence[Original | None] | None = view[number].originals
    return None if originals is None else originals[0]


def _inside(annotations: Annotations, original: Original | None, side: int) -> NDArray[np.float64]:
    if original is None or original.path is None:
        raise LookupError("an item is no file, and masks have the names of files")
    mask = annotations.mask(Path(original.path), original.size)
    left, top, right, bottom = original.region
    height, width = mask.shape
    seen = np.zeros((bottom - top, right - left), np.bool_)  # a crop beyond the picture has none of it there
    rows, columns = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
    seen[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = mask[rows, columns]
    return _coverage(seen, side)


def _coverage(mask: NDArray[np.bool_], side: int) -> NDArray[np.float64]:
    """Which share of each of side x side cells is inside, 0 to 1."""
    tensor = torch.from_numpy(mask.astype(np.float64))[None, None]
    factors = [-(-side // length) for length in mask.shape]  # a picture smaller than the grid is made larger first
    tensor = tensor.repeat_interleave(factors[0], 2).repeat_interleave(factors[1], 3)
    found: NDArray[np.float64] = torch.nn.functional.adaptive_avg_pool2d(tensor, side)[0, 0].numpy()
    return found
