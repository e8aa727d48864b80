"""The command that measures what whole passes and regions take, and the constants that come of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from benchmarks import costs, records
from cnnviz.engine.costs import Costs, Work
from cnnviz.engine.device_policy import CPU, CUDA

MEASURED = CPU.costs  # before the suite sets them aside


def row(seconds: float, **counted: int) -> costs.Cost:
    return costs.Cost("a replay", "a network", 32, 1, [seconds], **asdict(Work(**counted)))


def test_a_run_is_kept_and_says_the_constants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_flush_denormal", lambda on: True)  # other tests run in this process
    monkeypatch.setattr(costs, "MOST", 4)
    monkeypatch.setattr(costs, "WINDOWS", 4)
    out = tmp_path / "costs-cpu.json"
    how = ["--networks", "squeezenet1_0", "--sizes", "32", "--repeats", "1", "--out", str(out)]
    assert costs.main(how) == 0
    kept = records.read(out, costs.COSTS).rows
    assert {each.part for each in kept} == set(costs.PARTS)
    whole = [each.work for each in kept if each.part == costs.PARTS[0]]
    assert len({work.operations for work in whole}) == 1, "a pass of many has as many operations as a pass of one"
    assert whole[1].bytes == costs.MOST * whole[0].bytes
    few, many = (each.work for each in kept if each.part == costs.PARTS[2])
    assert few.region_operations == many.region_operations
    assert 0 < few.region_bytes < many.region_bytes
    assert f"CPU: costs={costs.fitted(kept)}" in capsys.readouterr().out


def test_constants_are_found_that_explain_the_times() -> None:
    known = Costs(launch=2e-5, byte=3e-10, region_launch=4e-4, region_byte=5e-10)
    works = [Work(60, 10**6), Work(60, 10**9), Work(0, 10**6, 60), Work(0, 0, 60, 10**5), Work(0, 0, 90, 10**9)]
    rows = [row(known.seconds(work), **asdict(work)) for work in works]
    assert costs.fitted(rows) == known


def test_no_constant_is_negative() -> None:
    rows = [row(1.0, operations=10, bytes=10), row(2.0, operations=10, bytes=5)]  # more bytes in less time
    assert min(asdict(costs.fitted(rows)).values()) == 0


def test_the_constants_of_a_cpu_are_those_that_were_measured() -> None:
    measured = records.read(records.HOME / "costs-cpu.json", costs.COSTS)
    assert costs.fitted(measured.rows) == MEASURED
    assert {(each.network, each.size) for each in measured.rows} == {
        (name, size) for name in costs.NETWORKS for size in costs.SIZES
    }


def test_the_constants_of_a_gpu_are_those_of_the_figures_they_are_derived_from() -> None:
    """ResNet-50 at 224 x 224 of version 0.3.0: see the comment in device_policy.py."""
    operations, size = 176, 150_849_440
    assert CUDA.costs is not None
    assert CUDA.costs.seconds(Work(operations)) == pytest.approx(3.3e-3, rel=0.05)
    assert CUDA.costs.seconds(Work(operations, 169 * size)) == pytest.approx(34e-3, rel=0.05)
    regions = Work(3 * operations, 3 * size, region_operations=21 * 175, region_bytes=169 * 30_420_640)
    assert 7 * 34e-3 < CUDA.costs.seconds(regions) < 10 * 34e-3
