"""Expectations: the mean or variance of a formula over sampled inputs, such as points of a path or draws of noise.

Samples are put into batches that fit the memory budget, and accumulated as they come, so that memory does not grow with
their number. Formulas over the same samples share their forward passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from cnnviz.engine.deferred import uploaded
from cnnviz.formulas.expr import Expr, plan
from cnnviz.run.plan import Plan
from cnnviz.run.run import Run

Reduction = Literal["mean", "variance"]


class Points(Protocol):
    """Inputs at which a formula is evaluated. Hashable; a point does not depend on how points are chunked."""

    @property
    def count(self) -> int:
        """The number of points, K."""

    def draw(self, run: Run, start: int, stop: int) -> Tensor:
        """Points ``start`` to ``stop``, (stop - start, N, C, *spatial)."""

    def weights(self, run: Run) -> Tensor:
        """The weight of each in a mean, (K,) float64."""


@dataclass(frozen=True, repr=False)
class over(Expr):
    """A formula's weighted mean, or variance, over points; accumulated in at least float32.

    Raises ValueError for another reduction, and for no points.
    """

    called: ClassVar[str] = "over"

    of: Expr
    points: Points
    reduce: Reduction = "mean"

    def __post_init__(self) -> None:
        if self.reduce not in ("mean", "variance"):
            raise ValueError(f"there is no reduction {self.reduce!r}; it is 'mean' or 'variance'")
        if self.points.count < 1:
            raise ValueError(f"{self.points!r} has no points; it needs at least one")

    def plan(self) -> Plan:
        return Plan(elsewhere=frozenset({self}), variants=True)

    def compute(self, run: Run) -> Tensor:
        together = [
            other
            for other in {self, *run.plan.elsewhere}
            if isinstance(other, over) and other.points == self.points and other not in run.answers
        ]
        items = len(run.inputs)
        weights = self.points.weights(run).tolist()
        gathered: dict[over, RunningMean | RunningVariance]
        gathered = {other: RunningVariance() if other.reduce == "variance" else RunningMean() for other in together}
        needed = plan(*(other.of for other in together))

        def step(start: int, stop: int) -> None:
            folded = run.in_chunk(self.points.draw(run, start, stop), needed)
            values = {other: by_variant(other.of(folded), items) for other in together}
            # all of them or, where memory runs out, none: the chunk is taken again then
            gathered.update({other: gathered[other].plus(part, weights[start:stop]) for other, part in values.items()})

        run.in_chunks(self.points.count, step)
        run.answers.update((other, gathered[other].result()) for other in together)
        return run.answers[self]


def by_variant(values: Tensor, items: int) -> Tensor:
    """Values of folded variants as (K, N, ...), in at least float32."""
    return values.reshape(-1, items, *values.shape[1:]).to(torch.promote_types(values.dtype, torch.float32))


@dataclass(frozen=True, eq=False)
class RunningMean:
    """A weighted sum; quadrature weights need not add up to one."""

    total: Any = 0.0

    def plus(self, values: Tensor, weights: list[float]) -> RunningMean:
        each = uploaded(torch.tensor(weights, dtype=values.dtype, device="cpu"), values.device)
        return RunningMean(self.total + torch.tensordot(each, values, 1))

    def result(self) -> Tensor:
        total: Tensor = self.total
        return total


@dataclass(frozen=True, eq=False)
class RunningVariance:
    """Squared deviations from the running mean, one value at a time (Welford, 1962), so that nothing cancels."""

    weight: float = 0.0
    average: Any = 0.0
    deviation: Any = 0.0

    def plus(self, values: Tensor, weights: list[float]) -> RunningVariance:
        total, average, deviation = self.weight, self.average, self.deviation
        for value, weight in zip(values, weights, strict=True):
            total += weight
            change = value - average
            average = average + change * (weight / total)
            deviation = deviation + weight * change * (value - average)
        return RunningVariance(total, average, deviation)

    def result(self) -> Tensor:
        variance: Tensor = self.deviation / self.weight
        return variance
