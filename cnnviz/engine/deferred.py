"""Values that Python needs from a device: read at once, or gathered and read together when a question is answered.

A GPU works while Python goes on. Whoever reads one value waits until all that was handed to the device is done. So,
while a question defers, a condition becomes a flag on the device, and Python goes on as if the flag had the expected
value. One read at the end tells of all flags. Where one is otherwise, the question is answered again, and knows that
value from the start.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class _Here(threading.local):
    deferred: Deferred | None = None


_here = _Here()

MOST_ROUNDS = 16
"""How often a question is answered with what was found out; then values are read at once."""


@dataclass(frozen=True)
class _Told:
    """A warning; equal ones are told once."""

    text: str
    category: type[Warning]


@dataclass(frozen=True, eq=False)
class _Flag:
    value: Tensor
    expected: bool
    otherwise: Callable[[], _Told | None] | None
    """Where the value is not as expected: raises, or gives what is told; None for an assumption."""


class Deferred:
    """The flags of one answer, in the order in which they were met.

    Args:
        known: the values of its first assumptions, from an answer before.
        like: of an answer before, whose assumptions are expected to hold again, and whose values are on the device.
    """

    def __init__(self, known: Sequence[bool] = (), like: Deferred | None = None):
        self.known = known
        self.values: list[bool] = []
        """What the assumptions were answered with."""
        self.uploads: list[tuple[bytes, Tensor]] = []
        """Values of the host that were copied to the device, and where they are there."""
        self._like = like
        self._flags: list[_Flag] = []

    def note(self, value: Tensor, expected: bool, otherwise: Callable[[], _Told | None] | None) -> None:
        """One more flag."""
        self._flags.append(_Flag(value.detach().reshape(()), expected, otherwise))

    def assume(self, value: Tensor, expected: bool) -> bool:
        """The value if it is known, else the expected one."""
        number = len(self.values)
        if number < len(self.known):
            expected = self.known[number]
        elif self._like is not None and number < len(self._like.values):
            expected = self._like.values[number]
        self.values.append(expected)
        self.note(value, expected, None)  # also what is known: the question may have taken another way
        return expected

    def upload(self, values: Tensor, device: torch.device) -> Tensor:
        """The values on the device; those of an answer before, if they are equal."""
        number, content = len(self.uploads), _content(values)
        before = self._like.uploads[number : number + 1] if self._like else []
        there = next((there for known, there in before if known == content), None)
        self.uploads.append((content, _copied(values, device) if there is None else there))
        return self.uploads[-1][1]

    def surprises(self) -> Tensor | None:
        """True for each flag that is not as expected, (flags,), on the device; None if there are no flags."""
        wrong = [flag.value != flag.expected for flag in self._flags]
        if not wrong:
            return None
        device = wrong[0].device  # parts of a model may be elsewhere
        return torch.stack([each if each.device == device else each.to(device) for each in wrong])

    def settle(self, surprises: Sequence[bool]) -> Sequence[bool] | None:
        """Act on what was read: None if the answer holds, else the values that are known when it is found again.

        Raises what a requirement raises that was met before any wrong assumption.
        """
        known: list[bool] = []
        wrong: list[Callable[[], _Told | None]] = []
        for flag, is_wrong in zip(self._flags, surprises, strict=True):
            if flag.otherwise is not None:
                wrong += [flag.otherwise] * is_wrong
                continue
            known.append(flag.expected != is_wrong)
            if is_wrong:
                break
        else:
            known = []
        told = [act() for act in wrong]  # which raises what was required first
        if known:
            return known
        for each in dict.fromkeys(filter(None, told)):
            warnings.warn(each.text, each.category, stacklevel=5)
        return None


def require(flag: Tensor, otherwise: Callable[[], None]) -> None:
    """Call ``otherwise``, which raises, if the flag is false: now, or when the question is answered.

    Args:
        flag: a bool tensor with one value, of any shape, on any device.
        otherwise: raises what is wrong.
    """
    if _here.deferred is not None:
        _here.deferred.note(flag, True, otherwise)
    elif not bool(flag):
        otherwise()


def tell_if(flag: Tensor, text: Callable[[], str], category: type[Warning] = UserWarning) -> None:
    """Warn if the flag is true: now, or when the question is answered.

    Args:
        flag: a bool tensor with one value, of any shape, on any device.
        text: what is told.
        category: of the warning.
    """
    if _here.deferred is not None:
        _here.deferred.note(flag, False, lambda: _Told(text(), category))
    elif bool(flag):
        warnings.warn(text(), category, stacklevel=3)


def assumed(flag: Tensor, expected: bool = True) -> bool:
    """The flag's value; while a question defers, the expected one, unless it is known from an answer before."""
    return bool(flag) if _here.deferred is None else _here.deferred.assume(flag, expected)


def reads_at_once() -> bool:
    """True if values may be read now; False while a question defers."""
    return _here.deferred is None


def uploaded(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of any shape from the host on the device, copied while both go on."""
    return _copied(values, device) if _here.deferred is None else _here.deferred.upload(values, device)


def _content(values: Tensor) -> bytes:
    """The bytes of a tensor of the host, and what they are."""
    raw = values.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
    return f"{values.dtype} {tuple(values.shape)} ".encode() + raw


def _copied(values: Tensor, device: torch.device) -> Tensor:
    # from pinned memory the copy does not wait, and torch keeps that memory until the copy is through
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


@contextmanager
def deferring(deferred: Deferred | None) -> Iterator[None]:
    """Gather flags there, in this thread; None: read them at once."""
    outer, _here.deferred = _here.deferred, deferred
    try:
        yield
    finally:
        _here.deferred = outer


def settled(answer: Callable[[], T], defers: bool) -> T:
    """What ``answer`` returns, which is called again where something was not as expected.

    An error may follow from what was expected wrongly: then that is what is raised, or corrected.
    """
    if defers:
        return rehearsed(answer)[0]
    with deferring(None):
        return answer()


def rehearsed(answer: Callable[[], T]) -> tuple[T, Deferred]:
    """What ``answer`` returns while it defers, called again until all is as expected; and its flags."""
    known: Sequence[bool] | None = ()
    for _ in range(MOST_ROUNDS):
        deferred, failure = Deferred(known or ()), None
        try:
            with deferring(deferred):
                found = answer()
        except Exception as error:
            failure = error
        surprises = deferred.surprises()
        known = None if surprises is None else deferred.settle(surprises.tolist())
        if known is None and failure is not None:
            raise failure
        if known is None:
            return found, deferred
    with deferring(None):  # a question that takes another way each time
        return answer(), Deferred()
