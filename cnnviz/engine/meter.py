"""How far a long question is: counted where variants are passed in chunks, and told to whoever asked for it.

Without a listener nothing is counted. The unit is one input passed through the model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[int, int], object]
"""Called with how many inputs are passed and how many there will be, as far as that is known by then."""


class Stage:
    """A part of a question, of so many inputs."""

    def __init__(self, meter: _Meter, total: int, shared: bool):
        self._meter, self._begin, self._end = meter, meter.total, meter.total + total
        self._until = self._end
        self.shared = shared
        """True while parts inside of it advance it, and not its own steps."""
        meter.total = self._end

    def advance(self, inputs: int) -> None:
        """So many more are passed."""
        self._tell(min(self._meter.done + inputs, self._until))

    def turn(self, begin: int, end: int) -> None:
        """What is passed next are those from ``begin`` to ``end``, however often: some are computed twice."""
        self._until = self._begin + end
        self._tell(self._begin + begin)

    def end(self) -> None:
        """All of it is done, also where fewer passes were needed."""
        self._tell(self._end)

    def _tell(self, done: int) -> None:
        if done > self._meter.done:
            self._meter.tell(done)


class _Meter:
    def __init__(self, listener: Listener):
        self.listener = listener
        self.done = self.total = 0
        self.stage: Stage | None = None

    def tell(self, done: int) -> None:
        self.done = done
        self.listener(done, self.total)


class _Here(threading.local):
    meter: _Meter | None = None


_here = _Here()


@contextmanager
def metered(listener: Listener | None) -> Iterator[None]:
    """What this thread passes within is told to the listener, and at its end that all is done.

    Without a listener nothing within is told to anybody: a hook may ask a question of its own.
    """
    if listener is None and _here.meter is None:
        yield
        return
    outer, meter = _here.meter, _Meter(listener) if listener else None
    try:
        _here.meter = meter
        yield
        if meter is not None and not meter.total:  # a single pass, of which nothing is told on the way
            meter.total = 1
            meter.tell(1)
    finally:
        _here.meter = outer


@contextmanager
def stage(total: int, shared: bool = False) -> Iterator[Stage | None]:
    """A part of so many inputs; None where nobody listens, or where it lies in a part that counts for itself.

    ``shared``: parts inside of it advance it.
    """
    meter = _here.meter
    if meter is None:
        yield None
    elif meter.stage is None:
        meter.stage = Stage(meter, total, shared)
        try:
            yield meter.stage
            meter.stage.end()
        finally:
            meter.stage = None
    elif meter.stage.shared and not shared:
        around = meter.stage
        around.shared = False  # what lies inside of this part is counted by its steps
        try:
            yield around
        finally:
            around.shared = True
    else:
        yield None
