"""Caches for the region rules: one of a recorded pass, one of the variants that are computed together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cnnviz.engine.speed.batch_norm import BatchNormCall
from cnnviz.incremental.boxes import Boxes, Kernel
from cnnviz.incremental.regions import Recorded, Region, channels_last
from cnnviz.incremental.tape import RecordedOp

PAYS = 0.7
"""Boxes that cover a larger share of a map are computed on full maps."""


@dataclass(frozen=True, eq=False)
class Norm:
    """Batch norm with fixed statistics, as a factor and a shift for each channel."""

    op: RecordedOp
    scale: Tensor
    shift: Tensor

    @staticmethod
    def of(op: RecordedOp, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Norm | None:
        """None where there are no fixed statistics, or too few digits to multiply weights beforehand."""
        call = BatchNormCall(*args, **kwargs)
        factors, variance = call.affine(), call.running_var
        if factors is None or variance is None or variance.dtype != call.input.dtype:
            return None
        if variance.dtype not in (torch.float32, torch.float64):
            return None
        scale, shift = factors
        return Norm(op, scale.detach(), shift.detach())


@dataclass
class RegionCache:
    """Values derived from one recorded pass, made when a region rule first needs them."""

    numbers: dict[RecordedOp, int]
    ordinary: bool = False
    """True if the pass was recorded in the ordinary memory format, which the model may count on."""
    values: dict[Any, Any] = field(default_factory=dict)
    """Recorded maps, ready to be cut from, and weights."""
    norms: dict[RecordedOp, Norm] = field(default_factory=dict)
    """Batch norms that are folded into a convolution, by that convolution; they alone read its output."""

    def recorded(self, op: RecordedOp) -> Recorded:
        recorded: Recorded = self.keep(op, lambda: Recorded(op.result))
        return recorded

    def keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """The value of that key, made when it is first needed."""
        if key not in self.values:
            self.values[key] = make()
        return self.values[key]

    def weights(
        self, op: RecordedOp, weight: Tensor, bias: Tensor | None, for_full_maps: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """A convolution's weight and bias in the memory format of its operand, with a folded batch norm's factors."""
        norm, ordinary = self.norms.get(op), self.ordinary and for_full_maps

        def made() -> tuple[Tensor, Tensor | None]:
            folded, shift = weight.detach(), bias
            if norm is not None:
                folded = folded * norm.scale.view(-1, *(1,) * (weight.ndim - 1))
                shift = norm.shift if bias is None else bias * norm.scale + norm.shift
            return folded if ordinary else channels_last(folded), shift

        weights: tuple[Tensor, Tensor | None] = self.keep((op, "weights", norm is None, ordinary), made)
        return weights


@dataclass
class Chunk:
    """Some variants of one group, which pass through the model together."""

    cache: RegionCache
    plan: dict[Any, Any]
    """The boxes of each op, by its number; the same for all chunks of the group, and all recorded passes."""
    part: slice

    def planned(self, op: RecordedOp, make: Callable[[], Boxes]) -> Boxes | None:
        """The boxes in which the result changes; None where they cover nearly all of the map."""
        number = self.cache.numbers[op]
        if number not in self.plan:
            boxes = make()
            self.plan[number] = boxes if boxes.share <= PAYS else None
        planned: Boxes | None = self.plan[number]
        return planned

    def needed(self, op: RecordedOp, kernel: Kernel, boxes: Boxes) -> tuple[Tensor, tuple[int, ...]]:
        """Where the operand of these boxes begins, and its sides."""
        key = (self.cache.numbers[op], "needed")
        if key not in self.plan:
            self.plan[key] = kernel.needed(boxes)
        needed: tuple[Tensor, tuple[int, ...]] = self.plan[key]
        return needed

    def region(self, op: RecordedOp, boxes: Boxes, inside: Tensor) -> Region:
        """Variants of the op's result that differ from it in these boxes."""
        return Region.of(self.cache.recorded(op), boxes, self.part, inside)
