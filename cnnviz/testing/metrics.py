"""The promises of a metric: one number for each input, whatever is beside it, and everything stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cnnviz import Explanation, Metric, evaluate, explain, gradient, metrics
from cnnviz.registry.registry import Method
from cnnviz.testing.nets import SmallNet
from cnnviz.testing.state_snapshot import state, unchanged
from cnnviz.testing.subject import Subject, close


def check_metric(method: str | Metric | Method[Any], **settings: Any) -> None:
    """Check a metric on signals, images and volumes, with annotations and a small network to ask.

    Checked is that it gives one finite number for each input, (N,), or refuses in one line (ValueError); that an input
    alone scores as in a batch, and one explanation twice the same; that scores depend on the values; that a blank map
    and half precision are scored or refused in one line, and so are an explanation without masks and without a model;
    that it changes neither the explanation, the masks, the model nor torch's own state; and that it refuses settings it
    does not have.

    Args:
        method: a registered name, a method, or what a method makes of its settings: a callable of a trial.
        settings: what the method is built with.

    Raises:
        AssertionError: naming what is broken.
    """
    subject = Subject.of(metrics, method, settings)
    scored, depends = 0, False
    for model, explanation, masks in _explained():
        what = f"inputs {tuple(explanation.inputs.shape)}"
        scores = _scores(subject, explanation, masks, model, what)
        if scores is None:
            continue
        scored += 1

        def same(other: Tensor | None, item: slice = slice(None), scores: Tensor = scores) -> bool:
            return other is not None and close(other, scores[item])

        again = _scores(subject, explanation, masks, model, what)
        subject.demand(same(again), "scores one explanation in two ways; draw from trial.run.generator")
        for item in range(len(explanation)):
            alone = _scores(subject, explanation[item], masks[item][None], model, f"{what}, one alone")
            subject.demand(same(alone, slice(item, item + 1)), "gives another score for an input alone than in a batch")
        maps = [places[:, None].expand_as(explanation.values).float() for places in (masks, ~masks, masks | ~masks)]
        depends |= not all(
            [same(_scores(subject, replace(explanation, values=values), masks, model, what)) for values in maps]
        )
        blank = replace(explanation, values=torch.zeros_like(explanation.values))
        half = replace(explanation, values=explanation.values.bfloat16())
        _scores(subject, blank, masks, model, f"{what}, a blank map")
        _scores(subject, half, masks, model, "bfloat16 values")
        _scores(subject, explanation, None, model, "no masks")
        _scores(subject, explanation, masks, None, "no model")
    subject.demand(scored > 0, "refuses everything: signals, images and volumes")
    subject.demand(depends, "gives the same score whatever the values")


def _explained() -> Iterator[tuple[SmallNet, Explanation, Tensor]]:
    """For every rank a network, three inputs explained, and masks (N, *spatial) of evidence."""
    for rank, size in ((1, (22,)), (2, (14, 22)), (3, (6, 10, 14))):
        model = SmallNet(rank)
        inputs = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(5))
        explanation = explain(model, inputs, gradient(), target=torch.tensor([0, 1, 2]))
        masks = torch.zeros(3, *size, dtype=torch.bool)
        for item, mask in enumerate(masks):
            mask[tuple(slice(item, item + length // 2) for length in size)] = True
        yield model, explanation, masks


def _scores(
    subject: Subject, explanation: Explanation, masks: Tensor | None, model: SmallNet | None, what: str
) -> Tensor | None:
    """The scores, (N,); None where the metric refuses as it should."""
    watched = model if model is not None else SmallNet(explanation.inputs.ndim - 2)

    def read() -> dict[str, Any]:
        return state(watched, explanation.inputs) | {
            "writes into the values": explanation.values.clone(),
            "writes into the masks": None if masks is None else masks.clone(),
        }

    with unchanged(subject.name, read):
        return subject.answer_or_refusal(
            lambda: evaluate(explanation, subject.method, masks=masks, model=model, attribution=gradient()),
            what,
            faults=("a metric gives", "not finite"),  # said of the scores, not by the metric
        )
