"""A part of the score, as a layer's map holds it, explained by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from cnnviz.engine.feature_extraction import Seen
from cnnviz.engine.layers import Layer, is_automatic
from cnnviz.formulas.expr import Expr, frozen, plan
from cnnviz.run.objectives import Objective
from cnnviz.run.plan import Plan
from cnnviz.run.run import Run


@dataclass(frozen=True, repr=False)
class conditioned(Expr):
    """The formula's value for a part of the score: the sum of a layer's map times ``weights``, which are held constant.

    ``weights`` are a formula (N, C, *spatial) of the map's size, such as the layer's gradient with zeros in the place
    of all other channels. All parts share the forward pass. Raises ValueError for a layer that runs several times.
    """

    of: Expr
    layer: Layer
    weights: Expr

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", frozen(self.layer))

    def compute(self, run: Run) -> Tensor:
        name = run.layer_name(self.layer)
        if run.layers.runs_several_times(self.layer):
            raise ValueError(
                f"layer {name!r} runs several times, and the score is not divided among its calls; choose a layer that "
                "runs once"
            )
        part = _Part(name, self.weights(run).detach(), run.layers.reader(self.layer))
        return self.of(run.toward(part, plan(self.of), together=True))

    def plan(self) -> Plan:
        return super().plan() | Plan(score_layers=frozenset({self.layer}), again=True)

    def automatic(self) -> bool:
        return super().automatic() or is_automatic(self.layer)


@dataclass(frozen=True, eq=False, repr=False)
class _Part(Objective):
    layer: Layer
    weights: Tensor
    read: Callable[[Tensor], Tensor] = field(repr=False)

    def __call__(self, seen: Seen, /) -> Tensor:
        values = self.read(seen.layer(self.layer))
        return (values * self.weights).flatten(1).sum(1)
