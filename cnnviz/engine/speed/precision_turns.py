"""Questions that ask for different precisions take turns, since torch has one set of flags for all threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch

from cnnviz.engine.loans import Loan, question_of_thread
from cnnviz.engine.speed.tf32 import Float32, Tf32Flags


class PrecisionTurns:
    """Questions of one precision are answered side by side; those of another wait until these have ended.

    None is a precision too: the flags as the user set them. A thread that waits computes nothing meanwhile. So what is
    asked inside of its own question may change the flags, and no two threads can wait for each other.
    """

    def __init__(self, flags: Tf32Flags):
        self.flags = flags
        self._lock = threading.Lock()
        self._holds: dict[Loan, Float32 | None] = {}
        """What each question asked for, those of one thread from the outermost to the innermost."""
        self._waiting: dict[int, threading.Lock] = {}
        """Threads whose turn it is not, the first come first, each with a lock that is given back to wake it."""

    def enter(self, loan: Loan, wanted: Float32 | None) -> None:
        """Wait for the turn of this precision; None inside of another question takes that one's."""
        with self._lock:
            self._holds[loan] = self._wanted(loan.thread) if wanted is None else wanted
        self._wait(loan.thread)

    def leave(self, loan: Loan) -> None:
        """The question has ended. May be interrupted and called again."""
        with self._lock:
            self._holds.pop(loan, None)
            self._waiting.pop(loan.thread, None)
            if not self._active():
                self.flags.set(None)
            self._wake()
            inside = any(other.thread == loan.thread for other in self._holds)
        if inside:
            self._wait(loan.thread)

    def _wait(self, thread: int) -> None:
        try:
            while True:
                with self._lock:
                    if self._may_go(thread):
                        self.flags.set(self._wanted(thread))
                        return
                    if thread not in self._waiting:
                        self._waiting[thread] = threading.Lock()
                        self._wake()  # it no longer stands in the way of others
                    gate = self._waiting[thread]
                    gate.acquire(blocking=False)
                gate.acquire()
        finally:
            with self._lock:
                self._waiting.pop(thread, None)
                self._wake()

    def _may_go(self, thread: int) -> bool:
        if next(iter(self._waiting), thread) != thread:
            return False  # others came before
        return all(self._wanted(other) == self._wanted(thread) for other in self._active() - {thread})

    def _active(self) -> set[int]:
        return {loan.thread for loan in self._holds} - self._waiting.keys()

    def _wanted(self, thread: int) -> Float32 | None:
        return next((wanted for loan, wanted in reversed(self._holds.items()) if loan.thread == thread), None)

    def _wake(self) -> None:
        for gate in self._waiting.values():
            if gate.locked():
                gate.release()


@dataclass(frozen=True)
class _Turn:
    """A turn of one precision, as a loan holds it."""

    turns: PrecisionTurns
    wanted: Float32 | None

    def enter(self, loan: Loan) -> None:
        self.turns.enter(loan, self.wanted)

    def leave(self, loan: Loan) -> None:
        self.turns.leave(loan)


turns = PrecisionTurns(Tf32Flags())


def hold_precision(kind: str, precision: str | None) -> None:
    """Until this thread's question is answered, what float32 is computed in is as its precision says.

    On CUDA these are torch's flags. On any device a caller's autocast is set aside. Precisions below float32 leave both
    to the user, as None does.
    """
    question = question_of_thread()
    if question is None:
        return
    exact: Float32 | None = "float32" if precision == "float32" else "tf32" if precision == "tf32" else None
    if kind == "cuda":
        question.hold(_Turn(turns, exact))
    if exact is not None and torch.is_autocast_enabled(kind):
        torch.set_autocast_enabled(kind, False)  # the loan puts it back
