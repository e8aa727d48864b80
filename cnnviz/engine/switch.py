"""Operations run so that a rule can act on them when their gradient comes back.

The operation runs as it is, on a graph of its own. Which rule is in force is looked up in the backward pass, so that
one forward pass serves every rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.backward_rules import PLAIN, Backward, Call, Rule
from cnnviz.engine.nested import tensors
from cnnviz.engine.operand_record import OperandRecord, Place
from cnnviz.engine.operations import Operation, name_of


@dataclass(eq=False)
class Switchboard:
    """The rule of the backward pass. Separate from the trace, so that the graph holds no reference back to itself."""

    rule: Rule = PLAIN
    applied: bool = False
    references: Mapping[OperandRecord, OperandRecord] = field(default_factory=dict)
    """For the record of a pass that of the reference inputs' pass, with which the rule compares."""

    def backward(self, operation: Operation) -> Backward | None:
        """The current rule's function for this operation; None where the plain gradient is taken."""
        backward = self.rule.backwards.get(operation)
        self.applied = self.applied or backward is not None
        return backward

    def gradients(self, operation: Operation, backward: Backward, call: Call, grad: Tensor) -> Sequence[Tensor]:
        """The rule's gradients, one for each of the operation's inputs. Raises ValueError for another number."""
        gradients = backward(call, grad)
        gradients = (gradients,) if isinstance(gradients, Tensor) else gradients
        if len(gradients) != len(call.inputs):
            raise ValueError(
                f"rule {self.rule.name!r} gives {len(gradients)} gradients at {name_of(operation)}, where "
                f"{len(call.inputs)} arguments come from the model's input; return one for each of call.inputs"
            )
        return gradients


@dataclass(frozen=True)
class _Hole:
    """The place of an argument that depends on the model's input."""

    number: int


@dataclass(frozen=True)
class _Nest:
    """A list or tuple that contains holes."""

    kind: type
    items: list[Any]


class Bound:
    """An operation with all its arguments except those that depend on the model's input."""

    def __init__(
        self,
        func: Operation,
        args: Any,
        kwargs: Mapping[str, Any],
        inputs: Sequence[Tensor],
        writes: bool,
        at_others: Operation | None = None,
    ):
        self.func, self.writes = func, writes
        self.at_others = at_others
        """What the operation is at other inputs, where its arguments hold what was computed from these."""
        self.kind: type | None = None
        """The type of what it returns, where that is several tensors."""
        chosen, holes = {id(tensor) for tensor in inputs}, iter(range(len(inputs)))
        self.args = tuple(_emptied(argument, chosen, holes) for argument in args)
        self.kwargs = {name: _emptied(argument, chosen, holes) for name, argument in kwargs.items()}
        self.device = inputs[0].device.type
        self.autocast = torch.is_autocast_enabled(self.device), torch.get_autocast_dtype(self.device)

    def run(self, inputs: Sequence[Tensor], copied: bool = False) -> tuple[list[Tensor], Any]:
        """Run the operation on a graph of its own; returns the leaves of that graph, and the output.

        ``copied`` inputs keep their values when the model writes over them.
        """
        with torch.enable_grad():
            copied = copied or self.writes
            inner = [(x.detach().clone() if copied else x.detach()).requires_grad_() for x in inputs]
            operands = [inner[0].clone(), *inner[1:]] if self.writes else inner
            named = {name: _filled(argument, operands) for name, argument in self.kwargs.items()}
            return inner, self.func(*(_filled(argument, operands) for argument in self.args), **named)

    def again(self, *inputs: Tensor) -> Call:
        """The operation at other inputs, with the autocast settings of the first call."""
        enabled, dtype = self.autocast
        with torch.autocast(self.device, dtype=dtype, enabled=enabled):
            inner, output = (self if self.at_others is None else self._at_others(inputs)).run(inputs)
        carrying = output if isinstance(output, Tensor) else _carrying(self.func, output)[1]
        return self.called(inner, carrying)

    def _at_others(self, inputs: Sequence[Tensor]) -> Bound:
        assert self.at_others is not None
        return Bound(self.at_others, inputs, {}, inputs, False)

    def called(self, inner: Sequence[Tensor], output: Tensor, reference: Callable[[], Call] | None = None) -> Call:
        def vjps(grad: Tensor) -> tuple[Tensor, ...]:
            with torch.enable_grad():
                how: dict[str, Any] = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
                return torch.autograd.grad(output, inner, grad, **how)

        return Call([tensor.detach() for tensor in inner], output.detach(), vjps, self.again, reference)


class Switch(torch.autograd.Function):
    """Runs an operation unchanged; looks up the rule only in the backward pass."""

    @staticmethod
    def forward(ctx: Any, board: Switchboard, place: Place, bound: Bound, copied: bool, *inputs: Tensor) -> Any:
        inner, output = bound.run(inputs, copied)
        ctx.board, ctx.called, ctx.bound = board, place, bound
        ctx.place, carrying = (0, output) if isinstance(output, Tensor) else _carrying(bound.func, output)
        ctx.inner, ctx.output, ctx.version = inner, carrying, carrying._version
        if bound.writes:
            ctx.mark_dirty(inputs[0])
            return inputs[0].copy_(carrying.detach())
        if isinstance(output, Tensor):
            return carrying.detach()
        bound.kind = type(output)
        outputs = tuple(item.detach() if isinstance(item, Tensor) else item for item in output)
        rest = [item for place, item in enumerate(outputs) if place != ctx.place and isinstance(item, Tensor)]
        ctx.mark_non_differentiable(*rest)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, board, bound, inner = grads[ctx.place], ctx.board, ctx.bound, ctx.inner
        record, operation, number = ctx.called

        def reference() -> Call:
            return bound.again(*board.references[record].inputs_of(operation, number, inner))  # type: ignore[no-any-return]

        call = bound.called(inner, ctx.output, reference if record in board.references else None)
        backward = board.backward(operation)
        if backward is None:
            return None, None, None, None, *call.vjps(grad)
        if ctx.output._version != ctx.version:  # the model has written over it
            call.output = bound.again(*call.inputs).output
        return None, None, None, None, *board.gradients(operation, backward, call, grad)


class Rectifier(torch.autograd.Function):
    """ReLU, or a hard tanh that begins at zero, such as ReLU6: saves only its output, which shows where it is flat.

    ``limits`` are low and high of a hard tanh; none for ReLU.
    """

    @staticmethod
    def forward(ctx: Any, board: Switchboard, writes: bool, limits: tuple[float, ...], x: Tensor) -> Tensor:
        ctx.operation, ctx.func = (F.relu6, F.hardtanh) if limits else (F.relu, F.relu)
        ctx.board, ctx.limits = board, limits
        output: Tensor = ctx.func(x, *limits, inplace=writes)
        if writes:
            ctx.mark_dirty(x)
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (output,) = ctx.saved_tensors

        def vjps(grad: Tensor) -> tuple[Tensor]:
            if ctx.limits:
                return (torch.ops.aten.hardtanh_backward(grad, output, *ctx.limits),)
            return (torch.ops.aten.threshold_backward(grad, output, 0),)

        def again(x: Tensor) -> Call:
            return Bound(ctx.func, [x, *ctx.limits], {}, [x], False).again(x)

        backward = ctx.board.backward(ctx.operation)
        if backward is None:
            return None, None, None, *vjps(grad)
        call = Call([output], output, vjps, again)
        return None, None, None, *ctx.board.gradients(ctx.operation, backward, call, grad)


def _emptied(value: Any, chosen: set[int], holes: Iterator[int]) -> Any:
    if isinstance(value, Tensor):
        return _Hole(next(holes)) if id(value) in chosen else value
    if isinstance(value, tuple | list) and any(id(item) in chosen for item in tensors(value)):
        return _Nest(type(value), [_emptied(item, chosen, holes) for item in value])
    return value


def _filled(value: Any, operands: Sequence[Tensor]) -> Any:
    if isinstance(value, _Hole):
        return operands[value.number]
    return value.kind([_filled(item, operands) for item in value.items]) if isinstance(value, _Nest) else value


def _carrying(func: Operation, output: Any) -> tuple[int, Tensor]:
    """The only output that carries gradients (of max pooling the values, not the indices), and its position."""
    carrying = [(place, item) for place, item in enumerate(output) if isinstance(item, Tensor) and item.requires_grad]
    if len(carrying) != 1:
        raise TypeError(
            f"{name_of(func)} gives {len(carrying)} tensors that carry gradients, and a rule acts on one; "
            "put it on the operations before or behind it"
        )
    return carrying[0]
