"""The promises of a synthesis: one seed makes the same inputs, and the model stays as it was, also interrupted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cnnviz import Synthesis, Synthesized, syntheses, synthesize
from cnnviz.registry.registry import Method
from cnnviz.testing.nets import SmallNet
from cnnviz.testing.subject import Subject, check_seeds, close, has_a_page, refuses_settings_it_does_not_have

SIZE = (14, 12, 10)
COUNT = 2


def check_synthesis(method: str | Synthesis | Method[Any], *, rank: int = 2, **settings: Any) -> None:
    """Check a synthesis on a small network.

    Checked is that the model, torch's own state and tensors among the settings are left as they were, also when the
    model raises or is interrupted; that an interruption keeps what there is; that inputs are as many and as large as
    asked for, finite and not all the same number; that one seed makes the same inputs again; that they depend on the
    model's weights; that steps are told as they are made; that it works with frozen weights and in float64; and that it
    refuses settings it does not have. :func:`checks` runs each of these by itself. Give it few steps.

    Args:
        method: a registered name, a synthesis, or what it makes of its settings: a callable of an ascent.
        rank: spatial dimensions of what is made: 1 for signals, 2 for images, 3 for volumes.
        settings: what the synthesis is built with.

    Raises:
        AssertionError: naming what is broken.
    """
    subject = SynthesisSubject.of(method, rank=rank, **settings)
    for check in SYNTHESIS_CHECKS:
        check(subject)


@dataclass(frozen=True, eq=False)
class SynthesisSubject(Subject):
    """A synthesis, and how it is asked."""

    rank: int = 2

    @classmethod
    def of(cls, method: str | Synthesis | Method[Any], *, rank: int = 2, **settings: Any) -> SynthesisSubject:
        return cls(**Subject.built(syntheses, method, settings), rank=rank)

    @cached_property
    def inputs(self) -> Tensor:
        """What it makes for the small network, (2, 3, *spatial)."""
        return self.ask().inputs

    def make(self, model: SmallNet, **options: Any) -> Synthesized:
        return synthesize(model, self.method, size=SIZE[: self.rank], count=COUNT, **options)

    def ask(self, model: SmallNet | None = None, situation: str = "on a small network", **options: Any) -> Synthesized:
        asked = SmallNet(self.rank) if model is None else model
        return self.answer(lambda: self.make(asked, **options), situation)

    def same(self, made: Synthesized, situation: str) -> None:
        self.demand(close(made.inputs, self.inputs), f"makes other inputs {situation}")


def makes_inputs_as_asked_for(subject: SynthesisSubject) -> None:
    """Inputs are (count, C, *size), and finite."""
    found, expected = tuple(subject.inputs.shape), (COUNT, 3, *SIZE[: subject.rank])
    subject.demand(found == expected, f"gives {found} where {expected} is asked for")


def makes_more_than_one_number(subject: SynthesisSubject) -> None:
    """No input is one number everywhere."""
    for made in subject.inputs:
        subject.demand(bool((made != made.flatten()[0]).any()), "gives one number everywhere")


def leaves_everything_as_it_was(subject: SynthesisSubject) -> None:
    """The model, tensors among the settings and torch's own state are what they were."""
    model = SmallNet(subject.rank)
    with subject.unchanged(model, torch.zeros(1)):
        subject.ask(model)


def lets_errors_through(subject: SynthesisSubject) -> None:
    """An error in the model comes through, an interrupt ends what is made, and nothing is left behind."""
    subject.check_failures(
        lambda model, _: subject.make(model),
        subject.rank,
        torch.zeros(1),
        "inputs",
        finished=lambda made: made.finished,
    )


def makes_the_same_again(subject: SynthesisSubject) -> None:
    """One seed makes the same inputs, whatever else is drawn from global generators."""
    subject.inputs  # noqa: B018  # made before the next number is drawn
    torch.rand(1)
    subject.same(subject.ask(), "when asked again with one seed; draw from ascent.draws")


def draws_by_the_seed(subject: SynthesisSubject) -> None:
    """Random numbers come from generators that follow the seed."""
    check_seeds(subject, lambda seed: subject.ask(seed=seed), "ascent")


def depends_on_the_weights(subject: SynthesisSubject) -> None:
    """For another network other inputs are made."""
    other = subject.ask(SmallNet(subject.rank, seed=1))
    subject.demand(not close(other.inputs, subject.inputs), "ignores the model's weights")


def works_with_frozen_weights(subject: SynthesisSubject) -> None:
    """Inputs are the same where no weight requires a gradient."""
    situation = "when weights are frozen"
    subject.same(subject.ask(SmallNet(subject.rank).requires_grad_(False), situation), situation)


def works_in_float64(subject: SynthesisSubject) -> None:
    """For a network in float64 inputs are computed in float64."""
    precise = subject.ask(SmallNet(subject.rank).double(), "in float64").inputs
    rounded = torch.equal(precise.float().double(), precise)
    subject.demand(not rounded, "computes in float32 for a model in float64; make tensors with dtype=ascent.dtype")


def tells_of_every_step(subject: SynthesisSubject) -> None:
    """There are steps, each is told as it is made, and snapshots are kept of each that was asked for."""
    steps = len(subject.ask().history)
    subject.demand(steps > 0, "makes no steps; climb with ascent.ascend")
    calls: list[tuple[int, int]] = []
    snapshots = subject.ask(snapshots=1, progress=lambda done, of: calls.append((done, of))).snapshots
    counted = [(done, steps) for done in range(1, steps + 1)]
    subject.demand(calls == counted, f"tells of {calls[:1]} to {calls[-1:]} of {steps} steps; see ascent.expect")
    subject.demand(sorted(snapshots) == list(range(1, steps + 1)), "leaves out snapshots")


SynthesisCheck = Callable[[SynthesisSubject], None]
SYNTHESIS_CHECKS: tuple[SynthesisCheck, ...] = (
    has_a_page,
    refuses_settings_it_does_not_have,
    makes_inputs_as_asked_for,
    makes_more_than_one_number,
    leaves_everything_as_it_was,
    lets_errors_through,
    makes_the_same_again,
    draws_by_the_seed,
    depends_on_the_weights,
    works_with_frozen_weights,
    works_in_float64,
    tells_of_every_step,
)
