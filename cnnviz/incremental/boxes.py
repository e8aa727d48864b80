"""Boxes in which variants of a map differ from it, and how convolutions and pooling enlarge them.

Boxes of one group are computed together: all get the sides of the largest, and are moved inside the map where they
would exceed it. Places that a box has in excess are computed from unchanged values, so their values are correct.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

LEVELS = 2
"""Classes of distance to the border, for each dimension; near it boxes are smaller, since they are cut off."""
ENOUGH = 8
"""Minimum number of boxes per group, on average."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of W variants of a map of ``size``: from ``begins`` up to ``ends``, each (W, rank), on the CPU."""

    begins: Tensor
    ends: Tensor
    size: tuple[int, ...]

    @cached_property
    def sides(self) -> tuple[int, ...]:
        """The sides of the computed box, the same for all variants."""
        return tuple((self.ends - self.begins).amax(0).tolist())

    @cached_property
    def at(self) -> Tensor:
        """Where each computed box begins, (W, rank)."""
        return torch.minimum(
            self.begins, torch.tensor(self.size, device="cpu") - torch.tensor(self.sides, device="cpu")
        )

    @property
    def share(self) -> float:
        """The share of the map that a computed box covers, 0 to 1."""
        share = 1.0
        for side, length in zip(self.sides, self.size, strict=True):
            share *= side / length
        return share

    def at_numbers(self, numbers: Tensor) -> Boxes:
        """The boxes of these variants, in this order."""
        return Boxes(self.begins[numbers], self.ends[numbers], self.size)

    def spans(self, number: int) -> tuple[slice, ...]:
        """One variant's box as a slice for each dimension."""
        return tuple(map(slice, self.begins[number].tolist(), self.ends[number].tolist()))

    @classmethod
    def of(cls, boxes: Tensor, size: Sequence[int]) -> Boxes:
        """Boxes given as (W, rank, 2), begins and ends. Raises ValueError for empty ones, or outside of the map."""
        boxes = boxes.cpu()
        begins, ends = boxes.unbind(-1)
        if boxes.shape[1:] != (len(size), 2) or bool((begins < 0).any() | (ends <= begins).any()):
            raise ValueError(f"boxes are {tuple(boxes.shape)}; give (count, {len(size)}, 2), from where up to where")
        if bool((ends > torch.tensor(tuple(size), device="cpu")).any()):
            raise ValueError(f"a box ends at {ends.amax(0).tolist()}, outside of an input of {list(size)}")
        return cls(begins, ends, tuple(size))

    def moved(self, by: Sequence[int], size: tuple[int, ...]) -> Boxes:
        """The same boxes in a padded map of ``size``, shifted ``by`` the padding."""
        step = torch.tensor(by, device="cpu")
        return Boxes(self.begins + step, self.ends + step, size)

    def same(self, other: Boxes) -> bool:
        if self is other:
            return True
        # not only what is computed: what follows is reached from what has changed
        same = self.size == other.size and torch.equal(self.begins, other.begins)
        return same and torch.equal(self.ends, other.ends)


def union(boxes: Sequence[Boxes]) -> Boxes:
    """For each variant the smallest box that contains its boxes in all of these maps, which have one size."""
    first = boxes[0]
    if all(other.same(first) for other in boxes[1:]):
        return first
    begins = torch.stack([other.begins for other in boxes]).amin(0)
    return Boxes(begins, torch.stack([other.ends for other in boxes]).amax(0), first.size)


def places(at: Tensor, sides: Sequence[int], size: Sequence[int]) -> Tensor:
    """The flat numbers (K, places), in a map of ``size``, of all places in boxes of these sides that begin ``at``."""
    place = torch.zeros((1,) * len(sides), dtype=torch.long, device="cpu")
    start = torch.zeros(len(at), dtype=torch.long, device="cpu")
    for axis, (side, length) in enumerate(zip(sides, size, strict=True)):
        shape = [1] * len(sides)
        shape[axis] = side
        place = place * length + torch.arange(side, device="cpu").view(shape)
        start = start * length + at[:, axis]
    return start[:, None] + place.flatten()


@dataclass(frozen=True)
class Kernel:
    """The geometry of a sliding window; one number for each dimension."""

    lengths: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def reached(self, boxes: Boxes, size: tuple[int, ...]) -> Boxes:
        """The boxes of the result, of this size, that changes inside ``boxes`` reach; each at least one place."""
        strides, last = torch.tensor(self.strides, device="cpu"), torch.tensor(size, device="cpu") - 1
        reach = torch.tensor([(k - 1) * d for k, d in zip(self.lengths, self.dilation, strict=True)], device="cpu")
        shifted = torch.tensor(self.padding, device="cpu")
        low = -torch.div(-(boxes.begins + shifted - reach), strides, rounding_mode="floor")
        high = torch.div(boxes.ends - 1 + shifted, strides, rounding_mode="floor")
        low = torch.minimum(low.clamp(min=0), last)
        return Boxes(low, torch.maximum(torch.minimum(high, last), low) + 1, size)

    def needed(self, boxes: Boxes) -> tuple[Tensor, tuple[int, ...]]:
        """The part of the operand from which these boxes are computed: begins, possibly in the padding, and sides."""
        shapes = zip(boxes.sides, self.lengths, self.strides, self.dilation, strict=True)
        sides = tuple((side - 1) * s + (k - 1) * d + 1 for side, k, s, d in shapes)
        return boxes.at * torch.tensor(self.strides, device="cpu") - torch.tensor(self.padding, device="cpu"), sides

    def pads(self, operand_size: tuple[int, ...], size: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """The padding an operand of this size needs, before and behind each dimension, for a result of ``size``."""
        shapes = zip(self.lengths, self.strides, self.padding, self.dilation, operand_size, size, strict=True)
        return tuple((p, max(0, (out - 1) * s + (k - 1) * d + 1 - p - length)) for k, s, p, d, length, out in shapes)


def grouped(begins: Tensor, ends: Tensor, size: tuple[int, ...], stride: int) -> Iterator[Tensor]:
    """Groups of boxes (W, rank) that are computed together, as their numbers in the order of computation.

    Boxes of a group have similar sides and distances to the border. Boxes with the same offset within cells of
    ``stride``, the total stride of the network, follow each other: in every map their offsets are equal too.
    """
    levels = max(1, min(LEVELS, int((len(begins) / ENOUGH) ** (1 / len(size)))))
    room = torch.minimum(begins, torch.tensor(size, device="cpu") - ends)
    kinds = torch.cat([room * levels // (room.amax(0) + 1), (ends - begins).log2().ceil().long()], 1)
    _, kind = torch.unique(kinds, dim=0, return_inverse=True)
    order = torch.arange(len(begins), device="cpu")
    for column in (*begins.T.flip(0), *(begins % stride).T.flip(0)):
        order = order[column[order].argsort(stable=True)]
    for number in range(int(kind.max()) + 1):
        yield order[kind[order] == number]
