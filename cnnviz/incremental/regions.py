"""Variants of a recorded map: each stores only the values inside its box, and equals the recorded map outside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.deferred import uploaded
from cnnviz.incremental.boxes import Boxes, places

Pads = tuple[tuple[int, int], ...]


class Recorded:
    """One recorded map (1, C, *spatial), channels last, so that boxes are cut fast; padded copies are cached."""

    def __init__(self, values: Tensor):
        self.values = channels_last(values)
        self.ordinary = values.is_contiguous()
        """True if it was recorded in the ordinary memory format, which the model may rely on."""
        self.size = tuple(values.shape[2:])
        self._padded: dict[tuple[Pads, float], Tensor] = {}

    def cut(self, at: Tensor, sides: tuple[int, ...], pads: Pads | None = None, value: float = 0.0) -> Tensor:
        """Boxes of the map, (K, C, *sides), that begin ``at`` (K, rank), which may lie in the padding."""
        pads = pads or ((0, 0),) * len(sides)
        if (pads, value) not in self._padded:
            self._padded[pads, value] = self._rows(pads, value)
        rows = self._padded[pads, value]
        lengths = [sum(pad) + length for pad, length in zip(pads, self.size, strict=True)]
        first = at + torch.tensor([low for low, _ in pads], device="cpu")
        index = uploaded(places(first, sides, lengths).flatten(), rows.device)
        return rows.index_select(0, index).view(len(at), *sides, rows.shape[1]).movedim(-1, 1)

    def _rows(self, pads: Pads, value: float) -> Tensor:
        values = self.values
        if any(low or high for low, high in pads):
            values = F.pad(values, [length for pad in reversed(pads) for length in pad], value=value)
        return values.movedim(1, -1).reshape(-1, values.shape[1])


class Region(Tensor):
    """K variants of a map, (K, C, *spatial), stored as their boxes. Only the shape can be read without ``full``."""

    recorded: Recorded
    boxes: Boxes
    """The boxes of all variants of the group."""
    part: slice
    """Which variants of the group these are."""
    inside: Tensor
    """The values inside the boxes, (K, C, *sides)."""
    dissolved: bool
    """True if the model may hold a view of the full maps, which are then used instead of the boxes."""
    _full: Tensor | None

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # so torch documents it

    @staticmethod
    def of(recorded: Recorded, boxes: Boxes, part: slice, inside: Tensor) -> Region:
        shape = (*inside.shape[:2], *recorded.size)
        region: Region = torch.Tensor._make_wrapper_subclass(Region, shape, dtype=inside.dtype, device=inside.device)
        region.become(recorded, boxes, part, inside)
        region.dissolved = False
        return region

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]  # torch's stub has no class
        raise NotImplementedError(f"{func} met a part of a map where it takes a whole one")

    def become(self, recorded: Recorded, boxes: Boxes, part: slice, inside: Tensor) -> None:
        """Take the values of another region, as an in-place operation does."""
        self.recorded, self.boxes, self.part, self.inside, self._full = recorded, boxes, part, inside, None

    def full(self) -> Tensor:
        """The full maps (K, C, *spatial); the same tensor until the region is written over."""
        if self._full is None:
            places, sides = self.boxes.at[self.part].tolist(), self.boxes.sides
            values = self.recorded.values
            if self.recorded.ordinary:
                laid = values.expand(len(places), *values.shape[1:])
                self._full = laid.clone(memory_format=torch.contiguous_format)
            else:
                laid = values.movedim(1, -1).expand(len(places), *self.recorded.size, values.shape[1])
                self._full = laid.clone(memory_format=torch.contiguous_format).movedim(-1, 1)
            for full, begin, inside in zip(self._full, places, self.inside, strict=True):
                place: list[slice] = [slice(None), *map(_span, begin, sides)]
                full[tuple(place)] = inside
        return self._full

    def dissolve(self) -> Tensor:
        """The full maps, which are used instead of the boxes from now on: they may be written, and viewed in parts."""
        full = self.full()
        self.dissolved = True
        return full

    def cut(self, at: Tensor, sides: tuple[int, ...], pads: Pads | None = None, value: float = 0.0) -> Tensor:
        """Boxes of these variants, (K, C, *sides); ``at`` (W, rank) says where they begin for the whole group."""
        at = at[self.part]
        offsets = (self.boxes.at[self.part] - at).tolist()
        runs = [(offset, len(list(run))) for offset, run in groupby(offsets)]
        if len(runs) == 1 and all(map(_holds, runs[0][0], self.boxes.sides, sides)):
            if sides == self.boxes.sides:
                return self.inside
            spans: list[Any] = [_span(-offset, side) for offset, side in zip(runs[0][0], sides, strict=True)]
            return self.inside[(..., *spans)]
        values, start = self.recorded.cut(at, sides, pads, value), 0
        for offset, count in runs:
            in_cut, in_box = zip(*_overlaps(offset, self.boxes.sides, sides), strict=True)
            some = slice(start, start + count)
            values[(some, slice(None), *in_cut)] = self.inside[(some, slice(None), *in_box)]
            start += count
        return values


def full(value: Tensor) -> Tensor:
    """The full maps of a region; any other tensor as it is."""
    return value.full() if isinstance(value, Region) else value


def channels_last(values: Tensor) -> Tensor:
    """The same values (N, C, *spatial), a place's channels side by side."""
    return values.movedim(1, -1).contiguous().movedim(-1, 1)


def _overlaps(offset: Sequence[int], sides: Sequence[int], cut: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """For each dimension, where a box and a cut overlap: a slice of the cut, and one of the box."""
    for move, length, side in zip(offset, sides, cut, strict=True):
        low, high = min(max(0, move), side), max(0, min(side, move + length))
        yield slice(low, max(low, high)), slice(low - move, max(low, high) - move)


def _holds(offset: int, side: int, cut: int) -> bool:
    return offset <= 0 and offset + side >= cut


def _span(begin: int, length: int) -> slice:
    return slice(begin, begin + length)
