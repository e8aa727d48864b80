"""Worker processes that die before they have begun."""

from __future__ import annotations

import multiprocessing.spawn
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cnnviz
from cnnviz.datasets import RunError, Task


class LargeJob:
    """More than a pipe holds: to hand it over waits until somebody reads."""

    device = "cpu"
    threads = 1

    def __init__(self) -> None:
        self.held = bytes(2**21)

    def open(self, device: str | None = None) -> Callable[[Task], dict[str, Any]]:
        raise AssertionError("no worker gets so far")


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script of sh")
def test_workers_that_die_while_they_start_end_the_run_and_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a script do whose call has no guard: the child runs the script again, which fails."""
    dies = tmp_path / "python"
    dies.write_text(f'#!/bin/sh\ncase "$*" in *resource_tracker*) exec {sys.executable} "$@";; esac\nexit 1\n')
    dies.chmod(0o755)
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", str(dies).encode())
    workers = cnnviz.backends["local"](workers=2)(LargeJob())  # type: ignore[arg-type]
    for shard in range(4):
        workers.submit(Task(shard))
    with pytest.raises(RunError, match=r"no worker can start \(its worker ended with status 1\).*__main__"):
        list(workers.events())
    workers.stop(now=True)
    assert not multiprocessing.active_children()
