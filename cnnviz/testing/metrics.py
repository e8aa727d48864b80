"""The promises of a metric: one number for each input, whatever is beside it, and everything stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cnnviz import Explanation, Metric, Run, evaluate, explain, gradient, metrics
from cnnviz.explanations.options import ExplainOptions
from cnnviz.registry.registry import Method
from cnnviz.testing.nets import SmallNet
from cnnviz.testing.state_snapshot import state, unchanged
from cnnviz.testing.subject import Subject, check_seeds, close, has_a_page, refuses_settings_it_does_not_have

SIZES = {1: (22,), 2: (14, 22), 3: (6, 10, 14)}


def check_metric(method: str | Metric | Method[Any], **settings: Any) -> None:
    """Check a metric on signals, images and volumes, with annotations and a small network to ask.

    Checked is that it gives one finite number for each input, (N,), or refuses in one line (ValueError); that an input
    alone scores as in a batch, one explanation twice the same, and in chunks as at once; that scores depend on the
    values; that a blank map, a coarse one and other precisions are scored or refused in one line, and so are an
    explanation without masks and without a model; that it changes neither the explanation, the masks, the model nor
    torch's own state, also when the model raises or is interrupted; and that it refuses settings it does not have.
    :func:`checks` runs each of these by itself.

    Args:
        method: a registered name, a method, or what a method makes of its settings: a callable of a trial.
        settings: what the method is built with.

    Raises:
        AssertionError: naming what is broken.
    """
    subject = MetricSubject.of(method, **settings)
    for check in METRIC_CHECKS:
        check(subject)


@dataclass(frozen=True)
class Situation:
    """Three inputs explained, masks (N, *spatial) of evidence, and the network."""

    explanation: Explanation
    masks: Tensor
    model: SmallNet
    what: str
    options: ExplainOptions | None = None

    def with_values(self, values: Tensor, what: str = "") -> Situation:
        return replace(
            self, explanation=replace(self.explanation, values=values), what=f"{self.what}{what and f', {what}'}"
        )

    def alone(self, item: int) -> Situation:
        masks = self.masks[item : item + 1]
        return replace(self, explanation=self.explanation[item], masks=masks, what=f"{self.what}, one alone")


def situation(rank: int, dtype: torch.dtype = torch.float32, model: SmallNet | None = None) -> Situation:
    """The ordinary one for so many spatial dimensions."""
    model = (model or SmallNet(rank)).to(dtype)
    inputs = torch.randn(3, 3, *SIZES[rank], generator=torch.Generator().manual_seed(5)).to(dtype)
    explanation = explain(model, inputs, gradient(), target=torch.tensor([0, 1, 2]))
    masks = torch.zeros(3, *SIZES[rank], dtype=torch.bool)
    for item, mask in enumerate(masks):
        mask[tuple(slice(item, item + length // 2) for length in SIZES[rank])] = True
    return Situation(explanation, masks, model, f"inputs {tuple(inputs.shape)}")


@dataclass(frozen=True, eq=False)
class MetricSubject(Subject):
    """A metric, and how it is asked."""

    @classmethod
    def of(cls, method: str | Metric | Method[Any], **settings: Any) -> MetricSubject:
        return cls(**Subject.built(metrics, method, settings))

    @cached_property
    def scored(self) -> list[tuple[Situation, Tensor]]:
        """The ordinary situations that it does not refuse, and the scores (N,) there."""
        asked = [(each, self.scores(each)) for each in map(situation, SIZES)]
        return [(each, scores) for each, scores in asked if scores is not None]

    def evaluated(self, asked: Situation, **given: Any) -> Tensor:
        """The scores, (N,), of what is asked, or of what else is ``given`` to evaluate."""
        known = {"masks": asked.masks, "model": asked.model, "attribution": gradient(), "options": asked.options}
        scores: Tensor = evaluate(asked.explanation, self.method, **{**known, **given})
        return scores

    def scores(self, asked: Situation, **given: Any) -> Tensor | None:
        """The scores, (N,); None where the metric refuses as it should."""
        said_of_scores = ("a metric gives", "not finite")  # and not by the metric
        return self.answer_or_refusal(lambda: self.evaluated(asked, **given), asked.what, faults=said_of_scores)


def scores_some_inputs(subject: MetricSubject) -> None:
    """Of signals, images and volumes it scores at least one, with one finite number for each input."""
    subject.demand(bool(subject.scored), "refuses everything: signals, images and volumes")


def leaves_everything_as_it_was(subject: MetricSubject) -> None:
    """The explanation, the masks, the model and torch's own state are what they were."""
    for asked in map(situation, SIZES):  # anew: what is written once may stay the same when written twice

        def read(asked: Situation = asked) -> dict[str, Any]:
            return state(asked.model, asked.explanation.inputs) | {
                "writes into the values": asked.explanation.values.clone(),
                "writes into the masks": asked.masks.clone(),
            }

        with unchanged(subject.name, read):
            subject.scores(asked)


def lets_errors_through(subject: MetricSubject) -> None:
    """An error or interrupt in the model comes through, and nothing is left behind."""
    for asked, _ in subject.scored:
        subject.check_failures(
            lambda model, _, asked=asked: subject.evaluated(asked, model=model),  # type: ignore[misc]
            asked.explanation.inputs.ndim - 2,
            torch.zeros(1),
            "scores",
        )


def scores_the_same_again(subject: MetricSubject) -> None:
    """One explanation scores the same twice, whatever else is drawn from global generators."""
    for asked, scores in subject.scored:
        torch.rand(1)
        again = subject.scores(asked)
        subject.demand(
            again is not None and close(again, scores),
            "scores one explanation in two ways; draw from trial.run.draws",
        )


def draws_by_the_seed(subject: MetricSubject) -> None:
    """Random numbers come from generators that follow the seed."""
    for asked, _ in subject.scored[:1]:
        check_seeds(
            subject,
            lambda seed, asked=asked: subject.scores(replace(asked, options=ExplainOptions(seed=seed))),  # type: ignore[misc]
            "trial.run",
        )


def scores_each_input_by_itself(subject: MetricSubject) -> None:
    """An input alone scores as in a batch."""
    for asked, scores in subject.scored:
        for item in range(len(scores)):
            alone = subject.scores(asked.alone(item))
            subject.demand(
                alone is not None and close(alone, scores[item : item + 1]),
                "gives another score for an input alone than in a batch",
            )


def scores_the_same_in_chunks(subject: MetricSubject) -> None:
    """Where memory is short, scores are the same."""
    for asked, scores in subject.scored:
        chunked = subject.scores(replace(asked, options=ExplainOptions(memory=1), what="where memory is short"))
        subject.demand(chunked is not None and close(chunked, scores), "gives other scores where memory is short")


def works_without_grad_mode(subject: MetricSubject) -> None:
    """Scores are the same inside torch.no_grad() and torch.inference_mode()."""
    for asked, scores in subject.scored:
        rank = asked.explanation.inputs.ndim - 2
        for where, mode in (("torch.no_grad()", torch.no_grad()), ("torch.inference_mode()", torch.inference_mode())):
            with mode:
                made_inside = situation(rank, model=asked.model)
                inside = subject.scores(replace(made_inside, what=f"{asked.what} inside {where}"))
                subject.demand(inside is not None and close(inside, scores), f"gives other scores inside {where}")


def depends_on_the_values(subject: MetricSubject) -> None:
    """Of maps inside of the masks, outside of them and everywhere at least one scores as no other."""
    for asked, scores in subject.scored:
        values, masks = asked.explanation.values, asked.masks
        for places in (masks, ~masks, masks | ~masks):
            other = subject.scores(asked.with_values(places[:, None].expand_as(values).float()))
            if other is None or not close(other, scores):
                return
    subject.demand(not subject.scored, "gives the same score whatever the values")


def takes_every_map(subject: MetricSubject) -> None:
    """Blank and coarse maps and other precisions are scored, or refused in one line."""
    for asked, _ in subject.scored:
        values = asked.explanation.values
        places = (slice(None), slice(0, 1), *(slice(None, None, 2) for _ in values.shape[2:]))
        subject.scores(asked.with_values(torch.zeros_like(values), "a blank map"))

        def coarse(run: Run, places: tuple[slice, ...] = places) -> Tensor:
            return run.gradient()[places].contiguous()

        subject.scores(asked.with_values(values[places].contiguous(), "a coarse map"), attribution=coarse)
        subject.scores(asked.with_values(values.bfloat16(), "bfloat16 values"))
        subject.scores(replace(situation(values.ndim - 2, torch.float64), what="float64 values and model"))


def says_what_it_misses(subject: MetricSubject) -> None:
    """Without masks and without a model it scores, or refuses in one line."""
    for asked, _ in subject.scored:
        subject.scores(replace(asked, what="no masks"), masks=None)
        subject.scores(replace(asked, what="no model"), model=None)


MetricCheck = Callable[[MetricSubject], None]
METRIC_CHECKS: tuple[MetricCheck, ...] = (
    has_a_page,
    refuses_settings_it_does_not_have,
    scores_some_inputs,
    leaves_everything_as_it_was,
    lets_errors_through,
    scores_the_same_again,
    draws_by_the_seed,
    scores_each_input_by_itself,
    scores_the_same_in_chunks,
    works_without_grad_mode,
    depends_on_the_values,
    takes_every_map,
    says_what_it_misses,
)
