"""How far long work is: a bar on the terminal, and nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cnnviz.explanations.progress_bar import bar


@contextmanager
def progress(
    activity: str, quiet: bool, total: int | None = None, transient: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """Show a bar, and give the function that moves it: of how many steps so many are done.

    ``transient``: the bar vanishes at its end.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    # lines for a file or a pipe must go there, and not to the terminal with the bar
    with bar(redirect_stdout=sys.stdout.isatty(), transient=transient) as shown:
        task = shown.add_task(activity, total=total)
        yield lambda done, total: shown.update(task, completed=done, total=total)
