"""What a worker does with a task, whatever backend it belongs to: it says how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cnnviz.datasets.workers.work import Done, Failed, RunError, Task


def attempt(work: Callable[[Task], Mapping[str, Any]], task: Task) -> Done | Failed:
    """Do a task with what a job's ``open`` gave. Its error is told in one line; a RunError is fatal."""
    try:
        return Done(task, work(task))
    except (Exception, SystemExit) as error:  # whatever calls sys.exit, a worker goes on
        return Failed(task, error_line(error), fatal=isinstance(error, RunError))


def error_line(error: BaseException) -> str:
    """An error in one line. Its kind is named where the words are for programmers."""
    words = " ".join(str(error).split())
    if words and isinstance(error, RunError | ValueError | OSError):
        return words
    return f"{type(error).__name__}: {words}".removesuffix(": ")
