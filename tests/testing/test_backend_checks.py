"""Each check of a backend finds what is broken on purpose, and a backend that is right keeps all of them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

import pytest
from drills import EndsByInterrupt, LeavesAChild, leaving_a_child

import cnnviz
from cnnviz import Backend, backend
from cnnviz.datasets import Done, Event, Failed, Job, Lost, Ready, RunError, Task, Workers, attempt, error_line
from cnnviz.testing import backend_subject, check_backend
from cnnviz.testing import backends as kit
from cnnviz.testing.backend_subject import BackendSubject

Check = Callable[[BackendSubject], None]


class OneThread:
    """One thread of this process."""

    def __init__(self, job: Job):
        self.job, self.pool = job, ThreadPoolExecutor(1)
        self.work: Callable[[Task], dict[str, Any]] | None = None
        self.waiting: deque[Task] = deque()
        self.in_work: set[Future[Done | Failed]] = set()
        self.stopping = False

    def submit(self, task: Task) -> None:
        if not self.stopping:
            self.waiting.append(task)

    def events(self) -> Iterator[Event]:
        if self.work is None:
            try:
                self.work = self.pool.submit(self.job.open).result()
            except ValueError as error:
                raise RunError(error_line(error)) from error
            yield Ready("one thread")
        while self.waiting or self.in_work:
            if not self.in_work:
                self.in_work = {self.pool.submit(attempt, self.work, self.waiting.popleft())}
            wait(self.in_work, return_when=FIRST_COMPLETED)
            yield self.in_work.pop().result()

    def stop(self, now: bool = False) -> None:
        self.stopping = True
        self.waiting.clear()
        self.pool.shutdown(wait=not self.in_work)


@backend
def one_thread() -> Backend:
    """One thread of this process."""
    return OneThread


class Changed:
    """Workers of another backend, some of whose doings are changed."""

    def __init__(self, inner: Workers):
        self.inner = inner

    def submit(self, task: Task) -> None:
        self.inner.submit(task)

    def events(self) -> Iterator[Event]:
        return self.inner.events()

    def stop(self, now: bool = False) -> None:
        self.inner.stop(now)


def all_told(workers: Workers, tell: Callable[[Event], list[Event]]) -> Iterator[Event]:
    for event in workers.events():
        yield from tell(event)


class TellsTwice(Changed):
    def events(self) -> Iterator[Event]:
        return all_told(self.inner, lambda event: [event, event])


class TellsNothingOfOne(Changed):
    def events(self) -> Iterator[Event]:
        return all_told(self.inner, lambda event: [] if isinstance(event, Done) and event.task.shard == 5 else [event])


class ForgetsWhatIsLeftOut(Changed):
    """Tells what was asked, and does something else."""

    def __init__(self, inner: Workers):
        super().__init__(inner)
        self.given: list[tuple[Task, Task]] = []

    def submit(self, task: Task) -> None:
        done = Task(task.shard, probe=task.probe)
        self.given.append((done, task))
        self.inner.submit(done)

    def events(self) -> Iterator[Event]:
        for event in self.inner.events():
            asked = [task for done, task in self.given if not isinstance(event, Ready) and done is event.task]
            yield Done(asked[0], event.summary) if isinstance(event, Done) else event


class SaysEachIsReady(Changed):
    def events(self) -> Iterator[Event]:
        return all_told(self.inner, lambda event: [Ready("one thread"), event])


class ListsEventsFirst(Changed):
    def events(self) -> Iterator[Event]:
        return iter(list(self.inner.events()))


class RaisesErrorsOfTasks(Changed):
    def events(self) -> Iterator[Event]:
        for event in self.inner.events():
            if isinstance(event, Failed):
                raise ValueError(event.error)
            yield event


class KnowsNoFatalError(Changed):
    def events(self) -> Iterator[Event]:
        return all_told(
            self.inner, lambda event: [replace(event, fatal=False)] if isinstance(event, Failed) else [event]
        )


class TakesAllErrorsForFatal(Changed):
    def events(self) -> Iterator[Event]:
        return all_told(
            self.inner, lambda event: [replace(event, fatal=True)] if isinstance(event, Failed) else [event]
        )


class SaysFailedOfLost(Changed):
    def events(self) -> Iterator[Event]:
        return all_told(self.inner, lambda event: [Failed(event.task, "lost")] if isinstance(event, Lost) else [event])


class TriesAgainByItself(Changed):
    def events(self) -> Iterator[Event]:
        tried: set[int] = set()
        for event in self.inner.events():
            if isinstance(event, Lost) and event.task.shard not in tried:
                tried.add(event.task.shard)
                self.inner.submit(event.task)
            else:
                yield event


class NeedsItsFirstWorkers(Changed):
    calls = 0

    def events(self) -> Iterator[Event]:
        self.calls += 1
        if self.calls > 1:
            raise BrokenPipeError("a worker is gone")
        return self.inner.events()


class RaisesWhatTheJobRaises(Changed):
    def events(self) -> Iterator[Event]:
        try:
            yield from self.inner.events()
        except RunError as error:
            raise ValueError(str(error)) from error


class SaysNoReason(Changed):
    def events(self) -> Iterator[Event]:
        try:
            yield from self.inner.events()
        except RunError as error:
            raise RunError("something went wrong") from error


class StopsAtOnceAlways(Changed):
    def stop(self, now: bool = False) -> None:
        self.inner.stop(now=True)


class BeginsAllBeforeItStops(Changed):
    def stop(self, now: bool = False) -> None:
        if now:
            self.inner.stop(now)


class ChangesTheEnvironment(Changed):
    def events(self) -> Iterator[Event]:
        os.environ["RAN_WORKERS"] = "1"
        return self.inner.events()

    def stop(self, now: bool = False) -> None:
        self.inner.stop(now)
        os.environ.pop("RAN_WORKERS", None)


class Prints(Changed):
    def events(self) -> Iterator[Event]:
        print("a worker started")
        return self.inner.events()


def thread(change: type[Changed]) -> BackendSubject:
    return BackendSubject.of(lambda job: change(OneThread(job)), processes=False)


def processes(change: type[Changed] = Changed, job: Callable[[Any], Any] = lambda job: job) -> BackendSubject:
    return BackendSubject.of(lambda drill: change(cnnviz.backends["local"](workers=2)(job(drill))))  # type: ignore[arg-type, return-value]


BROKEN: list[tuple[Check, Callable[[], BackendSubject], str]] = [
    (kit.settles_every_task_once, lambda: thread(TellsTwice), "settles shard 0 2 times"),
    (kit.settles_every_task_once, lambda: thread(TellsNothingOfOne), "settles shard 5 0 times"),
    (kit.settles_every_task_once, lambda: thread(ForgetsWhatIsLeftOut), "where (1, {2: 'it crashed a worker'}, None)"),
    (kit.settles_every_task_once, lambda: thread(SaysEachIsReady), "not once each"),
    (kit.takes_more_meanwhile_and_later, lambda: thread(ListsEventsFirst), "settles shard 1 0 times"),
    (kit.tells_errors_of_tasks, lambda: thread(RaisesErrorsOfTasks), "fails where tasks fail: ValueError: shard 1"),
    (kit.tells_errors_of_tasks, lambda: thread(KnowsNoFatalError), "does not tell that a full disk is fatal"),
    (kit.tells_errors_of_tasks, lambda: thread(TakesAllErrorsForFatal), "takes the error of one task for one of all"),
    (kit.replaces_a_worker_that_is_killed, lambda: processes(SaysFailedOfLost), "tells that workers were lost at []"),
    (
        kit.replaces_a_worker_that_is_killed,
        lambda: processes(TriesAgainByItself),
        "lost at [1] where",
    ),
    (kit.replaces_a_worker_that_dies_idle, lambda: processes(NeedsItsFirstWorkers), "a worker is gone"),
    (kit.says_why_workers_do_not_start, lambda: thread(RaisesWhatTheJobRaises), "raises ValueError where the job does"),
    (kit.says_why_workers_do_not_start, lambda: thread(SaysNoReason), "does not say why the job does not open"),
    (kit.goes_on_after_an_interrupt, lambda: processes(job=EndsByInterrupt), "does not finish the task in work"),
    (kit.stops_at_once, lambda: processes(BeginsAllBeforeItStops, LeavesAChild), "leaves 1 processes behind"),
    (kit.stops_after_the_tasks_in_work, lambda: processes(StopsAtOnceAlways), "does not finish the tasks in work"),
    (kit.stops_after_the_tasks_in_work, lambda: thread(BeginsAllBeforeItStops), "begins further tasks after stop()"),
    (kit.leaves_this_process_as_it_was, lambda: thread(ChangesTheEnvironment), "changes the environment"),
    (kit.leaves_this_process_as_it_was, lambda: thread(Prints), "prints to the standard output: 'a worker started"),
]


@pytest.mark.parametrize(
    ("check", "subject", "words"), BROKEN, ids=[f"{check.__name__}-{words[:30]}" for check, _, words in BROKEN]
)
def test_a_broken_promise_is_named(
    check: Check, subject: Callable[[], BackendSubject], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_subject, "SOON", 0.2)
    with pytest.raises(AssertionError) as raised:
        check(subject())
    assert words in str(raised.value)


def test_workers_that_are_started_forever_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_subject, "LONGEST", 1.0)
    monkeypatch.setattr("cnnviz_plugins.backends.local.STARTS", 10**9)
    with pytest.raises(AssertionError, match="does not end where workers die while they start"):
        kit.gives_up_on_workers_that_die_starting(processes())


def test_workers_that_outlive_the_process_that_asked_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_subject, "SOON", 0.5)
    with pytest.raises(AssertionError, match="leaves 1 processes behind where the process that asked is killed"):
        kit.leaves_nobody_where_it_is_killed(BackendSubject.of(leaving_a_child))


def test_a_backend_that_is_right_keeps_all_promises() -> None:
    check_backend(one_thread, processes=False)
