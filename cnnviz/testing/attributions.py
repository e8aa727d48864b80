"""What an attribution owes: an answer that one seed gives again, and a model left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz import Attribution, Explanation, attributions, explain
from cnnviz.registry.registry import Method
from cnnviz.testing.nets import CLASSES, SmallNet
from cnnviz.testing.state_snapshot import state
from cnnviz.testing.subject import built, close, equal


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
    subject = _Subject(*built(attributions, method, settings))
    inputs = torch.randn(3, 3, *(12, 10, 8)[:rank], generator=torch.Generator().manual_seed(7))
    target = torch.tensor([0, 1, 2])
    _check_traces(subject, rank, inputs, target)
    values = subject(SmallNet(rank), inputs, target)
    subject.demand(values.shape[1:].numel() > 0, f"gives {tuple(values.shape)}, which is empty")
    subject.demand(bool(values.any()), "gives nothing but zeros")

    def same(situation: str, found: Tensor, expected: Tensor = values) -> None:
        subject.demand(close(found, expected), f"gives other values {situation}")

    torch.rand(1)  # what is drawn from torch's global generator is something else from now on
    same("when asked again with one seed; draw from run.generator", subject(SmallNet(rank), inputs, target))
    for item in range(len(inputs)):
        part = slice(item, item + 1)
        alone = subject(SmallNet(rank), inputs[part], target[part], "for an input alone")
        same("for an input alone than in a batch; reduce over each input by itself", alone, values[part])
    same("where memory is short", subject(SmallNet(rank), inputs, target, "where memory is short", memory=1))
    subject.demand(not close(subject(SmallNet(rank, seed=1), inputs, target), values), "ignores the model's weights")
    blind = close(subject(SmallNet(rank), inputs, (target + 1) % CLASSES), values)
    subject.demand(target_blind or not blind, "ignores the target; if it is meant to, say target_blind=True")
    subject.demand(blind or not target_blind, "depends on the target, though it is said to be target_blind")

    model = SmallNet(rank)
    for where, entered in (("torch.no_grad()", torch.no_grad()), ("torch.inference_mode()", torch.inference_mode())):
        with entered:
            same(f"inside {where}", subject(model, inputs.clone(), target, f"inside {where}"))
    same("when weights are frozen", subject(model.requires_grad_(False), inputs, target, "when weights are frozen"))
    precise = subject(SmallNet(rank).double(), inputs.double(), target, "in float64")
    subject.demand(precise.dtype == torch.float64, f"gives {precise.dtype} for a model in float64")


@dataclass(frozen=True)
class _Subject:
    """The attribution that is checked."""

    name: str
    formula: Any

    def __call__(self, model: nn.Module, inputs: Tensor, target: Any, situation: str = "", **how: Any) -> Tensor:
        try:
            found: Explanation = explain(model, inputs, self.formula, target=target, **how)
            return found.values
        except Exception as error:
            where = situation or "on a small network"
            raise AssertionError(f"{self.name} fails {where}: {type(error).__name__}: {error}") from error

    def demand(self, kept: bool, broken: str) -> None:
        if not kept:
            raise AssertionError(f"{self.name} {broken}")


class SimulatedError(Exception):
    """Raised inside the model."""


class FailingLayer(nn.Module):
    """Counts the passes through it, and raises in one of them, on the way forward or back."""

    def __init__(self, error: type[BaseException] = SimulatedError, forward: int = 0, backward: int = 0):
        super().__init__()
        self.error, self.at = error, {"forward": forward, "backward": backward}
        self.met = {"forward": 0, "backward": 0}

    def meet(self, way: str) -> None:
        self.met[way] += 1
        if self.met[way] == self.at[way]:
            raise self.error

    def forward(self, x: Tensor) -> Tensor:
        self.meet("forward")
        passed: Tensor = _Passed.apply(x, self)
        return passed


class _Bounded(nn.Module):
    """Brings its weight into bounds in every pass, where it is already: it must be what it was, in value and memory."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -0.5]))

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = self.weight.data.clamp(-1, 1)
        return x * self.weight.sum() * 2


class _Passed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, trouble: FailingLayer) -> Tensor:
        ctx.trouble = trouble
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.trouble.meet("backward")
        return grad, None


def _check_traces(subject: _Subject, rank: int, inputs: Tensor, target: Tensor) -> None:
    """Nothing is left behind: in peace, by an exception or an interrupt, in the first pass or the last, either way."""
    counted = FailingLayer()
    with _unchanged(subject, SmallNet(rank, between=counted), inputs, "") as lent:
        subject(*lent, target)
    with _unchanged(subject, SmallNet(rank, between=_Bounded()), inputs, " of a model that writes it") as lent:
        subject(*lent, target, "on a model that writes into itself")
    for way, passes in counted.met.items():
        for error in (SimulatedError, KeyboardInterrupt):
            for place in sorted({1, passes}) if passes else ():
                model = SmallNet(rank, between=FailingLayer(error, **{way: place}))
                what = f" when {error.__name__.lstrip('_')} is raised in {way} pass {place}"
                with _unchanged(subject, model, inputs, what) as lent:
                    try:
                        explain(*lent, subject.formula, target=target)
                    except error:
                        continue
                    except Exception as other:
                        raise AssertionError(f"{subject.name} raises {type(other).__name__}{what}") from other
                    raise AssertionError(f"{subject.name} gives values even{what}")


@contextmanager
def _unchanged(subject: _Subject, model: nn.Module, inputs: Tensor, what: str) -> Iterator[tuple[nn.Module, Tensor]]:
    """Lends a model and an input with gradients of their own; raises unless both come back as they were."""
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    inputs = inputs.detach().clone().requires_grad_()
    inputs.grad = torch.ones_like(inputs)
    lent = [*model.modules(), *model.parameters(), *model.buffers()]  # held, so that no id is given out again
    before = state(model, inputs)
    yield model, inputs
    after = state(model, inputs)
    del lent
    for name in before | after:
        old, new = before.get(name), after.get(name)
        subject.demand(equal(old, new), f"{name}{what}")
