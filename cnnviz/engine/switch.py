"""Operations run so that a rule can act on them when their gradient comes back.

The operation runs as it is, on a graph of its own. Which rule is in force is looked up in the backward pass, so that
one forward pass serves every rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.backward_rules import PLAIN, Backward, Call, Rule
from cnnviz.engine.nested import tensors
from cnnviz.engine.operations import Operation, name_of


@dataclass(eq=False)
class Switchboard:
    """Which rule is in force. Apart from the trace, so that the graph holds no reference back to itself."""

    rule: Rule = PLAIN
    applied: bool = False

    def backward(self, operation: Operation) -> Backward | None:
        """What the rule in force does at this operation, if it does anything."""
        found = self.rule.backwards.get(operation)
        self.applied = self.applied or found is not None
        return found

    def gradients(self, operation: Operation, backward: Backward, call: Call, grad: Tensor) -> Sequence[Tensor]:
        """What the rule makes of a gradient, for each of the operation's inputs."""
        found = backward(call, grad)
        found = (found,) if isinstance(found, Tensor) else found
        if len(found) != len(call.inputs):
            raise ValueError(
                f"rule {self.rule.name!r} gives {len(found)} gradients at {name_of(operation)}, where "
                f"{len(call.inputs)} arguments come from the model's input; return one for each of call.inputs"
            )
        return found


@dataclass(frozen=True)
class _Hole:
    """Where an argument was that comes from the model's input."""

    number: int


@dataclass(frozen=True)
class _Nest:
    """A list or tuple with holes in it."""

    kind: type
    items: list[Any]


class Bound:
    """An operation with all its arguments but those that come from the model's input."""

    def __init__(self, func: Operation, args: Any, kwargs: Mapping[str, Any], inputs: Sequence[Tensor], writes: bool):
        self.func, self.writes = func, writes
        self.kind: type | None = None
        """The type of what it returns, where that is several tensors."""
        chosen, holes = {id(each) for each in inputs}, iter(range(len(inputs)))
        self.args = tuple(_emptied(each, chosen, holes) for each in args)
        self.kwargs = {name: _emptied(each, chosen, holes) for name, each in kwargs.items()}
        self.device = inputs[0].device.type
        self.autocast = torch.is_autocast_enabled(self.device), torch.get_autocast_dtype(self.device)

    def run(self, inputs: Sequence[Tensor], copied: bool = False) -> tuple[list[Tensor], Any]:
        """The operation on a graph of its own: where that begins, and what came out.

        ``copied`` inputs stay as they are when the model writes over them.
        """
        with torch.enable_grad():
            copied = copied or self.writes
            inner = [(x.detach().clone() if copied else x.detach()).requires_grad_() for x in inputs]
            given = [inner[0].clone(), *inner[1:]] if self.writes else inner
            named = {name: _filled(each, given) for name, each in self.kwargs.items()}
            return inner, self.func(*(_filled(each, given) for each in self.args), **named)

    def again(self, *inputs: Tensor) -> Call:
        """The operation as it was called, autocast included, at other inputs."""
        enabled, dtype = self.autocast
        with torch.autocast(self.device, dtype=dtype, enabled=enabled):
            inner, output = self.run(inputs)
        carrying = output if isinstance(output, Tensor) else _carrying(self.func, output)[1]
        return self.called(inner, carrying)

    def called(self, inner: Sequence[Tensor], output: Tensor) -> Call:
        def vjps(grad: Tensor) -> tuple[Tensor, ...]:
            with torch.enable_grad():
                how: dict[str, Any] = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
                return torch.autograd.grad(output, inner, grad, **how)

        return Call([each.detach() for each in inner], output.detach(), vjps, self.again)


class Switch(torch.autograd.Function):
    """Runs an operation as it is; looks up the rule only when a gradient comes back."""

    @staticmethod
    def forward(ctx: Any, board: Switchboard, operation: Operation, bound: Bound, copied: bool, *inputs: Tensor) -> Any:
        inner, output = bound.run(inputs, copied)
        ctx.board, ctx.operation, ctx.bound = board, operation, bound
        ctx.place, carrying = (0, output) if isinstance(output, Tensor) else _carrying(bound.func, output)
        ctx.inner, ctx.output, ctx.version = inner, carrying, carrying._version
        if bound.writes:
            ctx.mark_dirty(inputs[0])
            return inputs[0].copy_(carrying.detach())
        if isinstance(output, Tensor):
            return carrying.detach()
        bound.kind = type(output)
        found = tuple(each.detach() if isinstance(each, Tensor) else each for each in output)
        rest = [each for place, each in enumerate(found) if place != ctx.place and isinstance(each, Tensor)]
        ctx.mark_non_differentiable(*rest)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, board, call = grads[ctx.place], ctx.board, ctx.bound.called(ctx.inner, ctx.output)
        backward = board.backward(ctx.operation)
        if backward is None:
            return None, None, None, None, *call.vjps(grad)
        if ctx.output._version != ctx.version:  # the model has written over it
            call = Call(call.inputs, ctx.bound.again(*call.inputs).output, call.vjps, call.again)
        return None, None, None, None, *board.gradients(ctx.operation, backward, call, grad)


class Relu(torch.autograd.Function):
    """ReLU, which every network has dozens of: keeps its output alone, as torch's own does."""

    @staticmethod
    def forward(ctx: Any, board: Switchboard, writes: bool, x: Tensor) -> Tensor:
        output = x.relu_() if writes else x.relu()
        if writes:
            ctx.mark_dirty(x)
        ctx.board = board
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (output,) = ctx.saved_tensors

        def vjps(grad: Tensor) -> tuple[Tensor]:
            return (torch.ops.aten.threshold_backward(grad, output, 0),)

        backward = ctx.board.backward(F.relu)
        if backward is None:
            return None, None, *vjps(grad)
        call = Call([output], output, vjps, lambda x: Bound(F.relu, [x], {}, [x], False).again(x))
        return None, None, *ctx.board.gradients(F.relu, backward, call, grad)


class Saturated(torch.autograd.Function):
    """ReLU6, or another hard tanh that begins at zero: keeps its output alone, for it tells where it is flat."""

    @staticmethod
    def forward(ctx: Any, board: Switchboard, writes: bool, low: float, high: float, x: Tensor) -> Tensor:
        output = F.hardtanh_(x, low, high) if writes else F.hardtanh(x, low, high)
        if writes:
            ctx.mark_dirty(x)
        ctx.board, ctx.low, ctx.high = board, low, high
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (output,) = ctx.saved_tensors

        def vjps(grad: Tensor) -> tuple[Tensor]:
            return (torch.ops.aten.hardtanh_backward(grad, output, ctx.low, ctx.high),)

        def again(x: Tensor) -> Call:
            return Bound(F.hardtanh, [x, ctx.low, ctx.high], {}, [x], False).again(x)

        backward = ctx.board.backward(F.relu6)
        if backward is None:
            return None, None, None, None, *vjps(grad)
        call = Call([output], output, vjps, again)
        return None, None, None, None, *ctx.board.gradients(F.relu6, backward, call, grad)


def _emptied(value: Any, chosen: set[int], holes: Iterator[int]) -> Any:
    if isinstance(value, Tensor):
        return _Hole(next(holes)) if id(value) in chosen else value
    if isinstance(value, tuple | list) and any(id(each) in chosen for each in tensors(value)):
        return _Nest(type(value), [_emptied(each, chosen, holes) for each in value])
    return value


def _filled(value: Any, given: Sequence[Tensor]) -> Any:
    if isinstance(value, _Hole):
        return given[value.number]
    return value.kind([_filled(each, given) for each in value.items]) if isinstance(value, _Nest) else value


def _carrying(func: Operation, output: Any) -> tuple[int, Tensor]:
    """The one tensor of several that carries gradients, as the values beside their indices, and its place."""
    found = [(place, each) for place, each in enumerate(output) if isinstance(each, Tensor) and each.requires_grad]
    if len(found) != 1:
        raise TypeError(
            f"{name_of(func)} gives {len(found)} tensors that carry gradients, and a rule acts on one; "
            "put it on the operations before or behind it"
        )
    return found[0]
