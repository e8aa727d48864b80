"""Memory formats of a forward pass: channels last where that is faster. The results are equal up to rounding.

With channels last, convolutions on a CPU take 0.6 to 0.95 of the time, unless the weights are many beside the places
they act on: weights are reordered in every pass. On CUDA passes without a graph take 0.6 to 0.8 of the time, and
gradients up to 1.25 times as long. A model that reads strides or memory itself is computed in the
ordinary memory format, now and later. So is a model that writes through what is a view in one format and a copy in the
other.
"""

from __future__ import annotations

import platform
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket

from cnnviz.engine.model_facts import facts_of
from cnnviz.engine.speed.tf32 import computed_in

ORDINARY = torch.contiguous_format
WEIGHTS_PER_PLACE = 320
SMALLEST = 64 * 64
LARGE_ON_CUDA = 64 * 224 * 224
"""Places of a batch. With fewer, what starts kernels takes longer than they do, and reordering starts more of them."""
_TENSOR_CORES = ("tf32", "bfloat16", "float16")

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


class PassKind(NamedTuple):
    """What decides how a pass is computed fastest."""

    device: str
    """Its kind, such as cpu or cuda."""
    computed_in: str
    """What convolutions compute in: float32, tf32, bfloat16, ..."""
    graph: bool
    """Whether gradients go back through the whole pass. Where they end at a layer, most of it has no graph."""
    places: int
    """Of all pictures of the batch together: N * H * W."""
    weights: int
    """Of all convolutions over pictures."""

    def layout(self) -> torch.memory_format:
        """The memory format in which a pass over pictures is fastest, as measured."""
        if not self.weights:
            return ORDINARY
        if self.device == "cuda":
            last = not self.graph and self.computed_in in _TENSOR_CORES and self.places >= LARGE_ON_CUDA
        else:
            many = self.weights > WEIGHTS_PER_PLACE * self.places and self.computed_in == "float32"
            last = self.device == "cpu" and not many
        return torch.channels_last if last else ORDINARY

    def special(self) -> bool:
        """Whether anything differs from how the model itself computes."""
        return self.layout() is not ORDINARY or self.scales_norms()

    def scales_norms(self) -> bool:
        """Whether batch norms are computed as one multiplication: where rounding differs from the model's already."""
        large = self.device == "cuda" and self.graph and self.places >= LARGE_ON_CUDA
        return large or self.layout() is not ORDINARY


def kind_of_pass(
    model: nn.Module, inputs: Tensor, precision: torch.dtype | None = None, graph: bool = False
) -> PassKind | None:
    """What is known of a pass of these inputs; None where nothing but the ordinary way was measured."""
    device, pictures = inputs.device.type, type(inputs) is Tensor and inputs.ndim == 4
    if not pictures or inputs[0, 0].numel() < SMALLEST:
        return None
    if device == "cpu" and not (inputs.dtype is torch.float32 and _has_onednn()):
        return None
    facts, weights = facts_of(model), "weights of convolutions"
    if device not in ("cpu", "cuda") or facts.get(ORDINARY):
        return None
    if weights not in facts:
        facts[weights] = sum(part.weight.numel() for part in model.modules() if isinstance(part, nn.Conv2d))
    name = str(precision or inputs.dtype).removeprefix("torch.")
    if device == "cuda":
        name = computed_in(inputs, precision).convolutions
    return PassKind(device, name, graph, inputs[:, 0].numel(), facts[weights])


def preferred(
    model: nn.Module, inputs: Tensor, precision: torch.dtype | None = None, graph: bool = False
) -> torch.memory_format:
    """The memory format in which a pass of these inputs is fastest, as measured: for pictures on x86 CPUs and CUDA."""
    kind = kind_of_pass(model, inputs, precision, graph)
    return ORDINARY if kind is None else kind.layout()


def _has_onednn() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64") and torch._C._has_mkldnn


def in_layout(values: Tensor, layout: torch.memory_format) -> Tensor:
    """A copy in this memory format."""
    return values.clone() if layout is ORDINARY else values.clone(memory_format=layout)


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
