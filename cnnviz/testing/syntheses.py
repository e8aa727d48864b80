"""What a synthesis owes: inputs that one seed makes again, what there is when interrupted, a model left as it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnnviz import Synthesis, Synthesized, syntheses, synthesize
from cnnviz.registry.registry import Method
from cnnviz.testing.attributions import FailingLayer, SimulatedError
from cnnviz.testing.nets import SmallNet
from cnnviz.testing.state_snapshot import state
from cnnviz.testing.subject import built, close, equal

SIZE = (14, 12, 10)


def check_synthesis(method: str | Synthesis | Method[Any], *, rank: int = 2, **settings: Any) -> None:
    """Check a synthesis on a small network.

    Checked is that the model and torch's own state are left as they were, also when the model raises or is interrupted;
    that an interruption keeps what there is; that inputs are (N, C, *spatial), finite and not all the same number; that
    one seed makes the same inputs again; that they depend on the model's weights; that steps are told as they are made;
    that it works inside no_grad and inference_mode, with frozen weights and in float64; and that it refuses settings it
    does not have. Give it few steps.

    Args:
        method: a registered name, a synthesis, or what it makes of its settings: a callable of an ascent.
        rank: spatial dimensions of what is made: 1 for signals, 2 for images, 3 for volumes.
        settings: what the synthesis is built with.

    Raises:
        AssertionError: naming what is broken.
    """
    subject = _Subject(*built(syntheses, method, settings), rank)
    _check_traces(subject)
    made = subject(SmallNet(rank))
    subject.demand(made.inputs.ndim == rank + 2, f"gives {tuple(made.inputs.shape)} for inputs of rank {rank}")
    subject.demand(bool((made.inputs != made.inputs.flatten()[0]).any()), "gives one number everywhere")

    def same(situation: str, found: Synthesized) -> None:
        subject.demand(close(found.inputs, made.inputs), f"makes other inputs {situation}")

    torch.rand(1)  # what is drawn from torch's global generator is something else from now on
    same("when asked again with one seed; draw from ascent.generator", subject(SmallNet(rank)))
    other = subject(SmallNet(rank, seed=1)).inputs
    subject.demand(not close(other, made.inputs), "ignores the model's weights")
    _check_steps(subject, made)
    model = SmallNet(rank)
    for where, entered in (("torch.no_grad()", torch.no_grad()), ("torch.inference_mode()", torch.inference_mode())):
        with entered:
            same(f"inside {where}", subject(model, f"inside {where}"))
    same("when weights are frozen", subject(model.requires_grad_(False), "when weights are frozen"))
    precise = subject(SmallNet(rank).double(), "in float64").inputs
    subject.demand(precise.dtype == torch.float64, f"gives {precise.dtype} for a model in float64")


@dataclass(frozen=True)
class _Subject:
    """The synthesis that is checked."""

    name: str
    make: Any
    rank: int

    def run(self, model: SmallNet, **how: Any) -> Synthesized:
        return synthesize(model, self.make, **{"size": SIZE[: self.rank], "count": 2, **how})

    def __call__(self, model: SmallNet, situation: str = "on a small network", **how: Any) -> Synthesized:
        try:
            return self.run(model, **how)
        except Exception as error:
            raise AssertionError(f"{self.name} fails {situation}: {type(error).__name__}: {error}") from error

    def demand(self, kept: bool, broken: str) -> None:
        if not kept:
            raise AssertionError(f"{self.name} {broken}")


def _check_steps(subject: _Subject, made: Synthesized) -> None:
    """Every step is told, and inputs are kept on the way."""
    steps = len(made.history)
    subject.demand(steps > 0, "makes no steps; climb with ascent.ascend")
    told: list[tuple[int, int]] = []
    kept = subject(SmallNet(subject.rank), snapshots=1, progress=lambda done, of: told.append((done, of))).snapshots
    counted = [(done, steps) for done in range(1, steps + 1)]
    subject.demand(told == counted, f"tells of {told[:1]} to {told[-1:]} of {steps} steps; see ascent.expect")
    subject.demand(sorted(kept) == list(range(1, steps + 1)), "leaves out snapshots")


def _check_traces(subject: _Subject) -> None:
    """Nothing is left behind: in peace, by an exception or an interruption, in the first pass or the last."""
    counted = FailingLayer()
    _unchanged(subject, SmallNet(subject.rank, between=counted), "")
    for way, passes in counted.met.items():
        for error in (SimulatedError, KeyboardInterrupt):
            for place in sorted({1, passes}) if passes else ():
                model = SmallNet(subject.rank, between=FailingLayer(error, **{way: place}))
                what = f" when {error.__name__.lstrip('_')} is raised in {way} pass {place}"
                made = _unchanged(subject, model, what, error)
                if error is SimulatedError:
                    subject.demand(made is None, f"gives inputs even{what}")
                elif made is not None:
                    subject.demand(not made.finished, f"says it is finished{what}")


def _unchanged(
    subject: _Subject, model: SmallNet, what: str, expected: type[BaseException] | None = None
) -> Synthesized | None:
    """What is made, or None where ``expected`` is raised; raises unless the model stays as it was."""
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    watched: Tensor = torch.zeros(1, requires_grad=True)
    before = state(model, watched)
    made: Synthesized | None = None
    try:
        made = subject.run(model)
    except BaseException as error:
        if expected is None or not isinstance(error, expected):
            raise AssertionError(f"{subject.name} raises {type(error).__name__}{what}: {error}") from error
    after = state(model, watched)
    for name in before | after:
        old, new = before.get(name), after.get(name)
        subject.demand(equal(old, new), f"{name}{what}")
    return made
