"""The operands of the operations of one pass, by which another pass is compared with it.

Calls are numbered, each operation by itself, so that a call of one pass finds the same call of the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from cnnviz.engine.operations import Operation, name_of

Place = tuple["OperandRecord", Operation, int]
"""A pass, an operation, and the number of its call in that pass."""


class OperandRecord:
    """What a pass called, in its order; with the operands where ``keeps`` is set."""

    def __init__(self, keeps: bool = False):
        self.keeps = keeps
        self.calls: Counter[Operation] = Counter()
        """How often each operation was called on what comes from the input."""
        self.parameters: list[int] = []
        """The parameters that operations were given, by identity: they tell branches apart that are built alike."""
        self._operands: dict[tuple[Operation, int], tuple[Tensor, ...]] = {}

    def number(self, operation: Operation, inputs: Sequence[Tensor]) -> Place:
        """The place of a call that begins."""
        number = self.calls[operation]
        self.calls[operation] += 1
        if self.keeps:
            self._operands[operation, number] = tuple(
                tensor.detach().clone() for tensor in inputs
            )  # may be written over
        return self, operation, number

    def check_same_way(self, reference: OperandRecord, operations: Iterable[Operation]) -> None:
        """Raises ValueError where a pass of reference inputs called some of these operations more or less often."""
        for operation in operations:
            ours, theirs = self.calls[operation], reference.calls[operation]
            if ours != theirs:
                times = f"{ours} times for the input and {theirs} times for the baseline"
                raise _other_way(f"{name_of(operation)} is called {times}")
        if self.parameters != reference.parameters:
            raise _other_way("its operations read other weights")

    def inputs_of(self, operation: Operation, number: int, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The operands of a call. Raises ValueError where they are not shaped like those it is compared with."""
        operands = self._operands[operation, number]
        ours, theirs = ([tuple(tensor.shape) for tensor in each] for each in (like, operands))
        if ours != theirs:
            raise _other_way(f"{name_of(operation)} is given {ours} for the input and {theirs} for the baseline")
        return operands


def _other_way(what: str) -> ValueError:
    return ValueError(
        f"the model takes another way for the baseline than for the input: {what}; operations are compared one by one, "
        "so choose a baseline that takes the same way"
    )


def saving_nothing() -> saved_tensors_hooks:
    """A context in which a graph keeps no values. It still tells what comes from the input; nothing goes back."""
    return saved_tensors_hooks(_nothing, _nothing)


def _nothing(_: Any) -> Any:
    return None
