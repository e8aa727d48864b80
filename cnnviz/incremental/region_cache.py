"""Caches of a recorded pass, and of the variants that are computed together, for the rules on regions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cnnviz.engine.speed.batch_norm import affine
from cnnviz.incremental.boxes import Boxes, Kernel
from cnnviz.incremental.regions import Recorded, Region, channels_last
from cnnviz.incremental.tape import RecordedOp

PAYS = 0.7
"""A larger share of a map is not worth cutting out."""


@dataclass(frozen=True, eq=False)
class Norm:
    """Batch norm with fixed statistics, as a factor and a shift for each channel."""

    op: RecordedOp
    scale: Tensor
    shift: Tensor

    @staticmethod
    def of(op: RecordedOp, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Norm | None:
        """None where there are no fixed statistics, or too few digits to multiply weights beforehand."""

        def normed(
            input: Tensor,
            running_mean: Tensor | None,
            running_var: Tensor | None,
            weight: Tensor | None = None,
            bias: Tensor | None = None,
            training: bool = False,
            momentum: float = 0.1,
            eps: float = 1e-5,
        ) -> Norm | None:
            exact = input.dtype in (torch.float32, torch.float64)
            if training or running_mean is None or running_var is None or not exact or input.dtype != running_var.dtype:
                return None
            scale, shift = affine(running_mean, running_var, weight, bias, eps)
            return Norm(op, scale.detach(), shift.detach())

        return normed(*args, **kwargs)


@dataclass
class RegionCache:
    """What the rules need of one recorded pass."""

    numbers: dict[RecordedOp, int]
    ordinary: bool = False
    """True if the pass was recorded in the ordinary memory format, which the model may count on."""
    values: dict[Any, Any] = field(default_factory=dict)
    """Recorded maps, ready to be cut from, and weights."""
    norms: dict[RecordedOp, Norm] = field(default_factory=dict)
    """Batch norms by the convolution that they alone read."""

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
    """Some variants of one group, on their way through the model."""

    cache: RegionCache
    plan: dict[Any, Any]
    """Where the boxes are, by the number of the op; the same for all chunks of the group, and all recorded passes."""
    part: slice

    def planned(self, op: RecordedOp, make: Callable[[], Boxes]) -> Boxes | None:
        """Where the result changes; None where that is nearly everywhere."""
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
