"""Worker processes on this machine, one for each GPU or each share of the processors."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

import cnnviz
from cnnviz.datasets import Event, Job, Lost, Ready, RunError, Task, Workers, attempt, error_line

BEGUN = None  # what a worker says once it has started
STARTS = 3  # so many workers may die before one of them is ready


@cnnviz.backend
def local(workers: int | None = None) -> cnnviz.Backend:
    """Worker processes on this machine.

    Args:
        workers: how many; None: one for each GPU, or on a CPU as many as there are processors for the threads of each.
            0: no process of its own, everything is computed in this one.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"there can't be {workers} workers; give 1 or more, or 0 to compute in this process")

    def start(job: Job) -> Workers:
        devices = _devices(job)
        if workers == 0:
            return _InThisProcess(job, devices[0])
        count = workers or len(devices)
        return _Processes(job, [devices[number % len(devices)] for number in range(count)])

    return start


def _devices(job: Job) -> list[str]:
    """The device of each worker, where nobody says how many there are."""
    own = os.environ.get("LOCAL_RANK") if "TORCHELASTIC_RUN_ID" in os.environ else None
    if job.device == "cpu":
        if own is not None:
            return ["cpu"]  # as many processes as are wanted were started already
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return ["cpu"] * max(1, processors // job.threads)
    import torch

    if job.device != "cuda":
        return [job.device]
    count = torch.cuda.device_count()
    if not count:
        raise ValueError("the run is computed on cuda, and no CUDA device is found here; its values would differ")
    return [f"cuda:{number}" for number in range(count)] if own is None else [f"cuda:{int(own) % count}"]


class _Process:
    """One worker process and what it is working on."""

    def __init__(self, device: str, number: int):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.number, self.device = number, device
        self.task: Task | None = None
        self.is_ready = False
        self.process = context.Process(target=_work, args=(theirs, device), name=f"cnnviz-worker-{number}")
        self.process.daemon = True
        try:
            with _no_interrupt():  # which the process inherits: a Ctrl-C while it starts would end it
                self.process.start()
        finally:
            theirs.close()

    def give(self, task: Task) -> None:
        """Have a task done."""
        self.task = task
        self.send(task)

    def send(self, what: Job | Task) -> None:
        """Send it. A worker that has died meanwhile is noticed by its end."""
        with suppress(OSError):
            self.connection.send(what)

    def end(self, now: bool) -> None:
        """End the process: at once, or when it sees that nothing is left to do."""
        if now:
            self.process.kill()
        self.connection.close()
        self.process.join()

    def how_it_ended(self) -> str:
        """Its exit status in words."""
        self.process.join()
        code = self.process.exitcode
        if code is not None and code < 0:
            try:
                return f"its worker was killed by {signal.Signals(-code).name}"
            except ValueError:
                return f"its worker was killed by signal {-code}"
        return f"its worker ended with status {code}"


class _Processes:
    """See :class:`cnnviz.datasets.Workers`."""

    def __init__(self, job: Job, devices: list[str]):
        self._job, self._devices = job, devices
        self._waiting: deque[Task] = deque()
        self._processes: list[_Process] = []
        self._stopping = False
        self._early_deaths = 0

    def submit(self, task: Task) -> None:
        if not self._stopping:
            self._waiting.append(task)

    def events(self) -> Iterator[Event]:
        while self._waiting or any(each.task for each in self._processes):
            if self._early_deaths < STARTS or not any(each.is_ready for each in self._processes):
                self._start()  # else those that work go on alone
            self._hand_out()
            ends = {each.process.sentinel: each for each in self._processes}
            ends |= {each.connection: each for each in self._processes}  # type: ignore[misc]  # both can be waited for
            ready = wait([*ends])
            for each in {id(ends[place]): ends[place] for place in ready}.values():  # type: ignore[index]
                yield from self._heard(each)

    def stop(self, now: bool = False) -> None:
        self._stopping = True
        self._waiting.clear()
        if now or not any(each.task for each in self._processes):
            for each in self._processes:
                each.end(now or not each.is_ready)  # one that still loads the model has nothing to finish
            self._processes.clear()

    def _start(self) -> None:
        """As many processes as there are tasks for, at most one for each device that was named."""
        wanted = min(len(self._devices), len(self._waiting) + sum(each.task is not None for each in self._processes))
        taken = {each.number for each in self._processes}
        for number in range(len(self._devices)):
            if len(self._processes) < wanted and number not in taken:
                self._processes.append(_Process(self._devices[number], number))

    def _hand_out(self) -> None:
        for each in self._processes:
            if each.is_ready and each.task is None and self._waiting:
                each.give(self._waiting.popleft())

    def _heard(self, each: _Process) -> Iterator[Event]:
        """What a process says; or that it has died, once all that it said before was heard."""
        try:
            with _no_interrupt():  # half of what it says would be lost, and be waited for
                heard = each.connection.recv()
                if not isinstance(heard, str | Ready) and heard is not BEGUN:
                    each.task = None
        except (EOFError, OSError):
            self._processes.remove(each)
            how, task = each.how_it_ended(), each.task
            each.connection.close()
            if task is not None:
                yield Lost(task, how)
            elif not each.is_ready:
                self._early_deaths += 1
                if self._early_deaths >= STARTS and not any(other.is_ready for other in self._processes):
                    raise RunError(
                        f"no worker can start ({how}); a script needs its call of cnnviz.batch under "
                        "if __name__ == '__main__':, or workers=0"
                    ) from None
            return
        if heard is BEGUN:
            # not before: what is handed over with the start of a process waits for ever where it dies while it starts
            each.send(self._job)
            return
        if isinstance(heard, str):  # the job did not open
            raise RunError(heard)
        if isinstance(heard, Ready):
            each.is_ready, self._early_deaths = True, 0
        yield heard


def _work(connection: Connection, device: str) -> None:
    """What a worker process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
    if hasattr(signal, "pthread_sigmask"):  # it was held back until here
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):  # nobody listens any more
        connection.send(BEGUN)
        received = connection.recv_bytes()
        try:
            job: Job = ForkingPickler.loads(received)
            do = job.open(device)
        except BaseException as error:
            connection.send(error_line(error))
            return
        connection.send(Ready(f"{os.getpid()} on {device}"))
        while True:
            connection.send(attempt(do, connection.recv()))


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl-C is held back inside of ``with``, and comes behind it, where the system can do that."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on beside those of the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _InThisProcess:
    """Everything is computed where it is asked, one task after the other."""

    def __init__(self, job: Job, device: str):
        self._job, self._device = job, device
        self._waiting: deque[Task] = deque()
        self._do: Callable[[Task], dict[str, Any]] | None = None

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def events(self) -> Iterator[Event]:
        import torch

        threads = torch.get_num_threads()
        try:
            if self._do is None:
                self._do = self._job.open(self._device)
                yield Ready(f"{os.getpid()} on {self._device}")
            while self._waiting:
                task = self._waiting.popleft()
                yield attempt(self._do, task)
        finally:
            torch.set_num_threads(threads)

    def stop(self, now: bool = False) -> None:
        self._waiting.clear()
