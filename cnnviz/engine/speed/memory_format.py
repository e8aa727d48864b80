"""Memory formats of a forward pass: channels last where that is faster. The results are equal up to rounding.

With channels last, convolutions on a CPU take 0.6 to 0.95 of the time, unless the weights are many beside the places
they act on: weights are reordered in every pass. A model that reads strides or memory itself is computed in the
ordinary memory format, now and later. So is a model that writes through what is a view in one format and a copy in the
other.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket

from cnnviz.engine.model_facts import facts_of

ORDINARY = torch.contiguous_format
WEIGHTS_PER_PLACE = 320
SMALLEST = 64 * 64
_HALVES = (torch.bfloat16, torch.float16)

_READERS = {
    getattr(home, name)
    for home in (torch, Tensor)
    for name in (
        *("stride", "as_strided", "as_strided_", "as_strided_copy", "as_strided_scatter", "is_contiguous"),
        *("data_ptr", "untyped_storage", "storage", "_typed_storage", "set_", "resize_", "resize_as_", "dim_order"),
        *("__dlpack__", "to_mkldnn", "numpy", "__array__"),
    )
    if hasattr(home, name)
}

_COPYING = {
    getattr(home, name)
    for home in (torch, Tensor)
    for name in ("reshape", "reshape_as", "flatten", "ravel", "contiguous", "to")
    if hasattr(home, name)
}
"""Operations that return a view or a copy, depending on the memory format."""

_DATA = Tensor.data.__get__  # type: ignore[attr-defined]  # through it a write is not counted at the tensor itself


class LayoutReads:
    """Detects whether a pass may depend on how its tensors lie in memory.

    That is so where it asks for strides or memory, calls operators of other libraries, or writes in place into a tensor
    that is a view in one memory format and a copy in the other.
    """

    def __init__(self, layout: torch.memory_format):
        self.layout = layout
        self.detected = False
        self._versions: list[tuple[Tensor, int]] = []

    def see(self, func: Any, args: Any, kwargs: Any, output: Any) -> None:
        """One operation and its output; in the ordinary memory format nothing is to be found."""
        if self.layout is ORDINARY:
            return
        self.detected = self.detected or reads_layout(func)
        if func not in _COPYING and func != _DATA:
            return
        source = next(iter([*args, *kwargs.values()]), None)
        if not isinstance(source, Tensor) or not isinstance(output, Tensor):
            return
        # whatever its size and strides: in the other format the source may lie otherwise
        if output.dtype is source.dtype and source.numel() > 1:
            sharing = [tensor.detach() for tensor in (source, output) if not tensor.is_inference()]
            self._versions += [(tensor, tensor._version) for tensor in sharing]

    def finish(self) -> bool:
        """The pass is over: True if it may depend on the memory format."""
        self.detected = self.detected or any(tensor._version != version for tensor, version in self._versions)
        self._versions.clear()
        return self.detected


def preferred(model: nn.Module, inputs: Tensor, precision: torch.dtype | None = None) -> torch.memory_format:
    """The memory format in which a pass of these inputs is fastest, as measured: for pictures on x86 CPUs."""
    measured = inputs.device.type == "cpu" and inputs.ndim == 4 and inputs.dtype is torch.float32
    if not measured or type(inputs) is not Tensor or inputs[0, 0].numel() < SMALLEST:
        return ORDINARY
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch._C._has_mkldnn:
        return ORDINARY
    facts, weights = facts_of(model), "weights of convolutions"
    if facts.get(ORDINARY):
        return ORDINARY
    if weights not in facts:
        facts[weights] = sum(part.weight.numel() for part in model.modules() if isinstance(part, nn.Conv2d))
    many = facts[weights] > WEIGHTS_PER_PLACE * inputs[:, 0].numel() and precision not in _HALVES
    return ORDINARY if many or not facts[weights] else torch.channels_last


def keep_ordinary(model: nn.Module) -> None:
    """Compute passes of this model in the ordinary memory format from now on."""
    facts_of(model)[ORDINARY] = True


def reads_layout(func: Any) -> bool:
    """Whether this call may use how a tensor lies in memory; of operations that are not torch's, nobody can say."""
    if func in _READERS:
        return True
    return isinstance(func, OpOverload | OpOverloadPacket) and _library(func) not in ("aten", "prims", "torchvision")


def _library(func: OpOverload | OpOverloadPacket) -> str:
    packet = func.overloadpacket if isinstance(func, OpOverload) else func
    return str(packet._qualified_op_name.partition("::")[0])
