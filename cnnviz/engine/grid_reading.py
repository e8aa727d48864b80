"""Reading a layer's output as (N, C, *grid), wherever its batch, channels and places lie, and writing it back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from cnnviz.engine.axes import (
    BATCH,
    CHANNEL,
    MIXED,
    OWN,
    PART,
    PLACE,
    AxisFollower,
    Digit,
    Dim,
    Label,
    axes_of,
    has_kind,
    segment_size,
    unknown,
)

Layout: TypeAlias = Literal["auto", "tokens", "channels_last", "channels_first"]
_ITEMS = -1


class NoGrid(ValueError):
    """A layer's output is not laid out over a grid; the message says why."""


@dataclass(frozen=True)
class GridReading:
    """How to view an output of a layer as (N, C, *grid).

    Each dimension is cut to a part of it and split into digits; these are ordered as batch, channels and grid.
    """

    cuts: tuple[tuple[int, int] | None, ...]
    """For each dimension where what is read begins, and how long it is; None: all of it."""
    digits: tuple[tuple[int, ...], ...]
    """For each dimension the sizes that it is split into; -1 is the number of items."""
    order: tuple[int, ...]
    """The digits of all dimensions, those of channels first, then those of the grid; the batch is not among them."""
    channels: int
    """How many of these are of channels."""
    batch: int | None
    """Which digit is the batch; None where one item has no batch dimension."""
    parts: tuple[tuple[int, int], ...] = ()
    """Digits of stacked tensors, and which of them is read."""
    flips: tuple[int, ...] = ()
    """Dimensions of the grid that run backwards."""
    shifts: tuple[int, ...] = ()
    """By how much each dimension of the grid was rolled on."""
    own: bool = False
    """True if the grid is the layer's own, and not that of the input."""

    @property
    def channels_first(self) -> bool:
        """True if the output is (N, C, *grid) as it is."""
        simple = all(len(digits) == 1 for digits in self.digits) and self.batch == 0
        untouched = not any(self.cuts) and not self.parts and not self.flips and not any(self.shifts)
        return simple and untouched and self.order == tuple(range(1, len(self.digits))) and self.channels == 1

    @property
    def batch_first(self) -> bool:
        """True if the items of a batch lie one after the other in the first dimension."""
        return self.batch == 0 and self.digits[0] == (_ITEMS,) and self.cuts[0] is None

    def read(self, output: Tensor, items: int) -> Tensor:
        """The output as (N, C, *grid). Raises NoGrid where it has another shape than was known."""
        if self.channels_first:
            return output
        values = self._view(output, items)
        sizes = values.shape
        count = 1 if self.batch is None else sizes[0]
        rest = sizes[1:] if self.batch is not None else sizes
        skipped = len(self.parts)
        channels = math.prod(rest[skipped : skipped + self.channels])
        values = values.reshape(count, channels, *rest[skipped + self.channels :])
        values = values.flip([2 + dim for dim in self.flips]) if self.flips else values
        for dim, shift in enumerate(self.shifts):
            values = values.roll(-shift, 2 + dim) if shift else values
        return values

    def write(self, output: Tensor, values: Tensor) -> Tensor:
        """A copy of the output in which what is read is ``values``, (N, C, *grid)."""
        if self.channels_first:
            return values
        copy = output.clone().contiguous()
        for dim, shift in enumerate(self.shifts):
            values = values.roll(shift, 2 + dim) if shift else values
        values = values.flip([2 + dim for dim in self.flips]) if self.flips else values
        view = self._view(copy, len(values))
        view.copy_(values.reshape(view.shape))
        return copy

    def _view(self, output: Tensor, items: int) -> Tensor:
        """The digits that are read: the batch, the parts, the channels, the grid."""
        if output.ndim != len(self.digits):
            raise NoGrid(f"gives {tuple(output.shape)}, which was not known to happen")
        sizes: list[int] = []
        for dim, (cut, digits) in enumerate(zip(self.cuts, self.digits, strict=True)):
            scale = items if _ITEMS in digits else 1
            if cut is not None:
                output = output.narrow(dim, cut[0] * scale, cut[1] * scale)
            sizes += [items if size == _ITEMS else size for size in digits]
        if math.prod(sizes) != output.numel():
            raise NoGrid(f"gives {tuple(output.shape)}, which was not known to happen")
        values = output.view(sizes) if output.is_contiguous() else _split(output, self.digits, items)
        for digit, chosen in self.parts:
            values = values.narrow(digit, chosen, 1)
        first = [] if self.batch is None else [self.batch]
        return values.permute([*first, *(digit for digit, _ in self.parts), *self.order])


def _split(output: Tensor, digits: Sequence[Sequence[int]], items: int) -> Tensor:
    """A view with each dimension split, whatever the strides are."""
    for dim in range(output.ndim - 1, -1, -1):
        sizes = [items if size == _ITEMS else size for size in digits[dim]]
        output = output.view(*output.shape[:dim], *sizes, *output.shape[dim + 1 :]) if len(sizes) > 1 else output
    return output


def reading_of(label: Label, rank: int, items: int, axes: AxisFollower) -> GridReading:
    """How an output with this label is read. Raises NoGrid with the reason why it can't be.

    Args:
        label: where the axes lie.
        rank: how many spatial dimensions the input has.
        items: the number of inputs.
        axes: what followed them.
    """
    cuts: list[tuple[int, int] | None] = []
    dims: list[list[Digit]] = []
    for dim in label:
        begin, digits = _read_part(dim)
        cut = None if begin is None else (begin, math.prod(digit.size for digit in digits))
        if cut is not None and any(_is_batch(digit) for digit in digits):
            if any(number % items for number in cut):
                raise NoGrid("holds inputs among other things, one beside the other")
            cut = cut[0] // items, cut[1] // items
        cuts.append(cut)
        dims.append(digits)
    flat = [(number, digit) for number, digits in enumerate(dims) for digit in digits]
    batches = [place for place, (_, digit) in enumerate(flat) if _is_batch(digit)]
    if len(batches) > 1 or any(not flat[place][1].whole for place in batches):
        raise NoGrid("mixes the items of the batch")
    if not batches and items > 1:
        raise NoGrid("does not give one item for each input")
    folded = {flat[place][0] for place in batches}
    places: list[int] = []
    frames: list[int] = []
    channels: list[int] = []
    parts: list[tuple[int, int]] = []
    for place, (number, digit) in enumerate(flat):
        axis = digit.axis
        if axis is not None and axis.kind == MIXED:
            raise NoGrid("has places and extra tokens merged with other dimensions")
        if axis is not None and axis.kind in (PLACE, OWN):
            if not digit.whole:
                raise NoGrid("is cut into windows, padded, or holds a part of the grid")
            places.append(place)
        elif axis is not None and axis.kind == PART and axis.chosen >= 0 and digit.whole:
            parts.append((place, axis.chosen))
        elif place not in batches:
            (frames if number in folded and digit.size > 1 else channels).append(place)
    grid_axes = [flat[place][1].axis for place in places]
    if len({(axis.kind, axis.number) for axis in grid_axes if axis is not None}) < len(grid_axes):
        raise NoGrid("has the same places twice, as the matrix of an attention")
    numbers = [axis.number for axis in grid_axes if axis is not None and axis.kind == PLACE]
    own = bool(frames) or len(numbers) < len(places) or sorted(numbers) != list(range(rank))
    if not places or math.prod(flat[place][1].size for place in places) < 2:
        raise NoGrid("has no spatial extent")
    if not own:
        places = [place for _, place in sorted(zip(numbers, places, strict=True))]
    wide = {flat[place][0] for place in channels if flat[place][1].size > 1}
    if len(wide) > 1:
        raise NoGrid("has channels in several dimensions, as the queries, keys and values of an attention")
    if any(axis is not None and axis.kind == CHANNEL and axes.number(axis) in axes.cut
           for place in channels for axis in [flat[place][1].axis]):  # fmt: skip
        raise NoGrid("is cut into queries, keys and values, or still into the heads of an attention")
    grid = [*frames, *places]
    axes_of_grid = [flat[place][1].axis for place in grid]
    return GridReading(
        cuts=tuple(cuts),
        digits=tuple(tuple(_ITEMS if _is_batch(digit) else digit.size for digit in digits) for digits in dims),
        order=(*channels, *grid),
        channels=len(channels),
        batch=batches[0] if batches else None,
        parts=tuple(parts),
        flips=tuple(n for n, axis in enumerate(axes_of_grid) if axis is not None and axis.flipped),
        shifts=tuple(axis.shift if axis is not None else 0 for axis in axes_of_grid),
        own=own,
    )


def reading_by_hand(shape: Sequence[int], layout: Layout, grid: Sequence[int] | None, extra: int) -> GridReading:
    """The reading of an output (N, ...) as its user says it is laid out. Raises NoGrid where it is not.

    Args:
        shape: of the output.
        layout: "tokens" is (N, T, C), "channels_last" (N, *grid, C), "channels_first" (N, C, *grid).
        grid: the sizes of the grid; None for tokens on a square, and for what has a grid already.
        extra: how many tokens before the grid belong to no place; behind it, if negative.
    """
    if layout == "tokens":
        return _tokens(shape, grid, extra)
    here = tuple(shape[1:-1] if layout == "channels_last" else shape[2:])
    if len(shape) < 3 or (grid is not None and tuple(grid) != here):
        raise NoGrid(f"gives {tuple(shape)}, which is not {layout.replace('_', ' ')} with the grid {grid}")
    digits = ((_ITEMS,), *((size,) for size in shape[1:]))
    rank = len(here)
    order = (rank + 1, *range(1, rank + 1)) if layout == "channels_last" else tuple(range(1, rank + 2))
    return GridReading((None,) * len(shape), digits, order, 1, 0)


def reading_by_shape(shape: Sequence[int], inputs: Sequence[int]) -> GridReading | None:
    """The reading of an output that is a map (N, C, *spatial) by its shape; None if it is not."""
    if len(shape) != len(inputs) or len(shape) < 3 or shape[0] != inputs[0] or math.prod(shape[2:]) < 2:
        return None
    digits = ((_ITEMS,), *((size,) for size in shape[1:]))
    return GridReading((None,) * len(shape), digits, tuple(range(1, len(shape))), 1, 0)


def _tokens(shape: Sequence[int], grid: Sequence[int] | None, extra: int) -> GridReading:
    if len(shape) != 3:
        raise NoGrid(f"gives {tuple(shape)}, which are no tokens (N, T, C); leave layout out, or say another one")
    count = shape[1] - abs(extra)
    side = math.isqrt(max(count, 0))
    sizes = tuple(grid) if grid is not None else (side, side)
    if math.prod(sizes) != count:
        raise NoGrid(
            f"gives {tuple(shape)}: {shape[1]} tokens without {abs(extra)} extra ones are no grid of "
            f"{' x '.join(map(str, sizes))}; say grid=(height, width) and extra="
        )
    places = range(1, 1 + len(sizes))
    digits = ((_ITEMS,), sizes, (shape[2],))
    return GridReading((None, (max(extra, 0), count), None), digits, (1 + len(sizes), *places), 1, 0)


def _read_part(dim: Dim) -> tuple[int | None, list[Digit]]:
    """Where the segment that is read begins, None if it is all, and its digits."""
    kinds = [has_kind((segment,), BATCH, PLACE, OWN, PART, MIXED) for segment in dim]
    if len(dim) == 1:
        return None, list(dim[0])
    if sum(kinds) > 1:
        raise NoGrid("has the same places twice")
    if not any(kinds):
        axes = [axis for axis in axes_of(dim) if axis.kind == CHANNEL]
        size = sum(map(segment_size, dim))
        return None, list(dim[0] if len(axes) == 1 and segment_size(dim[0]) == size else unknown(size)[0])
    number = kinds.index(True)
    return sum(map(segment_size, dim[:number])), list(dim[number])


def _is_batch(digit: Digit) -> bool:
    return digit.axis is not None and digit.axis.kind == BATCH
