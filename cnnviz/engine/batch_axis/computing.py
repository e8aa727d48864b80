"""Where the batch axis lies in the output of operations that compute values, or why they mix the inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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


def pointwise(call: OperationCall) -> Places:
    operands = list(tensors((call.args, dict(call.kwargs))))
    from_right, place = aligned(call, operands)
    return replace(place, dim=max(tensor.ndim for tensor in operands) + from_right)


def same_values(call: OperationCall) -> Places:
    """The first operand's values; of others only type, size or device are used."""
    return call.place(call.operand)


def constant(call: OperationCall) -> Places:
    return None


def by_rows(call: OperationCall) -> Places:
    """Each entry of dimension 0 by itself; weights and settings are constants."""
    place = call.first()
    if place.dim:
        raise Unproven
    return place


def with_rows(call: OperationCall) -> Places:
    """Each entry of dimension 0 of all operands by itself."""
    place = aligned(call, list(tensors((call.args, dict(call.kwargs)))))
    if any(found.dim for found in call.places.values()):
        raise Unproven
    return place[1]


def convolution(call: OperationCall) -> Places:
    if call.operand.ndim != call.argument(1, "weight").ndim:
        raise Unproven  # an image without a batch dimension
    return by_rows(call)


def linear(call: OperationCall) -> Places:
    place = call.first()
    if place.dim == call.operand.ndim - 1:
        raise Mixing
    return place


def batch_norm(call: OperationCall) -> Places:
    if call.argument(1, "running_mean") is None or call.argument(5, "training", False):
        raise Mixing
    return by_rows(call)


def instance_norm(call: OperationCall) -> Places:
    if not call.argument(5, "use_input_stats", True):
        raise Unproven
    return by_rows(call)


def layer_norm(call: OperationCall) -> Places:
    place = call.first()
    if place.dim >= call.operand.ndim - len(call.argument(1, "normalized_shape")):
        raise Mixing
    return place


def matmul(call: OperationCall) -> Places:
    left, right = call.argument(0, "input"), call.argument(1, "other", call.kwargs.get("mat2"))
    return _product(call, left, right)


def baddbmm(call: OperationCall) -> Places:
    place = _product(call, call.argument(1, "batch1"), call.argument(2, "batch2"))
    start = call.argument(0, "input")
    added = call.place(start)
    if added is None:
        constant_along(start, place.dim - 3)
    elif added != place:
        raise Unproven
    return place


def _product(call: OperationCall, left: Tensor, right: Tensor) -> Place:
    rows, columns = call.place(left), call.place(right)
    if left.ndim < 2 or right.ndim < 2:
        raise Unproven
    if rows and columns:
        from_right, place = aligned(call, [left, right])
        if from_right >= -2:
            raise Mixing
    elif rows:
        from_right, place = rows.dim - left.ndim, rows
        if from_right == -1:
            raise Mixing
        if from_right < -2:
            constant_along(right, from_right)
    elif columns:
        from_right, place = columns.dim - right.ndim, columns
        if from_right == -2:
            raise Mixing
        if from_right < -2:
            constant_along(left, from_right)
    else:
        raise Unproven
    return replace(place, dim=max(left.ndim, right.ndim) + from_right)


def einsum(call: OperationCall) -> Places:
    equation, operands = call.args[0], list(tensors(call.args[1:]))
    if "." in equation or "->" not in equation:
        raise Unproven
    before, after = equation.replace(" ", "").split("->")
    letters = dict(zip(operands, before.split(","), strict=True))
    places = {tensor: call.place(tensor) for tensor in operands}
    found = {(letters[tensor][place.dim], place.outer, place.inner) for tensor, place in places.items() if place}
    if len(found) != 1:
        raise Unproven
    letter, outer, inner = found.pop()
    if letter not in after:
        raise Mixing
    for tensor, place in places.items():
        if letters[tensor].count(letter) > (place is not None):
            raise Unproven
    return Place(after.index(letter), outer, inner)


def attention(call: OperationCall) -> Places:
    operands = list(tensors((call.args, dict(call.kwargs))))
    from_right, place = aligned(call, operands)
    if from_right >= -2:
        raise Mixing
    return replace(place, dim=max(tensor.ndim for tensor in operands) + from_right)


def multi_head_attention(call: OperationCall) -> Places:
    query, key, value = call.args[:3]
    masks = [mask for mask in (call.kwargs.get("key_padding_mask"), call.kwargs.get("attn_mask")) if mask is not None]
    if query.ndim != 3 or any(call.place(mask) for mask in masks):
        raise Unproven
    if {call.place(tensor) for tensor in (query, key, value)} != {Place(1)}:
        raise Unproven
    places: list[Place | None] = [Place(1), Place(0)]  # the weights are (N, T, T)
    return places[: sum(1 for _ in tensors(call.output))]


def along(position: int, default: Any = None, name: str = "dim") -> Rule:
    """An operation along some dimensions that keeps their number."""

    def rule(call: OperationCall) -> Places:
        place, dims = pointwise(call), call.argument(position, name, default)
        if not isinstance(place, Place) or isinstance(dims, Tensor):
            raise Unproven
        if place.dim in dimensions(call.operand, dims):
            raise Mixing
        return place

    return rule


def reduction(position: int = 1) -> Rule:
    """An operation that combines the values along some dimensions."""

    def rule(call: OperationCall) -> Places:
        dims = call.argument(position, "dim", call.kwargs.get("axis"))
        if isinstance(dims, Tensor):
            return pointwise(call)  # the larger or the smaller of two
        operand, place = call.operand, call.first()
        reduced = dimensions(operand, None if isinstance(dims, bool) else dims)
        if place.dim in reduced:
            raise Mixing
        if call.result.ndim == operand.ndim:
            return place
        return replace(place, dim=place.dim - sum(dim < place.dim for dim in reduced))

    return rule


def cosine(call: OperationCall) -> Places:
    place = along(2, 1)(call)
    assert isinstance(place, Place)
    ndim = max(tensor.ndim for tensor in tensors(call.args))
    return replace(place, dim=place.dim - (call.argument(2, "dim", 1) % ndim < place.dim))


def dropout(call: OperationCall) -> Places:
    if call.argument(2, "training", True):
        raise Unproven  # each place of the batch draws its own noise
    return call.first()


def triangle(call: OperationCall) -> Places:
    place = call.first()
    if place.dim >= call.operand.ndim - 2:
        raise Unproven
    return place


def padding(call: OperationCall) -> Places:
    place = call.first()
    if len(call.argument(1, "pad")) // 2 >= call.operand.ndim - place.dim:
        raise Unproven
    return place
