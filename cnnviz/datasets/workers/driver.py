"""Hands shards to workers until all are committed; decides what is done again, and what is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cnnviz.datasets.workers.bisection import Bisection
from cnnviz.datasets.workers.work import Done, Event, Failed, Lost, RunError, Task, Workers

TRIES = 2
"""How often a whole shard is tried before the items that kill its workers are looked for."""
FEW = 4
"""So many items that failed, and none before them that was answered, show that the question is wrong."""
ROUNDS = 3
"""How often items are looked for in one shard."""

Listener = Callable[[Event], None]


@dataclass(eq=False)
class ShardState:
    """How it stands with a shard that is not committed."""

    lost: int = 0
    """How many workers died with it as a whole, since items were last left out."""
    rounds: int = 0
    left_out: dict[int, str] = field(default_factory=dict)
    bisection: Bisection | None = None
    failed: int = 0


@dataclass(eq=False)
class Driver:
    """Work on shards by workers of any backend."""

    workers: Workers
    size_of: Callable[[int], int]
    """How many items a shard has."""
    listener: Listener
    """Is told of each event."""
    interrupted: Callable[[], None]
    """Is called at the first Ctrl-C."""
    is_there: Callable[[int], bool]
    """Whether a shard is committed, by whomever."""

    def __post_init__(self) -> None:
        self.states: dict[int, ShardState] = {}
        self.given_up: dict[int, str] = {}
        """The shards that were not committed, and why."""
        self.answered = False
        """True once an item was answered."""
        self._unanswered = 0
        """How many items failed before one was answered."""
        self._items = 0
        """How many all shards have."""

    def run(self, shards: Iterable[int]) -> None:
        """Have them all committed, or given up. Raises RunError where all of them would fail.

        After Ctrl-C what is in work is finished; after a second one, nothing. KeyboardInterrupt is raised then.
        """
        for shard in shards:
            self.states[shard] = ShardState()
            self._items += self.size_of(shard)
            self.workers.submit(Task(shard))
        try:
            try:
                self._follow()
            except KeyboardInterrupt:
                self.interrupted()
                self.workers.stop()
                self._follow()
                raise
        except BaseException:
            self.workers.stop(now=True)
            raise
        self.workers.stop()

    def _follow(self) -> None:
        for event in self.workers.events():
            if isinstance(event, Done):
                self._done(event)
            elif isinstance(event, Lost):
                self._lost(event.task, event.reason)
            elif isinstance(event, Failed):
                self._failed(event)
            self.listener(event)

    def _done(self, event: Done) -> None:
        task, summary = event.task, event.summary
        state = self.states.get(task.shard)
        if state is None:
            return
        if task.probe is not None:
            if state.bisection is not None:
                state.bisection.survived(task.probe)
                self._go_on(task.shard, state)
            return
        del self.states[task.shard]
        self._check_answered(summary)

    def _check_answered(self, summary: Mapping[str, Any]) -> None:
        """Raises RunError where the first items show that the question itself is wrong."""
        measured = not summary.get("unmeasured")
        if summary.get("there") or (summary["failed"] < summary["items"] and measured):
            self.answered = True
        elif not self.answered:
            self._unanswered += summary["items"]
            if self._unanswered >= min(FEW, self._items):
                failed = "explained" if measured else "measured"
                reason = summary["error"] if measured else summary["unmeasured"]
                raise RunError(
                    f"none of the first {self._unanswered} items could be {failed}: {reason}; "
                    "if that is to be so, run the same again, which goes on; another question needs another folder"
                )

    def _lost(self, task: Task, reason: str) -> None:
        state = self.states.get(task.shard)
        if state is None:
            return
        if task.probe is not None and state.bisection is not None:
            state.bisection.killed(task.probe, f"it kills the worker: {reason}")
            self._go_on(task.shard, state)
            return
        if self.is_there(task.shard):  # it died behind the commit
            del self.states[task.shard]
            return
        state.lost += 1
        if state.lost < TRIES:
            self.workers.submit(task)
        elif state.rounds < ROUNDS:
            state.rounds += 1
            state.bisection = Bisection([x for x in range(self.size_of(task.shard)) if x not in state.left_out])
            self._go_on(task.shard, state)
        else:
            self._give_up(task.shard, f"{state.lost} workers died with it ({reason})")

    def _go_on(self, shard: int, state: ShardState) -> None:
        """The next probes, or the shard itself once all are made."""
        bisection = state.bisection
        if bisection is None:
            return
        for probe in bisection.take():
            self.workers.submit(Task(shard, dict(state.left_out), probe))
        if bisection.is_settled:
            state.left_out |= bisection.found
            # where no item by itself kills a worker, the shard is tried once more as it is
            state.lost, state.bisection = (0 if bisection.found else TRIES - 1), None
            if not bisection.found:
                state.rounds = ROUNDS
            self.workers.submit(Task(shard, dict(state.left_out)))

    def _failed(self, event: Failed) -> None:
        if event.fatal:
            raise RunError(event.error)
        state = self.states.get(event.task.shard)
        if state is None:
            return
        if event.task.probe is not None:
            if state.bisection is not None:  # one of its items is at fault
                state.bisection.killed(event.task.probe, event.error)
                self._go_on(event.task.shard, state)
            return
        state.failed += 1
        if state.failed < TRIES:
            self.workers.submit(event.task)
        else:
            self._give_up(event.task.shard, event.error)

    def _give_up(self, shard: int, reason: str) -> None:
        del self.states[shard]
        self.given_up[shard] = reason
