"""Baseline attributions: (input - baseline) * gradient, averaged over baselines.

Baselines are put into batches that fit the memory budget, and added up as they come, so that memory does not grow with
their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from cnnviz.engine.backward_rules import Rule
from cnnviz.engine.layers import INPUT
from cnnviz.formulas.expectation import Points, RunningMean, by_variant
from cnnviz.formulas.expr import Expr, plan
from cnnviz.run.plan import Plan
from cnnviz.run.run import Run


class Ways(Protocol):
    """Straight ways from baselines to the input. Hashable; each is the same however they are chunked."""

    @property
    def count(self) -> int:
        """How many there are, K."""

    def draw(self, run: Run, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Where ways ``start`` to ``stop`` begin, and a point on each: both (stop - start, N, C, *spatial)."""


@dataclass(frozen=True, repr=False)
class along(Expr):
    """The mean over ways of the difference they make, times a formula's value at a point on each."""

    called: ClassVar[str] = "along"

    of: Expr
    ways: Ways

    def compute(self, run: Run) -> Tensor:
        items, needed, mean = len(run.inputs), plan(self.of), RunningMean()

        def step(start: int, stop: int) -> None:
            nonlocal mean
            begins, points = self.ways.draw(run, start, stop)
            folded = run.in_chunk(points, needed)
            values = by_variant(self.of(folded), items) * (run.inputs - begins)
            mean = mean.plus(values, [1 / self.ways.count] * (stop - start))

        run.in_chunks(self.ways.count, step)
        return mean.result()

    def plan(self) -> Plan:
        return Plan(variants=True)


@dataclass(frozen=True, repr=False)
class compared(Expr):
    """The mean over baselines of their difference to the input, times a gradient whose rule compares both.

    Inputs and baselines are passed apart, in batches of equal shape; ``rule`` finds an operation's call in the pass of
    the baselines as ``call.reference``. K baselines cost K + 1 forward and K backward passes. Raises ValueError where
    the model calls other operations for a baseline than for its input.
    """

    called: ClassVar[str] = "compared"

    rule: Rule
    baselines: Points

    def compute(self, run: Run) -> Tensor:
        values = _comparison(self.rule, self.baselines)(run)[:, 1:].reshape(run.inputs.shape)
        return values.contiguous().to(torch.promote_types(run.inputs.dtype, torch.float32))

    def plan(self) -> Plan:
        return Plan(gradients=frozenset({(self.rule, INPUT)}), variants=self.baselines.count > 1)

    def baseline_score(self) -> Expr:
        """The mean score of the baselines, (N,), which the same passes give."""
        return baseline_score(self)


@dataclass(frozen=True, repr=False)
class baseline_score(Expr):
    """The mean score of the baselines of a comparison, (N,), which the same passes give."""

    called: ClassVar[str] = "baseline_score"

    of: compared

    def parts(self) -> Iterator[Expr]:
        yield _comparison(self.of.rule, self.of.baselines)

    def compute(self, run: Run) -> Tensor:
        return _comparison(self.of.rule, self.of.baselines)(run)[:, 0]


@dataclass(frozen=True, repr=False)
class _comparison(Expr):
    """What passes of inputs beside their baselines give, (N, 1 + values): the baselines' score, then contributions."""

    rule: Rule
    baselines: Points

    def scores_only(self) -> bool:
        return False

    def compute(self, run: Run) -> Tensor:
        items, weights = len(run.inputs), self.baselines.weights(run).tolist()
        # where several questions read one pass, its operations are more than those of one question
        mean, repeated = RunningMean(), {} if run.plan.again else {1: run}

        def step(start: int, stop: int) -> None:
            nonlocal mean
            begins, copies = self.baselines.draw(run, start, stop), stop - start
            if copies not in repeated:
                repeated.clear()  # one graph at a time
                variants = run.inputs.expand(copies, *run.inputs.shape).flatten(0, 1)
                gradients = frozenset({(self.rule, INPUT)})
                repeated[copies] = run.at(variants, Plan(gradients=gradients, again=True))
            inputs, baselines = repeated[copies], run.at(begins.flatten(0, 1), Plan(references=frozenset({self.rule})))
            values = by_variant(inputs.gradient(INPUT, self.rule, reference=baselines), items) * (run.inputs - begins)
            scores = by_variant(baselines.score, items)
            mean = mean.plus(torch.cat([scores[..., None], values.flatten(2)], 2), weights[start:stop])

        # the graph of the inputs stays while their baselines pass
        run.in_chunks(self.baselines.count, step, graphs=2)
        return mean.result()
