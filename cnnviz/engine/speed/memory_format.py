"""In which order a forward pass keeps its numbers in memory: what is computed stays the same, to rounding.

With channels last, convolutions on a CPU take 0.6 to 0.95 of the time, unless the weights are many beside the places
they act on: they are brought into the same order in every pass. A model that looks at strides or at memory itself is
answered in the ordinary order, and always will be. So is one that writes through what is a view in one order and a copy
in the other.
"""

from __future__ import annotations

import platform
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket

ORDINARY = torch.contiguous_format
WEIGHTS_PER_PLACE = 320
SMALLEST = 64 * 64
_HALVES = (torch.bfloat16, torch.float16)

_ordinary: WeakSet[nn.Module] = WeakSet()
"""Models that were found to depend on the order."""

_READERS = {
    getattr(home, name)
    for home in (torch, Tensor)
    for name in (
        *("stride", "as_strided", "as_strided_", "as_strided_copy", "as_strided_scatter", "is_contiguous"),
        *("data_ptr", "untyped_storage", "storage", "_typed_storage", "set_", "resize_", "resize_as_", "dim_order"),
        *("__dlpack__", "to_mkldnn"),
    )
    if hasattr(home, name)
}

_COPYING = {
    getattr(home, name)
    for home in (torch, Tensor)
    for name in ("reshape", "reshape_as", "flatten", "ravel", "contiguous", "to")
    if hasattr(home, name)
}
"""What gives a view or a copy, as the order has it."""


class Written:
    """Whether a pass wrote into what may be a view in one order and a copy in the other, or into what that shows."""

    def __init__(self) -> None:
        self._versions: list[tuple[Tensor, int]] = []

    def meet(self, func: Any, given: Any, output: Any) -> None:
        """See a call, and remember it where the order may decide what its output is."""
        if func not in _COPYING or not isinstance(given, Tensor) or not isinstance(output, Tensor):
            return
        if given.ndim > 2 and given.shape[1] > 1 and given[0, 0].numel() > 1 and output.dtype is given.dtype:
            alive = [each.detach() for each in (given, output) if not each.is_inference()]
            self._versions += [(each, each._version) for each in alive]

    def since(self) -> bool:
        """Whether any of it was written into since. Forgets it all."""
        found = any(each._version != version for each, version in self._versions)
        self._versions.clear()
        return found


def preferred(model: nn.Module, inputs: Tensor, precision: torch.dtype | None = None) -> torch.memory_format:
    """The order in which a pass of these inputs is fastest, as far as it was measured: pictures on x86 CPUs."""
    measured = inputs.device.type == "cpu" and inputs.ndim == 4 and inputs.dtype is torch.float32
    if not measured or type(inputs) is not Tensor or inputs[0, 0].numel() < SMALLEST or model in _ordinary:
        return ORDINARY
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch._C._has_mkldnn:
        return ORDINARY
    weights = [module.weight.numel() for module in model.modules() if isinstance(module, nn.Conv2d)]
    if not weights or (sum(weights) > WEIGHTS_PER_PLACE * inputs[:, 0].numel() and precision not in _HALVES):
        return ORDINARY
    return torch.channels_last


def keep_ordinary(model: nn.Module) -> None:
    """Ask this model in the ordinary order from now on."""
    _ordinary.add(model)


def reads_layout(func: Any) -> bool:
    """Whether this call may use how a tensor lies in memory; of operations that are not torch's, nobody can say."""
    if func in _READERS:
        return True
    return isinstance(func, OpOverload | OpOverloadPacket) and _library(func) not in ("aten", "prims", "torchvision")


def _library(func: OpOverload | OpOverloadPacket) -> str:
    packet = func.overloadpacket if isinstance(func, OpOverload) else func
    return str(packet._qualified_op_name.partition("::")[0])
