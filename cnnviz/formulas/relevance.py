"""Relevance: values times multipliers that a rule carries back, and what the rule reports on the way."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cnnviz.engine.backward_rules import Rule
from cnnviz.engine.layers import INPUT, InputPlace, Layer, is_automatic
from cnnviz.engine.weights import CONVOLUTIONS as CONVOLUTIONS
from cnnviz.engine.weights import MATRIX_PRODUCTS as MATRIX_PRODUCTS
from cnnviz.formulas.expr import Expr, frozen
from cnnviz.run.plan import Plan
from cnnviz.run.run import Run


@dataclass(frozen=True, repr=False)
class reported_relevance(Expr):
    """What a rule reports under a name by ``call.report``, laid over the input.

    Of calls' inputs (N, C, *spatial), of their outputs (N, 1, *spatial). Values are where the input's axes put them,
    each spread over the places that it covers; what has no place is spread evenly. Sums are kept. Zeros where nothing
    was reported. ``biases`` adds to the name "biases" what the biases of all operations without a rule take.
    """

    rule: Rule
    name: str
    layer: Layer | InputPlace = INPUT
    biases: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", frozen(self.layer))

    def compute(self, run: Run) -> Tensor:
        reported = run.layers.reported(self.layer, self.rule, self.biases)
        return reported[self.name] if self.name in reported else torch.zeros_like(run.inputs[:, :1])

    def plan(self) -> Plan:
        return Plan(gradients=frozenset({(self.rule, self.layer)}), biases=self.biases)

    def automatic(self) -> bool:
        return is_automatic(self.layer)
