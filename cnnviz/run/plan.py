"""What a formula needs of the forward pass."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from cnnviz.engine.backward_rules import Rule
from cnnviz.engine.layers import InputPlace, Layer


@dataclass(frozen=True)
class Plan:
    """What a formula is going to need, so that one forward pass can serve it all."""

    layers: frozenset[Layer] = frozenset()
    gradients: frozenset[tuple[Rule, Layer | InputPlace]] = frozenset()
    biases: bool = False
    score_layers: frozenset[Layer] = frozenset()
    """Layers that the score is read from."""
    again: bool = False
    """Whether gradients are taken more often than the rules in ``gradients`` say: the graph must last."""
    elsewhere: frozenset[Hashable] = frozenset()
    """Parts that are evaluated at other inputs, and may share those evaluations."""

    def __or__(self, other: Plan) -> Plan:
        return Plan(
            self.layers | other.layers,
            self.gradients | other.gradients,
            self.biases or other.biases,
            self.score_layers | other.score_layers,
            self.again or other.again,
            self.elsewhere | other.elsewhere,
        )
