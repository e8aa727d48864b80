"""One forward pass, kept so that several backward passes can read it differently.

A rule changes what one operation does to a gradient. Operations are met as they are called, so functional, in-place and
reused activations count like modules. The model is never edited: what is entered here is left when the pass ends,
also when the model raises.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode

from cnnviz.engine.backward_rules import PLAIN, Rule
from cnnviz.engine.forward import lend
from cnnviz.engine.implicit_biases import Biases, refuse_transformed
from cnnviz.engine.nested import tensors
from cnnviz.engine.operations import HARDTANHS, SOFTMAXES, bounds, canonical, in_place, name_of
from cnnviz.engine.speed.batch_norm import scaled
from cnnviz.engine.speed.memory_format import ORDINARY, Written, reads_layout
from cnnviz.engine.switch import Bound, Relu, Saturated, Switch, Switchboard


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


@dataclass(frozen=True)
class Means:
    """How a pass is computed, which its answer should not show."""

    layout: torch.memory_format = ORDINARY
    """Of the first input, which convolutions hand on."""
    precision: torch.dtype | None = None
    """Of convolutions and matrix products; None: as the model has it."""


class Trace:
    """A forward pass: its output, the layers asked for, and a graph no longer than was asked for."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Sequence[Tensor],
        wanted: Wanted,
        whole: bool = False,
        means: Means = Means(),
    ):
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
        self.rules = wanted.rules
        self.biases: Biases | None = None
        self.bytes = 0
        self.means = means
        self.layout_read = False
        """Whether the model looked at how tensors lie in memory, or depends on it otherwise."""
        self.written = Written()
        self.spent = False
        """Whether the graph was given back on the way of the last gradients."""
        from_input = wanted.input_gradient or wanted.biases or (whole and wanted.layer_gradients)
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))  # whose tensors could not carry gradients
            self.input = _laid_out(inputs[0].detach(), means.layout)
            self.input.requires_grad_(from_input)
            stack.enter_context(torch.set_grad_enabled(from_input))
            for name in wanted.layers | wanted.seen:
                starts_graph = name in wanted.layers and wanted.layer_gradients and not from_input
                hook = self._observer(name, starts_graph, name in wanted.seen)
                lend(stack, model.get_submodule(name).register_forward_hook, hook)
            if wanted.biases:
                self.biases = Biases(self.input)
            if means.precision is not None:
                stack.enter_context(torch.autocast(self.input.device.type, means.precision))
            if wanted.rules or wanted.biases or wanted.size or wanted.before_softmax or means.layout is not ORDINARY:
                stack.enter_context(_Observer(self, self.biases))
            # the model may write into its input, which is the caller's
            self.output: Any = model(self.input.clone(), *(other.detach().clone() for other in inputs[1:]))
            self.layout_read = self.layout_read or self.written.since()
            # what is given back must not show how it was computed
            self.output = self.ordinary(self.output)
            self.softmaxes = [(self.ordinary(given), self.ordinary(found)) for given, found in self.softmaxes]
            self.seen = {name: self.ordinary(each) for name, each in self.seen.items()}
            if wanted.before_softmax:
                self.output = into_softmax(self.model_name, self.output, self.softmaxes)
                self.softmaxes.clear()

    def ordinary(self, value: Any) -> Any:
        """Tensors, also in tuples, lists and dicts, in the ordinary order and the input's precision."""
        if isinstance(value, Tensor):
            if self.means.precision is not None and value.dtype is self.means.precision:
                value = value.to(self.input.dtype)
            return value if self.means.layout is ORDINARY else value.contiguous()
        if type(value) in (tuple, list):
            return type(value)([self.ordinary(each) for each in value])
        if type(value) in (dict, OrderedDict):
            return type(value)((name, self.ordinary(each)) for name, each in value.items())
        # of another container nobody knows what is in it
        self.layout_read = self.layout_read or not isinstance(value, int | float | str | None)
        return value

    def activation(self, name: str) -> Tensor:
        """What a layer gave, detached."""
        found: Tensor = self.ordinary(self.activations[name].detach())
        return found

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

    def following(self) -> AbstractContextManager[object]:
        """Rules act on the operations called inside as on the model's own: on how the score is read from its output."""
        return _Observer(self) if self.rules else nullcontext()

    def gradients(
        self, score: Tensor, wrt: Sequence[Any], rule: Rule = PLAIN, *, last: bool = False
    ) -> list[Tensor | None]:
        """Gradients of the summed ``score`` at tensors or gradient edges, listed operations following the rule.

        The ``last`` ones give the graph back on their way, piece by piece.
        """
        able = [not isinstance(each, Tensor) or each.requires_grad for each in wrt]
        if not score.requires_grad or not any(able):
            return [None for _ in wrt]
        board = self.switchboard
        board.rule, board.applied = rule, False
        try:
            with torch.inference_mode(False):
                ones = torch.ones_like(score)
                places = tuple(place for place, can in zip(wrt, able, strict=True) if can)
                self.spent = self.spent or last
                found = iter(torch.autograd.grad(score, places, ones, retain_graph=not last, allow_unused=True))
                grads = [self.ordinary(next(found)) if can else None for can in able]
        finally:
            board.rule = PLAIN
        # judged on the way back: an operation may be called and yet lie on no way from the score to what is asked
        refused = rule.backwards and rule.otherwise is not None and not board.applied
        if refused and any(grad is not None for grad in grads):
            names = ", ".join(sorted(name_of(each) for each in rule.backwards))
            way_out = f"; {rule.otherwise}" if rule.otherwise else ""
            raise LookupError(
                f"rule {rule.name!r} changes nothing in {self.model_name}: none of {names} is between "
                f"the score and what is explained{way_out}"
            )
        return grads


class _Observer(TorchFunctionMode):
    """Sees every operation of one forward pass, in this thread alone."""

    def __init__(self, trace: Trace, biases: Biases | None = None):
        super().__init__()
        self.trace, self.biases = trace, biases
        self.switched = {operation for each in trace.rules for operation in each.backwards}
        self.layout = trace.means.layout
        self.read = {operation for each in trace.rules if each.reads_input for operation in each.backwards}
        # the orders in memory differ by rounding already
        self.norms_scaled = self.layout is not ORDINARY and biases is None and F.batch_norm not in self.switched
        self.descent: dict[Any, bool] = {}
        """For nodes of the graph, as far as anyone has asked: do they descend from where it begins?"""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        trace = self.trace
        if self.layout is not ORDINARY and reads_layout(func):
            trace.layout_read = True
        if self.biases is None:
            output = self._call(func, args, kwargs)
        else:
            output = self.biases.call(func, args, kwargs, self._call)
        if self.layout is not ORDINARY:
            trace.written.meet(func, next(iter([*args, *kwargs.values()]), None), output)
        if func in SOFTMAXES and isinstance(output, Tensor):
            trace.softmaxes.append((args[0] if args else kwargs["input"], output))
        if isinstance(output, Tensor):
            size = output.numel() * output.element_size()
            # what a graph keeps adds up; without one an output goes when the next but one is there
            trace.bytes = trace.bytes + size if output.grad_fn is not None else max(trace.bytes, 3 * size)
        return output

    def _call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is F.batch_norm and self.norms_scaled:
            output = scaled(*args, **kwargs)
            return func(*args, **kwargs) if output is None else output
        operation = canonical(func, args, kwargs) if self.switched else func
        if operation not in self.switched or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        operands = list(tensors([args, *kwargs.values()]))
        for each in operands:
            refuse_transformed(func, each, lambda base: base.requires_grad)
        inputs = [each for each in operands if each.requires_grad and not is_functorch_wrapped_tensor(each)]
        if len(inputs) > 1:
            inputs = [each for each in inputs if self._descends(each)]
        writes = in_place(func, kwargs)
        if not inputs or (writes and inputs[0] is not operands[0]):
            return func(*args, **kwargs)
        board = self.trace.switchboard
        if operation is F.relu and operation not in self.read:
            return Relu.apply(board, writes, inputs[0])
        if operation is F.relu6 and operation not in self.read and (func is F.relu6 or func in HARDTANHS):
            return Saturated.apply(board, writes, *bounds(func, args, kwargs), inputs[0])
        bound = Bound(func, args, kwargs, inputs, writes)
        output = Switch.apply(board, operation, bound, operation in self.read, *inputs)
        return output if bound.kind is None else bound.kind(output)

    def _descends(self, tensor: Tensor) -> bool:
        """Whether a tensor comes from where the graph begins. Weights carry gradients too, and do not."""
        trace, known = self.trace, self.descent
        begins = [trace.input] if trace.input.requires_grad else trace.places.values()
        known |= {_node(each): True for each in begins}
        waiting = [_node(tensor)]
        while waiting:
            node = waiting[-1]
            before = [] if node in known else [each for each, _ in node.next_functions if each is not None]
            unknown = [each for each in before if each not in known]
            waiting += unknown
            if not unknown:
                known.setdefault(waiting.pop(), any(known[each] for each in before))
        return known[_node(tensor)]


def into_softmax(model_name: str, output: Any, softmaxes: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """What went into the softmax that gave the output, of all that were met. Raises LookupError where none did."""
    for given, found in reversed(softmaxes):
        if isinstance(output, Tensor) and torch.equal(found.flatten(), output.flatten()):
            return given.reshape(output.shape)
    raise LookupError(
        f"the output of {model_name} is not what a softmax gave, so there is nothing before it to explain; "
        "leave before_softmax out"
    )


def _node(place: Tensor | GradientEdge) -> Any:
    return get_gradient_edge(place).node if isinstance(place, Tensor) else place.node


def _laid_out(values: Tensor, layout: torch.memory_format) -> Tensor:
    """A copy, in this order."""
    return values.clone() if layout is ORDINARY else values.clone(memory_format=layout)


def _same_memory(args: Sequence[Any], output: Tensor) -> bool:
    with torch._C.DisableTorchFunction():  # it is not the model that asks
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
