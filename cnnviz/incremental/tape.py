"""The operations of one pass, kept, and played again with other outputs of one layer.

A call that does not descend from the change is answered with what it gave, expanded over the variants; the others are
computed. What Python reads of a changed tensor must be what it read before: only so is the path the same. A replay
writes nothing but its own tensors, and a pass of which anything stays with the model is not replayed.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from cnnviz.engine.agreement import Departed
from cnnviz.engine.nested import mapped, tensors
from cnnviz.engine.operations import SOFTMAXES, Operation, in_place
from cnnviz.incremental.single_channel import added

_GETTERS = {
    *("size", "dim", "ndimension", "numel", "nelement", "stride", "element_size", "storage_offset", "__len__"),
    *("get_device", "data_ptr", "untyped_storage", "is_contiguous", "is_floating_point", "is_complex", "is_signed"),
    *("is_pinned", "is_inference"),
}
_TENSOR_ATTRIBUTES = {"T", "mT", "H", "mH", "data", "real", "imag"}
_READ = (bool, int, float, complex, str, type(None), torch.dtype, torch.device, torch.Size)


class Call:
    """One operation as it was met: which, and what it gave or wrote."""

    def __init__(self, operation: Operation, result: Any, carries: bool, numbers: Sequence[int]):
        self.operation = operation
        self.result = result
        self.carries = carries
        """Whether the result is made of the model's input, and so has its batch dimension."""
        self.numbers = numbers
        """Whole numbers it was called with, which may tell the batch size, where the result is not of the input."""
        self.readers: list[Call | None] = []
        """What descends from the change and reads it; None for what is no operation."""


class Recorder(TorchFunctionMode):
    """Keeps of every call what a replay will need."""

    def __init__(self, model: nn.Module, inputs: Sequence[Tensor]):
        super().__init__()
        self.calls: list[Call] = []
        # tensors, by the call that gave them; calls hold others of the same memory, and these go with the last holder
        self.made: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.carrying: WeakIdKeyDictionary = marked(inputs)
        self.changed: WeakIdKeyDictionary = marked(())
        self.stored: dict[int | None, list[Call]] = {}
        self.found: dict[int | None, Tensor] = {}  # what this pass did not make, by where its values lie
        state = [each for each in (*model.parameters(), *model.buffers()) if not each.is_inference()]
        self.versions = [(each, each._version) for each in state]
        self.largest = 1
        """Bytes of the largest result."""
        self.forks = False
        """Whether Python reads values that descend from the change, and may go another way with others."""
        self.repeatable = True
        """Whether a replay can be told from a pass by nothing but its time; known when the pass is over."""

    def begin(self, output: Tensor) -> None:
        """From here on things descend from the change; what descended from an earlier call of the layer does not."""
        self.changed, self.forks = marked([output]), False

    def need(self, value: Any) -> None:
        """It is read in every replay."""
        for each in tensors(value):
            if each in self.made:
                self.made[each].readers.append(None)

    def shows(self, name: str, shown: dict[str, Tensor]) -> Callable[..., None]:
        """A forward hook that puts a layer's output into ``shown``."""

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            self.need(output)
            with torch._C.DisableTorchFunction():
                shown[name] = output.clone()

        return keep

    def finish(self) -> None:
        """The pass is over, and its output is held, in whatever it comes: what is still held is needed."""
        self.need([*self.made])

    def forget(self) -> None:
        """Let go of results that no replay reads; their shapes are enough. To be called when the output is let go."""
        if self.repeatable and len(self.made):
            gc.collect()  # tensors in a cycle are held by nobody
        written = any(each._version != version for each, version in self.versions)
        self.repeatable = self.repeatable and not len(self.made) and not written
        for call in self.calls:
            if call.carries and not call.readers:
                call.result = mapped(lambda tensor: tensor.new_zeros(()).expand(tensor.shape), call.result)
        self.stored, self.found, self.versions = {}, {}, []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_getter(func):
            return func(*args, **kwargs)
        given = list(tensors((args, kwargs)))
        strange = [each for each in given if each not in self.made and each not in self.carrying]
        self.found |= {_storage(each): each for each in strange}
        descends = any(each in self.changed for each in given)
        carries = any(each in self.carrying for each in given)
        written = _written(func, given, kwargs)
        if written is not None:
            self.repeatable = self.repeatable and _storage(written) not in self.found
            for earlier in self.stored.pop(_storage(written), ()):
                earlier.result = mapped(torch.clone, earlier.result)  # what is about to be written over
        returned = func(*args, **kwargs)
        result = returned if written is None else written
        if any(_storage(each) is None for each in (*given, *tensors(result))):
            self.repeatable, self.forks = False, True  # whose values go where can't be followed
            return returned
        self.forks = self.forks or (descends and any(True for _ in _read(result)))
        call = Call(func, mapped(torch.detach, result), carries, () if carries else _numbers((args, kwargs)))
        self.calls.append(call)
        if descends:
            for each in given:
                if each in self.made:
                    self.made[each].readers.append(call)
        for each in tensors(result):
            if not any(each is other for other in strange):
                self.made[each] = call
            self.stored.setdefault(_storage(each), []).append(call)
            self.largest = max(self.largest, each.numel() * each.element_size())
            if carries:
                self.carrying[each] = True
            if descends:
                self.changed[each] = True
        return returned


class Player(TorchFunctionMode):
    """Answers calls with what was recorded; computes those that descend from the change."""

    def __init__(self, calls: Sequence[Call], copies: int, inputs: Sequence[Tensor]):
        super().__init__()
        self.calls = iter(calls)
        self.copies = copies
        self.own = marked(inputs)  # and all that is given to the model here: nothing else is written
        self.changed = marked(())
        self.begun: tuple[Tensor, int, Tensor] | None = None
        """The layer's changed output, its version, and what it was."""
        self.computed = 0
        """How many operations were computed."""
        self.largest = 1

    def begin(self, changed: Tensor, before: Tensor | None = None) -> None:
        """From here on things descend from the change of what was ``before``, (1, C, *spatial)."""
        self.changed = marked([changed])
        self.begun = None if before is None else (changed, changed._version, before)
        self.own[changed] = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_getter(func):
            return func(*args, **kwargs)
        call = next(self.calls, None)
        if call is None or call.operation != func:
            raise Departed
        given = list(tensors((args, kwargs)))
        written = _written(func, given, kwargs)
        if written is not None and written not in self.own:
            raise Departed
        if any(each in self.changed for each in given):
            result = self._compute(call, written, func, args, kwargs)
        elif not call.carries and _numbers((args, kwargs)) != call.numbers:
            if written is not None:
                written.data = written.data.clone()  # recorded
            result = func(*args, **kwargs)  # made anew for a batch of another size, such as zeros
        else:
            copies = self.copies if call.carries else 1
            result = mapped(lambda tensor: expanded(tensor, copies), call.result)
            if written is not None and isinstance(result, Tensor):
                written.data = result  # others may hold the tensor that was written
                return written
        for each in tensors(result):
            if not any(each is other for other in given):
                self.own[each] = True
        return result

    def _compute(self, call: Call, written: Tensor | None, func: Any, args: Any, kwargs: Any) -> Any:
        if written is not None and written not in self.changed:
            written.data = written.data.clone()  # recorded, and expanded: it can't be written
        returned = self._added(call, func, args, kwargs)
        returned = func(*args, **kwargs) if returned is None else returned
        result = returned if written is None else written
        if not same_path(result, call.result, self.copies):
            raise Departed
        self.computed += 1
        for each in tensors(result):
            self.changed[each] = True
            self.largest = max(self.largest, each.numel() * each.element_size())
        return returned

    def _added(self, call: Call, func: Any, args: Any, kwargs: Any) -> Tensor | None:
        """Where it reads nothing that changed but the layer, in one channel of each variant: the quick way."""
        if self.begun is None or not args or args[0] is not self.begun[0] or self.begun[0]._version != self.begun[1]:
            return None
        if any(each in self.changed for each in tensors((args[1:], kwargs))) or not isinstance(call.result, Tensor):
            return None
        return added(self.begun[2], call.result, func, args, kwargs)


class Softmaxes(TorchFunctionMode):
    """What went into every softmax, and what came out."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in SOFTMAXES and isinstance(output, Tensor):
            self.met.append((args[0] if args else (kwargs or {})["input"], output))
        return output


def expanded(tensor: Tensor, copies: int) -> Tensor:
    """One item as so many, without copying it; another tensor of the same memory."""
    return tensor.expand(copies, *tensor.shape[1:]) if tensor.ndim and len(tensor) == 1 else tensor.detach()


def _storage(tensor: Tensor) -> int | None:
    """Where its values lie; None inside torch.func, which does not tell."""
    try:
        return tensor.untyped_storage().data_ptr()
    except NotImplementedError:
        return None


def _is_getter(func: Any) -> bool:
    """Whether it only tells of a tensor; tells of the expanded one then."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return getattr(func.__self__, "__name__", "") not in _TENSOR_ATTRIBUTES
    return name in _GETTERS


def _written(func: Operation, given: Sequence[Tensor], kwargs: dict[str, Any]) -> Tensor | None:
    """The tensor that a call writes, if it writes one."""
    if isinstance(kwargs.get("out"), Tensor):
        return kwargs["out"]  # type: ignore[no-any-return]  # asked just above
    name = getattr(func, "__name__", "")
    assigns = name in ("__setitem__", "__set__") or (name.startswith("__i") and name[3:-2] in _ASSIGNING)
    return given[0] if given and (assigns or in_place(func, kwargs)) else None


_ASSIGNING = {"and", "or", "xor", "lshift", "rshift", "floordiv", "mod"}  # the others come as add_ and the like


def same_path(result: Any, recorded: Any, copies: int) -> bool:
    """Whether Python goes on with it as it did: values it can read are the same, and as many of those it can't."""
    if isinstance(result, Tensor):
        alike = isinstance(recorded, Tensor) and result.ndim == recorded.ndim
        return alike and result.numel() in (recorded.numel(), recorded.numel() * copies)
    if isinstance(result, tuple | list):
        same = type(result) is type(recorded) and len(result) == len(recorded)
        return same and all(same_path(*pair, copies) for pair in zip(result, recorded, strict=True))
    return isinstance(result, _READ) and type(result) is type(recorded) and result == recorded


def _read(result: Any) -> Iterator[Any]:
    """Whatever is no tensor."""
    if isinstance(result, tuple | list):
        for each in result:
            yield from _read(each)
    elif not isinstance(result, Tensor) and result is not None:
        yield result


def _numbers(value: Any) -> list[int]:
    if isinstance(value, tuple | list):
        return [number for each in value for number in _numbers(each)]
    if isinstance(value, dict):
        return [number for each in value.values() for number in _numbers(each)]
    return [value] if isinstance(value, int) else []


def marked(tensors: Iterable[Tensor]) -> WeakIdKeyDictionary:
    found = WeakIdKeyDictionary()
    for each in tensors:
        found[each] = True
    return found
