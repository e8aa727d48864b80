"""What is done again, what is looked for and what is left out when workers die."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator

import pytest

from cnnviz.datasets import Done, Event, Failed, Lost, RunError, Task
from cnnviz.datasets.prepared_run import in_order
from cnnviz.datasets.workers.bisection import Bisection
from cnnviz.datasets.workers.driver import Driver

SIZE = 16


class FakeWorkers:
    """Does tasks one by one, in this process; ``outcome`` says what comes of each."""

    def __init__(self, outcome: Callable[[Task], Event]):
        self.outcome = outcome
        self.waiting: deque[Task] = deque()
        self.tasks: list[Task] = []
        self.stopped: list[bool] = []

    def submit(self, task: Task) -> None:
        self.waiting.append(task)

    def events(self) -> Iterator[Event]:
        while self.waiting:
            self.tasks.append(self.waiting.popleft())
            yield self.outcome(self.tasks[-1])

    def stop(self, now: bool = False) -> None:
        self.stopped.append(now)
        self.waiting.clear()


def done(task: Task, failed: int = 0) -> Done:
    if task.probe is not None:
        return Done(task, {"shard": task.shard, "probe": len(task.probe)})
    return Done(task, {"shard": task.shard, "items": SIZE, "failed": failed, "error": "no picture" if failed else None})


def driver(workers: FakeWorkers) -> Driver:
    return Driver(workers, lambda shard: SIZE, lambda event: None, lambda: None, lambda shard: False)


def poisoned(poison: set[int]) -> Callable[[Task], Event]:
    """A worker dies of a shard or a probe in which one of these items is asked."""

    def outcome(task: Task) -> Event:
        asked = set(range(SIZE)) if task.probe is None else set(task.probe)
        return Lost(task, "SIGSEGV") if poison & (asked - set(task.left_out)) else done(task)

    return outcome


@pytest.mark.parametrize("poison", [{0}, {15}, {7}, {3, 4}, {0, 5, 15}, set(range(SIZE))], ids=str)
def test_items_that_kill_workers_are_found_and_left_out(poison: set[int]) -> None:
    workers = FakeWorkers(poisoned(poison))
    driving = driver(workers)
    driving.run([4])
    last = workers.tasks[-1]
    assert last.probe is None
    assert set(last.left_out) == poison
    assert driving.given_up == {}
    assert all("SIGSEGV" in reason for reason in last.left_out.values())
    if len(poison) == 1:  # two tries, two halvings for each of four levels, the item once more, and the shard
        assert len(workers.tasks) <= 2 + 2 * 4 + 1 + 1


@pytest.mark.parametrize("items", range(1, 8))
def test_bisection_finds_every_subset_in_any_order(items: int) -> None:
    for poison in itertools.chain.from_iterable(itertools.combinations(range(items), n) for n in range(items + 1)):
        bisection = Bisection(range(items))
        while not bisection.is_settled:
            for probe in reversed(bisection.take()):
                if set(probe) & set(poison):
                    bisection.killed(probe, "dead")
                else:
                    bisection.survived(probe)
        assert set(bisection.found) == set(poison)


def test_a_worker_that_was_killed_once_costs_its_shard_once_more() -> None:
    died: Counter[int] = Counter()

    def outcome(task: Task) -> Event:
        died[task.shard] += 1
        return Lost(task, "SIGKILL") if died[task.shard] == 1 else done(task)

    workers = FakeWorkers(outcome)
    driver(workers).run(range(5))
    assert Counter(task.shard for task in workers.tasks) == dict.fromkeys(range(5), 2)
    assert not any(task.left_out or task.probe for task in workers.tasks)


def test_an_innocent_item_is_not_blamed_for_one_death() -> None:
    """A worker that is killed from outside while one item is tried."""
    single: list[Task] = []

    def outcome(task: Task) -> Event:
        if task.probe is not None and len(task.probe) == 1:
            single.append(task)
            return Lost(task, "SIGKILL") if len(single) == 1 else done(task)
        return Lost(task, "SIGKILL") if task.probe is not None or len(single) == 0 else done(task)

    workers = FakeWorkers(outcome)
    driving = driver(workers)
    driving.run([0])
    assert workers.tasks[-1].left_out == {}
    assert driving.given_up == {}


def test_a_shard_that_dies_without_a_culprit_is_given_up() -> None:
    workers = FakeWorkers(lambda task: done(task) if task.probe is not None else Lost(task, "SIGKILL"))
    driving = driver(workers)
    driving.run([3])
    assert list(driving.given_up) == [3]
    assert "SIGKILL" in driving.given_up[3]


def test_a_shard_that_is_there_is_not_computed_again() -> None:
    workers = FakeWorkers(lambda task: Lost(task, "SIGKILL"))
    Driver(workers, lambda shard: SIZE, lambda event: None, lambda: None, lambda shard: True).run([0])
    assert len(workers.tasks) == 1


def test_a_fatal_failure_ends_the_run() -> None:
    workers = FakeWorkers(lambda task: Failed(task, "the disk is full", fatal=True))
    with pytest.raises(RunError, match="the disk is full"):
        driver(workers).run(range(9))
    assert len(workers.tasks) == 1
    assert workers.stopped == [True]


def test_an_error_is_tried_twice_and_costs_its_shard_alone() -> None:
    workers = FakeWorkers(lambda task: Failed(task, "RuntimeError: no") if task.shard == 1 else done(task))
    driving = driver(workers)
    driving.run(range(3))
    assert driving.given_up == {1: "RuntimeError: no"}
    assert Counter(task.shard for task in workers.tasks) == {0: 1, 1: 2, 2: 1}


def test_a_question_that_no_item_answers_ends_the_run_after_the_first_shard() -> None:
    workers = FakeWorkers(lambda task: done(task, failed=SIZE))
    with pytest.raises(RunError, match=r"none of the first 16 items could be explained: no picture"):
        driver(workers).run(range(9))
    again = driver(workers)
    again.answered = True
    again.run(range(3))


@pytest.mark.parametrize("strikes", [1, 2])
def test_ctrl_c_finishes_what_is_in_work_and_a_second_one_does_not(strikes: int) -> None:
    class Interrupted(FakeWorkers):
        times = 0

        def events(self) -> Iterator[Event]:
            self.times += 1
            if self.times <= strikes:
                raise KeyboardInterrupt
            yield from super().events()

    told: list[str] = []
    workers = Interrupted(done)
    driving = Driver(workers, lambda shard: SIZE, lambda event: None, lambda: told.append("told"), lambda shard: False)
    with pytest.raises(KeyboardInterrupt):
        driving.run(range(3))
    assert workers.stopped == [False, True]
    assert told == ["told"]


def test_several_processes_begin_with_their_own_shards_and_then_help() -> None:
    orders = [in_order(range(10), (rank, 3)) for rank in range(3)]
    assert orders[0][:4] == [0, 3, 6, 9]
    assert orders[1][:3] == [1, 4, 7]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert in_order([2, 5], None) == [2, 5]
