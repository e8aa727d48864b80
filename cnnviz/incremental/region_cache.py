"""What the rules for regions share of a recorded pass, and of the variants that are computed together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cnnviz.engine.speed.batch_norm import affine
from cnnviz.incremental.boxes import Boxes, Kernel
from cnnviz.incremental.regions import Recorded, Region, channels_last
from cnnviz.incremental.tape import Call

PAYS = 0.7
"""A larger share of a map is not worth cutting out."""


@dataclass(frozen=True, eq=False)
class Norm:
    """What a batch norm multiplies channels with, and adds to them."""

    call: Call
    scale: Tensor
    shift: Tensor

    @staticmethod
    def of(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Norm | None:
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
            return Norm(call, scale.detach(), shift.detach())

        return normed(*args, **kwargs)


@dataclass
class Around:
    """What the rules need of one recorded pass."""

    numbers: dict[Call, int]
    kept: dict[Any, Any] = field(default_factory=dict)
    """Recorded maps, ready to be cut from."""
    norms: dict[Call, Norm] = field(default_factory=dict)
    """Batch norms by the convolution that they alone read."""

    def recorded(self, call: Call) -> Recorded:
        found: Recorded = self.keep(call, lambda: Recorded(call.result))
        return found

    def keep(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def weights(self, call: Call, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """A convolution's weight and bias as they are read fastest, what norms its result included."""
        norm = self.norms.get(call)

        def made() -> tuple[Tensor, Tensor | None]:
            if norm is None:
                return channels_last(weight.detach()), bias
            scaled = weight * norm.scale.view(-1, *(1,) * (weight.ndim - 1))
            return channels_last(scaled.detach()), norm.shift if bias is None else bias * norm.scale + norm.shift

        found: tuple[Tensor, Tensor | None] = self.keep((call, "weights", norm is None), made)
        return found


@dataclass
class Chunk:
    """Some variants of one group, on their way through the model."""

    around: Around
    plan: dict[Any, Any]
    """Where the boxes are, by the number of the call; the same for all chunks of the group, and all recorded passes."""
    part: slice

    def planned(self, call: Call, make: Callable[[], Boxes]) -> Boxes | None:
        """Where the result changes; None where that is nearly everywhere."""
        number = self.around.numbers[call]
        if number not in self.plan:
            boxes = make()
            self.plan[number] = boxes if boxes.share <= PAYS else None
        found: Boxes | None = self.plan[number]
        return found

    def needed(self, call: Call, kernel: Kernel, boxes: Boxes) -> tuple[Tensor, tuple[int, ...]]:
        key = (self.around.numbers[call], "needed")
        if key not in self.plan:
            self.plan[key] = kernel.needed(boxes)
        found: tuple[Tensor, tuple[int, ...]] = self.plan[key]
        return found

    def region(self, call: Call, boxes: Boxes, inside: Tensor) -> Region:
        return Region.of(self.around.recorded(call), boxes, self.part, inside)
