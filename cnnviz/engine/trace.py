"""One forward pass, kept for several backward passes under different rules.

A rule changes what one operation does to a gradient. Operations are met as they are called, so functional, in-place and
reused activations count like modules. The graph is no longer than the request needs.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from cnnviz.engine.attention import AttentionWatch
from cnnviz.engine.axes import AxisFollower
from cnnviz.engine.axis_rules import RULES
from cnnviz.engine.backward_rules import PLAIN, Rule
from cnnviz.engine.batch_axis.proof import BatchAxis, constants_of
from cnnviz.engine.call_site import BackwardPass, Bounds, Reported
from cnnviz.engine.forward import ForwardHook, Head, forward, layer_tensor, never_ran
from cnnviz.engine.graph_watch import GraphWatch
from cnnviz.engine.implicit_biases import Biases
from cnnviz.engine.layer_flow import ModulesThatRun
from cnnviz.engine.layers import InputPlace, Site
from cnnviz.engine.loans import lent
from cnnviz.engine.merged_norms import check_apart
from cnnviz.engine.missed_operations import changes_nothing, check_reached, no_derivative
from cnnviz.engine.model_inputs import AnyInputs, ModelInputs
from cnnviz.engine.nested import mapped, own, tensors
from cnnviz.engine.operand_record import OperandRecord, saving_nothing
from cnnviz.engine.operation_observer import OperationObserver
from cnnviz.engine.pass_size import PassSize
from cnnviz.engine.speed.compilation import Compiled
from cnnviz.engine.speed.memory_format import ORDINARY, in_layout
from cnnviz.engine.switch import Switchboard

_HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class TraceRequest:
    """What is needed of one forward pass."""

    layers: frozenset[Site] = frozenset()
    """Calls of layers whose outputs are kept."""
    rules: frozenset[Rule] = frozenset()
    input_gradient: bool = False
    layer_gradients: bool = False
    biases: bool = False
    reads: bool = False
    """True to find out whether Python reads values that descend from the inputs."""
    size: bool = False
    """True to measure the bytes of the outputs, and to find out whether inputs change each other's outputs."""
    score_layers: frozenset[str] = frozenset()
    """Layers that the score is read from."""
    before: Head | None = None
    order: bool = False
    """True to note which modules run."""
    references: frozenset[Rule] = frozenset()
    """Rules for whose operations the operands are kept, to compare another pass with; it has no gradients then."""
    attention: bool = False
    """True to look for attentions, and to keep their shares with the graph."""
    pre_hooks: tuple[tuple[str, Callable[[nn.Module, Any], None]], ...] = ()
    hooks: tuple[tuple[str, ForwardHook], ...] = ()
    """Further hooks of layers by name, before and behind their calls; the latter may replace what they give."""


@dataclass(frozen=True)
class PassOptions:
    """How a forward pass is computed. Results are equal up to rounding."""

    layout: torch.memory_format = ORDINARY
    """The memory format of the first input, which convolutions keep."""
    norms_scaled: bool = False
    """Whether batch norms are computed as one multiplication."""
    precision: torch.dtype | None = None
    """The dtype of convolutions and matrix products; None: the model's own."""
    compiled: Compiled | None = None
    """The compiled model, which is called instead."""
    saves: bool = False
    """True to save values for a backward pass that is never made: torch.func can't do without."""
    keep_bindings: bool = True
    """Whether the pass leaves what it binds to names of the model."""


class Trace:
    """A forward pass: its output, the requested layers, and the graph that gradients need.

    Args:
        model: in eval mode; it is never changed.
        inputs: all that the model is called with; gradients are taken with respect to the first.
        request: what is kept of the pass.
        whole: begin the graph at the input, also where it could begin at a layer.
        options: how the pass is computed.
        switchboard: says in the backward pass which rule acts; shared by traces of one question.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: AnyInputs,
        request: TraceRequest,
        whole: bool = False,
        options: PassOptions = PassOptions(),
        switchboard: Switchboard | None = None,
    ):
        inputs = ModelInputs.of(inputs)
        self.model_name = type(model).__name__
        self.activations: dict[Site, Tensor] = {}
        self.counts: dict[str, int] = {}
        """How often each requested layer was called."""
        self.order: list[int] | None = [] if request.order else None
        """The modules that ran, by identity, if the request has ``order``."""
        self.places: dict[Site, Tensor | GradientEdge] = {}
        """The graph edges at which gradients with respect to layers are taken."""
        self.score_layers: dict[str, Tensor] = {}
        """Outputs of the layers that the score is read from, with their graph."""
        follows = any(rule.follows for rule in request.rules)
        self.whole = whole or request.input_gradient or request.biases or request.attention or follows
        self.lost = False
        """True if a graph that begins at a layer may miss parts.

        That is so where the model turned gradients off behind the layer, or holds the output that the layer returned.
        """
        self.spent = False
        """True if the graph was freed by the last backward pass."""
        self.reported: list[Reported] = []
        """What the rule of the last backward pass reported."""
        self.rules, self.options = request.rules | request.references, options
        self.record = OperandRecord(keeps=bool(request.references))
        self.records = [self.record]
        self._switchboard = switchboard or Switchboard()
        gradients = request.input_gradient or request.biases or request.layer_gradients or request.attention
        from_input = bool(request.references) or (self.whole and gradients)
        with torch.inference_mode(False):  # whose tensors could not carry gradients
            self.input = in_layout(inputs[0].detach(), options.layout).requires_grad_(from_input)
        self.biases = Biases(self.input) if request.biases else None
        self._axes = AxisFollower(RULES) if follows and self.biases is None else None
        if self._axes is not None:
            self._axes.follow(self.input)
        axis = BatchAxis(model, len(self.input), constants_of(model)) if request.size or request.reads else None
        self.attention = AttentionWatch(self.input) if request.attention else None
        """What found the attentions of the pass, if the request has ``attention``."""
        self._observer = self._observes(self.biases, axis, self.attention)
        self._watch = GraphWatch()
        hooks = [
            (name, self._hook(name, request.layer_gradients and not from_input, request))
            for name in {site.name for site in request.layers} | request.score_layers
        ]
        modes: list[AbstractContextManager[Any]] = [] if self.order is None else [ModulesThatRun(model, self.order)]
        if options.precision is not None:
            modes.append(torch.autocast(self.input.device.type, options.precision))
        if options.compiled is not None:
            modes.append(options.compiled.failures())
        if request.references and not options.saves:  # the graph says what comes from the input, and no more
            modes.append(saving_nothing())
        seen = self.rules or request.biases or request.attention or axis is not None
        if seen or options.layout is not ORDINARY or options.norms_scaled:
            modes.append(self._observer)
        given = inputs.each(Tensor.detach).with_first(self.input)
        if axis is not None:
            modes += [self._observer.unseen] if request.size else []
            axis.begin(given.tensors, given.shared)
        if request.layer_gradients and not from_input:
            if self._observer in modes:  # one mode costs less than two
                self._observer.watch, self._watch.alone = self._watch.see, False
            modes.append(self._watch)
        output = forward(
            model,
            given,
            pre_hooks=request.pre_hooks,
            hooks=[*request.hooks, *hooks],
            modes=modes,
            grad=from_input,
            keep_bindings=options.keep_bindings,
            before=request.before,
            compiled=options.compiled.call if options.compiled else None,
        )
        self.reads = axis is not None and axis.reads
        """True if Python read values that descend from the inputs, of a request with ``reads``."""
        apart = None if axis is None else axis.finish([output, self.score_layers])
        self.apart = None if apart and (self._observer.unseen.found or not request.size) else apart
        """Whether inputs of the batch are proven not to change each other's outputs, of a request with ``size``.

        None if that is not known, False if an operation mixes them, or if Python reads values of the batch.
        """
        self.lost = self._watch.lost
        self.layout_read = self._observer.layout_reads.finish()
        """True if the result of the model may depend on the memory format."""
        with torch.inference_mode(False), torch.enable_grad():  # the graph goes on, if there is one
            # what is returned must not show how it was computed
            halves = [tensor.dtype for tensor in tensors(output) if tensor.dtype in _HALVES]
            self.output_dtype = halves[0] if halves else self.input.dtype
            """The dtype in which the model gave its output."""
            with self.following() if self.biases is not None else nullcontext():  # they see what becomes of the output
                self.output: Any = self.ordinary(mapped(own, output))
                self.score_layers = {name: self.ordinary(tensor) for name, tensor in self.score_layers.items()}

    @property
    def size(self) -> PassSize:
        """How many bytes each input takes, and how many operations all together, if the request has ``size``."""
        items, seen = max(1, len(self.input)), self._observer
        return PassSize(-(-seen.bytes // items), -(-seen.largest // items), seen.operations)

    def ordinary(self, value: Any) -> Any:
        """Tensors, also in tuples, lists and dicts, in the ordinary memory format, and no less precise than the input.

        Parts of a model may compute in half of that, by an autocast of their own.
        """
        if isinstance(value, Tensor):
            if value.dtype in _HALVES:
                value = value.to(torch.promote_types(value.dtype, self.input.dtype))
            return value if self.options.layout is ORDINARY else value.contiguous()
        if type(value) in (tuple, list):
            return type(value)([self.ordinary(item) for item in value])
        if type(value) in (dict, OrderedDict):
            return type(value)((name, self.ordinary(item)) for name, item in value.items())
        # of another container nobody knows what is in it
        self.layout_read = self.layout_read or not isinstance(value, int | float | str | None)
        return value

    def edge(self, place: Site | InputPlace, rule: Rule = PLAIN) -> Any:
        """Where gradients at the input or a layer are taken. Raises LookupError for a layer not kept, or merged."""
        if isinstance(place, InputPlace):
            return self.input
        if place not in self.activations:
            raise never_ran(place.name)
        check_apart(edge := self.places.get(place, self.activations[place]), place.name, rule)
        return edge

    @property
    def bias_terms(self) -> list[Any]:
        """For each operation with an implicit bias, where its gradient is taken, and the bias."""
        return [] if self.biases is None else self.biases.terms

    def activation(self, site: Site) -> Tensor:
        """What a layer gave in one call, detached. Raises LookupError for a layer that never ran."""
        if site not in self.activations:
            raise never_ran(site.name)
        activation: Tensor = self.ordinary(self.activations[site].detach())
        return activation

    def following(self) -> AbstractContextManager[object]:
        """Apply rules, and collect biases, also of the operations called inside, which read the score."""
        return lent(self._observes(self.biases)) if self.rules or self.biases is not None else nullcontext()

    def gradients(
        self,
        score: Tensor,
        wrt: Sequence[Any],
        rule: Rule = PLAIN,
        *,
        last: bool = False,
        references: Mapping[OperandRecord, OperandRecord] = MappingProxyType({}),
        bounds: Bounds | None = None,
    ) -> list[Tensor | None]:
        """Gradients of the summed ``score`` at tensors or gradient edges, listed operations following the rule.

        The ``last`` ones give the graph back on their way, piece by piece. ``references`` are the records of passes
        that the rule compares with, ``bounds`` the input's lowest and highest values. What the rule reports is in
        ``reported``. Raises LookupError for a rule that acted nowhere, ValueError for a reference pass of another way.
        """
        for record, reference in references.items():
            record.check_same_way(reference, rule.backwards)
        if rule.compares or (rule.backwards and rule.otherwise is not None):
            check_reached(rule, score, wrt, self.model_name)
        able = [not isinstance(place, Tensor) or place.requires_grad for place in wrt]
        if not score.requires_grad or not any(able):
            return [None for _ in wrt]
        board = self._switchboard
        board.rule, board.applied, board.references = rule, False, references
        board.backward_pass = backward_pass = BackwardPass(score.grad_fn, bounds)
        self.reported = backward_pass.reported
        try:
            with torch.inference_mode(False):
                ones = torch.ones_like(score)
                places = tuple(place for place, can in zip(wrt, able, strict=True) if can)
                self.spent = self.spent or last
                kept = not last or bool(rule.carried)
                raw = iter(torch.autograd.grad(score, places, ones, retain_graph=kept, allow_unused=True))
                grads = [self.ordinary(next(raw)) if can else None for can in able]
                board.rule = replace(rule, backwards=rule.carried)
                backward_pass.carry_to(self.input)
        except RuntimeError as error:
            missing = re.match(r"derivative for aten::(\w+) is not implemented", str(error))
            if missing is None:
                raise
            raise no_derivative(missing[1], self.model_name) from error
        finally:
            board.rule, board.references, board.backward_pass = PLAIN, {}, None
        # judged in the backward pass: an operation may be called and yet lie on no way from the score to the place
        if rule.must_act and not board.applied and any(grad is not None for grad in grads):
            raise changes_nothing(rule, self.model_name)
        return grads

    def _observes(
        self, biases: Biases | None = None, axis: BatchAxis | None = None, attention: AttentionWatch | None = None
    ) -> OperationObserver:
        begins = partial(_begins, self.input, self.places)  # without the trace, which would hold itself then
        layout, scaled = self.options.layout, self.options.norms_scaled
        axes = self._axes if self.biases is None else self.biases.axes
        return OperationObserver(
            self.rules, self._switchboard, begins, biases, layout, axis, self.record, scaled, axes, attention
        )

    def _hook(self, name: str, starts_graph: bool, request: TraceRequest) -> Callable[..., Any]:
        numbers = {site.call for site in request.layers if site.name == name}

        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            number = self.counts[name] = self.counts.get(name, 0) + 1
            with self._observer.unseen.aside():  # it is not the model that acts
                replacement, tensor = None, layer_tensor(name, output)
                for wanted in numbers & {0, number}:
                    begun = begin(Site(name, wanted), tensor if replacement is None else replacement)
                    replacement = replacement if begun is None else begun
            if name in request.score_layers:  # the copy is an operation between the score and the input
                self.score_layers[name] = (output if replacement is None else replacement).clone()
            if self._observer.axis is not None:
                self._observer.axis.follow(replacement, output)
                self._observer.axis.follow(self.score_layers.get(name), output)
            if replacement is not None:
                self._watch.begin(output)
            return replacement

        def begin(site: Site, output: Tensor) -> Tensor | None:
            if not starts_graph or output.requires_grad or not output.is_floating_point():
                self.activations[site] = output.detach().clone()  # what follows may write in place
                if output.requires_grad:
                    self.places[site] = get_gradient_edge(output)
                return None
            # nothing before the layer is requested, so the graph begins here, once; at a copy, since the output may be
            # the model's own
            self._watch.lost = self._watch.lost or (bool(self.places) and not torch.is_grad_enabled())
            torch._C._set_grad_enabled(True)
            leaf = self.activations[site] = self.places[site] = output.detach().clone().requires_grad_()
            return self._observer.begin(output, leaf)

        return hook


def _begins(inputs: Tensor, places: Mapping[Site, Tensor | GradientEdge]) -> Collection[Tensor | GradientEdge]:
    return [inputs] if inputs.requires_grad else places.values()
