"""What a pass saw being called on the way from its input, so that another pass can be compared with all of it.

Nodes of the graph are marked where their operation was seen. What comes from elsewhere, such as a number that Python
computed or an array of NumPy, is kept: it must be the same in both passes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor
from torch.utils.weak import WeakIdKeyDictionary

from cnnviz.engine.deferred import assumed
from cnnviz.engine.nested import tensors
from cnnviz.engine.operations import Operation, name_of, reads_metadata

_SEEN = "cnnviz: seen"


class SeenCall(NamedTuple):
    """A call whose output descends from the input, and what it was given from elsewhere."""

    operation: Operation
    numbers: tuple[Any, ...]
    constants: tuple[Tensor | None, ...]
    """Operands without a graph; None for one that was computed from the input by calls that were seen."""


class SeenCalls:
    """The calls of one pass, in their order."""

    def __init__(self) -> None:
        self.calls: list[SeenCall] = []
        self._computed: WeakIdKeyDictionary = WeakIdKeyDictionary()
        """Tensors without a graph that come from the input by calls that were seen."""
        self._any_computed = False  # most models compute none

    def run(
        self,
        func: Operation,
        operands: Sequence[Tensor],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        call: Callable[[], Any],
    ) -> Any:
        """What ``call`` gives, which calls ``func`` with these arguments; ``operands`` are the tensors in them."""
        operands = [_unwrapped(operand) if is_functorch_wrapped_tensor(operand) else operand for operand in operands]
        begun, begins = torch._C._autograd._get_sequence_nr(), _nodes(operands)
        constants = tuple([self._constant(operand) for operand in operands if not operand.requires_grad])
        from_input = len(constants) < len(operands) or None in constants
        output = call()
        outputs = [_unwrapped(tensor) for tensor in tensors(output)]
        if from_input:
            for tensor in outputs:
                if not tensor.requires_grad:
                    self._computed[tensor] = self._any_computed = True
        made = _nodes([*outputs, *operands]) - begins
        if made:
            _mark(made, begins, begun)
            if not reads_metadata(func):
                numbers: list[int | float] = []
                _gather_numbers((*args, *kwargs.values()), numbers)
                self.calls.append(SeenCall(func, tuple(numbers), constants))
        return output

    def _constant(self, operand: Tensor) -> Tensor | None:
        return None if self._any_computed and operand in self._computed else operand

    def check_same(self, other: SeenCalls) -> None:
        """Raises ValueError where a pass of reference inputs called something else, or was given other constants."""
        for ours, theirs in zip(self.calls, other.calls, strict=False):
            name = name_of(ours.operation)
            if ours.operation != theirs.operation:  # attributes are new objects each time
                raise other_way(f"{name} is called for the input where {name_of(theirs.operation)} is for the baseline")
            for number, baseline in zip(ours.numbers, theirs.numbers, strict=False):
                if number != baseline and number == number:
                    raise _from_elsewhere(name, "numbers", f"{number:.4g} for the input, {baseline:.4g}")
            if not all(map(_alike, ours.constants, theirs.constants)):
                raise _from_elsewhere(name, "values", "others for the input than")
        if len(self.calls) != len(other.calls):
            times = f"{len(self.calls)} operations for the input and {len(other.calls)} for the baseline"
            raise other_way(f"it calls {times}")


def is_seen(node: Any) -> bool:
    """True if a node of the graph belongs to a call that a pass saw."""
    return _SEEN in node.metadata


def _mark(made: Iterable[Any], begins: Collection[Any], begun: int) -> None:
    """Mark all nodes that lead from what a call made back to where it began."""
    waiting = [*made]
    while waiting:
        node = waiting.pop()
        # a tensor of another thread has numbers of its own; it can only be an operand
        if node in begins or node._sequence_nr() < begun:
            continue
        metadata = node.metadata
        if _SEEN not in metadata:
            metadata[_SEEN] = True
            waiting += [parent for parent, _ in node.next_functions if parent is not None]


def _nodes(values: Iterable[Tensor]) -> set[Any]:
    """The nodes of these tensors, and of those that they are views of."""
    nodes = set()
    for value in values:
        nodes.add(value.grad_fn)
        base = value._base
        if base is not None:
            nodes.add(base.grad_fn)
    nodes.discard(None)
    return nodes


def _unwrapped(value: Tensor) -> Tensor:
    """The tensor inside of the wrappers of torch.func."""
    while is_functorch_wrapped_tensor(value):
        value = get_unwrapped(value)
    return value


def _gather_numbers(values: Iterable[Any], found: list[int | float]) -> None:
    for value in values:
        if isinstance(value, int | float):
            found.append(value)
        elif isinstance(value, tuple | list):
            _gather_numbers(value, found)
        elif isinstance(value, slice):
            _gather_numbers((value.start, value.stop, value.step), found)


def _alike(value: Tensor | None, other: Tensor | None) -> bool:
    if value is None or other is None or value is other:
        return True
    if value.shape != other.shape or value.dtype != other.dtype:
        return False
    value, other = (each if each.layout is torch.strided else each.to_dense() for each in (value, other))
    return assumed(((value == other) | ((value != value) & (other != other))).all())


def other_way(what: str) -> ValueError:
    """The error for a pass of reference inputs that is no pair of the inputs' pass."""
    return ValueError(
        f"the model takes another way for the baseline than for the input: {what}; operations are compared one by one, "
        "so choose a baseline that takes the same way"
    )


def _from_elsewhere(name: str, what: str, which: str) -> ValueError:
    return ValueError(
        f"{name} is given {what} that are made of the input outside of torch's functions ({which} for the baseline), "
        "as by item(), NumPy, TorchScript, an extension or another thread; call torch's functions in forward, or use a "
        "method without rules"
    )
