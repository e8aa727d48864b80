"""A model is borrowed: what a question or a pass sets on it and in torch is taken back, however it ends.

A loan is a question, or one pass of it. Loans of one thread lie inside of each other: a hook or a target function of
the user's may ask another question. A hook belongs to a pass: it acts while that is the innermost loan of its thread.
"""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

from torch import nn

from cnnviz.engine.module_state import Bindings
from cnnviz.engine.thread_state import ThreadState, let_go

P = ParamSpec("P")
T = TypeVar("T")


class _Here(threading.local):
    def __init__(self) -> None:
        self.loans: list[Loan] = []
        """Of this thread, the innermost last."""


_here = _Here()

# torch numbers hooks without a lock: two threads could be given one number, and one hook would replace the other
_numbering = threading.Lock()

_WAITING = ("threading", "queue", "concurrent.futures", "multiprocessing")


class Held(Protocol):
    """What a loan enters, and leaves when it ends."""

    def enter(self, loan: Loan) -> None:
        """Held by one more loan."""

    def leave(self, loan: Loan) -> None:
        """No longer held by this loan. May be interrupted and called again, also where ``enter`` was interrupted."""


class Setting(ABC):
    """What torch has once for all threads: the first loan that holds it changes it, and the last one restores it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside: set[Loan] = set()

    def enter(self, loan: Loan) -> None:
        """Held by one more loan."""
        with self.lock:
            self.inside.add(loan)
            self.change()

    def leave(self, loan: Loan) -> None:
        """No longer held by this loan. May be interrupted and called again."""
        if loan in self.inside:
            with self.lock:
                if self.inside == {loan}:
                    self.restore()
                self.inside.discard(loan)

    @abstractmethod
    def change(self) -> None:
        """Does nothing where it is changed already."""

    @abstractmethod
    def restore(self) -> None:
        """May follow a change that was interrupted; may be interrupted and called again."""


class Loan:
    """Notes how things are, and changes nothing. ``begin`` makes it the innermost loan of its thread; ``end`` ends it.

    ``end`` must be called twice, each time by a ``finally`` of its own: an interruption of the first call is met by
    the second.
    """

    def __init__(self) -> None:
        self.state, self.thread, self.ended = ThreadState(), threading.get_ident(), False
        self.elsewhere: set[str] = set()
        """Layers with a hook that ran in another thread, for which this one waited."""
        self._outer = [*_here.loans]
        self._hooks: dict[Callable[..., Any], nn.Module] = {}
        self._bindings: dict[nn.Module, Bindings] = {}
        self._settings: list[Held] = []

    def begin(self) -> None:
        """Become the innermost loan. What a pass around it has entered is set aside."""
        _here.loans.append(self)
        around = next((loan for loan in self._outer if not isinstance(loan, Question)), None)
        if around is not None:
            around.state.restore_modes()

    def hook(self, register: Callable[[Any], Any], module: nn.Module, name: str, hook: Callable[..., Any]) -> None:
        """Set a hook that acts while this is the innermost loan of its thread. Others may run the model meanwhile."""

        def only_here(*args: Any) -> Any:
            if _here.loans:
                return hook(*args) if _here.loans[-1] is self else None
            if name and name not in self.elsewhere and self._waits():
                self.elsewhere.add(name)
            return None

        self._hooks[only_here] = module
        with _numbering:
            register(only_here)

    def keep(self, model: nn.Module, containers: bool = True) -> None:
        """Give names of this model what they hold now, when the loan ends; ``containers``: and lists and dicts."""
        if model not in self._bindings:
            self._bindings[model] = Bindings(model, containers)

    def hold(self, setting: Held) -> None:
        """Change what torch has for all threads until this and every other loan that holds it have ended."""
        self._settings.append(setting)
        setting.enter(self)

    def holds(self, model: nn.Module, kinds: tuple[type, ...]) -> bool:
        """True if a module of this model, of which something is kept here, has an attribute of these types."""
        return model in self._bindings and any(isinstance(value, kinds) for value in self._bindings[model].kept)

    def end(self) -> None:
        """Take back everything. Does nothing the second time, unless the first was interrupted."""
        if self.ended:
            return
        for hook, module in [*self._hooks.items()]:
            for hooks in (module._forward_hooks, module._forward_pre_hooks):
                for number in [number for number, other in [*hooks.items()] if other is hook]:
                    del hooks[number]
            del self._hooks[hook]
        for setting in self._settings:
            setting.leave(self)
        self.state.restore()
        for bindings in self._bindings.values():
            bindings.restore()
        _here.loans[:] = self._outer
        self.ended = True

    def _waits(self) -> bool:
        """True if this loan's thread waits for another one."""
        frame = sys._current_frames().get(self.thread)
        return frame is not None and str(frame.f_globals.get("__name__")).startswith(_WAITING)


def question_of_thread() -> Loan | None:
    """The innermost question of this thread, for what is kept until that is answered."""
    return next((loan for loan in reversed(_here.loans) if isinstance(loan, Question)), None)


@contextmanager
def lent(within: AbstractContextManager[object]) -> Iterator[None]:
    """A context ``within`` which modes see what reads a pass; they do not see questions that are asked meanwhile."""
    loan = Loan()
    try:
        try:
            loan.begin()
            with within:
                yield
        finally:
            loan.end()
    finally:
        loan.end()


def loans_of_thread() -> int:
    """How many loans of this thread lie inside of each other."""
    return len(_here.loans)


class Question(Loan):
    """The loan of a whole question."""


def borrows(ask: Callable[P, T]) -> Callable[P, T]:
    """A function that asks questions: however it ends, the model and torch are as they were."""

    @wraps(ask)
    def asked(*args: P.args, **kwargs: P.kwargs) -> T:
        loan = Question()
        try:
            try:
                loan.begin()
                return ask(*args, **kwargs)
            except BaseException as error:
                let_go(error)
                raise
            finally:
                loan.end()
        finally:
            loan.end()

    return asked
