"""Drills whose workers do one more thing when they start. In a file of its own, which workers import in no time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cnnviz
from cnnviz.datasets import Task, Workers
from cnnviz.testing import Drill


@dataclass(frozen=True)
class OtherJob:
    """A drill whose workers do one more thing when they start."""

    drill: Drill
    device: str = "cpu"
    threads: int = 1

    def open(self, device: str | None = None) -> Callable[[Task], dict[str, Any]]:
        return self.drill.open(device)


class EndsByInterrupt(OtherJob):
    def open(self, device: str | None = None) -> Callable[[Task], dict[str, Any]]:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        return self.drill.open(device)


class LeavesAChild(OtherJob):
    def open(self, device: str | None = None) -> Callable[[Task], dict[str, Any]]:
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        with Path(self.drill.folder, "workers").open("a") as file:
            file.write(f"{child}\n")
        return self.drill.open(device)


def leaving_a_child(drill: Drill) -> Workers:
    """Local workers, each with a child that nobody knows of."""
    workers: Workers = cnnviz.backends["local"](workers=2)(LeavesAChild(drill))  # type: ignore[arg-type, assignment]
    return workers
