"""A job that backends are drilled with: its workers write down what they do, and crash where they are told to.

It needs nothing beyond the standard library, so that a worker starts fast.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnviz.datasets.workers.work import RunError, Task

LONGEST = 60.0
"""Seconds after which a task that waits to be let go fails."""


@dataclass(frozen=True)
class Drill:
    """A job without a model. What its workers do is read from files in its folder."""

    folder: str
    orders: Mapping[int, str] = field(default_factory=dict)
    """What happens at a shard: "kill" (its worker is killed), "kill once", "raise", "full" (the disk), "wait"."""
    opening: str = ""
    """What happens while a worker starts: "kill", or the words of a ValueError; empty: nothing."""
    device: str = "cpu"
    threads: int = 1

    def open(self, device: str | None = None) -> Callable[[Task], dict[str, Any]]:
        self._note("workers", os.getpid())
        if self.opening == "kill":
            _die()
        if self.opening:
            raise ValueError(self.opening)
        return self._do

    def workers(self) -> list[int]:
        """The processes that were started so far, of this machine."""
        return self._noted("workers")

    def begun(self) -> list[int]:
        """The shards that were begun so far, each as often as it was."""
        return self._noted("begun")

    def finished(self) -> list[int]:
        """The shards that were finished so far, each as often as it was."""
        return self._noted("finished")

    def let_go(self) -> None:
        """End the waiting of tasks."""
        Path(self.folder, "go").touch()

    def _do(self, task: Task) -> dict[str, Any]:
        before = self.begun().count(task.shard)
        self._note("begun", task.shard)
        match self.orders.get(task.shard):
            case "kill":
                _die()
            case "kill once" if not before:
                _die()
            case "raise":
                raise ValueError(f"shard {task.shard} can't be\ndone")
            case "full":
                raise RunError("the disk is full")
            case "wait":
                self._wait()
        self._note("finished", task.shard)
        return {"shard": task.shard, "left_out": dict(task.left_out), "probe": task.probe, "process": os.getpid()}

    def _wait(self) -> None:
        until = time.monotonic() + LONGEST
        while not Path(self.folder, "go").exists():
            if time.monotonic() > until:
                raise ValueError("nobody let it go")
            time.sleep(0.01)

    def _note(self, name: str, number: int) -> None:
        """One line in a file, in one piece: several processes write there."""
        descriptor = os.open(Path(self.folder, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, f"{number}\n".encode())
        finally:
            os.close(descriptor)

    def _noted(self, name: str) -> list[int]:
        path = Path(self.folder, name)
        return [int(line) for line in path.read_text().split()] if path.exists() else []


def ask_from_stdin() -> None:
    """Ask a backend for one task, both read from the standard input: a process to be killed."""
    method, drill = pickle.loads(sys.stdin.buffer.read())
    workers = method(drill)
    workers.submit(Task(0))
    list(workers.events())


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
