"""Replay of a recorded pass for variants: only operations that depend on the change are computed.

A call that does not descend from the change is answered with its recorded result, expanded over the variants; the
others are computed. Data-dependent control flow: every Python value read from a changed tensor must equal the
recorded one, else the sequence of operations is another one. A replay writes nothing but its own tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.agreement import Departed
from cnnviz.engine.nested import mapped, tensors
from cnnviz.engine.operations import reads_metadata, written_tensor
from cnnviz.engine.thread_state import WatchingMode
from cnnviz.incremental.region_cache import Chunk, Norm
from cnnviz.incremental.region_rules import CONVOLUTIONS, on_regions
from cnnviz.incremental.regions import Region, full
from cnnviz.incremental.single_channel import with_one_channel_changed
from cnnviz.incremental.tape import RecordedOp, expanded, marked, whole_numbers

_DATA = Tensor.data.__get__  # type: ignore[attr-defined]  # a property of C
_READ = (bool, int, float, complex, str, type(None), torch.dtype, torch.device, torch.Size)
_MIRRORED: dict[Any, Any] = {Tensor.lt: Tensor.gt, Tensor.gt: Tensor.lt, Tensor.le: Tensor.ge, Tensor.ge: Tensor.le}
"""Comparisons by what they are with the operands exchanged, as Python does where the second is of a subclass."""


class Player(WatchingMode):
    """Answers the calls of a pass from the record.

    Args:
        chunk: the variants and the recorded pass.
        ops: what was recorded.
        copies: how many variants there are.
        inputs: the tensors that the model is called with.
    """

    def __init__(self, chunk: Chunk, ops: Sequence[RecordedOp], copies: int, inputs: Sequence[Tensor]):
        super().__init__()
        self.chunk = chunk
        self.remaining = iter(ops)
        self.copies = copies
        self.own = marked(inputs)  # and all that the model is answered with: nothing else is written
        self.changed = marked(())
        self.begun: tuple[Tensor, int, Tensor] | None = None
        """The layer's changed output, its version, and its output before the change."""
        self.convolved = marked(())  # outputs of convolutions, by the op that gave them
        self.learned: list[tuple[RecordedOp, Norm]] = []
        """Batch norms that can be folded into the convolution before them, from the next chunk on."""
        self.operations = 0
        """How many operations were computed."""
        self.elements = 0
        """How many values they gave."""
        self.bytes = 0
        """Of these values."""
        self.largest = 1
        """Bytes of the largest of their results."""

    def begin(self, changed: Tensor, before: Tensor | None = None) -> None:
        """From here on tensors descend from this one, which was ``before``, (1, C, *spatial), if all of it is known."""
        self.changed = marked([changed])
        self.begun = None if before is None else (changed, changed._version, before)
        self.own[changed] = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if reads_metadata(func):
            return func(*args, **kwargs)
        op = next(self.remaining, None)
        if op is not None and op.operation != func and _MIRRORED.get(func) == op.operation and len(args) == 2:
            func, args = op.operation, (args[1], args[0])  # Python compares x > region as region < x
        if op is None or op.operation != func:
            raise Departed
        operands = list(tensors((args, kwargs)))
        written = written_tensor(func, operands, kwargs)
        if written is not None and written not in self.own:
            raise Departed
        changed = sum(tensor in self.changed for tensor in operands)
        if op.changed and changed != op.changed:  # the model has the layer's output under two names, one was replaced
            raise Departed
        if op.given_back is not None:
            return operands[op.given_back]
        if changed:
            result = self._compute(op, written, func, args, kwargs)
        elif not op.carries and whole_numbers((args, kwargs)) != op.numbers:
            if written is not None:
                written.data = written.data.clone()  # recorded
            result = func(*args, **kwargs)  # made anew for a batch of another size, such as zeros
        else:
            copies = self.copies if op.carries else 1
            result = mapped(lambda tensor: expanded(tensor, copies), op.result)
            if written is not None and isinstance(result, Tensor):
                written.data = result  # others may hold the tensor that was written
                return written
        for tensor in tensors(result):
            if not any(tensor is operand for operand in operands):
                self.own[tensor] = True
        return result

    def _compute(self, op: RecordedOp, written: Tensor | None, func: Any, args: Any, kwargs: Any) -> Any:
        if func == _DATA:
            self.begun = None  # writes through it are not counted
        if func is F.batch_norm and args and args[0] in self.convolved:
            normed = self._normed(op, args, kwargs)
            if normed is not None:
                return normed
        changed = [tensor for tensor in tensors((args, kwargs)) if tensor in self.changed]
        apart = all(isinstance(tensor, Region) and not tensor.dissolved for tensor in changed)
        if apart and (written is None or isinstance(written, Region)):
            result = on_regions(self.chunk, op, func, args, kwargs)
            if result is not None:
                return self._take(op, written, func, result)
        return self._on_full_maps(op, written, func, args, kwargs)

    def _normed(self, op: RecordedOp, args: Any, kwargs: Any) -> Tensor | None:
        """The result of a batch norm whose convolution has its factors in the weights already."""
        convolution, norms = self.convolved[args[0]], self.chunk.cache.norms
        if convolution in norms:
            del self.convolved[args[0]]  # a second batch norm is computed
            result: Tensor = args[0]
            if isinstance(result, Region):
                part = self.chunk.region(op, result.boxes, result.inside)
                result = result.full() if result.dissolved else part
            self.changed[result] = True
            return result
        others = [*args[1:], *kwargs.values()]
        if convolution.readers == [op] and not any(tensor in self.changed for tensor in tensors(others)):
            norm = Norm.of(op, args, kwargs)
            if norm is not None:
                self.learned.append((convolution, norm))
        return None

    def _take(self, op: RecordedOp, written: Tensor | None, func: Any, result: Tensor) -> Tensor:
        values = result.inside if isinstance(result, Region) else result
        fresh = result not in self.changed
        if isinstance(written, Region) and isinstance(result, Region):
            written.become(result.recorded, result.boxes, result.part, result.inside)
            result = written
        self._count(op, result, [values] if fresh else [])
        if func in CONVOLUTIONS:
            self.convolved[result] = op
        return result

    def _on_full_maps(self, op: RecordedOp, written: Tensor | None, func: Any, args: Any, kwargs: Any) -> Any:
        regions = [tensor for tensor in tensors((args, kwargs)) if isinstance(tensor, Region)]
        target = written.dissolve() if isinstance(written, Region) else written
        for region in regions:
            self.changed[region.full()] = True
        args, kwargs = mapped(full, args), mapped(full, kwargs)
        if target is not None and target not in self.changed:
            target.data = target.data.clone()  # recorded, and expanded: it can't be written
        returned = self._one_channel(op, func, args, kwargs)
        if returned is None:
            # filters that are made of the input are those of these variants alone
            fixed = func in CONVOLUTIONS and len(args) > 2 and not any(o in self.changed for o in tensors(args[1:3]))
            if fixed:
                args = (args[0], *self.chunk.cache.weights(op, args[1], args[2], for_full_maps=True), *args[3:])
            returned = func(*args, **kwargs)
            if fixed:
                self.convolved[returned] = op
        result = returned if target is None else target
        self._count(op, result, list(tensors(result)))
        return written if returned is target and written is not None else returned

    def _one_channel(self, op: RecordedOp, func: Any, args: Any, kwargs: Any) -> Tensor | None:
        """The result where the call reads nothing changed but the layer, in one channel of each variant."""
        if self.begun is None or not args or args[0] is not self.begun[0] or self.begun[0]._version != self.begun[1]:
            return None
        if any(tensor in self.changed for tensor in tensors((args[1:], kwargs))) or not isinstance(op.result, Tensor):
            return None
        return with_one_channel_changed(self.begun[2], op.result, func, args, kwargs)

    def _count(self, op: RecordedOp, result: Any, values: Sequence[Tensor]) -> None:
        """Note what was computed; raises Departed where Python would go on otherwise than it did."""
        if not _same_path(result, op.result, self.copies):
            raise Departed
        self.operations += 1
        sizes = [tensor.numel() * tensor.element_size() for tensor in values]
        self.elements += sum(tensor.numel() for tensor in values)
        self.bytes, self.largest = self.bytes + sum(sizes), max([self.largest, *sizes])
        for tensor in tensors(result):
            self.changed[tensor] = True


def _same_path(result: Any, recorded: Any, copies: int) -> bool:
    """True if Python goes on with it as it did: values it can read are the same, and as many of those it can't."""
    if isinstance(result, Tensor):
        alike = isinstance(recorded, Tensor) and result.ndim == recorded.ndim
        return alike and result.numel() in (recorded.numel(), recorded.numel() * copies)
    if isinstance(result, tuple | list):
        same = type(result) is type(recorded) and len(result) == len(recorded)
        return same and all(_same_path(*pair, copies) for pair in zip(result, recorded, strict=True))
    return isinstance(result, _READ) and type(result) is type(recorded) and result == recorded
