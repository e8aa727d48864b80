"""What an implicit bias adds to the score, by input and by place, however its operation lays out the batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from cnnviz.engine.axes import (
    BATCH,
    MIXED,
    OWN,
    PART,
    PLACE,
    Axis,
    Digit,
    Dim,
    Label,
    dim_size,
    has_kind,
    segment_size,
    whole,
)
from cnnviz.engine.operations import Operation


class Placed(NamedTuple):
    """Where the axes of the input lie in a tensor of a pass."""

    label: Label | None
    """Perhaps split into more dimensions; None if that is not known."""

    def is_split(self, items: int) -> bool:
        """True if the output's values are known to belong to one input each."""
        return items == 1 or _by_item(self.label, items) is not None

    def rows(self, values: Tensor, items: int) -> Tensor:
        """What belongs to each input, (N, F), of values that are split."""
        order = _by_item(self.label, items)
        if order is None:
            return values.reshape(1, -1)
        sizes, batch = order
        its = values.reshape(sizes).movedim(batch, 0)
        return its.reshape(len(its), -1)  # a score (N,) has one number for each

    def _has_places(self, values: Tensor) -> bool:
        """True if each dimension behind the first two is a spatial axis, or one value for all places, as of a gate."""
        dims = zip(values.shape[2:], (self.label or ())[2:], strict=True)
        return all(size == 1 or _is_place(dim, number) for number, (size, dim) in enumerate(dims))

    def on_grid(self, values: Tensor, items: int, rank: int) -> Tensor | None:
        """The values as (N, C, *grid), where each place of the input has its own; None where it has not.

        Of tensors that were stacked, the one that descends from the explained input; tokens of no place are left out.
        """
        if self.label is None or rank < 1:
            return None
        if values.ndim == rank + 2 and self.label[0] == whole(Axis(BATCH, 0, items)) and self._has_places(values):
            return values
        digits: list[Digit] = []
        values = values.reshape(list(map(dim_size, self.label)))
        for number, dim in enumerate(self.label):
            begin, kept = _part_with_places(dim)
            if kept is None:
                return None
            values = values.narrow(number, begin, math.prod(digit.size for digit in kept))
            digits += kept
        values = values.reshape([digit.size for digit in digits])
        return _arranged(values, digits, items, rank)


class BiasTerm(NamedTuple):
    """The bias of one operation, which broadcasts to its output."""

    edge: GradientEdge
    """The graph edge at which it is added."""
    bias: Tensor
    place: Placed
    """Where the axes of the input lie in the output."""
    operation: Operation

    def contribution(self, grad: Tensor) -> Tensor:
        """Gradient x bias; nothing where the score does not see it, as an infinite mask of attention.

        Of complex numbers both parts count: torch's gradient holds the slopes of the real and the imaginary one.
        """
        share = (grad.conj() * self.bias).real if grad.is_complex() else grad * self.bias
        return torch.where(grad == 0, 0, share)


def unmerged(label: Label | None, mixed: Mapping[int, Dim]) -> Label | None:
    """The label with dimensions that were merged split up again, those of ``mixed`` back into their segments."""
    if label is None:
        return None
    dims: list[Dim] = []
    for dim in label:
        digits = dim[0] if len(dim) == 1 else ()
        if not any(digit.axis is not None and digit.axis.kind == MIXED and digit.whole for digit in digits):
            dims.append(dim)
            continue
        for digit in digits:
            whole_dim = digit.axis is not None and digit.axis.kind == MIXED and digit.whole
            dims.append(mixed[digit.axis.number] if whole_dim and digit.axis is not None else ((digit,),))
    return tuple(dims)


def _is_place(dim: Dim, number: int) -> bool:
    """True if a dimension is the input's spatial axis of this number, in its order."""
    digit = dim[0][0] if len(dim) == 1 and len(dim[0]) == 1 else None
    axis = None if digit is None or not digit.whole else digit.axis
    return axis is not None and (axis.kind, axis.number, axis.shift, axis.flipped) == (PLACE, number, 0, False)


def _arranged(values: Tensor, digits: list[Digit], items: int, rank: int) -> Tensor | None:
    for number in reversed(range(len(digits))):
        axis = digits[number].axis
        if axis is not None and axis.kind == PART and axis.chosen >= 0 and digits[number].whole:
            values = values.select(number, axis.chosen)
            del digits[number]
    groups = [_digits_of(digits, BATCH, 0), *(_digits_of(digits, PLACE, number) for number in range(rank))]
    if any(group is None for group in groups) or any(digit.axis and digit.axis.kind == OWN for digit in digits):
        return None
    known = [number for group in groups for number in group or ()]
    (batch, *places), channels = groups, [number for number in range(len(digits)) if number not in known]
    order = [*(batch or ()), *channels, *(number for place in places for number in place or ())]
    grid = [math.prod(digits[number].size for number in place or ()) for place in places]
    values = values.permute(order).reshape(items, -1, *grid)
    for number, place in enumerate(places):
        axis = digits[(place or [0])[0]].axis
        assert axis is not None
        values = values.flip(2 + number) if axis.flipped else values
        values = values.roll(-axis.shift, 2 + number) if axis.shift else values
    return values


def _digits_of(digits: list[Digit], kind: str, number: int) -> list[int] | None:
    """Where the digits of one axis lie, the slowest first; None if they are not all of it, each once."""
    found = [
        place
        for place, digit in enumerate(digits)
        if digit.axis is not None and (digit.axis.kind, digit.axis.number) == (kind, number)
    ]
    found.sort(key=lambda place: -digits[place].stride)
    stride = 1
    for place in reversed(found):
        axis = digits[place].axis
        if digits[place].stride != stride or axis is None or axis.partial:
            if digits[place].size == 1:
                continue
            return None
        stride *= digits[place].size
    axis = digits[found[0]].axis if found else None
    return found if axis is not None and stride == axis.length else None


def _part_with_places(dim: Dim) -> tuple[int, list[Digit] | None]:
    """Where the only segment begins that has inputs or places, and its digits; no digits where several have."""
    known = [number for number, segment in enumerate(dim) if has_kind((segment,), BATCH, PLACE, OWN, PART)]
    if len(known) > 1:
        return 0, None
    if not known:
        return 0, [Digit(None, 1, sum(map(segment_size, dim)))]
    return sum(map(segment_size, dim[: known[0]])), list(dim[known[0]])


def _by_item(label: Label | None, items: int) -> tuple[list[int], int] | None:
    """The sizes of all digits, and which is the batch; None where that is not known."""
    sizes: list[int] = []
    batches: list[int] = []
    for dim in label or ():
        if len(dim) > 1:
            if has_kind(dim, BATCH):
                return None
            sizes.append(sum(map(segment_size, dim)))
            continue
        for digit in dim[0]:
            if digit.axis is not None and digit.axis.kind == BATCH:
                batches.append(len(sizes))
                if not digit.whole or digit.size != items:
                    return None
            sizes.append(digit.size)
    return (sizes, batches[0]) if len(batches) == 1 else None
