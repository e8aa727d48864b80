"""The processes of this machine: whose children they are, and what they run. Linux only."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

WORKERS = ("multiprocessing.spawn", "ray::CnnvizWorker")
"""Words in the command line of workers of a batch run."""


def parents() -> dict[int, int]:
    """The parent of each process that runs."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            except (OSError, ValueError):  # it has just ended
                continue
            if state not in "ZX":
                found[int(folder.name)] = int(parent)
    return found


def descendants(roots: Iterable[int]) -> list[int]:
    """The processes that run below others, these left out."""
    above = parents()
    found = set(roots)
    given = set(found)
    while more := {process for process, parent in above.items() if parent in found} - found:
        found |= more
    return sorted(found - given)


def command_of(process: int) -> str:
    """The command line; empty for a process that has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def workers_below(roots: Iterable[int]) -> list[int]:
    """The workers of batch runs among the descendants."""
    return [each for each in descendants(roots) if any(word in command_of(each) for word in WORKERS)]


def kill_all(processes: Iterable[int], by: signal.Signals = signal.SIGKILL) -> None:
    for process in processes:
        try:
            os.kill(process, by)
        except ProcessLookupError:
            continue


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Whether the condition held within some time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
