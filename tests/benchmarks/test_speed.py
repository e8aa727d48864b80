"""The commands that measure speed and growth: tiny runs, what is kept of them, and the page that is made of it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Generator, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import records
from benchmarks.networks import Network
from benchmarks.speed import __main__ as speed_command
from benchmarks.speed import comparing, growth, peers, processes, replay, results, rows, timing
from cnnviz import demo


@pytest.fixture(autouse=True)
def _denormal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_flush_denormal", lambda on: True)  # other tests run in this process


COMMANDS = {"speed": speed_command, "growth": growth, "replay": replay, "results": results}


TINY = ["--networks", "squeezenet1_0", "--size", "64", "--repeats", "1", "--batches", "1", "--threads", "1"]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process of its own for each peer: starting one takes longer than what it measures here."""

    def here(library: str, name: str, options: Any, requests: list[Any]) -> Generator[Any, None, int]:
        for result in comparing.rows(library, name, options, list(requests)):
            requests.remove((result.method, result.peer, result.batch))
            yield result
        return 0

    monkeypatch.setattr(processes, "from_process", here)


def run(name: str, *arguments: Any) -> int:
    status: int = COMMANDS[name].main([str(each) for each in arguments])
    return status


def row(**other: Any) -> Any:
    made = rows.Row(
        method="grad_cam",
        peer="captum",
        network="squeezenet1_0",
        trained=False,
        batch=1,
        size=64,
        forward=[1.0, 2.0, 3.0],
        ours=[2.0, 3.0, 1.0],
        theirs=[4.0, 4.0, 5.0],
        ours_peak=2**20,
        theirs_peak=2**21,
        cosine=0.99999,
        difference=1e-6,
    )
    return replace(made, **other)


# Tiny runs


@pytest.mark.usefixtures("in_process")
def test_a_run_is_kept_and_a_page_is_made_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("captum", reason="captum is not installed")
    out = tmp_path / "results" / "speed-cpu.json"
    assert run("speed", *TINY, "--methods", "grad_cam", "cam", "--peers", "captum", "cnnviz", "--out", out) == 0
    said = capsys.readouterr().out
    assert "grad_cam, squeezenet1_0 x 1: " in said
    assert " of captum" in said
    assert f"2 rows, 0 left out, in {out}" in said  # also in bfloat16
    kept = records.read(out, rows.SPEED)
    found, halved = sorted(kept.rows, key=lambda row: row.method)
    assert halved.key == ("grad_cam in bfloat16", "cnnviz float32", "squeezenet1_0", 1)
    assert found.key == ("grad_cam", "captum", "squeezenet1_0", 1)
    assert found.cosine >= 0.9999
    assert found.difference <= 1e-3
    assert len(found.ours) == len(found.theirs) == len(found.forward) == 1
    assert kept.about["versions"]["torch"] == version("torch")
    assert kept.commands == [
        " ".join(["python -m benchmarks.speed", *TINY, f"--methods grad_cam cam --peers captum cnnviz --out {out}"])
    ]

    grown = tmp_path / "results" / "growth-cpu.json"
    how = ["--kinds", "methods", "--most", "2", "--repeats", "1", "--threads", "1", "--out", grown]
    assert run("growth", *how) == 0
    assert [(each.value, each.method) for each in records.read(grown, rows.GROWTH).rows] == [
        (1, "CAMs together"),
        (2, "CAMs together"),
    ]

    assert run("results", "--results", tmp_path / "results", "--docs", tmp_path / "docs") == 0
    page = (tmp_path / "docs" / "speed.md").read_text()
    assert "| grad_cam | captum | " in page
    assert "python -m benchmarks.speed --networks squeezenet1_0" in page
    assert f"torch {version('torch')}" in page
    for picture in ("speed.png", "growth.png"):
        assert (tmp_path / "docs" / "pictures" / picture).stat().st_size > 10_000
        assert f"(pictures/{picture})" in page


@pytest.mark.usefixtures("in_process")
def test_more_is_added_beside_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "speed.json"
    first = records.begun(out, rows.SPEED, records.about("cpu", 1), "first", add=False)
    first.add(row())
    first.write(out)
    measured = lambda options: iter([row(method="gradient"), row(ours=[9.0, 9.0, 9.0])])  # noqa: E731
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(speed_command, "measured", measured)
        assert run("speed", *TINY, "--out", out, "--add") == 0
    kept = records.read(out, rows.SPEED)
    assert [(each.method, each.ours[0]) for each in kept.rows] == [("gradient", 2.0), ("grad_cam", 9.0)]
    assert kept.commands[0] == "first"
    assert len(kept.commands) == 2
    changed = json.loads(out.read_text())
    changed["about"]["versions"]["torch"] = "1.0"
    out.write_text(json.dumps(changed))
    capsys.readouterr()
    assert run("speed", *TINY, "--out", out, "--add") == 2
    said = capsys.readouterr().err
    assert said == f"{out} was measured with other versions; leave --add out, or give another file with --out\n"


def test_relevance_is_asked_of_the_input_where_the_peer_is_and_of_the_layer_elsewhere() -> None:
    net = Network("small", demo.network("demo"), "layer3", True, 96)
    question = peers.Question(net, torch.rand(2, 3, 32, 32), torch.tensor([3, 4]))
    (of_input,), (of_layer,) = peers.METHODS["lrp"], peers.METHODS["excitation_backprop"]
    assert comparing.explained("lrp", of_input.settings, question).shape == (2, 3, 32, 32)
    assert comparing.explained("excitation_backprop", of_layer.settings, question).shape == (2, 1, 4, 4)


def test_zennits_relevance_is_that_of_its_own_composites() -> None:
    pytest.importorskip("zennit", reason="zennit is not installed")
    layer = torch.nn.Conv2d(3, 2, 1, bias=False)
    layer.weight.data = torch.tensor([[1.0, 2.0, -1.0], [3.0, -4.0, 0.5]])[:, :, None, None]
    model = torch.nn.Sequential(layer, torch.nn.Flatten())
    inputs = torch.tensor([[1.0, 2.0, 3.0]])[:, :, None, None]
    question = peers.Question(Network("small", model, "0", True, 2), inputs, torch.tensor([0]))
    found = peers.zennits_relevance("EpsilonPlus")(question)
    torch.testing.assert_close(found.flatten(), torch.tensor([1 / 5, 4 / 5, 0]))  # z+ of 1 * 1 and 2 * 2
    found = peers.zennits_relevance("EpsilonPlus", at_layer=True)(question)
    torch.testing.assert_close(found.flatten(), torch.tensor([1.0]))


# What goes wrong


@pytest.mark.parametrize(("name", "feed"), [("speed", "measured"), ("growth", "points")])
def test_ctrl_c_keeps_what_is_finished(
    name: str, feed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = row() if name == "speed" else rows.Point("batch", 1, "grad_cam", "net", [0.5], None)

    def interrupted(*args: Any) -> Iterator[Any]:
        yield finished
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMANDS[name], feed, interrupted)
    out = tmp_path / "kept.json"
    assert run(name, "--threads", 1, "--out", out) == 130
    assert capsys.readouterr().err == f"interrupted; 1 rows are in {out}\n"
    assert records.read(out, rows.SPEED if name == "speed" else rows.GROWTH).rows == [finished]


BROKEN = {
    "missing": (None, "is not there; make it with python -m benchmarks.speed\n"),
    "cut off": ('{"about": {}, "rows": [', "can't be read as results (JSONDecodeError: "),
    "no results": ("[1, 2]", "can't be read as results (TypeError: "),
    "another file": ('{"name": "x"}', "can't be read as results (KeyError: 'rows')"),
    "other columns": (
        '{"about": {}, "commands": [], "rows": [{"method": "x"}], "left_out": []}',
        "can't be read as results (TypeError: Row.__init__() missing",
    ),
    "no times": (
        '{"about": {}, "commands": [], "left_out": [], "rows": [{"method": "x", "peer": "", "network": "y", '
        '"batch": 1, "trained": true, "size": 64, "forward": [1], "ours": [0], "theirs": []}]}',
        "can't be read as results (ValueError: ours is [0], not a list of times)",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_results_that_can_not_be_read_are_one_clear_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written, said = BROKEN[case]
    path = tmp_path / "speed-cpu.json"
    if written is not None:
        path.write_text(written)
    assert run("results", "--results", tmp_path, "--docs", tmp_path / "docs") == 2
    told = capsys.readouterr().err
    assert told.startswith(f"{path} {said}")
    assert told.count("\n") == 1
    assert not (tmp_path / "docs" / "speed.md").exists()


@pytest.mark.usefixtures("in_process")
def test_peers_that_are_missing_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(speed_command, "ASSETS", tmp_path / "nowhere")
    out = tmp_path / "speed.json"
    assert run("speed", *TINY, "--methods", "grad_cam", "--peers", "captum", "torchcam", "--out", out) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [f"{name} is not installed, and left out; pip install {name}" for name in ("captum", "torchcam")]
    assert said[2] == f"no trained weights at {tmp_path / 'nowhere'}; networks are untrained, pictures noise"
    assert said[3].startswith("0 rows, 0 left out")


def test_a_process_that_dies_costs_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another goes on behind what killed it."""
    arguments = [*TINY, "--methods", "grad_cam", "gradient", "hires_cam", "--peers", "captum"]
    options = speed_command.options_of(arguments)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)

    def dies(library: str, name: str, options: Any, requests: list[Any]) -> Generator[Any, None, int]:
        if len(requests) == 3:
            method, peer, batch = requests.pop(0)
            yield row(method=method, peer=peer, batch=batch)
            return -9
        while requests:
            method, peer, batch = requests.pop(0)
            yield row(method=method, peer=peer, batch=batch)
        return 0

    monkeypatch.setattr(processes, "from_process", dies)
    found = list(processes.measured(options))
    assert [each.method for each in found] == ["grad_cam", "gradient", "hires_cam"]
    assert [getattr(each, "reason", "") for each in found] == ["", "the process ended with status -9", ""]


@pytest.mark.usefixtures("in_process")
def test_what_fails_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = peers.Peer

    def fails(question: Any) -> Tensor:
        raise RuntimeError("oh\nno")

    def fine(question: Any) -> Tensor:
        return question.inputs

    pairs = [
        comparing.Pair("grad_cam", "cnnviz a", fine, peer("a", fails)),
        comparing.Pair("grad_cam", "cnnviz b", fails, peer("b", fine)),
        comparing.Pair("grad_cam", "cnnviz c", fine, peer("c", lambda question: question.inputs[:, :1])),
        comparing.Pair("grad_cam", "cnnviz d", fine, peer("d", fine, passes=lambda question: 1e9)),
        comparing.Pair("grad_cam", "cnnviz e", fine, peer("e", fine, most=0)),
        comparing.Pair("grad_cam", "cnnviz f", fine, peer("f", lambda question: 0 * question.inputs)),
    ]
    monkeypatch.setattr(comparing, "pairs", lambda library, methods: pairs)
    monkeypatch.setattr(processes, "pairs", lambda library, methods: pairs)
    out = tmp_path / "speed.json"
    assert run("speed", *TINY, "--methods", "grad_cam", "--peers", "cnnviz", "--out", out) == 1  # ours failed
    kept = records.read(out, rows.SPEED)
    reasons = {each.peer[-1]: each.reason for each in kept.left_out}
    assert reasons["a"] == "cnnviz a failed: RuntimeError: oh"
    assert reasons["b"] == "cnnviz failed: RuntimeError: oh"
    assert reasons["c"] == "the maps are (1, 3, 64, 64) and (1, 1, 64, 64), and can't be compared"
    assert reasons["d"].endswith("s a run, over the limit of 60 s")
    assert reasons["e"] == "cnnviz e answers 0 at a time"
    (empty,) = kept.rows
    assert (empty.cosine, empty.remark) == (None, "maps not compared: one of cnnviz f is empty")
    assert "grad_cam, squeezenet1_0 x 1: left out beside cnnviz a: cnnviz a failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--methods", "grad_cams"], "invalid choice: 'grad_cams'"),
        (["--process-time", "--threads", "2"], "--process-time counts the time of every thread; add --threads 1"),
        (["--repeats", "0"], "batches, repeats and threads are 1 or more, the size 32 or more"),
        (["--size", "16"], "the size 32 or more"),
        (["--networks", "vgg"], "invalid choice: 'vgg'"),
    ],
)
def test_options_that_can_not_be(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("speed", *arguments)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["speed", "growth"])
def test_a_device_that_is_not_there(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(name, "--device", "cuda", "--out", tmp_path / "kept.json")
    assert "there is no CUDA device here; leave --device out" in capsys.readouterr().err
    assert not (tmp_path / "kept.json").exists()


# What is read off the rows


def test_ratios_by_hand() -> None:
    assert rows.median_ratio([2.0, 3.0, 1.0], [4.0, 4.0, 5.0]) == 0.5
    assert rows.spread([2.0, 3.0, 1.0], [4.0, 4.0, 5.0]) == (0.2, 0.75)
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)


def test_the_page_tells_ratios_figures_and_what_is_left_out() -> None:
    about = records.about("cpu", 1)
    measured = [row(), row(network="vgg16", ours=[4.0] * 3), row(method="rise", peer="", theirs=[], cosine=None)]
    left = rows.LeftOut("gradient", "zennit", "vgg16", 8, "about 99 s a run, over the limit of 60 s")
    peaks = [rows.Point("steps", steps, "integrated_gradients", "n", [1.0], 100 * steps) for steps in (10, 200)]
    page = results.page({"cpu": records.Records(rows.SPEED, about, ["made by this"], measured, [left])})
    # 2/4 on one network, 4/4 on the other: 0.71 in the mean
    assert "| grad_cam | captum | 0.50 (0.20-0.75) | 1.00 (0.80-1.00) | **0.71** |" in page
    assert "| rise | 1.00 |" in page
    assert "| grad_cam | captum | 0.999990 | 1e-06 |  | 1 / 2, 1 / 2 |" in page
    assert "- gradient beside zennit, vgg16 x 8: about 99 s a run, over the limit of 60 s" in page
    assert "`made by this`" in page
    figure = next(line for line in page.splitlines() if line.startswith("| Grad-CAM | captum |"))
    assert "0.71 | 0.50 to 1.00 | 2 of 2 | 0.999990 | <= 0.85 | yes |" in figure
    (memory,) = results.memory_figures(peaks)
    assert "| 10 steps | 20.00 | | 1 of 1 | | no growth | no |" in memory


def test_time_and_memory_are_those_of_the_work() -> None:
    calls = []

    def work() -> Tensor:
        calls.append(1)
        return torch.ones(2**24)  # 64 MiB

    device = torch.device("cpu")
    found = timing.in_turns({"one": work, "other": lambda: torch.zeros(1)}, 3, device)
    assert len(found["one"].seconds) == 3
    assert len(calls) == 3 + 2  # warmed up before, its memory taken after
    assert min(found["one"].seconds) > max(0.0, min(found["other"].seconds))
    if found["one"].peak is not None:
        assert 60 * 2**20 < found["one"].peak < 100 * 2**20
        assert found["other"].peak < 8 * 2**20
    calls.clear()
    assert len(timing.in_turns({"one": work}, 3, device, expected=60.0)["one"].seconds) == len(calls) == 1


def test_agreement_by_hand() -> None:
    agreement = comparing.agreement
    ours, theirs = torch.tensor([[1.0, 2.0], [2.0, 0.0]]), torch.tensor([[1.0, 2.0], [1.0, 1.0]])
    cosine, difference = agreement(ours, theirs)
    assert cosine == pytest.approx(0.5**0.5)  # the worse of the two
    assert difference == pytest.approx(1.0)
    assert agreement(-ours[:1], theirs[:1], signless=True) == pytest.approx((1.0, 0.0))
    assert agreement(ours, 0 * theirs) == (None, None)


def test_the_page_in_the_documentation_is_made_of_the_results_beside_it() -> None:
    speed = records.read(records.HOME / "speed-cpu.json", rows.SPEED)
    grown = records.read(records.HOME / "growth-cpu.json", rows.GROWTH)
    gpus = results.apart(records.HOME)
    assert results.page({"cpu": speed}, grown, gpus) == (records.DOCS / "speed.md").read_text()


# Replay


def test_replay_is_compared_on_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("replay", "shufflenet_v2_x0_5") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("shufflenet_v2_x0_5, conv1.0: off by ")
    assert said[-1] == "1 models, 3 layers, 0 failures"
    with pytest.raises(SystemExit):
        run("replay", "resnet17")
    assert "there is no CNN 'resnet17' in torchvision; there are alexnet, " in capsys.readouterr().err


def test_replay_keeps_what_is_finished_and_tells_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "replay.json"
    layers = [replay.Compared("a", "x", 2e-5, 3, 9, True, 1e-9), replay.Compared("a", "y", 0.0, 9, 9, False, 0.0)]
    assert replay.Compared("b", "x", 2e-5, 3, 9, True, 1e-5).holds  # as much as rounding makes
    monkeypatch.setattr(replay, "model_names", lambda: ["a", "b"])

    def compared(name: str) -> Iterator[Any]:
        if name == "b" and interrupts:
            raise KeyboardInterrupt
        yield from (replace(layer, model=name) for layer in layers)

    monkeypatch.setattr(replay, "compared", compared)
    for interrupts in (False, True):
        assert run("replay", "--out", out) == (130 if interrupts else 1)
        kept = json.loads(out.read_text())
        assert [each["layer"] for each in kept["rows"]] == ["x", "y"] * (1 if interrupts else 2)
        said = capsys.readouterr().out
        assert "a, x: off by 2e-05, 3 of 9 operations, where rounding alone makes 1e-09 FAILS" in said
        assert "a, y: computed the plain way FAILS" in said
