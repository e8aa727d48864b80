"""One forward pass, kept so that several backward passes can read it differently.

A rule changes what one operation does to a gradient. Operations are met as they are called, so functional, in-place and
reused activations count like modules. The model is never edited: what is entered here is left when the pass ends,
also when the model raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from cnnviz.biases import Biases, refuse_transformed
from cnnviz.hooks import lend
from cnnviz.operations import SOFTMAXES, Operation, canonical, in_place, name_of


class Call:
    """One operation as it ran, when its gradient arrives."""

    def __init__(self, input: Tensor, output: Tensor, vjp: Callable[[Tensor], Tensor]):
        self.input = input
        self.output = output
        self.vjp = vjp
        """The operation's ordinary backward: from the gradient of its output to that of its input."""


Backward = Callable[[Call, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Rule:
    """What each listed operation does to a gradient, instead of its ordinary backward."""

    name: str
    backwards: Mapping[Operation, Backward]
    reads_input: bool = True
    """False spares a copy where the rule needs only ``call.output`` and ``call.vjp``."""
    otherwise: str = ""
    """What to say to a user whose network has none of the operations."""

    def __repr__(self) -> str:
        return self.name


PLAIN = Rule("plain", {})


def rule(
    *operations: Operation, reads_input: bool = True, otherwise: str = "", name: str | None = None
) -> Callable[[Backward], Rule]:
    """Make a rule of one backward function ``(call, gradient) -> gradient`` for all of ``operations``."""

    def make(backward: Backward) -> Rule:
        names = dict.fromkeys((canonical(each, (), {}) for each in operations), backward)
        return Rule(name or backward.__name__, names, reads_input, otherwise)

    return make


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


@dataclass(frozen=True)
class Wanted:
    """What one forward pass must leave behind."""

    layers: frozenset[str] = frozenset()
    rules: frozenset[Rule] = frozenset()
    input_gradient: bool = False
    layer_gradients: bool = False
    biases: bool = False
    size: bool = False
    seen: frozenset[str] = frozenset()
    """Layers that the score is read from."""
    before_softmax: bool = False


class Trace:
    """A forward pass: its output, the layers asked for, and a graph no longer than was asked for."""

    def __init__(self, model: nn.Module, inputs: Sequence[Tensor], wanted: Wanted, whole: bool = False):
        self.model_name = type(model).__name__
        self.activations: dict[str, Tensor] = {}
        self.places: dict[str, Tensor | GradientEdge] = {}
        """Where gradients with respect to the layers are taken."""
        self.seen: dict[str, Tensor] = {}
        """Layers that the score is read from, with their graph."""
        self.softmaxes: list[tuple[Tensor, Tensor]] = []
        """What went into every softmax, and what came out."""
        self.whole = whole or wanted.input_gradient or wanted.biases
        self.lost = False
        """Whether the model turned gradients off behind the layer where the graph begins, which is too short then."""
        self.switchboard = Switchboard()
        self.biases: Biases | None = None
        self.bytes = 0
        from_input = wanted.input_gradient or wanted.biases or (whole and wanted.layer_gradients)
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))  # whose tensors could not carry gradients
            self.input = inputs[0].detach().clone()
            self.input.requires_grad_(from_input)
            stack.enter_context(torch.set_grad_enabled(from_input))
            for name in wanted.layers | wanted.seen:
                starts_graph = name in wanted.layers and wanted.layer_gradients and not from_input
                hook = self._observer(name, starts_graph, name in wanted.seen)
                lend(stack, model.get_submodule(name).register_forward_hook, hook)
            if wanted.biases:
                self.biases = Biases(self.input)
            if wanted.rules or wanted.biases or wanted.size or wanted.before_softmax:
                stack.enter_context(_Observer(self, wanted.rules))
            # the model may write into its input, which is the caller's
            self.output: Any = model(self.input.clone(), *(other.detach().clone() for other in inputs[1:]))
            if wanted.before_softmax:
                self.output = self._before_softmax()
                self.softmaxes.clear()

    def _before_softmax(self) -> Tensor:
        """What went into the softmax that gave the output."""
        for given, found in reversed(self.softmaxes):
            if isinstance(self.output, Tensor) and torch.equal(found.flatten(), self.output.flatten()):
                return given.reshape(self.output.shape)
        raise LookupError(
            f"the output of {self.model_name} is not what a softmax gave, so there is nothing before it to explain; "
            "leave before_softmax out"
        )

    def _observer(self, name: str, starts_graph: bool, seen: bool) -> Callable[..., Tensor]:
        def observe(module: nn.Module, args: Any, output: Any) -> Any:
            instead = begin(module, args, output)
            if seen:
                self.seen[name] = (output if instead is None else instead).clone()
            return instead

        def begin(module: nn.Module, args: Any, output: Any) -> Any:
            if not isinstance(output, Tensor):
                raise TypeError(
                    f"layer {name!r} gives a {type(output).__name__}, not a tensor; "
                    "name one of the layers inside it (`cnnviz layers` lists them)"
                )
            if not starts_graph or output.requires_grad or not output.is_floating_point():
                self.activations[name] = output.detach().clone()  # what follows may write in place
                if output.requires_grad:
                    self.places[name] = get_gradient_edge(output)
                return None
            # nothing before the layer is asked for, so the graph begins here, once
            self.lost = self.lost or (bool(self.places) and not torch.is_grad_enabled())
            torch.set_grad_enabled(True)
            if not output._is_view():
                self.activations[name] = output.detach().clone()
                _Begin.apply(output, torch.zeros((), requires_grad=True))
                self.places[name] = get_gradient_edge(output)
                return None
            # a view made without gradients can't begin a graph, its copy can; whoever holds the original is left behind
            self.lost = self.lost or _same_memory(args, output)
            self.activations[name] = self.places[name] = output.detach().clone().requires_grad_()
            return self.activations[name].clone()

        return observe

    def gradients(self, score: Tensor, wrt: Sequence[Any], rule: Rule = PLAIN) -> list[Tensor | None]:
        """Gradients of the summed ``score`` at tensors or gradient edges, listed operations following the rule."""
        able = [not isinstance(each, Tensor) or each.requires_grad for each in wrt]
        if not score.requires_grad or not any(able):
            return [None for _ in wrt]
        board = self.switchboard
        board.rule, board.applied = rule, False
        try:
            with torch.inference_mode(False):
                ones = torch.ones_like(score)
                places = tuple(place for place, can in zip(wrt, able, strict=True) if can)
                found = iter(torch.autograd.grad(score, places, ones, retain_graph=True, allow_unused=True))
                grads = [next(found) if can else None for can in able]
        finally:
            board.rule = PLAIN
        # judged on the way back: an operation may be called and yet lie on no way from the score to what is asked
        if rule.backwards and not board.applied and any(grad is not None for grad in grads):
            names = ", ".join(sorted(name_of(each) for each in rule.backwards))
            way_out = f"; {rule.otherwise}" if rule.otherwise else ""
            raise LookupError(
                f"rule {rule.name!r} changes nothing in {self.model_name}: none of {names} is between "
                f"the score and what is explained{way_out}"
            )
        return grads


class _Observer(TorchFunctionMode):
    """Sees every operation of one forward pass, in this thread alone."""

    def __init__(self, trace: Trace, rules: Iterable[Rule]):
        super().__init__()
        self.trace = trace
        self.switched = {operation: True for each in rules for operation in each.backwards}
        self.lean = not any(each.reads_input for each in rules if F.relu in each.backwards)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        trace = self.trace
        if trace.biases is None:
            output = self._call(func, args, kwargs)
        else:
            output = trace.biases.call(func, args, kwargs, self._call)
        if func in SOFTMAXES and isinstance(output, Tensor):
            trace.softmaxes.append((args[0] if args else kwargs["input"], output))
        if isinstance(output, Tensor):
            size = output.numel() * output.element_size()
            # what a graph keeps adds up; without one an output goes when the next but one is there
            trace.bytes = trace.bytes + size if output.grad_fn is not None else max(trace.bytes, 3 * size)
        return output

    def _call(self, func: Any, args: Any, kwargs: Any) -> Any:
        operation = canonical(func, args, kwargs) if self.switched else func
        if operation not in self.switched or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if args:
            first, rest, named = args[0], args[1:], kwargs
        else:
            name = "input" if "input" in kwargs else "self"
            first, rest, named = kwargs[name], (), {key: value for key, value in kwargs.items() if key != name}
        if not isinstance(first, Tensor):
            return func(*args, **kwargs)
        refuse_transformed(func, first, lambda base: base.requires_grad)
        if not first.requires_grad:
            return func(*args, **kwargs)
        board = self.trace.switchboard
        writes = in_place(func, kwargs)
        if operation is F.relu and self.lean:
            return _Relu.apply(board, writes, first)
        return _Switch.apply(board, operation, writes, lambda x: func(x, *rest, **named), first)


def _same_memory(args: Sequence[Any], output: Tensor) -> bool:
    memory = output.untyped_storage().data_ptr()
    return any(isinstance(arg, Tensor) and arg.untyped_storage().data_ptr() == memory for arg in args)


class _Begin(torch.autograd.Function):
    """Makes of a tensor the beginning of a graph, in place: whoever else holds it goes on with the same tensor."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None]:
        return None, None


class _Relu(torch.autograd.Function):
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

        def vjp(grad: Tensor) -> Tensor:
            passed: Tensor = torch.ops.aten.threshold_backward(grad, output, 0)
            return passed

        backward = ctx.board.backward(F.relu)
        return None, None, vjp(grad) if backward is None else backward(Call(output, output, vjp), grad)


class _Switch(torch.autograd.Function):
    """Runs an operation as it is; looks up the rule only when a gradient comes back."""

    @staticmethod
    def forward(
        ctx: Any, board: Switchboard, operation: Operation, writes: bool, run: Callable[[Tensor], Tensor], x: Tensor
    ) -> Tensor:
        with torch.enable_grad():
            inner = (x.detach().clone() if writes else x.detach()).requires_grad_()
            output = run(inner.clone() if writes else inner)
        ctx.board, ctx.operation, ctx.run = board, operation, run
        ctx.inner, ctx.output = inner, output
        ctx.versions = inner._version, output._version
        if writes:
            ctx.mark_dirty(x)
            return x.copy_(output.detach())
        return output.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inner, output = ctx.inner, ctx.output

        def vjp(grad: Tensor) -> Tensor:
            with torch.enable_grad():
                (passed,) = torch.autograd.grad(output, inner, grad, retain_graph=True)
            return torch.as_tensor(passed)

        backward = ctx.board.backward(ctx.operation)
        if backward is None:
            return None, None, None, None, vjp(grad)
        if ctx.board.rule.reads_input and inner._version != ctx.versions[0]:
            raise RuntimeError(
                f"rule {ctx.board.rule.name!r} needs what went into {name_of(ctx.operation)}, "
                "but the model has written over it in place; write that operation out of place"
            )
        value = output.detach() if output._version == ctx.versions[1] else ctx.run(inner.detach().clone())
        return None, None, None, None, backward(Call(inner.detach(), value, vjp), grad)
