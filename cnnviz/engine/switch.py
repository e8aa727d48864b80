"""Operations run so that a rule can act on them when their gradient comes back.

The operation runs as it is, on a graph of its own. Which rule is in force is looked up in the backward pass, so that
one forward pass serves every rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.axes import Label
from cnnviz.engine.backward_rules import PLAIN, Backward, Backwards, Call, Change, Rule
from cnnviz.engine.call_site import BackwardPass, CallSite
from cnnviz.engine.nested import tensors
from cnnviz.engine.operand_record import OperandRecord, Place
from cnnviz.engine.operations import POINTWISE, Operation, limits_of, name_of
from cnnviz.engine.weights import LINEAR, Arguments, Linear, linear


@dataclass(eq=False)
class Switchboard:
    """The rule of the backward pass. Separate from the trace, so that the graph holds no reference back to itself."""

    rule: Rule = PLAIN
    applied: bool = False
    references: Mapping[OperandRecord, OperandRecord] = field(default_factory=dict)
    """For the record of a pass that of the reference inputs' pass, with which the rule compares."""
    backward_pass: BackwardPass | None = None
    """What the backward pass finds out about the graph; None outside of one."""

    def backward(self, operation: Operation) -> Backward | None:
        """The current rule's function for this operation; None where the plain gradient is taken."""
        return self.rule.backwards.get(operation)

    def site(self, node: Any, label: Label | None) -> CallSite | None:
        """Where a call lies in the graph."""
        return None if self.backward_pass is None else CallSite(node, self.backward_pass, label)

    def gradients(self, operation: Operation, backward: Backward, call: Call, grad: Tensor) -> Sequence[Tensor]:
        """The rule's gradients, one for each of the operation's inputs. Raises ValueError for another number."""
        gradients = backward(call, grad)
        if gradients is NotImplemented:
            return call.vjps(grad)
        self.applied = self.applied or self.rule.counted is None or operation in self.rule.counted
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
        self.label: Label | None = None
        """Where the input's axes lie in its output, if that was asked for and is known."""
        self.product: Linear | None = None
        """As what it was made, where it is an operation with other weights."""
        chosen, holes = {id(tensor) for tensor in inputs}, iter(range(len(inputs)))
        self.args = tuple(_emptied(argument, chosen, holes) for argument in args)
        self.kwargs = {name: _emptied(argument, chosen, holes) for name, argument in kwargs.items()}
        self.device = inputs[0].device.type
        self.autocast = torch.is_autocast_enabled(self.device), torch.get_autocast_dtype(self.device)
        self.versions: list[tuple[Tensor, int]] = []
        """What it must find as it was when it runs again, with how often that had been written."""
        self.hold(tensors([self.args, self.kwargs]))

    def hold(self, found: Iterable[Tensor]) -> None:
        """Notice when the model writes over these tensors."""
        self.versions += ((tensor, tensor._version) for tensor in found if not tensor.is_inference())

    def run(self, inputs: Sequence[Tensor]) -> Any:
        """What the operation gives for these tensors, in which it writes where it is one that writes."""
        named = {name: _filled(argument, inputs) for name, argument in self.kwargs.items()}
        return self.func(*(_filled(argument, inputs) for argument in self.args), **named)

    def evaluated(self, inner: Sequence[Tensor]) -> Any:
        """What it gives for the leaves of a graph of its own."""
        with torch.enable_grad():
            return self.run([inner[0].clone(), *inner[1:]] if self.writes else inner)

    def again(self, *inputs: Tensor) -> Call:
        """The operation at other inputs, with the autocast settings of the first call."""
        return (self if self.at_others is None else self._at_others(inputs)).called(_leaves(inputs))

    @property
    def linear(self) -> Linear:
        """The operation as a product with weights. Raises LookupError for one that is none."""
        if self.product is not None:
            return self.product
        self._check_unwritten()
        return linear(Arguments(self.func, self.args, self.kwargs, lambda value: isinstance(value, _Hole)))

    def reweighed(self, values: Tensor, weight: Change, bias: Change | None) -> Call:
        """It at an operand with functions of its weight and bias. Raises LookupError as `linear` does."""
        product = self.linear
        changed = weight(product.weight)
        added = None if bias is None or product.bias is None else bias(product.bias)

        def run(values: Tensor) -> Tensor:
            output = product.run(values, changed)
            return output if added is None else output + added

        bound = Bound(run, (values,), {}, (values,), False)
        bound.autocast, bound.product = self.autocast, Linear(changed, added, product.run)
        return bound.called(_leaves((values,)))

    def linear_part(self, inputs: Sequence[Tensor]) -> Tensor:
        """The derivative in the direction of the operands: of the plain backward, which is linear, the transpose."""
        leaves = _leaves(inputs)
        output = self._output(leaves)
        with torch.enable_grad():
            back = torch.zeros_like(output).requires_grad_()
            how: dict[str, Any] = {"create_graph": True, "allow_unused": True, "materialize_grads": True}
            grads = torch.autograd.grad(output, leaves, back, **how)
            total = sum((grad.conj() * leaf.detach()).real.sum() for grad, leaf in zip(grads, leaves, strict=True))
            return torch.autograd.grad(total, back)[0].detach()  # type: ignore[arg-type]  # there is an operand

    def constant(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by its place or name; the default where it comes from the input."""
        value = self.args[place] if len(self.args) > place else self.kwargs.get(name, default)
        return default if isinstance(value, _Hole | _Nest) else value

    def _at_others(self, inputs: Sequence[Tensor]) -> Bound:
        assert self.at_others is not None
        return Bound(self.at_others, inputs, {}, inputs, False)

    def called(
        self,
        inner: Sequence[Tensor],
        graph: Tensor | None = None,
        overwritten: bool = False,
        reference: Callable[[], Call] | None = None,
        site: CallSite | None = None,
    ) -> Call:
        """The call with these leaves.

        ``graph`` is its output, whose values may be ``overwritten``; None: it runs when a rule asks for what it gives.
        """

        def evaluate() -> tuple[Tensor, Backwards]:
            output = self._output(inner) if graph is None or overwritten else graph
            differentiable = output if graph is None else graph

            def vjps(grad: Tensor) -> tuple[Tensor, ...]:
                with torch.enable_grad():
                    how: dict[str, Any] = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
                    return torch.autograd.grad(differentiable, inner, grad, **how)

            return output.detach(), vjps

        limits = limits_of(self.at_others or self.func, self.args, self.kwargs)
        return Call([tensor.detach() for tensor in inner], evaluate, self.again, limits, reference, self, site)

    def _output(self, inner: Sequence[Tensor]) -> Tensor:
        """Raises ValueError where the model has written over what the operation was given."""
        self._check_unwritten()
        enabled, dtype = self.autocast
        with torch.autocast(self.device, dtype=dtype, enabled=enabled):
            output = self.evaluated(inner)
        return output if isinstance(output, Tensor) else _carrying(self.func, output)[1]

    def _check_unwritten(self) -> None:
        for tensor, version in self.versions:
            if tensor._version != version:
                raise ValueError(
                    f"the model has written over a tensor that {name_of(self.func)} was given, and a rule asks for "
                    "that operation again; write into a copy of it"
                )


class Switch(torch.autograd.Function):
    """Runs an operation unchanged; looks up the rule only in the backward pass."""

    @staticmethod
    def forward(ctx: Any, board: Switchboard, place: Place, bound: Bound, copied: bool, *inputs: Tensor) -> Any:
        ctx.set_materialize_grads(False)  # no gradient comes where a rule leads it another way
        ctx.board, ctx.called, ctx.bound, ctx.place, ctx.graph = board, place, bound, 0, None
        ctx.linear = place[1] in LINEAR and len(inputs) == 1
        ctx.inner = _leaves(inputs, copied or bound.writes)
        if bound.writes:
            ctx.mark_dirty(inputs[0])
        # what saves elsewhere, as checkpoints do, counts how many tensors an operation saves
        saved_elsewhere = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
        cheap = bound.writes or (copied and place[1] in POINTWISE and "out" not in bound.kwargs)
        if cheap and not saved_elsewhere:  # it runs again where a rule asks for what it gives
            output = bound.run(inputs)
            return inputs[0] if bound.writes else output
        bound.hold([] if copied or bound.writes else ctx.inner)
        output = bound.evaluated(ctx.inner)
        ctx.place, carrying = (0, output) if isinstance(output, Tensor) else _carrying(bound.func, output)
        ctx.graph, ctx.version = carrying, carrying._version
        if bound.writes:
            return inputs[0].copy_(carrying.detach())
        if isinstance(output, Tensor):
            return carrying.detach()
        bound.kind = type(output)
        outputs = tuple(item.detach() if isinstance(item, Tensor) else item for item in output)
        rest = [item for place, item in enumerate(outputs) if place != ctx.place and isinstance(item, Tensor)]
        ctx.mark_non_differentiable(*rest)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad, board, bound, inner = grads[ctx.place], ctx.board, ctx.bound, ctx.inner
        record, operation, number = ctx.called
        if grad is None:
            return None, None, None, None, *(None for _ in inner)

        def reference() -> Call:
            return bound.again(*board.references[record].inputs_of(operation, number, inner))  # type: ignore[no-any-return]

        backward = board.backward(operation)
        overwritten = backward is not None and ctx.graph is not None and ctx.graph._version != ctx.version
        compared = reference if record in board.references else None
        call = bound.called(inner, ctx.graph, overwritten, compared, board.site(ctx, bound.label))
        if backward is None:
            return None, None, None, None, *call.vjps(grad)
        return None, None, None, None, *board.gradients(operation, backward, call, grad)


def _leaves(inputs: Sequence[Tensor], copied: bool = False) -> list[Tensor]:
    """Leaves of a graph of an operation's own; ``copied`` ones keep their values when the model writes over them."""
    return [(tensor.detach().clone() if copied else tensor.detach()).requires_grad_() for tensor in inputs]


class Rectifier(torch.autograd.Function):
    """ReLU, or a hard tanh that begins at zero, such as ReLU6: saves only its output, which shows where it is flat.

    ``limits`` are low and high of a hard tanh; none for ReLU.
    """

    @staticmethod
    def forward(ctx: Any, board: Switchboard, writes: bool, limits: tuple[float, ...], x: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.operation, ctx.func = (F.relu6, F.hardtanh) if limits else (F.relu, F.relu)
        ctx.board, ctx.limits = board, limits
        output: Tensor = ctx.func(x, *limits, inplace=writes)
        if writes:
            ctx.mark_dirty(x)
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
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
        call = Call([output], lambda: (output, vjps), again, ctx.limits or (0, None))
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
