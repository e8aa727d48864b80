"""How far long work is: a bar on the terminal, and nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn


@contextmanager
def progress(activity: str, quiet: bool, total: int | None = None) -> Iterator[Callable[[int, int], None]]:
    """Show a bar, and give the function that moves it: of how many steps so many are done."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    columns = [*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn()]
    # lines for a file or a pipe must go there, and not to the terminal with the bar
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task(activity, total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)
