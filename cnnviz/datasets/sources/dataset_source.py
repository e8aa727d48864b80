"""Data sets of PyTorch, and whatever else has a length and numbered items."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnnviz.datasets.items import Item, Opened
from cnnviz.datasets.sources.dataset_columns import columns_of, label_of, parts_of
from cnnviz.datasets.sources.file_source import common_folder
from cnnviz.datasets.sources.unique import Unique
from cnnviz.images.reading import one_line

_LOOKS = 8  # a transform that changes every second picture goes unseen once in 128 times
_SAME = "give a data set that gives one picture for a number, without random transforms"


class DatasetSource:
    """The items of a data set with ``__len__`` and ``__getitem__``.

    An item is a picture or an input (C, *spatial), alone or first in a tuple with its label, or in a mapping. Ids are
    "index-000012", or paths where the data set knows them, as torchvision's ``ImageFolder`` does. A data set of files
    is read by several threads at once, any other by one after the other.
    """

    label_kind = "given"

    def __init__(self, dataset: Any, labelled: bool = True):
        self.dataset, self._labelled = dataset, labelled
        self.notes: tuple[str, ...] = ()
        self._columns = columns_of(dataset)
        self._lock = threading.Lock()

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the data set's own classes; None where it does not tell."""
        return self._columns.classes

    def items(self) -> Iterator[Item]:
        """All items. Raises TypeError for items that are no pictures, ValueError for none, or for random ones."""
        count = len(self.dataset)
        if not count:
            raise ValueError("the data set has no items, so there is nothing to explain")
        self._check_same()
        ids = self._ids(count)
        labels = self._columns.labels if self._labelled else None
        told = labels is not None and all(self._is_label_of(number, labels) for number in {0, count - 1})
        if self._labelled and not told:
            labels = self._read_labels(count)
            self._columns = replace(self._columns, labels=labels)
        for number, id in enumerate(ids):
            place = None if self._columns.paths is None else str(number)
            yield Item(id, place, label_of(labels[number]) if labels is not None else None)

    def open(self, item: Item) -> Opened:
        """The picture of an item. Raises ValueError for whatever the data set raises."""
        number = int(item.place or item.id.removeprefix("index-"))
        try:
            picture = _picture(parts_of(self._get(number))[0])
        except TypeError as error:
            raise ValueError(f"item {number} of the data set: {error}") from error
        if isinstance(picture, Tensor) and not torch.isfinite(picture).all():
            raise ValueError(f"item {number} of the data set has values that are NaN or infinite")
        return picture

    def described(self) -> dict[str, Any]:
        """The kind of source and the type of the data set, for JSON."""
        kind = type(self.dataset)
        return {"kind": "dataset", "type": f"{kind.__module__}.{kind.__qualname__}", "items": len(self.dataset)}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def _get(self, number: int) -> Any:
        try:
            with nullcontext() if self._columns.paths is not None else self._lock:
                return self.dataset[number]
        except MemoryError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise ValueError(f"item {number} of the data set can't be read: {reason}") from error

    def _check_same(self) -> None:
        """Raises TypeError for a first item that is no picture, ValueError for another one at each look."""
        try:
            first, *others = (parts_of(self._get(0))[0] for _ in range(_LOOKS))
        except ValueError:
            return  # which costs the item, and not the run
        if not all(_equal(_picture(first), _picture(other)) for other in others):
            raise ValueError(f"item 0 of the data set is another picture each time it is read; {_SAME}")

    def _ids(self, count: int) -> Iterator[str]:
        paths = self._columns.paths
        if paths is None:
            yield from (f"index-{number:06d}" for number in range(count))
            return
        unique = Unique("items")
        files = [os.path.abspath(path) for path in paths]
        root = os.path.abspath(self._columns.root) if self._columns.root else common_folder(files) or ""
        for number, file in enumerate(files):
            yield unique.add(Path(os.path.relpath(file, root)).as_posix(), number)

    def _is_label_of(self, number: int, labels: Sequence[Any]) -> bool:
        """Whether an item comes with the label that the data set tells beforehand."""
        try:
            label = parts_of(self._get(number))[1]
        except ValueError:
            return True  # that it can't be read is told where it is explained
        return label is None or label_of(label) == label_of(labels[number])

    def _read_labels(self, count: int) -> list[Any] | None:
        """The labels that items come with; all items are read for it, if the first that can be has one."""
        labels: list[Any] = []
        for number in range(count):
            try:
                label = label_of(parts_of(self._get(number))[1])
            except ValueError:
                label = None
            else:
                if label is None and not any(each is not None for each in labels):
                    return None
            labels.append(label)
        self.notes = (
            f"all {count} items of the data set were read once for their labels; labels=None leaves that out",
        )
        return labels


def _picture(given: object) -> Opened:
    """What an item has as its picture. Raises TypeError for what is none."""
    if isinstance(given, np.ndarray) and given.dtype.kind == "f":
        given = torch.from_numpy(np.ascontiguousarray(given))
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        if not given.is_floating_point() or given.ndim < 1:
            raise TypeError(
                f"a tensor {given.dtype} {tuple(given.shape)} is no input; give floating point (C, *spatial) as the "
                "network takes it, or a PIL image"
            )
        return given
    if isinstance(given, np.ndarray) and (given.dtype != np.uint8 or given.ndim not in (2, 3)):
        raise TypeError(f"an array {given.dtype} {given.shape} is no picture; give uint8 (H, W, 3), or a tensor")
    if isinstance(given, Image.Image | np.ndarray | str | Path):
        return given
    raise TypeError(f"a {type(given).__name__} is no picture; a data set gives a picture, or a picture and a label")


def _equal(first: Opened, second: Opened) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first.nan_to_num(), second.nan_to_num())
    if isinstance(first, str | Path) or isinstance(second, str | Path):
        return first == second
    return np.array_equal(np.asarray(first), np.asarray(second))
