"""The plan of a run: what its formulas need of the forward pass."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from torch import nn

from cnnviz.engine.backward_rules import Rule
from cnnviz.engine.black_box import BlackBox
from cnnviz.engine.layers import InputPlace, Layer


@dataclass(frozen=True)
class Plan:
    """What formulas need; plans are united with ``|``, so that one forward pass serves all of them."""

    layers: frozenset[Layer] = frozenset()
    gradients: frozenset[tuple[Rule, Layer | InputPlace]] = frozenset()
    biases: bool = False
    score_layers: frozenset[Layer] = frozenset()
    """Layers that the score is read from."""
    again: bool = False
    """True if more gradients are taken than those in ``gradients``, so that the graph must be kept."""
    elsewhere: frozenset[Hashable] = frozenset()
    """Formulas that are evaluated at other inputs, and may share those evaluations."""
    references: frozenset[Rule] = frozenset()
    """Rules that compare another pass with this one, which has no gradients of its own then."""
    attention: bool = False
    """True if the shares of attentions are read, and their gradients."""
    variants: bool = False
    """True if variants of the inputs are passed in chunks, so that the size of a pass is worth knowing."""

    @property
    def scores_only(self) -> bool:
        """True if it needs no gradients, layers, biases or attentions."""
        return not (self.layers or self.gradients or self.score_layers or self.biases or self.attention)

    def __or__(self, other: Plan) -> Plan:
        return Plan(
            self.layers | other.layers,
            self.gradients | other.gradients,
            self.biases or other.biases,
            self.score_layers | other.score_layers,
            self.again or other.again,
            self.elsewhere | other.elsewhere,
            self.references | other.references,
            self.attention or other.attention,
            self.variants or other.variants,
        )


def check_seen(model: nn.Module, plan: Plan) -> None:
    """Raises TypeError where more than scores is asked of a black box."""
    if isinstance(model, BlackBox) and not plan.scores_only:
        raise TypeError(f"gradients or layers are asked for, and {model.reason}")
