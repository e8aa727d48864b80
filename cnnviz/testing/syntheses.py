"""The promises of a synthesis: one seed makes the same inputs, and the model stays as it was, also interrupted."""

from __future__ import annotations

from typing import Any

import torch

from cnnviz import Synthesis, Synthesized, syntheses, synthesize
from cnnviz.registry.registry import Method
from cnnviz.testing.nets import SmallNet
from cnnviz.testing.subject import Subject

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
    subject = Subject.of(syntheses, method, settings)

    def make(model: SmallNet, **options: Any) -> Synthesized:
        return synthesize(model, subject.method, size=SIZE[:rank], count=2, **options)

    def ask(model: SmallNet, situation: str = "on a small network", **options: Any) -> Synthesized:
        return subject.answer(lambda: make(model, **options), situation)

    subject.check_unchanged(
        lambda model, _: make(model), rank, torch.zeros(1), "inputs", finished=lambda made: made.finished
    )
    made = ask(SmallNet(rank))
    subject.demand(made.inputs.ndim == rank + 2, f"gives {tuple(made.inputs.shape)} for inputs of rank {rank}")
    subject.demand(bool((made.inputs != made.inputs.flatten()[0]).any()), "gives one number everywhere")

    subject.check_reproducible(
        lambda model, situation: ask(model, situation).inputs, made.inputs, rank, "makes other inputs", "ascent"
    )
    steps = len(made.history)
    subject.demand(steps > 0, "makes no steps; climb with ascent.ascend")
    calls: list[tuple[int, int]] = []
    snapshots = ask(SmallNet(rank), snapshots=1, progress=lambda done, of: calls.append((done, of))).snapshots
    counted = [(done, steps) for done in range(1, steps + 1)]
    subject.demand(calls == counted, f"tells of {calls[:1]} to {calls[-1:]} of {steps} steps; see ascent.expect")
    subject.demand(sorted(snapshots) == list(range(1, steps + 1)), "leaves out snapshots")
