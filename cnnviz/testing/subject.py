"""The method that a kit checks, built with its settings, and the promises that several kinds of methods make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from cnnviz.registry.registry import Method, Registry
from cnnviz.testing.faults import FailingLayer, failing_nets
from cnnviz.testing.nets import SmallNet
from cnnviz.testing.state_snapshot import state, unchanged

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """A method with its settings."""

    name: str
    method: Any

    @classmethod
    def of(cls, registry: Registry[Any], method: Any, settings: dict[str, Any]) -> Subject:
        """The method built with its settings. Raises AssertionError unless it refuses a setting it does not have."""
        build: Callable[..., Any] = registry[method] if isinstance(method, str) else method
        if not isinstance(build, Method):
            if settings:
                raise TypeError(f"{method!r} has its settings in it; give the method itself to check it with others")
            return cls(getattr(build, "__name__", repr(build)), build)
        if not build.summary:
            raise AssertionError(f"{build.name} has no docstring, which is its page")
        try:
            build(**settings, no_such_setting=0)
        except TypeError as error:
            if "no_such_setting" not in str(error):
                raise AssertionError(f"{build.name} does not name the setting it refuses: {error}") from error
        else:
            raise AssertionError(f"{build.name} takes settings it does not have")
        return cls(build.name, build(**settings))

    def demand(self, kept: bool, broken: str) -> None:
        """Raise AssertionError with the words for the broken promise, unless it is kept."""
        if not kept:
            raise AssertionError(f"{self.name} {broken}")

    def answer(self, ask: Callable[[], T], situation: str) -> T:
        """What the method gives. Raises AssertionError where it fails."""
        try:
            return ask()
        except Exception as error:
            raise AssertionError(f"{self.name} fails {situation}: {type(error).__name__}: {error}") from error

    def answer_or_refusal(self, ask: Callable[[], T], what: str, faults: Sequence[str] = ()) -> T | None:
        """What the method gives, or None where it refuses in one line (ValueError).

        A ValueError that holds one of ``faults`` is no refusal. Raises AssertionError for it, and where the method
        fails.
        """
        try:
            return ask()
        except ValueError as error:
            if not str(error) or "\n" in str(error):
                raise AssertionError(f"{self.name} refuses {what} without saying why in one line: {error!r}") from error
            if any(fault in str(error) for fault in faults):
                raise AssertionError(f"{self.name} on {what}: {error}") from error
            return None
        except Exception as error:
            raise AssertionError(f"{self.name} fails on {what}: {type(error).__name__}: {error}") from error

    @contextmanager
    def unchanged(self, model: SmallNet, inputs: Tensor, situation: str = "") -> Iterator[Tensor]:
        """Lend the inputs with a gradient of their own, as the model has; both and torch must stay as they are."""
        for weight in model.parameters():
            weight.grad = torch.ones_like(weight)
        inputs = inputs.detach().clone().requires_grad_()
        inputs.grad = torch.ones_like(inputs)
        with unchanged(self.name, lambda: state(model, inputs), situation):
            yield inputs

    def check_unchanged(
        self,
        ask: Callable[[SmallNet, Tensor], T],
        rank: int,
        inputs: Tensor,
        gives: str,
        finished: Callable[[T], bool] | None = None,
    ) -> None:
        """Nothing is left behind: without a failure, by an exception or an interrupt, in the first pass or the last.

        Args:
            ask: gives the answer for a network and its inputs.
            rank: spatial dimensions.
            inputs: what the network is lent, of any shape.
            gives: the word for the answer.
            finished: whether an answer says that it is whole, for methods that may give a part when interrupted. None:
                whatever is given after an interrupt is wrong.
        """
        counted = FailingLayer()
        model = SmallNet(rank, between=counted)
        with self.unchanged(model, inputs) as lent:
            self.answer(lambda: ask(model, lent), "on a small network")
        for failing, error, situation in failing_nets(rank, counted.passes):
            with self.unchanged(failing, inputs, situation) as lent:
                try:
                    answer = ask(failing, lent)
                except error:
                    continue
                except Exception as other:
                    raise AssertionError(f"{self.name} raises {type(other).__name__}{situation}") from other
            interrupted = error is KeyboardInterrupt and finished is not None
            self.demand(interrupted, f"gives {gives} even{situation}")
            self.demand(finished is None or not finished(answer), f"says it is finished{situation}")

    def check_reproducible(
        self, ask: Callable[[SmallNet, str], Tensor], answer: Tensor, rank: int, other: str, source: str
    ) -> None:
        """The same answer for the same weights, wherever it is asked for, and another for other weights.

        Args:
            ask: gives the answer for a network, in a situation.
            answer: of a ``SmallNet`` of that rank.
            rank: spatial dimensions.
            other: the words for an answer that is not the same.
            source: where the method should draw from.
        """

        def same(situation: str, again: Tensor) -> None:
            self.demand(close(again, answer), f"{other} {situation}")

        plainly = "on a small network"
        torch.rand(1)  # what is drawn from torch's global generator is something else from now on
        same(f"when asked again with one seed; draw from {source}.generator", ask(SmallNet(rank), plainly))
        self.demand(not close(ask(SmallNet(rank, seed=1), plainly), answer), "ignores the model's weights")
        model = SmallNet(rank)
        for where, mode in (("torch.no_grad()", torch.no_grad()), ("torch.inference_mode()", torch.inference_mode())):
            with mode:
                same(f"inside {where}", ask(model, f"inside {where}"))
        same("when weights are frozen", ask(model.requires_grad_(False), "when weights are frozen"))
        precise = ask(SmallNet(rank).double(), "in float64")
        self.demand(precise.dtype == torch.float64, f"gives {precise.dtype} for a model in float64")


def close(values: Tensor, expected: Tensor) -> bool:
    """True for tensors of one shape that differ by rounding at most."""
    peak = expected.detach().abs().max().item()
    return values.shape == expected.shape and torch.allclose(values, expected, rtol=1e-3, atol=1e-4 * peak)
