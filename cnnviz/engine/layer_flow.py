"""What every layer's output has to do with the input that is explained and with the score: found in one pass.

A layer is a place for a map if it descends from that input, if the score is reached from its grid, and if it is laid
out over a grid. Structure decides, never values: the gradient that goes back is NaN, which no zero stops.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.hooks import RemovableHandle

from cnnviz.engine.agreement import special_or_plain
from cnnviz.engine.axes import AxisFollower
from cnnviz.engine.axis_rules import RULES
from cnnviz.engine.flow_observer import PASSIVE, FlowObserver, LayerCall
from cnnviz.engine.forward import ForwardHook, Head, PassEnded, forward
from cnnviz.engine.grid_reading import GridReading, NoGrid, reading_by_shape, reading_of
from cnnviz.engine.model_inputs import ModelInputs
from cnnviz.engine.module_state import Bindings
from cnnviz.engine.nested import tensors

Read = Callable[[Any, Mapping[str, Tensor]], Tensor]
"""From the model's output, and layers by name, to the scores (N,)."""
REFUSALS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""Errors by which torch, Python or a model's own checks refuse a graph, or being watched. The backward pass to layers
that nobody asked for is made only here, so an error of any other kind would be lost."""


@dataclass(frozen=True)
class LayerFlow:
    """All calls of all layers in one pass."""

    calls: tuple[LayerCall, ...]
    """In the order in which they ended."""
    order: tuple[int, ...]
    """The modules that ran, by identity."""
    mixed: bool
    """True if the classes are not all computed from the same operands, so that layers may reach some of them only."""
    constant: bool = False
    """True if the score reads none of the values that gradients come back to, as where a detector finds nothing."""

    def of(self, name: str) -> list[LayerCall]:
        """The calls of one layer."""
        return self._by_name.get(name, [])

    @cached_property
    def _by_name(self) -> dict[str, list[LayerCall]]:
        by_name: dict[str, list[LayerCall]] = {}
        for call in self.calls:
            by_name.setdefault(call.name, []).append(call)
        return by_name

    def automatic(self) -> str | None:
        """The last layer that is a place for a map, before pooling, and before the scores are spread over space.

        None where there is none. A layer over the input's own grid is preferred.
        """
        if self.constant:  # what only decides that nothing is found is no place for a map
            return None
        good = [call for call in self.calls if call.usable and not call.passive]
        over_input = [call for call in good if call.reading is not None and not call.reading.own]
        for calls in (over_input, good):
            # a map of the scores themselves is the place of last resort
            outer = [call for call in calls if not call.inner]
            for choice in ([call for call in outer if not call.is_score], outer, calls):
                carrying = [call for call in choice if not call.cut] or choice
                # of a detector's branches the one that tells classes apart, and not how close the middle of the box is
                best = [call for call in carrying if call.of_scores] or carrying
                if best:
                    return best[-1].name
        return None


class ModulesThatRun:
    """Collects which modules end their call, in their order, in this thread."""

    def __init__(self, model: nn.Module, order: list[int]):
        self.model, self.order, self.thread = model, order, threading.get_ident()
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> None:
        # torch.compile warns of hooks on all modules there are
        compiled = any(hasattr(module, "_orig_mod") for module in self.model.modules())
        if compiled:
            self._handles = [module.register_forward_hook(self._met) for module in self.model.modules()]
        else:
            self._handles = [register_module_forward_hook(self._met)]

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _met(self, module: nn.Module, args: Any, output: Any) -> None:
        if threading.get_ident() == self.thread:
            self.order.append(id(module))


def _followed(
    model: nn.Module,
    inputs: ModelInputs,
    read: Read,
    score_layers: Sequence[str] = (),
    before: Head | None = None,
) -> LayerFlow:
    """The flow of a model whose operations can be followed and that carries gradients.

    Args:
        model: in eval mode; it is never changed.
        inputs: all inputs of the model; the first is the one that is explained.
        read: reads the scores.
        score_layers: layers that the scores are read from.
        before: the last operations of the model that scores are read before, if they are.
    """
    with torch.inference_mode(False):
        source = inputs[0].detach().clone().requires_grad_(inputs[0].is_floating_point())
    observer = FlowObserver(source)
    order: list[int] = []
    layers: dict[str, Tensor] = {}

    def keep(name: str) -> ForwardHook:
        def kept(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                layers[name] = output * 1.0  # what follows may write in place
                observer.watch_result(layers[name])

        return kept

    try:
        hooks = [(name, observer.hook(name, module)) for name, module in model.named_modules() if name]
        output = forward(
            model,
            inputs.each(lambda tensor: tensor.detach().clone()).with_first(source),
            hooks=[*hooks, *((name, keep(name)) for name in score_layers)],
            modes=[ModulesThatRun(model, order), observer],
            grad=True,
            before=before,
            copy=False,
            survey=True,
        )
        with torch.inference_mode(False), torch.enable_grad():
            for tensor in tensors(output):
                observer.watch_result(tensor)
            with observer:
                score = read(output, layers)
            observer.send_back(score)
            calls = tuple(observer.judged(score))
        return LayerFlow(calls, tuple(order), _mixed(observer, output), observer.reads_nothing())
    finally:
        observer.release()


def layer_flow(
    model: nn.Module,
    inputs: ModelInputs,
    read: Read,
    score_layers: Sequence[str] = (),
    before: Head | None = None,
) -> LayerFlow:
    """Pass the inputs once, forward and backward, and tell what each call of each layer has to do with the score.

    A model or target that can't be followed, or that a graph can't be made of, is passed once more as it is. Its layers
    are read by their shapes alone. See ``_followed`` for the arguments.

    Raises:
        Exception: whatever the model or the target raises, also if nothing watches them.
    """
    held = Bindings(model)

    def followed() -> LayerFlow:  # the model or the target may refuse gradients, or being watched
        try:
            return _followed(model, inputs, read, score_layers, before)
        finally:
            held.restore()  # what the model keeps of a pass would keep its graph

    flow, _ = special_or_plain(followed, lambda: _by_shape(model, inputs, read, score_layers, before), REFUSALS)
    return flow


def reading_of_layer(model: nn.Module, inputs: Tensor, layer: str) -> GridReading | None:
    """How what a layer gives lies over the grid of the inputs; None where that can't be followed. The pass ends there.

    The layer is one that runs for these inputs.
    """
    source, follower = inputs.detach().clone(), AxisFollower(RULES)
    follower.follow(source)
    found: list[GridReading] = []

    def met(module: nn.Module, args: Any, output: Any) -> None:
        label = follower.of(output) if isinstance(output, Tensor) else None
        if label is not None:
            with suppress(NoGrid):
                found.append(reading_of(label, source.ndim - 2, len(source), follower))
        raise PassEnded

    with suppress(*REFUSALS):  # of a model that can't be watched
        forward(model, [source], hooks=[(layer, met)], modes=[follower], copy=False)
    return found[0] if found else None


def _by_shape(
    model: nn.Module, inputs: ModelInputs, read: Read, score_layers: Sequence[str], before: Head | None
) -> LayerFlow:
    """All layers, those of the inputs' number of items and dimensions as maps (N, C, *spatial)."""
    layers: dict[str, Tensor] = {}
    calls: list[LayerCall] = []
    order: list[int] = []
    counts: dict[str, int] = {}

    def meet(name: str) -> ForwardHook:
        def met(module: nn.Module, args: Any, output: Any) -> None:
            counts[name] = counts.get(name, 0) + 1
            if isinstance(output, Tensor):
                if name in score_layers:
                    layers[name] = output.clone()  # what follows may write in place
                reading = reading_by_shape(output.shape, inputs[0].shape) if output.is_floating_point() else None
                misfit, passive = "" if reading else "has no spatial extent", isinstance(module, PASSIVE)
                shape = tuple(output.shape)
                calls.append(LayerCall(name, counts[name], shape, reading, misfit, "", True, True, passive=passive))

        return met

    hooks = [(name, meet(name)) for name, _ in model.named_modules() if name]
    output = forward(model, inputs, hooks=hooks, modes=[ModulesThatRun(model, order)], before=before, survey=True)
    read(output, layers)  # an error that is the target's own is raised here
    return LayerFlow(tuple(calls), tuple(order), False)


def _mixed(observer: FlowObserver, output: Any) -> bool:
    label = observer.of(output) if isinstance(output, Tensor) else None
    if label is None or len(label) != 2 or len(label[1]) != 1:
        return True
    digits = [digit for digit in label[1][0] if digit.size > 1]
    return len(digits) > 1 or any(not digit.whole for digit in digits)
