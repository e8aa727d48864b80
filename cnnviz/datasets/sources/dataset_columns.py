"""What data sets tell of all items before one is read: paths, labels, and names of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnviz.tasks.labels import LABEL

_PICTURES = ("image", "img", "picture", "pixel_values", "input", "inputs", "x")
_TOLD = ("targets", "labels")  # of torchvision's data sets


@dataclass(frozen=True)
class Columns:
    """Of a data set, as far as it tells."""

    paths: Sequence[str] | None = None
    labels: Sequence[Any] | None = None
    classes: tuple[str, ...] | None = None
    """Names of the classes that its labels count."""
    root: str | None = None


def columns_of(dataset: Any) -> Columns:
    """What a data set tells, or the one that it is a part of."""
    indices, whole = getattr(dataset, "indices", None), getattr(dataset, "dataset", None)
    if indices is not None and whole is not None:  # torch's Subset
        of_all = columns_of(whole)
        paths, labels = (
            None if column is None else [column[int(index)] for index in indices]
            for column in (of_all.paths, of_all.labels)
        )
        return Columns(paths, labels, of_all.classes, of_all.root)
    count = len(dataset)
    change = getattr(dataset, "target_transform", None)
    samples = getattr(dataset, "samples", None)
    paths = classes = None
    labels = next((found for name in _TOLD if (found := _column(getattr(dataset, name, None), count))), None)
    if isinstance(samples, list) and len(samples) == count and all(map(_is_sample, samples)):
        paths, labels = [str(path) for path, _ in samples], [label for _, label in samples]
    elif labels is None and callable(getattr(dataset, "with_format", None)):  # of Hugging Face
        name = next((name for name in LABEL if name in (getattr(dataset, "column_names", None) or ())), None)
        labels = None if name is None else _column(list(dataset[name]), count)
        features = getattr(dataset, "features", None) or {}
        classes = getattr(features.get(name), "names", None)
    if labels is not None and change is not None:
        labels = [change(label) for label in labels]
    classes = classes or getattr(dataset, "classes", None)
    named = isinstance(classes, list | tuple) and all(isinstance(each, str) for each in classes)
    if not named or change is not None:
        classes = None
    root = getattr(dataset, "root", None)
    return Columns(
        paths, labels, None if classes is None else tuple(classes), str(root) if isinstance(root, str | Path) else None
    )


def parts_of(item: Any) -> tuple[Any, Any]:
    """Picture and label of what a data set gives; the label is None where there is none."""
    if isinstance(item, Mapping):
        picture = next((item[name] for name in _PICTURES if name in item), item)
        return picture, next((item[name] for name in LABEL if name in item), None)
    if isinstance(item, tuple | list) and item:
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def label_of(given: Any) -> int | str | None:
    """A label as a number or a name; None for what is neither, such as boxes."""
    if hasattr(given, "item") and getattr(given, "ndim", None) == 0:
        given = given.item()
    if isinstance(given, bool) or not isinstance(given, int | str):
        return int(given) if isinstance(given, bool) else None
    return given if given != "" else None


def _column(given: Any, count: int) -> list[Any] | None:
    """A value for each item."""
    values = given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(values, list | tuple) or len(values) != count:
        return None
    return list(values) if all(label_of(value) is not None for value in values) else None


def _is_sample(sample: Any) -> bool:
    return isinstance(sample, tuple | list) and len(sample) == 2 and isinstance(sample[0], str | Path)
