"""Forward passes of one question, in the fastest way that the model takes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from cnnviz.engine.agreement import special_or_plain
from cnnviz.engine.item_traces import ItemTraces, Unjoinable
from cnnviz.engine.model_inputs import ModelInputs
from cnnviz.engine.pass_size import remember_size
from cnnviz.engine.speed.memory_format import ORDINARY, keep_ordinary, kind_of_pass
from cnnviz.engine.switch import Switchboard
from cnnviz.engine.trace import PassOptions, Trace, TraceRequest
from cnnviz.run.options import RunOptions


class ForwardPasses:
    """Passes a model for requests of one question.

    Args:
        model: in eval mode.
        inputs: all that the model is called with.
        options: of the question.
    """

    def __init__(self, model: nn.Module, inputs: ModelInputs, options: RunOptions):
        self.model, self.inputs, self.options = model, inputs, options
        self.whole = False
        """True to begin the graph at the input, also where it could begin at a layer."""
        self.ordinary = False
        """True to pass in the ordinary memory format."""
        self.keep_bindings = True
        """Whether the model keeps what these passes bind to its names: those of the question itself, no others."""

    def of(self, request: TraceRequest, *, by_items: bool = False) -> Trace | ItemTraces:
        """A pass of the batch; of each input by itself for ``by_items``, or where Python reads values of the batch."""
        trace = self._joint(request, by_items)
        if request.size:
            remember_size(self.model, self.inputs, self.options.precision, trace.size)
        return trace

    def _joint(self, request: TraceRequest, by_items: bool) -> Trace | ItemTraces:
        trace: Trace | ItemTraces | None = None if by_items else self._of(self.inputs, request)
        if trace is not None and not trace.reads:
            return trace
        items = len(self.inputs[0])
        if items > 1:
            with suppress(Unjoinable):
                trace = ItemTraces(partial(self._of_item, Switchboard(), replace(request, reads=False)), items)
        return self._of(self.inputs, request) if trace is None else trace

    def _of_item(self, switchboard: Switchboard, request: TraceRequest, item: int) -> Trace:
        return self._of(self.inputs.rows(slice(item, item + 1)), request, switchboard)

    def _of(self, inputs: ModelInputs, request: TraceRequest, switchboard: Switchboard | None = None) -> Trace:
        """One forward pass, whose graph holds all that the score depends on."""
        trace = self._fastest(inputs, request, switchboard)
        if trace.lost and not trace.whole:  # a copy stood where the model holds the layer's own output
            self.whole = True
            trace = self._fastest(inputs, request, switchboard)
        return trace

    def _fastest(self, inputs: ModelInputs, request: TraceRequest, switchboard: Switchboard | None = None) -> Trace:
        """One forward pass, in the fastest way that the model takes."""
        options = self.options

        def passed(request: TraceRequest = request, **settings: Any) -> Trace:
            how = PassOptions(precision=options.precision, keep_bindings=self.keep_bindings, **settings)
            try:
                return Trace(self.model, inputs, request, self.whole, how, switchboard)
            except RuntimeError as error:
                if not request.references or "saved tensor hooks" not in str(error):
                    raise
            return Trace(self.model, inputs, request, self.whole, replace(how, saves=True), switchboard)

        if options.compiled is not None and request == TraceRequest():
            return passed(compiled=options.compiled)
        # implicit biases are found by operations that differ between the memory formats
        ordinary = self.ordinary or request.biases
        whole = request.input_gradient or bool(request.references) or (self.whole and request.layer_gradients)
        kind = None if ordinary else kind_of_pass(self.model, inputs[0], options.precision, graph=whole)
        if kind is None or not kind.special():
            return self._observed(passed, request)
        special = partial(passed, layout=kind.layout(), norms_scaled=kind.scales_norms())
        # the model may assert how its tensors lie in memory
        trace, fits = special_or_plain(special, lambda: self._observed(passed, request))
        if fits and (trace.options.layout is ORDINARY or not trace.layout_read):
            return trace
        trace = self._observed(passed, request) if fits else trace
        keep_ordinary(self.model)
        return trace

    @staticmethod
    def _observed(passed: Callable[[TraceRequest], Trace], request: TraceRequest) -> Trace:
        """A pass that is observed as the request says; one that is not, where the model refuses that."""
        if not (request.size or request.reads):
            return passed(request)
        trace, observed = special_or_plain(
            lambda: passed(request), lambda: passed(replace(request, size=False, reads=False))
        )
        if not observed:
            trace.reads = request.reads  # nobody knows what Python reads in a pass that was not observed
        return trace
