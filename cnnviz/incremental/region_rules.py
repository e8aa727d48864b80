"""Region rules: how an operation computes its result only inside the boxes in which its operand was changed.

A rule returns a region, or a tensor that is changed everywhere. It returns None where a region would cover most of the
map, and for arguments it does not know: the operation is then computed on full maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.nested import mapped, tensors
from cnnviz.engine.operations import POINTWISE, Operation, canonical, in_place, spelled
from cnnviz.incremental.boxes import Boxes, Kernel, union
from cnnviz.incremental.region_cache import Chunk
from cnnviz.incremental.regions import Recorded, Region
from cnnviz.incremental.tape import RecordedOp

RegionRule = Callable[[Chunk, RecordedOp, Operation, tuple[Any, ...], dict[str, Any]], Tensor | None]


def on_regions(
    chunk: Chunk, op: RecordedOp, func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor | None:
    """The result of an operation on regions, or None where it must be computed on full maps.

    Every operand that is no region must have its recorded values.
    """
    rule = RULES.get(canonical(func, args, kwargs))
    if rule is None or not isinstance(op.result, Tensor) or kwargs.get("out") is not None:
        return None
    if "input" in kwargs:
        args, kwargs = (kwargs["input"], *args), {name: value for name, value in kwargs.items() if name != "input"}
    return rule(chunk, op, func, args, kwargs)


def convolution(chunk: Chunk, op: RecordedOp, func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    def convolved(
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor | None:
        if not isinstance(input, Region) or isinstance(weight, Region) or isinstance(bias, Region):
            return None
        kernel = _kernel(weight.shape[2:], stride, padding, dilation)

        def compute(boxes: Boxes, operand: Tensor) -> Any:
            return func(operand, *chunk.cache.weights(op, weight, bias), kernel.strides, 0, kernel.dilation, groups)

        return _slid(chunk, op, input, kernel, 0.0, compute)

    return convolved(*args, **kwargs)


def max_pooling(chunk: Chunk, op: RecordedOp, func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    def pooled(
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor | None:
        lengths = _per_dimension(kernel_size, input.ndim - 2)
        kernel = _kernel(lengths, stride or kernel_size, padding, dilation)

        def compute(boxes: Boxes, operand: Tensor) -> Any:
            return func(operand, lengths, kernel.strides, 0, kernel.dilation)

        return _slid(chunk, op, input, kernel, -torch.inf, compute)

    return pooled(*args, **kwargs)


def average_pooling(
    chunk: Chunk, op: RecordedOp, func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    def pooled(
        input: Any,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Tensor | None:
        lengths = _per_dimension(kernel_size, input.ndim - 2)
        kernel = _kernel(lengths, stride or kernel_size, padding, 1)

        def compute(boxes: Boxes, operand: Tensor) -> Any:
            values = func(operand, lengths, kernel.strides)
            share = chunk.cache.keep((op, "share"), lambda: _shares(func, args, kwargs, kernel, op.result))
            # at the border there are fewer values, or the model says by what to divide
            return values if share is None else values * share.cut(boxes.at[chunk.part], boxes.sides)

        return _slid(chunk, op, input, kernel, 0.0, compute)

    return pooled(*args, **kwargs)


def _shares(
    func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any], kernel: Kernel, result: Tensor
) -> Recorded | None:
    """Factors from an average over the whole padded window to the operation's own average; None if all are 1."""
    ones = torch.ones((1, 1, *args[0].shape[2:]), dtype=result.dtype, device=result.device)
    averages = func(ones, *args[1:], **kwargs)
    padded = F.pad(ones, [n for pad in reversed(kernel.pads(ones.shape[2:], result.shape[2:])) for n in pad])
    full = func(padded, kernel.lengths, kernel.strides)
    share = averages / full[(..., *(slice(length) for length in averages.shape[2:]))]
    return None if bool((share == 1).all()) else Recorded(share)


def pointwise(chunk: Chunk, op: RecordedOp, func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    regions = [tensor for tensor in tensors((args, kwargs)) if isinstance(tensor, Region)]
    size = regions[0].recorded.size
    if tuple(op.result.shape[2:]) != size or any(region.recorded.size != size for region in regions):
        return None
    boxes = regions[0].boxes
    if len(regions) > 1:
        common = chunk.planned(op, lambda: union([region.boxes for region in regions]))
        if common is None:
            return None
        boxes = common
    places: Iterator[int] = iter(range(len(args) + len(kwargs) + 1))

    def part(value: Tensor) -> Tensor:
        if isinstance(value, Region):
            return value.cut(boxes.at, boxes.sides)
        spread = value.shape[-len(size) :]
        if all(length == 1 for length in spread):
            return value

        def laid() -> Recorded:  # the same for every variant
            shape = (1,) * (len(size) + 2 - value.ndim) + tuple(value.shape)
            one = value.reshape(shape)[:1]
            return Recorded(one.expand(1, one.shape[1], *size))

        recorded: Recorded = chunk.cache.keep((op, next(places)), laid)
        return recorded.cut(boxes.at[chunk.part], boxes.sides)

    values = func(*mapped(part, args), **mapped(part, kwargs))
    only = regions[0]
    if not in_place(func, kwargs) and values.untyped_storage().data_ptr() == only.inside.untyped_storage().data_ptr():
        return only  # the operation returned its operand, such as a cast to the same dtype
    return chunk.region(op, boxes, values)


def channelwise(chunk: Chunk, op: RecordedOp, func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Operations that treat all places alike, with parameters for each channel."""
    region, *rest = args
    if not isinstance(region, Region) or any(isinstance(tensor, Region) for tensor in tensors((rest, kwargs))):
        return None
    return chunk.region(op, region.boxes, func(region.inside, *rest, **kwargs))


def batch_norm(chunk: Chunk, op: RecordedOp, func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    training = args[5] if len(args) > 5 else kwargs.get("training", False)
    return None if training else channelwise(chunk, op, func, args, kwargs)


def itself(chunk: Chunk, op: RecordedOp, func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0]


def joined(chunk: Chunk, op: RecordedOp, func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Concatenation along the channels."""

    def concatenated(tensors: Any, dim: int = 0, axis: int | None = None) -> Tensor | None:
        regions = [tensor for tensor in tensors if isinstance(tensor, Region)]
        size, dim = regions[0].recorded.size, dim if axis is None else axis
        alike = all(tensor.shape[2:] == size and tensor.ndim == len(size) + 2 for tensor in tensors)
        if dim % (len(size) + 2) != 1 or not alike:
            return None
        boxes = chunk.planned(op, lambda: union([region.boxes for region in regions]))
        if boxes is None:
            return None
        parts = []
        for number, tensor in enumerate(tensors):
            if isinstance(tensor, Region):
                parts.append(tensor.cut(boxes.at, boxes.sides))
            else:
                recorded: Recorded = chunk.cache.keep((op, number), partial(Recorded, tensor[:1]))
                parts.append(recorded.cut(boxes.at[chunk.part], boxes.sides))
        return chunk.region(op, boxes, torch.cat(parts, 1))

    return concatenated(*args, **kwargs)


def padded(chunk: Chunk, op: RecordedOp, func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    def around(input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor | None:
        rank = input.ndim - 2
        if mode != "constant" or min(pad) < 0 or len(pad) > 2 * rank:
            return None
        before = [0] * (rank - len(pad) // 2) + list(reversed(pad[::2]))
        size = tuple(op.result.shape[2:])
        boxes = chunk.planned(op, lambda: input.boxes.moved(before, size))
        if boxes is None:
            return None
        pads = tuple(zip(before, [0] * (rank - len(pad) // 2) + list(reversed(pad[1::2])), strict=True))
        inside = input.cut(boxes.at - torch.tensor(before, device="cpu"), boxes.sides, pads, value or 0.0)
        return chunk.region(op, boxes, inside.clone())  # the map that was padded may be written

    return around(*args, **kwargs)


def averaged(chunk: Chunk, op: RecordedOp, func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A mean over space: it is shifted by the mean change inside the boxes."""

    def mean(input: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor | None:
        dims = [dim] if isinstance(dim, int) else list(dim or ())
        if dtype is not None or sorted(dim % input.ndim for dim in dims) != list(range(2, input.ndim)):
            return None
        return _shifted(chunk, op, input)

    return mean(*args, **kwargs)


def adaptive_average(
    chunk: Chunk, op: RecordedOp, func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    whole = isinstance(args[0], Region) and prod(op.result.shape[2:]) == 1
    return _shifted(chunk, op, args[0]) if whole else None


def _shifted(chunk: Chunk, op: RecordedOp, region: Region) -> Tensor | None:
    recorded, boxes = region.recorded, region.boxes
    before = recorded.cut(boxes.at[chunk.part], boxes.sides)
    space = list(range(2, region.ndim))
    moved = (region.inside - before).sum(space) / prod(recorded.size)
    shifted: Tensor = op.result + moved.view(len(moved), *op.result.shape[1:])
    return shifted


def _slid(
    chunk: Chunk,
    op: RecordedOp,
    region: Any,
    kernel: Kernel,
    padding: float,
    compute: Callable[[Boxes, Tensor], Tensor],
) -> Tensor | None:
    """The result of sliding a kernel over a region, ``compute``d from its boxes and their padded neighbourhoods."""
    if not isinstance(region, Region) or region.ndim != len(kernel.lengths) + 2:
        return None
    size = tuple(op.result.shape[2:])
    boxes = chunk.planned(op, lambda: kernel.reached(region.boxes, size))
    if boxes is None:
        return None
    at, sides = chunk.needed(op, kernel, boxes)
    operand = region.cut(at, sides, kernel.pads(region.recorded.size, size), padding)
    return chunk.region(op, boxes, compute(boxes, operand))


def _kernel(lengths: Any, stride: Any, padding: Any, dilation: Any) -> Kernel:
    lengths = tuple(lengths)
    dilation = _per_dimension(dilation, len(lengths))
    if padding == "same":
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, lengths, strict=True))
    padding = (0,) * len(lengths) if padding == "valid" else _per_dimension(padding, len(lengths))
    return Kernel(lengths, _per_dimension(stride, len(lengths)), padding, dilation)


def _per_dimension(value: Any, rank: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    return values * rank if len(values) == 1 else values


_COMPARISONS = ("gt", "lt", "ge", "le", "eq", "ne", "logical_and", "logical_or", "logical_not")
_ARITHMETIC = ("add", "sub", "subtract", "rsub", "neg", "negative", "minimum", "lerp", "where", "masked_fill", "clone")
_ROUNDING = ("sign", "round", "floor", "ceil", "trunc", "nan_to_num", "float", "half", "double", "bfloat16")

CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)

RULES: dict[Operation, RegionRule] = {
    **dict.fromkeys((*POINTWISE, torch.mul, torch.div, torch.pow, torch.maximum, torch.addcmul), pointwise),
    **dict.fromkeys(spelled(*_ARITHMETIC, *_COMPARISONS, *_ROUNDING), pointwise),
    **dict.fromkeys((F.prelu, F.local_response_norm), channelwise),
    **dict.fromkeys((F.batch_norm, torch.batch_norm), batch_norm),
    **dict.fromkeys((Tensor.contiguous, Tensor.detach), itself),
    **dict.fromkeys(CONVOLUTIONS, convolution),
    **dict.fromkeys((F.max_pool1d, F.max_pool2d, F.max_pool3d), max_pooling),
    **dict.fromkeys((F.avg_pool1d, F.avg_pool2d, F.avg_pool3d), average_pooling),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), joined),
    F.pad: padded,
    **dict.fromkeys((torch.mean, Tensor.mean), averaged),
    **dict.fromkeys(
        (torch.adaptive_avg_pool1d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
        adaptive_average,
    ),
}
"""Region rules by canonical operation."""
