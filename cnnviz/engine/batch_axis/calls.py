"""Calls of operations whose operands have a batch axis, and where that axis lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cnnviz.engine.nested import tensors


class Unproven(Exception):
    """It is not known whether the operation keeps the inputs apart."""


class Mixing(Exception):
    """The operation combines values of several inputs."""


@dataclass(frozen=True)
class Place:
    """The dimension that holds the batch axis. Its size is ``outer`` * N * ``inner``, N inputs in each outer part."""

    dim: int
    outer: int = 1
    inner: int = 1


LOST = Place(-1)
"""Of a tensor that descends from the inputs in a way that could not be followed."""

Places = Place | list[Place | None] | None
"""Of an operation's output: one for all its tensors, one for each of them, or None for a constant."""


@dataclass(frozen=True, eq=False)
class OperationCall:
    """One call of an operation, at least one operand of which descends from the inputs."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    output: Any
    places: Mapping[Tensor, Place]
    """Of the operands that descend from the inputs."""
    items: int
    """The number N of inputs in the batch."""

    @property
    def operand(self) -> Tensor:
        return next(tensors((self.args, dict(self.kwargs))))

    @property
    def result(self) -> Tensor:
        return next(tensors(self.output))

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def place(self, tensor: Any) -> Place | None:
        return self.places.get(tensor) if isinstance(tensor, Tensor) else None

    def first(self) -> Place:
        """Where the first operand has the batch axis; the operation must not have others that have one."""
        return self.only(self.operand)

    def only(self, tensor: Tensor) -> Place:
        """Where this operand has the batch axis; it must be the only one that has one."""
        place = self.place(tensor)
        if place is None or any(other is not tensor for other in self.places):
            raise Unproven
        return place


Rule = Callable[[OperationCall], Places]


def constant_along(tensor: Tensor, from_right: int) -> None:
    """Raises Unproven unless a tensor that does not descend from the inputs is the same for all of them."""
    if tensor.ndim < -from_right or tensor.shape[from_right] == 1 or tensor.stride(from_right) == 0:
        return
    if not bool((tensor == tensor.narrow(from_right, 0, 1)).all()):
        raise Unproven


def aligned(call: OperationCall, operands: Sequence[Tensor]) -> tuple[int, Place]:
    """Where operands that are broadcast have the batch axis, counted from the right (negative)."""
    places = {tensor: call.place(tensor) for tensor in operands}
    found = {(place.dim - tensor.ndim, place.outer, place.inner) for tensor, place in places.items() if place}
    if len(found) != 1:
        raise Unproven
    from_right, outer, inner = found.pop()
    for tensor, place in places.items():
        if place is None:
            constant_along(tensor, from_right)
    return from_right, Place(0, outer, inner)


def dimensions(tensor: Tensor, dims: Any) -> set[int]:
    """Dimensions that an operation combines; None means all."""
    if dims is None or (isinstance(dims, tuple | list) and not dims):
        return set(range(tensor.ndim))
    return {dim % tensor.ndim for dim in ([dims] if isinstance(dims, int) else dims)}
