"""Where the batch axis lies after operations that order, join or choose values."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cnnviz.engine.batch_axis.calls import (
    Mixing,
    OperationCall,
    Place,
    Places,
    Rule,
    Unproven,
    aligned,
    constant_along,
    dimensions,
)
from cnnviz.engine.nested import tensors


def permute(call: OperationCall) -> Places:
    place, operand = call.first(), call.operand
    order = call.argument(1, "dims")
    order = order if isinstance(order, tuple | list) else call.args[1:]
    return replace(place, dim=[dim % operand.ndim for dim in order].index(place.dim))


def transpose(call: OperationCall) -> Places:
    first = call.argument(1, "dim0", call.kwargs.get("axis0"))
    second = call.argument(2, "dim1", call.kwargs.get("axis1"))
    return _exchanged(call, first, second)


def matrix_transpose(call: OperationCall) -> Places:
    return _exchanged(call, -2, -1) if call.operand.ndim > 1 else call.first()


def _exchanged(call: OperationCall, first: int, second: int) -> Place:
    place, ndim = call.first(), call.operand.ndim
    exchanged = {first % ndim: second % ndim, second % ndim: first % ndim}
    return replace(place, dim=exchanged.get(place.dim, place.dim))


def movement(call: OperationCall) -> Places:
    place, ndim = call.first(), call.operand.ndim
    source, target = call.argument(1, "source"), call.argument(2, "destination")
    if not isinstance(source, int):
        raise Unproven
    order = [dim for dim in range(ndim) if dim != source % ndim]
    order.insert(target % ndim, source % ndim)
    return replace(place, dim=order.index(place.dim))


def reshape(call: OperationCall) -> Places:
    place = call.place(call.operand)
    if place is None:
        return None
    before, after = call.operand.shape, call.result.shape
    if before == after:
        return place
    if math.prod(before) != math.prod(after):
        raise Unproven  # a view in another dtype
    ahead = math.prod(before[: place.dim]) * place.outer
    done = 1
    for dim, size in enumerate(after):
        if ahead % done:
            break
        if (done * size) % (ahead * call.items) == 0:
            outer = ahead // done
            if call.items == outer == size == 1 and after[dim + 1 : dim + 2] == (1,):
                raise Unproven  # of several dimensions of size 1, one is that of the batch
            return Place(dim, outer, size // (outer * call.items))
        done *= size
    raise Unproven


def unsqueeze(call: OperationCall) -> Places:
    place, new = call.first(), call.argument(1, "dim") % call.result.ndim
    return replace(place, dim=place.dim + (new <= place.dim))


def squeeze(call: OperationCall) -> Places:
    place, dims = call.first(), call.argument(1, "dim")
    if call.operand.shape[place.dim] == 1 and (dims is None or place.dim in dimensions(call.operand, dims)):
        raise Unproven  # with more inputs the dimension stays
    gone = [dim for dim in dimensions(call.operand, dims) if call.operand.shape[dim] == 1]
    return replace(place, dim=place.dim - sum(dim < place.dim for dim in gone))


def expand(call: OperationCall) -> Places:
    place = call.place(call.operand)
    if place is None:
        return None
    dim = call.result.ndim + place.dim - call.operand.ndim
    if call.result.shape[dim] != call.operand.shape[place.dim]:
        raise Unproven
    return replace(place, dim=dim)


def repeat(call: OperationCall) -> Places:
    place = call.first()
    dim = call.result.ndim + place.dim - call.operand.ndim
    return Place(dim, place.outer * (call.result.shape[dim] // call.operand.shape[place.dim]), place.inner)


def repeat_interleave(call: OperationCall) -> Places:
    place, repeats, dim = call.first(), call.argument(1, "repeats"), call.argument(2, "dim")
    if not isinstance(repeats, int) or dim is None:
        raise Unproven
    return replace(place, inner=place.inner * repeats) if dim % call.operand.ndim == place.dim else place


def concatenation(call: OperationCall) -> Places:
    parts = list(call.argument(0, "tensors"))
    dim = call.argument(1, "dim", call.kwargs.get("axis", 0)) % call.result.ndim
    from_right, place = aligned(call, parts)
    if call.result.ndim + from_right == dim:  # one batch behind the other
        if not all(call.place(part) for part in parts):
            raise Unproven
        return Place(dim, place.outer * len(parts), place.inner)
    return replace(place, dim=call.result.ndim + from_right)


def stack(call: OperationCall) -> Places:
    parts = list(call.argument(0, "tensors"))
    new = call.argument(1, "dim", 0) % call.result.ndim
    from_right, place = aligned(call, parts)
    dim = parts[0].ndim + from_right
    return replace(place, dim=dim + (new <= dim))


def pieces(position: int) -> Rule:
    """Consecutive pieces along one dimension."""

    def rule(call: OperationCall) -> Places:
        place, dim = call.first(), call.argument(position, "dim", 0) % call.operand.ndim
        if dim != place.dim:
            return place
        block, start = call.items * place.inner, 0
        places: list[Place | None] = []
        for piece in tensors(call.output):
            if start % block or piece.shape[dim] % block:
                raise Mixing
            places.append(replace(place, outer=piece.shape[dim] // block))
            start += piece.shape[dim]
        return places

    return rule


def unbind(call: OperationCall) -> Places:
    return _without(call, call.argument(1, "dim", 0))


def selection(call: OperationCall) -> Places:
    return _without(call, call.argument(1, "dim"))


def _without(call: OperationCall, dim: int) -> Place:
    place, dim = call.first(), dim % call.operand.ndim
    if dim == place.dim:
        raise Mixing
    return replace(place, dim=place.dim - (dim < place.dim))


def elsewhere(position: int, name: str = "dim") -> Rule:
    """An operation that chooses places along one dimension, which must not be that of the batch."""

    def rule(call: OperationCall) -> Places:
        place = call.first()
        if call.argument(position, name) % call.operand.ndim == place.dim:
            raise Mixing
        return place

    return rule


def indexing(call: OperationCall) -> Places:
    return _indexed(call, call.operand, call.first(), call.args[1])


def _indexed(call: OperationCall, operand: Tensor, place: Place, index: Any) -> Place:
    """Where the batch axis of ``operand[index]`` lies, if that leaves it whole."""
    parts = list(index) if isinstance(index, tuple) else [index]
    used = sum(part is not None and part is not Ellipsis for part in parts)
    if any(isinstance(part, bool) for part in parts) or sum(part is Ellipsis for part in parts) > 1:
        raise Unproven
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    lists = [part for part in parts if isinstance(part, Tensor | list)]
    if len(lists) > 1 or any(isinstance(part, Tensor) and part.dtype is torch.bool for part in lists):
        raise Unproven
    if lists and any(isinstance(part, int) for part in parts):
        raise Unproven
    dim = result = 0
    for part in parts:
        if part is None:
            result += 1
        elif part is Ellipsis:
            covered = operand.ndim - used
            if dim <= place.dim < dim + covered:
                return replace(place, dim=result + place.dim - dim)
            dim, result = dim + covered, result + covered
        else:
            if dim == place.dim:
                if part != slice(None):
                    raise Mixing
                return replace(place, dim=result)
            dim += 1
            result += 0 if isinstance(part, int) else part.ndim if isinstance(part, Tensor) else 1
    raise Unproven


def assignment(call: OperationCall) -> Places:
    operand, index, value = call.args[:3]
    place = call.place(operand)
    if place is None or any(call.place(part) for part in tensors(index)):
        raise Unproven
    if not isinstance(value, Tensor):
        return None
    chosen = OperationCall((operand, index), {}, None, {operand: place}, call.items)
    assigned = _indexed(chosen, operand, place, index)
    from_right = assigned.dim - operand[index].ndim
    its = call.place(value)
    if its is None:
        constant_along(value, from_right)
    elif (its.dim - value.ndim, its.outer, its.inner) != (from_right, place.outer, place.inner):
        raise Unproven
    return None
