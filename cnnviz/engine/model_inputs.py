"""What a model is called with: tensors that have a batch dimension, and their places in the call beside other values.

Whoever changes the tensors of a batch keeps their places: ``each`` and ``with_first`` give the same call of other
tensors. That is why these inputs can't be iterated: a list of their tensors would have lost the call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from cnnviz.engine.nested import mapped, tensors
from cnnviz.engine.validation import check_dense


@dataclass(frozen=True)
class Place:
    """Stands in a call for a tensor that has a batch dimension."""

    number: int
    """Of the tensor; those that are explained come first."""


@dataclass(frozen=True, eq=False)
class ModelCall:
    """The arguments of a model's call, with a ``Place`` where a tensor of the batch goes."""

    args: tuple[Any, ...] | None = None
    """None: all tensors of the batch, in their order."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    joint: tuple[torch.Size, ...] = ()
    """The shapes (C, *spatial) of inputs that are explained together; one tensor (N, values) holds all of them."""

    def split(self, values: Tensor) -> list[Tensor]:
        """Values (..., N, values) of inputs that are explained together, by input: (..., N, C, *spatial)."""
        if not self.joint:
            return [values]
        pieces = torch.split(values, [math.prod(shape) for shape in self.joint], -1)
        return [piece.reshape(*piece.shape[:-1], *shape) for piece, shape in zip(pieces, self.joint, strict=True)]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """The reverse of :meth:`split`."""
        if not self.joint:
            return parts[0]
        return torch.cat([part.flatten(-len(shape)) for part, shape in zip(parts, self.joint, strict=True)], -1)


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """All that a model is called with."""

    tensors: tuple[Tensor, ...]
    """Tensors (N, ...) of the batch, the explained one first."""
    call: ModelCall = field(default_factory=ModelCall)

    @classmethod
    def of(cls, inputs: AnyInputs) -> ModelInputs:
        """Inputs as they are, or the tensors of a call without other arguments, the explained one first."""
        return inputs if isinstance(inputs, ModelInputs) else cls(tuple(inputs))

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, number: int) -> Tensor:
        return self.tensors[number]

    __iter__ = None  # a list of the tensors has lost their places

    @property
    def first(self) -> Tensor:
        """What is explained, (N, C, *spatial); (N, values) where several inputs are explained together."""
        return self.tensors[0]

    @property
    def is_several(self) -> bool:
        """True if the model is called with more than the explained input."""
        return len(self.tensors) > 1 or self.call.args is not None

    @property
    def shared(self) -> list[Tensor]:
        """Tensors of the call that are the same for all inputs."""
        return list(tensors((self.call.args, dict(self.call.kwargs))))

    @property
    def size(self) -> torch.Size:
        """The spatial size of what is explained; empty for (N, F).

        Raises ValueError where several inputs are explained together.
        """
        if self.call.joint:
            raise ValueError(
                "several inputs are explained together, and this asks for the places of one; "
                "explain them one after the other: of=0, of=1"
            )
        return self.first.shape[2:]

    def by_input(self, values: Tensor) -> list[Tensor]:
        """Values of the shape of ``first`` for each input that is explained, (..., N, C, *spatial); mostly one."""
        return self.call.split(values)

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """The reverse of :meth:`by_input`."""
        return self.call.joined(parts)

    def each(self, change: Callable[[Tensor], Tensor]) -> ModelInputs:
        """The same call with every tensor of the batch changed."""
        return replace(self, tensors=tuple(map(change, self.tensors)))

    def rows(self, part: slice) -> ModelInputs:
        """The same call with a part of the batch."""
        return self.each(lambda tensor: tensor[part])

    def with_first(self, first: Tensor) -> ModelInputs:
        """The same call with another explained input."""
        return replace(self, tensors=(first, *self.tensors[1:]))

    def repeated(self, first: Tensor) -> ModelInputs:
        """The call for variants of the explained input, (K*N, ...): K whole batches, each beside the other tensors."""
        copies = len(first) // len(self.first)
        others = [tensor.repeat(copies, *(1,) * (tensor.ndim - 1)) for tensor in self.tensors[1:]]
        return replace(self, tensors=(first, *others))

    def apart(self) -> list[Tensor]:
        """The tensors of the batch, with those that are explained together apart, (N, C, *spatial) each."""
        pieces = self.call.split(self.first) if self.call.joint else [self.first]
        return [*pieces, *self.tensors[1:]]

    def arguments(self, copy: bool) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """What the model is called with, positional and by name; ``copy`` it, since the model may write into it."""
        tensors = self.apart()
        if copy:
            tensors = [tensor.clone() for tensor in tensors]
        elif self.call.joint:
            tensors[: len(self.call.joint)] = [piece.clone() for piece in tensors[: len(self.call.joint)]]
        if self.call.args is None:
            return tensors, {}
        args = [_filled(value, tensors) for value in self.call.args]
        return args, {name: _filled(value, tensors) for name, value in self.call.kwargs.items()}


AnyInputs: TypeAlias = ModelInputs | Sequence[Tensor]
"""Inputs with their places in a call, or all tensors of a call in their order, the explained one first."""


def plain(tensor: Tensor) -> Tensor:
    """A tensor without its subclass, which may compute otherwise; detached.

    Raises TypeError for a subclass that holds its values in other tensors.
    """
    if type(tensor) is Tensor:
        return tensor.detach() if tensor.requires_grad else tensor
    check_dense(tensor, "the input")
    if is_traceable_wrapper_subclass(tensor):
        kind = type(tensor).__name__
        raise TypeError(f"a {kind} holds its values in other tensors; give an ordinary tensor (N, C, *spatial)")
    with torch._C.DisableTorchFunction():
        return torch.Tensor.as_subclass(tensor.detach(), Tensor)


def _filled(value: Any, tensors: Sequence[Tensor]) -> Any:
    """An argument with tensors at their places; those that all inputs share are copied, the model may write there."""

    def fill(leaf: Any) -> Tensor:
        return tensors[leaf.number] if isinstance(leaf, Place) else leaf.clone()

    return mapped(fill, value, (Place, Tensor))
