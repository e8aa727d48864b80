"""The promises of an attribution: one seed gives one answer, and the model stays as it was."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cnnviz import Attribution, Explanation, attributions, explain
from cnnviz.registry.registry import Method
from cnnviz.testing.nets import CLASSES, SmallNet
from cnnviz.testing.subject import Subject, close


def check_attribution(
    method: str | Attribution | Method[Any], *, target_blind: bool = False, rank: int = 2, **settings: Any
) -> None:
    """Check an attribution on a small network.

    Checked is that the model, the input and torch's own state are left as they were, also when the model raises or is
    interrupted halfway; that values are (N, C, *spatial), finite and not all zero; that one seed gives one answer, for
    an input alone as in a batch, and in chunks as at once; that values depend on the weights and on the target; that
    the method works inside no_grad and inference_mode, with frozen weights and in float64; and that it refuses settings
    it does not have.

    Args:
        method: a registered name, a method, or what a method makes of its settings: a formula or a callable of a run.
        target_blind: whether the method explains the same whatever the target, as Eigen-CAM does. Must be true of it.
        rank: spatial dimensions of the inputs: 1 for signals, 2 for images, 3 for volumes.
        settings: what the method is built with.

    Raises:
        AssertionError: naming what is broken.
    """
    subject = Subject.of(attributions, method, settings)
    inputs = torch.randn(3, 3, *(12, 10, 8)[:rank], generator=torch.Generator().manual_seed(7))
    target = torch.tensor([0, 1, 2])

    def explained(model: SmallNet, inputs: Tensor, **options: Any) -> Tensor:
        explanation: Explanation = explain(model, inputs, subject.method, **{"target": target, **options})
        return explanation.values

    def ask(
        model: SmallNet, situation: str = "on a small network", item: slice = slice(None), **options: Any
    ) -> Tensor:
        lent = inputs[item].to(next(model.parameters()).dtype, copy=True)  # inside inference mode it is made in it
        return subject.answer(lambda: explained(model, lent, **{"target": target[item], **options}), situation)

    subject.check_unchanged(explained, rank, inputs, "values")
    writer = SmallNet(rank, between=_Bounded())
    with subject.unchanged(writer, inputs, " of a model that writes it") as lent:
        subject.answer(lambda: explained(writer, lent), "on a model that writes into itself")
    values = ask(SmallNet(rank))
    subject.demand(values.shape[1:].numel() > 0, f"gives {tuple(values.shape)}, which is empty")
    subject.demand(bool(values.any()), "gives nothing but zeros")
    subject.check_reproducible(ask, values, rank, "gives other values", "run")
    for item in range(len(inputs)):
        part = slice(item, item + 1)
        alone = close(ask(SmallNet(rank), "for an input alone", part), values[part])
        subject.demand(alone, "gives other values for an input alone than in a batch; reduce over each input by itself")
    chunked = close(ask(SmallNet(rank), "where memory is short", memory=1), values)
    subject.demand(chunked, "gives other values where memory is short")
    blind = close(ask(SmallNet(rank), target=(target + 1) % CLASSES), values)
    subject.demand(target_blind or not blind, "ignores the target; if it is meant to, say target_blind=True")
    subject.demand(blind or not target_blind, "depends on the target, though it is said to be target_blind")


class _Bounded(nn.Module):
    """Brings its weight into bounds in every pass, where it is already: it must be what it was, in value and memory."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -0.5]))

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = self.weight.data.clamp(-1, 1)
        return x * self.weight.sum() * 2
