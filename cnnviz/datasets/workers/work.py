"""What backends hand to worker processes, and what these tell: the protocol of plugins in ``cnnviz.backends``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias


class RunError(Exception):
    """What a task or a job raises where all others would fail as well: the disk is full, the model is another."""


@dataclass(frozen=True)
class Task:
    """One shard that a worker computes and commits, or a part of it that is only tried."""

    shard: int
    left_out: Mapping[int, str] = field(default_factory=dict)
    """Items of the shard that are not asked, by their place in it, and why: they crashed a worker."""
    probe: tuple[int, ...] | None = None
    """Ask only these items and commit nothing: is one of them what kills workers?"""


class Job(Protocol):
    """What a worker process needs. It is pickled."""

    @property
    def device(self) -> str:
        """The kind of device that the run is computed on: "cpu" or "cuda"."""

    @property
    def threads(self) -> int:
        """How many threads a worker computes with."""

    def open(self, device: str | None = None) -> Callable[[Task], dict[str, Any]]:
        """Load the model, once in each worker process; ``device`` is this worker's own, such as "cuda:1".

        Returns what does one task after the other, and tells a summary of each, for JSON. Raises ValueError where the
        model is not the one of the run.
        """


@dataclass(frozen=True)
class Ready:
    """A worker has loaded the model."""

    worker: str


@dataclass(frozen=True)
class Done:
    """A task was done, its shard is committed."""

    task: Task
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Failed:
    """A task raised an error."""

    task: Task
    error: str
    fatal: bool = False
    """True where other tasks would fail as well: the disk is full, the model is another."""


@dataclass(frozen=True)
class Lost:
    """A worker died with a task; another worker has taken its place."""

    task: Task
    reason: str


Event: TypeAlias = Ready | Done | Failed | Lost


class Workers(Protocol):
    """Processes that do tasks."""

    def submit(self, task: Task) -> None:
        """Have a task done; never waits."""

    def events(self) -> Iterator[Event]:
        """What happens, until all tasks are settled; more may be submitted meanwhile.

        Raises RunError where no worker can start.
        """

    def stop(self, now: bool = False) -> None:
        """Begin no further task. Processes end: at once with ``now``, or where no task is in work.

        Without ``now``, what is in work is finished, and told by :meth:`events` as before; then it is called again.
        """
