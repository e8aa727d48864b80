"""The operations of one forward pass, recorded, so that variants of it can be computed from where they differ.

A pass of which anything stays with the model (a write into a tensor that was there before, a tensor that is still held
when the pass is over) is not repeatable, and neither is one whose tensors can't be followed.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from cnnviz.engine.batch_axis.proof import BatchAxis, constants_of
from cnnviz.engine.nested import mapped, tensors
from cnnviz.engine.operations import Operation, reads_metadata, written_tensor
from cnnviz.engine.speed.memory_format import LayoutReads
from cnnviz.engine.thread_state import WatchingMode
from cnnviz.engine.unseen_operations import UnseenOperations

_MEMORY = {"numpy", "__array__", "data_ptr", "untyped_storage", "storage", "_typed_storage", "__dlpack__", "set_"}


class RecordedOp:
    """One recorded call of an operation, and the value it returned or wrote."""

    def __init__(
        self, operation: Operation, result: Any, given_back: int | None, carries: bool, numbers: Sequence[int]
    ):
        self.operation = operation
        self.result = result
        self.given_back = given_back
        """Which of its operands it returned, which the model then has under two names; None if it made the result."""
        self.changed = 0
        """How many operands depend on the change, of an operation behind one that writes over the changed values."""
        self.carries = carries
        """True if the result depends on the model's input, and so has its batch dimension."""
        self.numbers = numbers
        """Whole numbers it was called with, which may tell the batch size, where the result is not of the input."""
        self.readers: list[RecordedOp | None] = []
        """The recorded operations that depend on the change and read the result; None for a reader outside of them."""


class Recorder(WatchingMode):
    """Records the operations of the pass that runs inside of it.

    Args:
        model: which runs.
        inputs: the tensors that the model is called with.
        layout: their memory format.
    """

    def __init__(self, model: nn.Module, inputs: Sequence[Tensor], layout: torch.memory_format):
        super().__init__()
        self.axis = BatchAxis(model, len(inputs[0]), constants_of(model))
        self.axis.begin(inputs)
        self.unseen = UnseenOperations()
        self.layout_reads = LayoutReads(layout)
        self.apart: bool | None = None
        """Whether variants are proven not to change each other's scores, when the pass is over."""
        self.ops: list[RecordedOp] = []
        # by the tensor that an operation made; ops hold others of the same memory, and these go with the last holder
        self.made: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.carrying: WeakIdKeyDictionary = marked(inputs)
        # whose values were written through another tensor: a replay, where they share no memory, has the old ones
        self.outdated: WeakIdKeyDictionary = marked(())
        self.changed: WeakIdKeyDictionary = marked(())
        self.begun: int | None = None
        """Where the values of the changed output lie."""
        self.overwritten = False
        """True if these values were written over."""
        self.stored: dict[int | None, list[RecordedOp]] = {}
        self.foreign: dict[int | None, Tensor] = {}
        """Tensors that this pass did not make, by where their values lie."""
        state = [tensor for tensor in (*model.parameters(), *model.buffers()) if not tensor.is_inference()]
        self.versions = [(tensor, tensor._version) for tensor in state]
        self.largest = 1
        """Bytes of the largest result."""
        self.forks = False
        """True if Python reads values that descend from the change, and may take another branch with others."""
        self.repeatable = True
        """True if the pass has no side effects, so that replaying it gives the same result as running the model.

        Known when the pass is over.
        """

    def begin(self, output: Tensor) -> None:
        """From here on tensors descend from the change; what descended from an earlier call of the layer does not."""
        self.changed, self.forks = marked([output]), False
        with torch._C.DisableTorchFunction():
            self.begun, self.overwritten = _storage(output), False
        for op in self.ops:
            op.changed = 0

    def need(self, value: Any) -> None:
        """The tensors in this value are read in every replay."""
        for tensor in tensors(value):
            self.repeatable = self.repeatable and tensor not in self.outdated
            if tensor in self.made:
                self.made[tensor].readers.append(None)

    def finish(self, results: Any) -> None:
        """The pass is over, and its output is held, whatever contains it: what is still held is needed."""
        self.need(results)
        for op in self.made.values():  # type: ignore[no-untyped-call]
            op.readers.append(None)
        self.apart = self.axis.finish([*tensors(results)])
        if self.unseen.found or self.axis.unknown:
            self.repeatable = False

    def forget(self) -> None:
        """Let go of results that no replay reads; their shapes are enough. To be called when the output is let go."""
        if self.repeatable and len(self.made):
            gc.collect()  # tensors in a cycle are held by nobody
        written = any(tensor._version != version for tensor, version in self.versions)
        self.repeatable = self.repeatable and not len(self.made) and not written
        for op in self.ops:
            if op.carries and not op.readers:
                op.result = mapped(lambda tensor: tensor.new_zeros(()).expand(tensor.shape), op.result)
        self.stored, self.foreign, self.versions = {}, {}, []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.unseen.inside += 1
        try:
            return self._record(func, args, kwargs or {})
        finally:
            self.unseen.inside -= 1

    def _record(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if reads_metadata(func):
            self.layout_reads.see(func, args, kwargs, None)
            return func(*args, **kwargs)
        operands = list(tensors((args, kwargs)))
        if _writes_back(func, args):  # the last step of x[place] += y, after which x is as it should be in a replay too
            self.outdated.pop(args[0], None)  # type: ignore[no-untyped-call]
        self.repeatable = self.repeatable and not any(tensor in self.outdated for tensor in operands)
        foreign = [tensor for tensor in operands if tensor not in self.made and tensor not in self.carrying]
        self.foreign |= {_storage(tensor): tensor for tensor in foreign}
        descends = any(tensor in self.changed for tensor in operands)
        carries = any(tensor in self.carrying for tensor in operands)
        written = written_tensor(func, operands, kwargs)
        if written is not None:
            self.repeatable = self.repeatable and _storage(written) not in self.foreign
            self._outdate(written)
            self.overwritten = self.overwritten or _storage(written) == self.begun
            for earlier in self.stored.pop(_storage(written), ()):
                earlier.result = mapped(torch.clone, earlier.result)  # what is about to be written over
        self.axis.before(func, args, kwargs)
        returned = func(*args, **kwargs)
        self.axis.after(func, args, kwargs, returned)
        self.layout_reads.see(func, args, kwargs, returned)
        if carries and getattr(func, "__name__", "") in _MEMORY:
            self.repeatable = False  # what reads or writes memory is not seen
        result = returned if written is None else written
        if any(_storage(tensor) is None for tensor in (*operands, *tensors(result))):
            self.repeatable, self.forks = False, True  # where the values go can't be followed
            return returned
        self.forks = self.forks or (descends and any(True for _ in _python_values(result)))
        numbers = () if carries else whole_numbers((args, kwargs))
        given_back = next(
            (number for number, tensor in enumerate(operands) if written is None and tensor is result), None
        )
        op = RecordedOp(func, mapped(torch.detach, result), given_back, carries, numbers)
        op.changed = sum(tensor in self.changed for tensor in operands) if self.overwritten else 0
        self.ops.append(op)
        if descends:
            for tensor in operands:
                if tensor in self.made:
                    self.made[tensor].readers.append(op)
        for tensor in tensors(result):
            if not any(tensor is other for other in foreign):
                if written is None and tensor in self.made:  # it gave its operand back, with which the model may go on
                    self.made[tensor].readers.append(None)
                self.made[tensor] = op
            self.stored.setdefault(_storage(tensor), []).append(op)
            self.largest = max(self.largest, tensor.numel() * tensor.element_size())
            if carries:
                self.carrying[tensor] = True
            if descends:
                self.changed[tensor] = True
        return returned

    def _outdate(self, written: Tensor) -> None:
        """Note the other tensors that have values in the memory that is written: bases and views of this one."""
        place = _storage(written)
        others = [other for held in (self.made, self.carrying) for other in held if other is not written]
        self.outdated |= marked(other for other in others if _storage(other) == place)


def expanded(tensor: Tensor, copies: int) -> Tensor:
    """A view of one item as ``copies`` items, without copying memory."""
    return tensor.expand(copies, *tensor.shape[1:]) if tensor.ndim and len(tensor) == 1 else tensor.detach()


def whole_numbers(value: Any) -> list[int]:
    """All whole numbers in nested arguments."""
    if isinstance(value, tuple | list):
        return [number for item in value for number in whole_numbers(item)]
    if isinstance(value, dict):
        return [number for item in value.values() for number in whole_numbers(item)]
    return [value] if isinstance(value, int) else []


def marked(tensors: Iterable[Tensor]) -> WeakIdKeyDictionary:
    """A set of these tensors, by identity; they are held weakly."""
    marks = WeakIdKeyDictionary()
    for tensor in tensors:
        marks[tensor] = True
    return marks


def _storage(tensor: Tensor) -> int | None:
    """The address of its memory; None inside torch.func, which hides it."""
    try:
        return tensor.untyped_storage().data_ptr()
    except NotImplementedError:
        return None


def _writes_back(func: Any, args: Any) -> bool:
    """True if values are set to where they are already, as Python does at the end of ``x[place] += y``."""
    if func is not Tensor.__setitem__ or not isinstance(args[2], Tensor) or _storage(args[2]) != _storage(args[0]):
        return False
    with torch._C.DisableTorchFunction():
        place = args[0][args[1]]
    return (place.data_ptr(), place.shape, place.stride()) == (args[2].data_ptr(), args[2].shape, args[2].stride())


def _python_values(result: Any) -> Iterator[Any]:
    """All values in nested results that are not tensors."""
    if isinstance(result, tuple | list):
        for item in result:
            yield from _python_values(item)
    elif not isinstance(result, Tensor) and result is not None:
        yield result
