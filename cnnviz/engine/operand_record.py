"""The operands of the operations of one pass, by which another pass is compared with it.

Calls are numbered, each operation by itself, so that a call of one pass finds the same call of the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from cnnviz.engine.loans import loans_of_thread
from cnnviz.engine.operations import Operation, name_of
from cnnviz.engine.seen_calls import SeenCalls, other_way

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
        self.seen = SeenCalls()
        """All operations on the way from the input."""
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
                raise other_way(f"{name_of(operation)} is called {times}")
        if self.parameters != reference.parameters:
            raise other_way("its operations read other weights")
        self.seen.check_same(reference.seen)

    def inputs_of(self, operation: Operation, number: int, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The operands of a call. Raises ValueError where they are not shaped like those it is compared with."""
        operands = self._operands[operation, number]
        ours, theirs = ([tuple(tensor.shape) for tensor in each] for each in (like, operands))
        if ours != theirs:
            raise other_way(f"{name_of(operation)} is given {ours} for the input and {theirs} for the baseline")
        return operands


def saving_nothing() -> saved_tensors_hooks:
    """A context in which the graph of the next pass keeps no values: it only tells what comes from the input.

    Questions that are asked meanwhile, as by a hook of the user's, keep theirs. The graph raises ValueError where the
    model itself goes back through it.
    """
    outside = loans_of_thread()

    def pack(value: Tensor) -> Tensor | None:
        return value.detach() if loans_of_thread() > outside + 1 else None

    return saved_tensors_hooks(pack, _unpack)


def _unpack(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError(
            "the model takes gradients inside of forward, whose differences between input and baseline are not known; "
            "use a method without rules"
        )
    return value
