"""Which layers of a model are places for a map of a question, which of their calls count, and how they are read."""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from cnnviz.engine.black_box import BlackBox
from cnnviz.engine.flow_observer import LayerCall
from cnnviz.engine.grid_reading import GridReading, NoGrid, reading_by_hand
from cnnviz.engine.layer_flow import LayerFlow, layer_flow
from cnnviz.engine.layers import InputPlace, Layer, LayerAt, Site, chosen, layer_name
from cnnviz.engine.model_facts import facts_of
from cnnviz.engine.model_inputs import ModelInputs
from cnnviz.run.objectives import Objective
from cnnviz.run.question import Question


class LayerChoice:
    """What is known of the layers of one model for one question.

    One pass finds it out. It is remembered for the model, the shapes of the inputs and the kind of question, and found
    out anew where a pass shows that the model now takes another way.
    """

    def __init__(
        self, model: nn.Module, inputs: ModelInputs, question: Question, settle: Callable[[Question], Question]
    ):
        self.model, self.inputs, self.question, self.settle = model, inputs, question, settle
        self.names: dict[Layer, str] = {}
        """Layers by what they were given as, as far as they are known."""
        self._flow: LayerFlow | None = None
        self._sites: dict[LayerAt, list[Site]] = {}
        self._whole = False
        """True if the whole batch is asked, since it takes another way than its first inputs."""

    def toward(self, question: Question) -> LayerChoice:
        """The same for another question. Classes that are computed alike have the same layers."""
        classes = _of_classes(question) and _of_classes(self.question)
        if classes and self._flow is not None and not self._flow.mixed:
            return self
        other = LayerChoice(self.model, self.inputs, question, self.settle)
        other.names = {layer: name for layer, name in self.names.items() if layer is not None}
        return other

    @property
    def flow(self) -> LayerFlow:
        """All calls of all layers, as one pass showed them."""
        if self._flow is None:
            self._flow = self._remembered()
        return self._flow

    def name(self, layer: Layer) -> str:
        """The dotted name of a layer; None finds the last one that is a place for a map."""
        if isinstance(layer, Site):
            return layer.name
        if isinstance(self.model, BlackBox):
            raise TypeError(f"gradients or layers are asked for, and {self.model.reason}")
        layer = layer.layer if isinstance(layer, LayerAt) else layer
        layer = tuple(layer) if isinstance(layer, list) else layer
        if layer not in self.names:
            options = self.question.options
            given = options.names.get(layer, layer)
            if (
                given is not None or None in self.question.layers
            ):  # what the score is read from can't depend on the score
                name = layer_name(self.model, given, self.inputs)
            else:
                name = chosen(self.flow, self.model, self.inputs)
            self.names[layer] = options.folded.check_layer(name) if options.folded else name
        return self.names[layer]

    def sites(self, layer: Layer | InputPlace) -> list[Any]:
        """The calls of a layer that a map of it is made of; the last one where none is a place for a map."""
        if isinstance(layer, Site | InputPlace):
            return [layer]
        at = layer if isinstance(layer, LayerAt) else LayerAt(layer)
        if at not in self._sites:
            self._sites[at] = self._found_sites(at)
        return self._sites[at]

    def _found_sites(self, at: LayerAt) -> list[Site]:
        name = self.name(at)
        if at.layout == "raw":
            return [Site(name, 0 if at.call in (None, -1) else at.call)]
        usable = [Site(name, call.number) for call in self._asked(name, at) if self._reading(call, at) is not None]
        return usable or [Site(name, 0)]

    def site(self, layer: Layer) -> tuple[Site, GridReading]:
        """The one call of a layer that is asked for, and how it is read.

        Raises ValueError where the layer is no place for a map, or several of its calls are.
        """
        at = layer if isinstance(layer, LayerAt) else LayerAt(layer)
        name = self.name(at)
        calls = self._asked(name, at)
        good = [(call, reading) for call in calls if (reading := self._reading(call, at)) is not None]
        if len(good) == 1:
            return Site(name, good[0][0].number), good[0][1]
        if good:
            numbers = ", ".join(str(call.number) for call, _ in good)
            raise ValueError(
                f"layer {name!r} runs several times, and calls {numbers} reach the score; "
                f"say call=, or layer=LayerAt({name!r}, call={good[0][0].number})"
            )
        raise ValueError(self._refusal(name, calls, at))

    def is_place(self, at: LayerAt) -> bool:
        """True if a call of the layer is a place for a map."""
        return any(self._reading(call, at) is not None for call in self._asked(self.name(at), at))

    def holds_scores(self, name: str) -> bool:
        """True if the layer's map is one of the scores themselves."""
        return any(call.is_score for call in self.flow.of(name))

    def runs_several_times(self, name: str) -> bool:
        """True if the layer is called more than once in a pass."""
        return len(self.flow.of(name)) > 1

    def fits(self, counts: Mapping[str, int], order: Sequence[int] | None) -> bool:
        """True if a pass called these layers as often as was known, and all modules in the same order."""
        if self._flow is None:
            return True
        same_order = order is None or tuple(order) == self._flow.order
        return same_order and all(len(self._flow.of(name)) in (0, count) for name, count in counts.items())

    def renew(self) -> bool:
        """Find out anew, from the whole batch. False if it was asked already."""
        if self._whole:
            return False
        self._whole = True
        facts_of(self.model).pop(self._key(), None)
        self._flow = None
        self.names.pop(None, None)
        self._sites.clear()
        return True

    def _asked(self, name: str, at: LayerAt) -> list[LayerCall]:
        calls = self.flow.of(name)
        if at.call is None or not calls:
            return calls
        if abs(at.call) > len(calls):
            raise ValueError(f"there is no call {at.call} of layer {name!r}; it runs {_times(len(calls))}")
        return [calls[at.call - 1 if at.call > 0 else at.call]]

    def _reading(self, call: LayerCall, at: LayerAt) -> GridReading | None:
        if at.layout in ("auto", "raw"):
            return call.reading if call.usable else None
        if not call.descends or not call.reached:
            return None
        try:
            return self._by_hand(call, at)
        except NoGrid as error:
            raise ValueError(f"layer {call.name!r} {error}") from None

    def _by_hand(self, call: LayerCall, at: LayerAt) -> GridReading:
        layout: Any = at.layout
        grid: Any = at.grid
        return reading_by_hand(call.shape, layout, grid, at.extra)

    def _refusal(self, name: str, calls: Sequence[LayerCall], at: LayerAt) -> str:
        if not calls:
            return f"layer {name!r} gives no tensor, so that no map can be made of it"
        call = next((call for call in calls if call.descends and call.reading), calls[-1])
        if not call.descends:
            return f"layer {name!r} sees nothing of the input that is explained; choose a layer that does"
        if call.reading is None and at.layout == "auto":
            if call.lost:
                return (
                    f"layer {name!r} can't be followed through {call.lost}; say how it is laid out: "
                    'layout="tokens", "channels_last" or "channels_first"'
                )
            if "spatial extent" in call.misfit:
                if sum(size > 1 for size in call.shape[1:]) > 1:  # such as tokens in another order
                    return (
                        f"layer {name!r} gives {call.shape}, in which the places of the input are not found; choose a "
                        'layer before it, or say how it is laid out: layout="tokens", "channels_last" or '
                        '"channels_first"'
                    )
                return (
                    f"layer {name!r} gives {call.shape}, which has no spatial extent; "
                    "choose a layer before it that still has one"
                )
            return f"layer {name!r} gives {call.shape}, which {call.misfit}; choose a layer before or behind it"
        return (
            f"the score does not depend on layer {name!r}: nothing of its grid is used for this score; "
            "choose a layer on the way to the score, or none, which finds one"
        )

    def _remembered(self) -> LayerFlow:
        facts, key = facts_of(self.model), self._key()
        if key in facts and not (facts[key].mixed and self._kind() == "classes"):
            return facts[key]  # type: ignore[no-any-return]  # facts are of any kind
        if key in facts and (key := self._key(self._classes())) in facts:
            return facts[key]  # type: ignore[no-any-return]  # nor here
        flow = self._found()
        if self._kind() is not None:
            facts[self._key()] = flow
            if flow.mixed and self._classes() is not None:
                facts[self._key(self._classes())] = flow
        return flow

    def _found(self) -> LayerFlow:
        question, inputs = self.question, self.inputs
        if question.objectives and not question.settled:
            question = self.settle(question)  # what targets refer to is found in the plain pass
        if _of_classes(question) and not self._whole:
            # the classes of the first two tell as much; what knows its place in the batch reads all of it
            inputs = inputs.rows(slice(0, 2))
            target = question.target[:2] if isinstance(question.target, Tensor) else None
            question = replace(question, target=target, items=len(inputs[0]))
        names = {layer: self.name(layer) for layer in question.layers}

        def read(output: Any, layers: Mapping[str, Tensor]) -> Tensor:
            by_layer = {layer: layers[name] for layer, name in names.items() if name in layers}
            return question.read(output, len(inputs[0]), lambda: inputs[0], by_layer)

        return layer_flow(self.model, inputs, read, [*names.values()], question.options.before)

    def _key(self, *more: Hashable) -> Hashable:
        shapes = tuple(tensor.shape[1:] for tensor in self.inputs.tensors)
        items = len(self.inputs[0])
        count = min(items, 2) if _of_classes(self.question) and not self._whole else items
        return "layer flow", shapes, count, self.question.options.before, self._kind(), *more

    def _kind(self) -> Hashable:
        """What is asked, as far as layers depend on it; None where that can't be told."""
        target = self.question.target
        if _of_classes(self.question):
            return "classes"
        try:
            if isinstance(target, Objective):
                hash(target)
                return target
            return _identity(target)
        except TypeError:
            return None

    def _classes(self) -> Hashable:
        target = self.question.target
        return tuple(target[:2].tolist()) if isinstance(target, Tensor) else None


def _of_classes(question: Question) -> bool:
    return question.target is None or isinstance(question.target, Tensor)


def _identity(target: Any) -> Hashable:
    """A function by its code and all that it holds. Raises TypeError where that may change unseen."""
    if isinstance(target, list | tuple):
        return tuple(map(_identity, target))
    if not isinstance(target, types.FunctionType):
        raise TypeError("not a plain function")
    held = [cell.cell_contents for cell in target.__closure__ or ()] + list(target.__defaults__ or ())
    held += [target.__globals__[name] for name in target.__code__.co_names if name in target.__globals__]
    if not all(isinstance(value, int | float | str | types.ModuleType | types.FunctionType | None) for value in held):
        raise TypeError("what it holds may change")
    return target.__code__, tuple(held)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
