"""What the benchmark that kills says of runs: who runs below whom, and how far maps are apart."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.killed import distance
from benchmarks.processes import command_of, descendants, kill_all, parents, wait_until, workers_below

CHILD = (
    "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)', 'ray::CnnvizWorker'])"
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are read from /proc")
def test_processes_below_another_are_found_until_they_end() -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, "a parent"])
    try:
        assert wait_until(lambda: len(descendants([child.pid])) == 1, 20)
        (below,) = descendants([child.pid])
        assert parents()[below] == child.pid
        assert parents()[child.pid] == os.getpid()
        assert {child.pid, below} <= set(descendants([os.getpid()]))
        assert wait_until(lambda: workers_below([os.getpid()]) == [child.pid, below], 20)
        kill_all([below])
        assert wait_until(lambda: below not in parents(), 20)
        assert command_of(below) == ""
    finally:
        child.kill()
        child.wait()
    assert child.pid not in parents()
    kill_all([child.pid])  # has ended


def test_distances_are_shares_of_the_peak_where_both_answered() -> None:
    theirs = {"status": np.array([0, 0, 1]), "maps/a": np.array([[[[1.0, -4.0]]], [[[2.0, 0.0]]], [[[9.0, 9.0]]]])}
    ours = {"status": np.array([0, 0, 0]), "maps/a": np.array([[[[1.0, -4.0]]], [[[2.0, 0.5]]], [[[0.0, 0.0]]]])}
    assert distance(ours, theirs) == (0.25, 1)
    assert distance(theirs, theirs) == (0.0, 0)
    assert distance({**ours, "status": np.array([1, 1, 1])}, theirs) == (0.0, 0)
