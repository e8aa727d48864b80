"""Scores of changed activations, at the price of what follows the layer.

Every operation of one pass is recorded once. A replay runs the model again and answers each call that does not descend
from the change with what was recorded, so only what the change reaches is computed: with any connections around the
layer, and under control flow, without a picture of the graph. The first change of every recording is also computed the
plain way; where the two differ, or the model takes another path, everything is computed the plain way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from cnnviz.guard import asking
from cnnviz.hooks import lend
from cnnviz.operations import Operation, in_place

Read = Callable[[Any, dict[str, Tensor]], Tensor]
"""From the model's output and watched layers to one score for each variant, (K,)."""

_GETTERS = {
    *("size", "dim", "ndimension", "numel", "nelement", "stride", "element_size", "storage_offset", "__len__"),
    *("get_device", "data_ptr", "untyped_storage", "is_contiguous", "is_floating_point", "is_complex", "is_signed"),
    *("is_pinned", "is_inference", "type"),
}
_TENSOR_ATTRIBUTES = {"T", "mT", "H", "mH", "data", "real", "imag"}
TOLERANCE = 1e-4


class Replay:
    """One input's pass, recorded, to be played again with other outputs of ``layer``.

    ``inputs`` are the model's, each for one item; ``watched`` are further layers that scores are read from.
    """

    def __init__(self, model: nn.Module, inputs: Sequence[Tensor], layer: str, read: Read, watched: Sequence[str] = ()):
        self.model = model
        self.inputs = [each.detach() for each in inputs]
        self.layer = layer
        self.read = read
        self.watched = [name for name in watched if name != layer]
        self.trusted: bool | None = None
        """Whether playing gives what the plain way gives; None before the first change."""
        self.operations = 0
        """How many operations the last pass computed."""
        self.largest = 1
        """Bytes of the largest output of one variant that was computed."""
        self._record()

    def __call__(self, activations: Tensor) -> Tensor:
        """Scores (K,) with the layer's output replaced by each of ``activations`` (K, C, *spatial)."""
        if self.trusted is None:
            self._judge(activations[:1])
        return self._played(activations) if self.trusted else self._plain(activations)

    def _judge(self, activation: Tensor) -> None:
        """Two variants at once, so that an expansion along a wrong dimension shows."""
        both = torch.cat([activation, activation * 0.5])
        plain = self._plain(both)
        try:
            played = self._played(both)
        except (_Departed, RuntimeError, ValueError, IndexError, TypeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            self.trusted = False
            return
        reach = plain.abs().max().clamp(min=torch.finfo(plain.dtype).tiny)
        self.trusted = bool(((played - plain).abs() <= TOLERANCE * reach).all())

    def _record(self) -> None:
        self.calls: list[_Call] = []
        self.times = 0  # the layer is called; the last of them is changed
        inputs = [each.clone() for each in self.inputs]  # the model may write into its input
        recorder = _Recorder(inputs, self.calls)

        def begin(module: nn.Module, args: Any, output: Any) -> None:
            self.times += 1
            recorder.begin(output)

        def consume(module: nn.Module, args: Any, output: Any) -> None:
            recorder.consume(output)

        with self._lent({self.layer: begin} | dict.fromkeys(self.watched, consume)), recorder:
            output = self.model(*inputs)
            recorder.consume(output)
        if not self.times:
            raise LookupError(f"layer {self.layer!r} did not run for this input; choose one that does")
        recorder.forget()

    def _played(self, activations: Tensor) -> Tensor:
        player = _Player(self.calls, len(activations))
        score = self._passed(activations, player.begin, player)
        self.operations, self.largest = player.computed, max(self.largest, player.largest // len(activations))
        return score

    def _plain(self, activations: Tensor) -> Tensor:
        return self._passed(activations, lambda changed: None, None)

    def _passed(self, activations: Tensor, begin: Callable[[Tensor], None], mode: TorchFunctionMode | None) -> Tensor:
        copies = len(activations)
        met, shown = 0, {}

        def change(module: nn.Module, args: Any, output: Any) -> Any:
            nonlocal met
            met += 1
            if met < self.times:
                return None
            with torch._C.DisableTorchFunction():
                changed = activations.clone()  # what follows may write in place
                shown[self.layer] = changed.clone()
            begin(changed)
            return changed

        def show(name: str) -> Callable[..., None]:
            def keep(module: nn.Module, args: Any, output: Any) -> None:
                with torch._C.DisableTorchFunction():
                    shown[name] = output.clone()

            return keep

        inputs = [_expanded(each, copies).clone() for each in self.inputs]
        hooks = {self.layer: change} | {name: show(name) for name in self.watched}
        with ExitStack() as stack:
            stack.enter_context(self._lent(hooks))
            if mode is not None:
                stack.enter_context(mode)
            output = self.model(*inputs)
        return self.read(output, shown)

    def _lent(self, hooks: dict[str, Callable[..., Any]]) -> ExitStack:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
            for name, hook in hooks.items():
                lend(stack, self.model.get_submodule(name).register_forward_hook, hook)
            stack.enter_context(asking(self.model, self.inputs[0]))
            return stack.pop_all()


class _Departed(Exception):
    """The model called something else than was recorded."""


class _Call:
    """One operation as it was met: which, and what it gave."""

    def __init__(self, operation: Operation, result: Any, carries: bool):
        self.operation = operation
        self.result = result
        self.carries = carries
        """Whether the result is made of the model's input, and so has its batch dimension."""
        self.consumed = False
        """Whether something that descends from the change reads it."""


class _Recorder(TorchFunctionMode):
    """Keeps of every call what a replay will need."""

    def __init__(self, inputs: Sequence[Tensor], calls: list[_Call]):
        super().__init__()
        self.calls = calls
        self.made: WeakIdKeyDictionary = WeakIdKeyDictionary()  # tensors, by the call that gave them
        self.carrying: WeakIdKeyDictionary = _marked(inputs)
        self.changed: WeakIdKeyDictionary = _marked(())
        self.stored: dict[int, list[_Call]] = {}

    def begin(self, output: Any) -> None:
        """From here on things descend from the change; what descended from an earlier call of the layer does not."""
        if not isinstance(output, Tensor):
            raise TypeError(
                f"the layer gives a {type(output).__name__}, not a tensor; name one of the layers inside it "
                "(`cnnviz layers` lists them)"
            )
        self.changed = _marked([output])

    def consume(self, value: Any) -> None:
        for each in _tensors(value):
            if each in self.made:
                self.made[each].consumed = True

    def forget(self) -> None:
        """Let go of results that no replay reads; their shapes are enough."""
        for call in self.calls:
            if not call.consumed:
                call.result = _mapped(lambda tensor: tensor.new_empty(()).expand(tensor.shape), call.result)
        self.made, self.stored = _marked(()), {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_getter(func):
            return func(*args, **kwargs)
        given = list(_tensors((args, kwargs)))
        descends = any(each in self.changed for each in given)
        if descends:
            self.consume((args, kwargs))
        if in_place(func, kwargs) and given:
            for earlier in self.stored.pop(given[0].untyped_storage().data_ptr(), ()):
                earlier.result = _mapped(torch.clone, earlier.result)  # what is about to be written over
        result = func(*args, **kwargs)
        call = _Call(func, result, any(each in self.carrying for each in given))
        self.calls.append(call)
        for each in _tensors(result):
            self.made[each] = call
            self.stored.setdefault(each.untyped_storage().data_ptr(), []).append(call)
            if call.carries:
                self.carrying[each] = True
            if descends:
                self.changed[each] = True
        return result


class _Player(TorchFunctionMode):
    """Answers calls with what was recorded; computes those that descend from the change."""

    def __init__(self, calls: Sequence[_Call], copies: int):
        super().__init__()
        self.calls = iter(calls)
        self.copies = copies
        self.changed = _marked(())
        self.computed = 0
        self.largest = 1

    def begin(self, changed: Tensor) -> None:
        self.changed = _marked([changed])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_getter(func):
            return func(*args, **kwargs)
        call = next(self.calls, None)
        if call is None or call.operation != func:
            raise _Departed
        writes, given = in_place(func, kwargs), list(_tensors((args, kwargs)))
        if any(each in self.changed for each in given):
            if writes and given[0] not in self.changed:
                given[0].data = given[0].data.clone()  # recorded, and expanded: it can't be written
            result = func(*args, **kwargs)
            self.computed += 1
            for each in (*_tensors(result), *given[: int(writes)]):
                self.changed[each] = True
                self.largest = max(self.largest, each.numel() * each.element_size())
            return result
        result = _mapped(lambda tensor: _expanded(tensor, self.copies), call.result) if call.carries else call.result
        if writes and given and isinstance(result, Tensor):
            given[0].data = result  # others may hold the tensor that was written
            return given[0]
        return result


def _expanded(tensor: Tensor, copies: int) -> Tensor:
    """One item as so many, without copying it."""
    return tensor.expand(copies, *tensor.shape[1:]) if tensor.ndim and len(tensor) == 1 else tensor


def _is_getter(func: Any) -> bool:
    """Whether it only tells of a tensor; tells of the expanded one then."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return getattr(func.__self__, "__name__", "") not in _TENSOR_ATTRIBUTES
    return name in _GETTERS


def _marked(tensors: Iterable[Tensor]) -> WeakIdKeyDictionary:
    found = WeakIdKeyDictionary()
    for each in tensors:
        found[each] = True
    return found


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)


def _mapped(func: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The value with every tensor in it replaced; tuples of torch's own kinds stay what they are."""
    if isinstance(value, Tensor):
        return func(value)
    if type(value) in (tuple, list):
        return type(value)(_mapped(func, each) for each in value)
    if isinstance(value, tuple):
        parts = [_mapped(func, each) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {name: _mapped(func, each) for name, each in value.items()}
    return value
