"""A backend that the kit checks: how it is asked, and how its processes are watched."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnviz import Backend, backends
from cnnviz.datasets import Event, Ready, RunError, Task, Workers
from cnnviz.registry.registry import Method
from cnnviz.testing.drill import Drill
from cnnviz.testing.subject import Subject

LONGEST = 120.0
"""Seconds that one check may take: a backend that never settles a task would wait forever."""
SOON = 20.0
"""Seconds until a process that is to end has ended."""


@dataclass(frozen=True, eq=False)
class BackendSubject(Subject):
    """A backend."""

    processes: bool = True

    @classmethod
    def of(cls, method: str | Backend | Method[Any], *, processes: bool = True, **settings: Any) -> BackendSubject:
        build = backends[method] if isinstance(method, str) else method
        if isinstance(build, Method) and "workers" in build.settings:
            settings = {"workers": 2, **settings}
        return cls(**Subject.built(backends, build, settings), processes=processes)

    @contextmanager
    def at_work(
        self, situation: str, orders: Mapping[int, str] | None = None, opening: str = ""
    ) -> Iterator[tuple[Drill, Workers]]:
        """Workers with a drill, and neither afterwards. Raises AssertionError where it takes too long."""
        with tempfile.TemporaryDirectory() as folder, self.in_time(situation):
            drill = Drill(folder, orders or {}, opening)
            workers = self.answer(lambda: self.method(drill), situation)
            try:
                yield drill, workers
            finally:
                drill.let_go()
                workers.stop(now=True)
                if self.processes:
                    end_all(drill)

    @contextmanager
    def in_time(self, situation: str) -> Iterator[None]:
        """Raise AssertionError after some time, where the system can do that: in the main thread, not on Windows."""
        if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
            yield
            return

        def too_long(*_: Any) -> None:
            raise AssertionError(f"{self.name} does not end {situation}")

        before = signal.signal(signal.SIGALRM, too_long)
        signal.setitimer(signal.ITIMER_REAL, LONGEST)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def events(self, workers: Workers, situation: str) -> list[Event]:
        return self.answer(lambda: list(workers.events()), situation)

    def settled(self, events: list[Event], tasks: list[Task], situation: str) -> None:
        """Each task is told once, whatever became of it."""
        told = [event.task for event in events if not isinstance(event, Ready)]
        for task in tasks:
            self.demand(told.count(task) == 1, f"settles shard {task.shard} {told.count(task)} times {situation}")
        self.demand(len(told) == len(tasks), f"tells of tasks that nobody submitted {situation}")

    def gone(self, drill: Drill, situation: str) -> None:
        """No worker runs any more, or soon."""
        until = time.monotonic() + SOON
        while (left := [each for each in drill.workers() if is_running(each)]) and time.monotonic() < until:
            time.sleep(0.02)
        self.demand(not left, f"leaves {len(left)} processes behind {situation}")

    def wait_for(self, condition: Callable[[], bool], broken: str) -> None:
        until = time.monotonic() + LONGEST / 2
        while not condition():
            self.demand(time.monotonic() < until, broken)
            time.sleep(0.01)

    def refusal(self, opening: str, situation: str) -> str:
        """What is said of workers that do not start, in one line."""
        with self.at_work(situation, opening=opening) as (drill, workers):
            workers.submit(Task(0))
            try:
                events = list(workers.events())
            except RunError as error:
                words = str(error)
            except Exception as error:
                raise AssertionError(f"{self.name} raises {type(error).__name__} {situation}: {error}") from error
            else:
                raise AssertionError(f"{self.name} raises no error {situation}, and tells {events}")
            self.demand(bool(words) and "\n" not in words, f"does not say why in one line {situation}: {words!r}")
            if self.processes:
                self.gone(drill, situation)
            return words


def is_running(process: int) -> bool:
    """True for a process of this machine that has not ended; one that ended and was not asked for has."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):  # no Linux
        return True
    return state not in "ZX"


def interrupted(workers: Workers, drill: Drill) -> None:
    """Wait for events until a task is in work, and be interrupted there, as by Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background may ignore it
    try:
        with as_soon_as(drill.begun, lambda: os.kill(os.getpid(), signal.SIGINT)):
            list(workers.events())
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def as_soon_as(condition: Callable[[], Any], act: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread as soon as a condition holds."""

    def watch() -> None:
        while not condition():
            if ended.wait(0.01):
                return
        act()

    ended = threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def end_all(drill: Drill) -> None:
    """End the processes that a backend forgot."""
    drill.let_go()
    for process in drill.workers():
        if is_running(process):
            os.kill(process, signal.SIGKILL)
