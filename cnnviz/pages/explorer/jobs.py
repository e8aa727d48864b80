"""Work that takes longer than an answer may: one queue, and one thread that asks the models."""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from cnnviz.images.reading import one_line
from cnnviz.images.told import InputWarning
from cnnviz.pages.explorer.limits import JOB_BYTES, JOBS, WAITING, Kept, Refused
from cnnviz.registry.registry import PluginError

State = Literal["waiting", "running", "done", "failed", "cancelled"]
EXPECTED = (ValueError, LookupError, TypeError, OSError, ImportError, PluginError)
"""Errors whose message says by itself what is wrong."""


class Cancelled(BaseException):
    """The job is to end. No ``except Exception`` of a model or a plugin may hold it up."""


@dataclass(eq=False)
class Job:
    """A piece of work, and how far it is. The worker writes, requests read."""

    work: Callable[[Job], None]
    state: State = "waiting"
    part: int = 0
    parts: int = 1
    doing: str = ""
    """What is being computed now."""
    passed: tuple[int, int] = (0, 0)
    """Inputs passed through the model, and how many there will be, of the part."""
    error: str | None = None
    answer: Any = None
    """What the work left: predictions, or results as they come."""
    size: int = 0
    """Bytes that the answer takes."""
    cancelling: bool = False
    question: Any = None
    """What it answers, beside predictions."""

    def begin(self, part: int, doing: str) -> None:
        """The next part begins."""
        self.part, self.doing, self.passed = part, doing, (0, 0)
        self.check()

    def listen(self, done: int, total: int) -> None:
        """Told by the engine between passes; the place where a job that was cancelled ends."""
        self.passed = done, total
        self.check()

    def check(self) -> None:
        """Raises Cancelled if the job was cancelled."""
        if self.cancelling:
            raise Cancelled

    def told(self) -> dict[str, Any]:
        """As JSON."""
        done, total = self.passed
        share = (self.part + (done / total if total else 0)) / self.parts
        return {
            "state": self.state,
            "doing": self.doing,
            "share": min(share, 1.0) if self.state != "done" else 1.0,
            "passed": done,
            "total": total,
            "error": self.error,
        }


class Jobs:
    """The queue, its thread, and the jobs that are kept."""

    def __init__(self) -> None:
        self.kept: Kept[Job] = Kept("job", JOBS, JOB_BYTES)
        self._queue: queue.SimpleQueue[tuple[str, Job] | None] = queue.SimpleQueue()
        self._unfinished: set[Job] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, work: Callable[[Job], None], question: Any = None) -> str:
        """Put a job behind the others; returns its name. Raises Refused (503) where too many wait."""
        job = Job(work, question=question)
        with self._lock:
            if self._closed:
                raise Refused(503, "the server ends")
            if len(self._unfinished) >= WAITING:
                raise Refused(503, f"{WAITING} jobs wait already; cancel one, or try again when one is done")
            self._unfinished.add(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="cnnviz explorer", daemon=True)
                self._thread.start()
        name = self.kept.add(job)
        self._queue.put((name, job))
        return name

    def cancel(self, name: str) -> None:
        """End the job: before its turn, or between two passes of it."""
        self.kept[name].cancelling = True

    def end(self) -> None:
        """Cancel everything, and take nothing more. May be called by a signal's handler: it waits for nothing."""
        self._closed = True
        for job in [*self._unfinished]:
            job.cancelling = True
        self._queue.put(None)

    def close(self, seconds: float = 1.0) -> None:
        """End, and wait a little for the job that runs."""
        self.end()
        if self._thread is not None:
            self._thread.join(seconds)

    def _work(self) -> None:
        while (entry := self._queue.get()) is not None:
            name, job = entry
            self._run(job)
            with self._lock:
                self._unfinished.discard(job)
            self.kept.grown(name, job.size)

    def _run(self, job: Job) -> None:
        try:
            job.check()
            job.state = "running"
            job.work(job)
            job.state = "done"
        except Cancelled:
            job.state = "cancelled"
        except BaseException as error:  # a plugin may call sys.exit(); the next job is none the worse for it
            job.error = reason(error)
            job.state = "failed"
        finally:
            job.work = _nothing  # it holds the picture


def _nothing(job: Job) -> None:
    """The work of a job that has ended."""


def reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return "memory ran out; choose another method, or a smaller model"
    line = one_line(error.args[0] if isinstance(error, KeyError) and isinstance(error.args[0], Exception) else error)
    return line if isinstance(error, EXPECTED) else f"{type(error).__name__}: {line}"


_here = threading.local()


@contextmanager
def noting(texts: list[str]) -> Iterator[None]:
    """What this thread warns of is added to the texts, each once, inside of :func:`warnings_by_thread`."""
    _here.texts = texts
    try:
        yield
    finally:
        _here.texts = None


@contextmanager
def warnings_by_thread() -> Iterator[None]:
    """Warnings about inputs and maps go to the job that they are about. Filters are the whole process's: set once."""

    def show(message: Warning | str, *place: Any, **more: Any) -> None:
        texts = getattr(_here, "texts", None)
        if texts is not None and str(message) not in texts:
            texts.append(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=UserWarning, module="cnnviz")
        warnings.simplefilter("always", InputWarning)
        warnings.showwarning = show
        yield
