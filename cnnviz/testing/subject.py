"""The method that a kit checks, built with its settings, and the checks that every kind of method has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from cnnviz.engine.draws import seeds_met
from cnnviz.engine.nested import tensors
from cnnviz.registry.registry import Method, Registry
from cnnviz.testing.faults import FailingLayer, failing_nets
from cnnviz.testing.nets import SmallNet
from cnnviz.testing.state_snapshot import state, unchanged

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Subject:
    """A method with its settings."""

    name: str
    method: Any
    """What the method makes of its settings: a callable."""
    build: Method[Any] | None
    """The method without settings; None where only the callable is known."""
    settings: Mapping[str, Any]

    @classmethod
    def built(cls, registry: Registry[Any], method: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a subject. Raises TypeError for settings that the method does not have."""
        build = registry[method] if isinstance(method, str) else method
        if isinstance(build, Method):
            return {"name": build.name, "method": build(**settings), "build": build, "settings": settings}
        if settings:
            raise TypeError(f"{method!r} has its settings in it; give the method itself to check it with others")
        return {"name": getattr(build, "__name__", repr(build)), "method": build, "build": None, "settings": {}}

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
        given = list(tensors(list(self.settings.values())))

        def read() -> dict[str, Any]:
            held = {f"writes into the tensor {n} of its settings": each.clone() for n, each in enumerate(given)}
            return state(model, inputs) | held

        with unchanged(self.name, read, situation):
            yield inputs

    def check_failures(
        self,
        ask: Callable[[SmallNet, Tensor], T],
        rank: int,
        inputs: Tensor,
        gives: str,
        finished: Callable[[T], bool] | None = None,
        attention: bool = False,
    ) -> None:
        """Nothing is left behind by an exception or an interrupt, in the first pass or the last, and it is let through.

        Args:
            ask: gives the answer for a network and its inputs.
            rank: spatial dimensions.
            inputs: what the network is lent, of any shape.
            gives: the word for the answer.
            finished: whether an answer says that it is whole, for methods that may give a part when interrupted. None:
                whatever is given after an interrupt is wrong.
            attention: whether the network has an attention.
        """
        counted = FailingLayer()
        small = SmallNet(rank, between=counted, attention=attention)
        self.answer(lambda: ask(small, inputs), "on a small network")
        for failing, error, situation in failing_nets(rank, counted.passes, attention):
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


def has_a_page(subject: Subject) -> None:
    """The method has a docstring, which is its page."""
    subject.demand(subject.build is None or bool(subject.build.summary), "has no docstring, which is its page")


def refuses_settings_it_does_not_have(subject: Subject) -> None:
    """A setting that the method does not have is a TypeError that names it."""
    if subject.build is None:
        return
    try:
        subject.build(**subject.settings, no_such_setting=0)
    except TypeError as error:
        subject.demand("no_such_setting" in str(error), f"does not name the setting it refuses: {error}")
    else:
        subject.demand(False, "takes settings it does not have")


class _Seeds(torch.overrides.TorchFunctionMode):
    """Notes the seeds of torch's generators that random numbers are drawn from."""

    def __init__(self) -> None:
        super().__init__()
        self.met: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in (*args, *(kwargs or {}).values()):
            if isinstance(value, torch.Generator):
                self.met.add(value.initial_seed())
        return func(*args, **(kwargs or {}))


def check_seeds(subject: Subject, ask: Callable[[int], object], source: str) -> None:
    """Random numbers of no seed are drawn both times where ``ask`` is called with two seeds."""
    met = []
    for seed in (123, 124):
        with _Seeds() as seeds:
            noted = seeds_met.set(seeds.met)
            try:
                ask(seed)
            finally:
                seeds_met.reset(noted)
        met.append(seeds.met)
    subject.demand(not met[0] & met[1], f"draws the same whatever the seed; draw from {source}.draws")


def close(values: Tensor, expected: Tensor) -> bool:
    """True for tensors of one shape that differ by rounding at most."""
    peak = expected.detach().abs().max().item()
    return values.shape == expected.shape and torch.allclose(values, expected, rtol=1e-3, atol=1e-4 * peak)
