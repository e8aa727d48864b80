"""A bar on the error stream or in a notebook that shows how far long work is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from cnnviz.engine.meter import Listener

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

Progress: TypeAlias = bool | Listener
"""True for a bar; or a function that is called with how much is done, and of how much."""


@contextmanager
def listening(progress: Progress | None, activity: str) -> Iterator[Listener | None]:
    """Who is told how far the work is: a bar, the function given, or nobody.

    Raises TypeError for what is neither True, False nor a function.
    """
    if callable(progress):
        yield progress
    elif progress is None or progress is False:
        yield None
    elif progress is True:
        with bar() as shown:
            task = shown.add_task(activity, total=None)
            yield lambda done, total: shown.update(task, completed=done, total=total)
    else:
        raise TypeError(f"progress={progress!r} is neither True, False nor a function of (done, total)")


def bar(redirect_stdout: bool = True, transient: bool = False) -> Bar:
    """A bar of rich's: what is done, of how much, and the time that is left. Lines printed meanwhile stand above it.

    ``transient``: it vanishes at its end.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = [*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn()]
    return Progress(*columns, console=Console(stderr=True), redirect_stdout=redirect_stdout, transient=transient)
