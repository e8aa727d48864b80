"""Maps of what a model's self-attentions give each token of the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cnnviz.engine.layers import LayerAt
from cnnviz.formulas.expr import Expr
from cnnviz.run.attention_reader import ATTENTION, Attentions, Scored
from cnnviz.run.plan import Plan
from cnnviz.run.run import Run

__all__ = ["Attentions", "attention_map"]


@dataclass(frozen=True, repr=False)
class attention_map(Expr):
    """What ``each`` makes of all self-attentions, (N, T), laid over the grid of their tokens: (N, 1, *grid).

    Where the places of the tokens can't be followed, ``grid`` says the sizes of their grid, such as (14, 14) or
    "14x14", and ``extra`` how many tokens before it (negative: behind it) belong to no place. Raises ValueError for a
    model that is no chain of self-attentions over the same tokens.
    """

    each: Callable[[Attentions], Tensor]
    scored: Scored | None = "model"
    """Of which score the gradients are: the "model"'s, or for each attention that of its block's tokens ("blocks"),
    which the model makes of them without the blocks behind; None spares gradients."""
    grid: Sequence[int] | str | None = None
    extra: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", LayerAt(layout="tokens", grid=self.grid).grid)  # its sizes

    def compute(self, run: Run) -> Tensor:
        sizes: Any = self.grid
        attentions, reading = run.attention.of(self.scored, (sizes, self.extra) if sizes or self.extra else None)
        values = reading.read(self.each(attentions)[..., None], len(run.inputs))
        if reading.own:
            run.layers.own_grid = tuple(values.shape[2:])
        return values

    def plan(self) -> Plan:
        return ATTENTION
