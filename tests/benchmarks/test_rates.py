"""Rates, launches and synchronizations, and the part of the page about GPUs; without one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import cnnviz
from benchmarks import records
from benchmarks.sanity import __main__ as sanity_command
from benchmarks.speed import __main__ as speed_command
from benchmarks.speed import gpu_page, rates, results, rows

TINY = ["--networks", "squeezenet1_0", "--size", "64", "--repeats", "1", "--batches", "2", "--threads", "1"]


def rate(**other: Any) -> rows.Rate:
    made: dict[str, Any] = {"method": "grad_cam", "how": "plain", "network": "resnet50", "batch": 32, "size": 224}
    made |= {"seconds": [0.4, 0.2, 0.1], "forward": [0.1, 0.05, 0.3], "launches": 7, "synchronizations": 1}
    return rows.Rate(**made | other)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What ``cnnviz.prepare`` is asked for, which answers as ``explain`` does here."""
    asked: list[dict[str, Any]] = []

    def prepare(model: Any, method: str, *, like: Tensor, **options: Any) -> Callable[[Tensor], Any]:
        asked.append({"method": method, "like": like.shape} | options)
        return lambda inputs: cnnviz.explain(model, inputs, method, **options)

    monkeypatch.setattr(cnnviz, "prepare", prepare, raising=False)
    return asked


def test_a_run_is_kept(
    tmp_path: Path,
    prepared: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch, "set_flush_denormal", lambda on: True)  # other tests run in this process
    out = tmp_path / "rates-cpu.json"
    assert rates.main([*TINY, "--methods", "grad_cam", "--out", str(out)]) == 0
    kept = records.read(out, rows.RATES).rows
    assert [(each.how, each.batch, each.size) for each in kept] == [(how, 2, 64) for how in rates.WAYS["cpu"]]
    assert all(each.launches > 50 for each in kept), "a SqueezeNet has as many operations"
    assert {each.synchronizations for each in kept} == {None}
    (asked,) = prepared
    assert asked["method"] == "grad_cam"
    assert asked["like"] == (2, 3, 64, 64)
    assert asked["layer"] == "features.12"
    assert "of the forward pass's rate" in capsys.readouterr().out


@pytest.mark.parametrize("missing", [True, False])
def test_what_cannot_be_prepared_is_left_out_with_the_reason(missing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*args: Any, **options: Any) -> Any:
        raise ValueError("the model draws random numbers")

    monkeypatch.setattr(cnnviz, "prepare", None if missing else refuses, raising=False)
    question: Any = SimpleNamespace(network=SimpleNamespace(layer="features", module=None), inputs=None, target=None)
    reason = "no cnnviz.prepare" if missing else "cnnviz.prepare failed: ValueError: the model draws random numbers"
    with pytest.raises(rates.Failed, match=reason):
        rates.prepared("grad_cam", question)


def test_rates_by_hand() -> None:
    assert rows.rate_of([0.4, 0.2, 0.1], 32) == pytest.approx(160)
    assert rate().share == pytest.approx(0.1 / 0.2), "forward passes twice as many in a second"
    line = "grad_cam, resnet50 x 32, plain: 160/s, 0.50 of the forward pass's rate, 7 launches, 1 synchronizations"
    assert rates.line_of(rate()) == line


def test_launches_of_a_cpu_are_the_operations_that_are_called() -> None:
    numbers = torch.randn(3)
    assert rates.launches(lambda: (numbers + numbers).relu(), torch.device("cpu")) == 2


def test_launches_of_a_gpu_are_told_by_the_names_of_calls() -> None:
    names = ["cudaLaunchKernel", "aten::add", "cudaLaunchKernelExC", "cudaStreamSynchronize", "cudaGraphLaunch"]
    assert rates.handed_out([*names, "cuLaunchKernel", "cudaMemcpyAsync", "ampere_sgemm_128x64"]) == 5


def test_synchronizations_are_what_torch_warns_of(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[Any] = [0]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def work() -> None:
        assert modes[-1] == "warn"
        for message in ("called a synchronizing CUDA operation", "something else"):
            for _ in range(2):  # at one line, which Python would tell once
                warnings.warn(message, stacklevel=1)

    assert rates.synchronizations(work) == 2
    with pytest.raises(ZeroDivisionError):
        rates.synchronizations(lambda: 1 / 0)
    assert modes == [0, "warn", 0, "warn", 0], "the mode is as it was, also after an error"


@pytest.fixture
def with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.usefixtures("with_a_gpu")
def test_on_a_gpu_rates_follow_the_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    none: Iterator[Any] = iter(())
    monkeypatch.setattr(speed_command, "begun_by", lambda options, format: records.Records(format, {}, []))
    monkeypatch.setattr(speed_command, "measured", lambda options: none)
    monkeypatch.setattr(rates, "main", asked.append)
    assert speed_command.main(["--device", "cuda", "--networks", "vgg16", "--add"]) == 0
    assert asked == [["--device", "cuda", "--networks", "vgg16", "--size", "224", "--add"]]


@pytest.mark.usefixtures("with_a_gpu")
def test_sanity_on_a_gpu_leaves_the_file_of_the_cpu_alone() -> None:
    assert sanity_command.options_of(["--device", "cuda"]).out == records.HOME / "sanity-cuda.json"
    assert sanity_command.options_of([]).out == records.HOME / "sanity-cpu.json"


# The page


def test_the_page_has_rates_and_figures_of_an_earlier_version(tmp_path: Path) -> None:
    about = records.about("cpu", 1) | {"device": "A GPU", "cuda": "13.0", "versions": {"cnnviz": "0.3.0"}}
    left = rows.LeftOut("grad_cam, tf32", "", "resnet50", 32, "not there")
    kept = records.Records(
        rows.RATES, about, ["made by this"], [rate(), rate(how="tf32", synchronizations=None)], [left]
    )
    kept.write(tmp_path / "rates-cuda.json")
    figures = [("a", "one", "x", "1.5"), ("a", "two", "y", "2"), ("b", "one", "x", "3")]
    noted = records.Records(rows.EARLIER, about, [], [rows.Earlier(*figure) for figure in figures])
    noted.write(tmp_path / "speed-cuda-0.3.0.json")
    page = "\n".join(results.apart(tmp_path))
    assert "## Rates on A GPU" in page
    assert "| grad_cam | plain | resnet50 x 32 | 160 | 0.50 | 7 | 1 |" in page
    assert "| grad_cam | tf32 | resnet50 x 32 | 160 | 0.50 | 7 |  |" in page
    assert "- grad_cam, tf32, resnet50 x 32: left out: not there" in page
    assert "## On one A GPU, as of version 0.3.0" in page
    assert "|  | x | y |\n|---|--:|--:|\n| one | 1.5 |  |\n| two |  | 2 |" in page


def test_figures_of_version_0_3_0_are_those_that_were_written_down() -> None:
    noted = records.read(records.HOME / "speed-cuda-0.3.0.json", rows.EARLIER)
    figures = {(row.what, row.beside): row.figure for row in noted.rows}
    assert len(figures) == len(noted.rows)
    assert figures["grad_cam", "captum, batch 1"] == "1.34"
    assert figures["guided backprop, ResNet-50 x 32", "the same operations in a CUDA graph"] == "11.6"
    assert noted.about["versions"]["cnnviz"] == "0.3.0"
    assert "as of version 0.3.0" in "\n".join(gpu_page.earlier(noted))


def test_an_empty_figure_is_refused() -> None:
    with pytest.raises(ValueError, match="empty part"):
        rows.Earlier("a", "one", "x", "").check()
