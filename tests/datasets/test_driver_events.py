"""Whatever workers do, in whatever order: every shard is settled once, and a run ends."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from cnnviz.datasets import Done, Event, Failed, Lost, Ready, Task
from cnnviz.datasets.workers.driver import Driver

SIZE = 8


class Chance:
    """Workers that do tasks in any order, and die, fail and are done by chance; some items kill or fail for sure."""

    def __init__(self, seed: int, deadly: set[tuple[int, int]], failing: set[tuple[int, int]], trouble: float):
        self.draw = random.Random(seed)
        self.deadly, self.failing, self.trouble = deadly, failing, trouble
        self.waiting: list[Task] = []
        self.committed: Counter[int] = Counter()
        self.left_out: dict[int, dict[int, str]] = {}
        self.tasks = 0

    def submit(self, task: Task) -> None:
        self.waiting.append(task)

    def events(self) -> Iterator[Event]:
        while self.waiting:
            self.tasks += 1
            assert self.tasks < 20_000, "the run does not end"
            task = self.waiting.pop(self.draw.randrange(len(self.waiting)))
            if self.draw.random() < 0.1:
                yield Ready("worker")
            yield self.outcome(task)

    def outcome(self, task: Task) -> Event:
        asked = {(task.shard, slot) for slot in (range(SIZE) if task.probe is None else task.probe)}
        asked -= {(task.shard, slot) for slot in task.left_out}
        chance = self.draw.random()
        if asked & self.deadly or chance < self.trouble / 2:
            if chance < self.trouble / 8 and task.probe is None and not asked & self.deadly:
                self.commit(task)  # it died behind the commit
            return Lost(task, "SIGKILL")
        if asked & self.failing or chance < self.trouble:
            return Failed(task, "MemoryError")
        if task.probe is not None:
            return Done(task, {"shard": task.shard, "probe": len(task.probe)})
        there = task.shard in self.committed
        self.commit(task)
        return Done(task, {"shard": task.shard, "items": SIZE, "failed": len(task.left_out), "there": there})

    def commit(self, task: Task) -> None:
        if task.shard not in self.committed:
            self.committed[task.shard] += 1
            self.left_out[task.shard] = dict(task.left_out)

    def stop(self, now: bool = False) -> None:
        self.waiting.clear()


def driven(workers: Chance, shards: range) -> Driver:
    driver = Driver(workers, lambda shard: SIZE, lambda event: None, lambda: None, workers.committed.__contains__)
    driver.answered = True
    driver.run(shards)
    assert not driver.states
    assert not set(driver.given_up) & set(workers.committed)
    assert set(driver.given_up) | set(workers.committed) == set(shards)
    assert not workers.waiting
    return driver


@pytest.mark.parametrize("trouble", [0.02, 0.3, 0.9, 1.0])
def test_every_shard_is_settled_once_under_any_events(trouble: float) -> None:
    for seed in range(25):
        draw = random.Random(f"{seed} {trouble}")
        deadly = {(draw.randrange(6), draw.randrange(SIZE)) for _ in range(draw.randrange(4))}
        failing = {(draw.randrange(6), draw.randrange(SIZE)) for _ in range(draw.randrange(3))}
        workers = Chance(seed, deadly, failing, trouble)
        driven(workers, range(6))
        for shard, left_out in workers.left_out.items():
            assert {slot for owner, slot in deadly if owner == shard} <= set(left_out)


def test_without_chance_exactly_the_deadly_items_are_left_out() -> None:
    for seed in range(20):
        draw = random.Random(seed)
        deadly = {(draw.randrange(6), draw.randrange(SIZE)) for _ in range(5)}
        workers = Chance(seed, deadly, set(), 0)
        assert driven(workers, range(6)).given_up == {}
        assert {(shard, slot) for shard, slots in workers.left_out.items() for slot in slots} == deadly
