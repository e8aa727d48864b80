"""A shard's file, open for reading: what is asked for is read, and nothing of it is believed before it is checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import safetensors
import torch
from torch import Tensor

from cnnviz.datasets.shards.kept_maps import restored_from_float16
from cnnviz.datasets.shards.shard_file import FORMAT, KIND, Column, ShardContent
from cnnviz.images.reading import one_line

_NUMBERS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "status": ("U8", ()),
    "target": ("I64", ()),
    "predicted": ("I64", ()),
    "score": ("F32", ()),
    "probability": ("F32", ()),
    "predicted_probability": ("F32", ()),
    "box": ("F64", (4,)),
    "size": ("I64", (2,)),
}
"""The columns that every shard has: how safetensors names the dtype, and the shape behind n."""
_STATUS = {"ok": 0, "error": 1}


class OpenShard:
    """A shard that was opened. Its header is read, and no tensor.

    Raises ValueError for a file that is no shard, is cut short, or has a newer format; OSError where it can't be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"the shard {self.path} is not there")
        try:
            self._file = cast(Any, safetensors.safe_open)(str(self.path), framework="pt")
            self.about: dict[str, Any] = json.loads((self._file.metadata() or {})["cnnviz"])
            self._keys = frozenset(self._file.keys())
            self._check_about()
        except KeyError as error:
            raise self._damaged(f"it has no {error}") from error
        except (safetensors.SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise self._damaged(one_line(error)) from error
        self.items: int = self.about["items"]
        for name, (dtype, shape) in _NUMBERS.items():
            if name not in self._keys:
                raise self._damaged(f"it has no {name}")
            found = self._file.get_slice(name)
            if found.get_dtype() != dtype or found.get_shape() != [self.items, *shape]:
                raise self._damaged(f"its {name} is {found.get_dtype()} {found.get_shape()}")

    def _check_about(self) -> None:
        about = self.about
        if about["kind"] != KIND:
            raise ValueError("it is of another kind")
        if type(about["format"]) is not int or about["format"] > FORMAT:
            raise ValueError(
                f"it has format {str(about['format'])[:20]}, and this cnnviz reads {FORMAT}; update cnnviz"
            )
        for name, kind in {"run": str, "shard": int, "first": int, "items": int, "explanations": dict}.items():
            if type(about[name]) is not kind:
                raise ValueError(f"its {name} is {str(about[name])[:40]!r}")
        if about["items"] < 1 or not all(isinstance(told, dict) for told in about["explanations"].values()):
            raise ValueError("it tells of no items, or not what their explanations are")

    def _damaged(self, reason: str) -> ValueError:
        return ValueError(f"{self.path} is damaged, or no shard of a batch: {reason}")

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods."""
        return tuple(self.about["explanations"])

    def told(self, method: str, kind: str) -> tuple[str, ...]:
        """The names of a method's ``notes`` or ``metrics``."""
        names = self.about["explanations"].get(method, {}).get(kind, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self._damaged(f"the {kind} of {method} are {str(names)[:40]}")
        return tuple(names)

    @cached_property
    def _lines(self) -> list[str]:
        lines = bytes(self._read("rows").numpy()).decode("ascii", "replace").split("\n")
        if len(lines) != self.items + 1 or lines[-1]:
            raise self._damaged(f"it has {max(len(lines) - 1, 0)} rows for {self.items} items")
        return lines[:-1]

    def row(self, slot: int) -> dict[str, Any]:
        """What is said of the item at this place in the shard."""
        line = self._lines[slot]
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"its row {slot} is no JSON") from error
        if not isinstance(row, dict) or type(row.get("id")) is not str:
            raise self._damaged(f"its row {slot} has no id")
        if _STATUS.get(str(row.get("status"))) != self._statuses[slot]:
            raise self._damaged(f"its row {slot} and its status say different things")
        return row

    @cached_property
    def _statuses(self) -> list[int]:
        statuses: list[int] = self.numbers("status").tolist()
        return statuses

    def numbers(self, name: str) -> Tensor:
        """A column (n, ...) of small things, which is read once."""
        if name not in self._numbers:
            self._numbers[name] = self._read(name)
        return self._numbers[name]

    @cached_property
    def _numbers(self) -> dict[str, Tensor]:
        return {}

    def metric(self, method: str, metric: str) -> Tensor:
        """(n,) float64; NaN where it is not known."""
        values = self.numbers(f"metrics/{method}/{metric}")
        if values.shape != (self.items,) or values.dtype != torch.float64:
            raise self._damaged(f"its {metric} is {values.dtype} {tuple(values.shape)}")
        return values

    def has(self, key: str) -> bool:
        """Whether there is such a column of things that have a shape."""
        return key in self._keys or f"flat/{key}" in self._keys

    def at(self, key: str, slot: int) -> Tensor:
        """What a column, such as ``maps/grad_cam``, has for one item; only that is read. Of a failed item anything."""
        scale = self.numbers(f"scale/{key}")[slot : slot + 1] if f"scale/{key}" in self._keys else None
        if key in self._keys:
            stored = self._part(key, slot, slot + 1)
        else:
            shape, start = self._place(key, slot)
            stored = self._part(f"flat/{key}", start, start + math.prod(shape)).reshape(1, *shape)
        return self._plain(key, stored, scale)[0]

    def every(self, key: str) -> Column:
        """What a column has for all items: a tensor (n, ...), or a list where their shapes differ."""
        if key not in self._keys:
            return [self.at(key, slot) for slot in range(self.items)]
        scale = self.numbers(f"scale/{key}") if f"scale/{key}" in self._keys else None
        stored = self._read(key)
        if len(stored) != self.items:
            raise self._damaged(f"its {key} is {tuple(stored.shape)}, for {self.items} items")
        return self._plain(key, stored, scale)

    def _place(self, key: str, slot: int) -> tuple[list[int], int]:
        """The shape of an item in a flat column, and where it starts."""
        shapes, starts = self.numbers(f"shapes/{key}"), self.numbers(f"starts/{key}")
        whole = {torch.int64} == {shapes.dtype, starts.dtype}
        if not whole or shapes.ndim != 2 or starts.shape != (self.items,) or len(shapes) != self.items:
            raise self._damaged(f"its {key} has no shapes")
        shape, start = shapes[slot].tolist(), int(starts[slot])
        length = self._file.get_slice(f"flat/{key}").get_shape()
        if min(shape, default=0) < 0 or start < 0 or len(length) != 1 or start + math.prod(shape) > length[0]:
            raise self._damaged(f"item {slot} of its {key} reaches beyond what is there")
        return shape, start

    def _plain(self, key: str, stored: Tensor, scale: Tensor | None) -> Tensor:
        if scale is not None:
            if scale.shape != (len(stored),) or not scale.is_floating_point() or stored.dtype != torch.float16:
                raise self._damaged(f"its {key} is {stored.dtype}, its scale {scale.dtype} {tuple(scale.shape)}")
            stored = restored_from_float16(stored, scale)
        if key.startswith("maps/") and not bool(stored.isfinite().all()):
            raise self._damaged(f"its {key} has values that are NaN or infinite")
        return stored

    def _read(self, name: str) -> Tensor:
        if name not in self._keys:
            raise self._damaged(f"it has no {name}")
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def _part(self, name: str, start: int, stop: int) -> Tensor:
        if name not in self._keys:
            raise self._damaged(f"it has no {name}")
        found = self._file.get_slice(name)
        if stop > (found.get_shape() or [0])[0]:
            raise self._damaged(f"its {name} is {found.get_shape()}, for {self.items} items")
        part: Tensor = found[start:stop]
        return part

    def content(self) -> ShardContent:
        """All of it, as it was packed."""
        columns: dict[str, Any] = {name: self._read(name) for name in _NUMBERS if name != "status"}
        columns |= {name: self.every(name) for name in ("boxes", "input_shape") if self.has(name)}
        return ShardContent(
            rows=[self.row(slot) for slot in range(self.items)],
            maps={name: self.every(f"maps/{name}") for name in self.methods if self.has(f"maps/{name}")},
            notes={
                name: {
                    note: self.every(f"notes/{name}/{note}")
                    for note in self.told(name, "notes")
                    if self.has(f"notes/{name}/{note}")
                }
                for name in self.methods
            },
            metrics={
                name: {metric: self.metric(name, metric) for metric in self.told(name, "metrics")}
                for name in self.methods
            },
            **columns,
        )


def open_shard(path: str | Path) -> OpenShard:
    """A shard's file, open for reading. Raises as :class:`OpenShard` does."""
    return OpenShard(path)
