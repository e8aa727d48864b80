"""A forward pass for each input of a batch, kept like one pass of the whole batch.

Python code of a model may read values of the whole batch, as in ``if x.max() > 1``. Then one input decides what the
model does with the others. Such a model is asked about each input by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from cnnviz.engine.backward_rules import PLAIN, Rule
from cnnviz.engine.call_site import Bounds, Reported
from cnnviz.engine.forward import never_ran
from cnnviz.engine.layers import InputPlace, Site
from cnnviz.engine.operand_record import OperandRecord
from cnnviz.engine.trace import Trace


class Unjoinable(Exception):
    """Outputs of single inputs hold values that make no output of a batch."""


class ItemTraces:
    """Passes of one input each, with the attributes of a :class:`Trace` of the batch.

    Args:
        passed: makes the trace of one item of the batch.
        items: how many items there are.

    Raises:
        Unjoinable: where the outputs can't be put together.
    """

    def __init__(self, passed: Callable[[int], Trace], items: int):
        self.traces = [passed(item) for item in range(items)]
        first = self.traces[0]
        self.rules, self.options, self.ordinary = first.rules, first.options, first.ordinary
        with torch.enable_grad():
            self.input = torch.cat([trace.input for trace in self.traces])
            self.output: Any = joined([trace.output for trace in self.traces])
            layers = [trace.score_layers for trace in self.traces]
            for name in set().union(*layers):
                _check_all_ran(name, [name in each for each in layers])
            self.score_layers = {name: torch.cat([each[name] for each in layers]) for name in layers[0]}
        common = [name for name in first.activations if all(name in trace.activations for trace in self.traces)]
        self.counts, self.order = first.counts, first.order
        self.activations = {name: torch.cat([trace.activations[name] for trace in self.traces]) for name in common}
        self.whole = all(trace.whole for trace in self.traces)
        self.lost = any(trace.lost for trace in self.traces)
        self.layout_read = any(trace.layout_read for trace in self.traces)
        self.apart, self.reads = False, True
        self.size = first.size
        self.spent, self.output_dtype = False, first.output_dtype

    def activation(self, site: Site) -> Tensor:
        """A layer's output for all items, detached. Raises LookupError for a layer that did not run for each."""
        self._check_ran(site)
        return torch.cat([trace.activation(site) for trace in self.traces])

    def following(self) -> AbstractContextManager[object]:
        """As that of a trace."""
        return nullcontext() if self.traces[0].biases is not None else self.traces[0].following()

    def edge(self, place: Site | InputPlace, rule: Rule = PLAIN) -> list[Any]:
        """Where gradients are taken, in the graph of each item. Raises LookupError as ``activation`` does."""
        if isinstance(place, Site):
            self._check_ran(place)
        return [trace.edge(place, rule) for trace in self.traces]

    @property
    def records(self) -> list[OperandRecord]:
        """What each pass called."""
        return [trace.record for trace in self.traces]

    @property
    def reported(self) -> list[Reported] | None:
        """None: each input is asked by itself."""
        return None

    @property
    def bias_terms(self) -> list[Any]:
        """None: the operations of two items may differ."""
        return []

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
        """As those of a trace, for all items."""
        self.spent = self.spent or last
        final = len(self.traces) - 1
        by_trace = [[edges[item] for edges in wrt] for item in range(len(self.traces))]
        by_item = [
            trace.gradients(score, edges, rule, last=last and item == final, references=references, bounds=bounds)
            for item, (trace, edges) in enumerate(zip(self.traces, by_trace, strict=True))
        ]
        return [
            None if any(grad is None for grad in grads) else torch.cat([grad for grad in grads if grad is not None])
            for grads in zip(*by_item, strict=True)
        ]

    def _check_ran(self, site: Site) -> None:
        _check_all_ran(site.name, [site in trace.activations for trace in self.traces])


def _check_all_ran(layer: str, ran: Sequence[bool]) -> None:
    if all(ran):
        return
    if not any(ran):
        raise never_ran(layer)
    raise LookupError(
        f"layer {layer!r} did not run for input {ran.index(False)}, for which the model takes another way than for "
        f"input {ran.index(True)}; choose a layer that runs for both, or explain them apart"
    )


def joined(outputs: Sequence[Any]) -> Any:
    """Outputs of one input each as the output for a batch. Raises Unjoinable for other values that differ."""
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(list(outputs)) if first.ndim else torch.stack(list(outputs))
    if isinstance(first, dict):
        return type(first)((name, joined([output[name] for output in outputs])) for name in first)
    if type(first) in (list, tuple):
        if len(first) == 1 and not isinstance(first[0], Tensor):  # one result for each input, as of detectors
            return type(first)(output[0] for output in outputs)
        return type(first)(joined(values) for values in zip(*outputs, strict=True))
    if isinstance(first, int | float | str | None) and all(output == first for output in outputs[1:]):
        return first
    raise Unjoinable
