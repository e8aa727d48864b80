"""What the explorer takes and keeps at most, so that nothing that a page sends fills the memory."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import Generic, TypeVar

UPLOAD = 32 * 2**20
"""Bytes of a picture's file."""
QUESTION = 16 * 2**10
"""Bytes of anything else that is sent."""
WAITING = 8
"""Jobs that wait or run."""
METHODS = 64
"""Methods and formulas of one job."""
PASSES = 1_000_000
"""Inputs that one method of a job may pass through the model."""
PICTURES, PICTURE_BYTES = 8, 512 * 2**20
JOBS, JOB_BYTES = 32, 1024 * 2**20
"""How many pictures and jobs are kept, and how much memory they take. The newest one is always kept."""

T = TypeVar("T")


class Refused(Exception):
    """A request that is not done, with the status of the answer and one line that says why."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


class Kept(Generic[T]):
    """The newest things, under names that nobody guesses. The oldest are dropped where there are too many."""

    def __init__(self, what: str, most: int, most_bytes: int):
        self.what, self.most, self.most_bytes = what, most, most_bytes
        self._things: OrderedDict[str, T] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._dropped: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, thing: T, size: int = 0) -> str:
        """Keep it; returns its name."""
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._things[name], self._sizes[name] = thing, size
            self._drop()
        return name

    def grown(self, name: str, size: int) -> None:
        """Say that one of them takes more memory by now."""
        with self._lock:
            if name in self._sizes:
                self._sizes[name] = size
                self._drop()

    def __getitem__(self, name: str) -> T:
        """Raises Refused: 410 for what was dropped, 404 for what never was."""
        with self._lock:
            if name in self._things:
                return self._things[name]
            if name in self._dropped:
                raise Refused(410, f"this {self.what} is not kept any more: there were newer ones; ask for it again")
        raise Refused(404, f"there is no such {self.what}")

    def __len__(self) -> int:
        return len(self._things)

    def _drop(self) -> None:
        while len(self._things) > 1 and (len(self._things) > self.most or sum(self._sizes.values()) > self.most_bytes):
            name, _ = self._things.popitem(last=False)
            del self._sizes[name]
            self._dropped[name] = None
            if len(self._dropped) > 1000:
                self._dropped.popitem(last=False)
