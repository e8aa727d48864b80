"""Maps of layers as formulas read them: (N, C, *grid), of one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from cnnviz.engine.backward_rules import Rule
from cnnviz.engine.grid_reading import GridReading, NoGrid
from cnnviz.engine.layers import InputPlace, Layer, LayerAt, Site, execution_order, last_rectifiers
from cnnviz.run.passes import Passes
from cnnviz.run.plan import Plan
from cnnviz.run.relevance import joined


class LayerReader:
    """Reads layers of one question's passes.

    Args:
        passes: the passes of the question.
        chosen: which call of a layer is meant where none is said, by the layer's name.
    """

    def __init__(self, passes: Passes, chosen: dict[str, int] | None = None):
        self.passes, self.choice = passes, passes.choice
        self.chosen = chosen or {}
        self.own_grid: tuple[int, ...] | None = None
        """The sizes of the last grid that was read and that is not the input's, as a spectrogram's is."""

    def calls(self, layer: Layer = None) -> list[int]:
        """Which calls of a layer a map of it is made of, from 1: those that the score depends on.

        Raises ValueError where the layer is no place for a map.
        """
        at = self.at(layer)
        sites = self.choice.sites(at)
        if len(sites) == 1:
            sites = [self.site(at)[0]]  # or why there is none
        return [site.call for site in sites]

    def runs_several_times(self, layer: Layer = None) -> bool:
        """True if the model calls the layer more than once."""
        return self.choice.runs_several_times(self.choice.name(layer))

    def holds_scores(self, layer: Layer = None) -> bool:
        """True if the layer's map is one of the scores themselves, as of a network that ends in one."""
        return self.choice.holds_scores(self.choice.name(layer))

    def execution_order(self) -> list[str]:
        """The modules with weights of their own, by name, in the order in which they first run."""
        return execution_order(self.passes.model, self.passes.inputs)

    def last_rectifiers(self) -> list[str]:
        """The ReLU modules, by name, that run behind all modules with weights."""
        return last_rectifiers(self.passes.model, self.passes.inputs)

    def activation(self, at: LayerAt) -> Tensor:
        """A layer's map; see ``Run.activation``."""
        if at.layout == "raw":
            site = self.choice.sites(at)[0]
            activation = self.passes.activation(site)
            count = self.passes.trace.counts[site.name]
            if at.call is None and count > 1:
                raise ValueError(f"layer {site.name!r} runs {count} times; say which with call=1 to {count}")
            return activation
        site, reading = self.site(at)
        values = self._read(site, reading, self.passes.activation(site))
        if reading.own:
            self.own_grid = tuple(values.shape[2:])
        return values

    def gradient(self, at: LayerAt, rule: Rule, reference: Passes | None = None) -> Tensor:
        """The gradient at a layer's map; see ``Run.gradient``."""
        self.passes.require(Plan(gradients=frozenset({(rule, at)})))
        if at.layout == "raw" or not self.choice.is_place(at):
            return self.passes.gradient(self.choice.sites(at)[0], rule, reference)
        site, reading = self.site(at)
        return self._read(site, reading, self.passes.gradient(site, rule, reference))

    def reported(self, layer: Layer | InputPlace, rule: Rule, biases: bool) -> dict[str, Tensor]:
        """By name what a rule reports of its calls on the way to the input or a layer, over the input.

        Of calls' inputs (N, C, *spatial), of their outputs (N, 1, *spatial), with the ``biases`` of operations without
        a rule. Without such a call a name is missing.
        """
        if isinstance(layer, InputPlace):
            return _reported_to(self.passes, layer, rule, biases)
        at = self.at(layer)
        place = self.site(at)[0] if at.layout != "raw" and self.choice.is_place(at) else self.choice.sites(at)[0]
        return _reported_to(self.passes, place, rule, biases)

    def at(self, layer: Layer, call: int | None = None) -> LayerAt:
        """A layer with the call that is meant."""
        at = layer if isinstance(layer, LayerAt) else LayerAt(layer)
        if call is None and at.call is None and self.chosen and at.layout != "raw":
            call = self.chosen.get(self.choice.name(at))
        return at if call is None else replace(at, call=call)

    def site(self, at: LayerAt) -> tuple[Site, GridReading]:
        """The one call that is asked for, and how it is read. Raises ValueError where there is none, or several are."""
        name = self.choice.name(at)
        try:
            self.passes.require(Plan(layers=frozenset({at})))
            self.passes.trace  # noqa: B018  # a pass shows whether what is remembered of the layers still holds
            return self.choice.site(at)
        except ValueError:
            if not self.choice.flow.of(name):
                self.passes.activation(Site(name, 0))  # it never ran, or gives no tensor: that says so
            raise

    def reader(self, layer: Layer) -> Callable[[Tensor], Tensor]:
        """Reads what the layer gave for these inputs as ``Run.activation`` does, with its graph."""
        at = self.at(layer)
        if at.layout == "raw" or not self.choice.is_place(at):
            return lambda output: output
        reading, items = self.site(at)[1], len(self.passes.inputs[0])  # without the passes, which may hold what reads
        return lambda output: reading.read(output, items)

    def check_over_input(self) -> None:
        """Raises ValueError where a layer that was read has a grid of its own, which can't be laid over the input."""
        if self.own_grid is not None:
            raise ValueError(
                f"the layer's grid {self.own_grid} is the model's own and not that of the input "
                f"{tuple(self.passes.inputs[0].shape)}, so that its map can't be laid over the input; explain the "
                "layer with a method that stays at the layer, such as grad_cam"
            )

    def _read(self, site: Site, reading: GridReading, output: Tensor) -> Tensor:
        try:
            return reading.read(output, len(self.passes.inputs[0]))
        except NoGrid as error:
            raise ValueError(f"layer {site.name!r} {error}; say how it is laid out with layout=") from None


def _reported_to(passes: Passes, place: Site | InputPlace, rule: Rule, biases: bool) -> dict[str, Tensor]:
    """By name what the rule reports of its calls on the way to a place, over the input; see `all_reported`."""
    passes.require(Plan(biases=biases))
    passes.gradient(place, rule)
    if passes.reported[rule] is None:  # several inputs in one tensor, or passes apart
        items = [passes.of(slice(item, item + 1)) for item in range(len(passes.inputs[0]))]
        passes.reported[rule] = joined([_reported_to(one, place, rule, passes.plan.biases) for one in items])
    return passes.reported[rule] or {}
