"""How far a long question is: told while it is asked, whole at its end, and to nobody who did not ask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cnnviz
from cnnviz import attributions, evaluate, explain
from cnnviz.engine import meter


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), *pooled, nn.Linear(6, 4)).eval()


def told(net: nn.Module, method: Any, items: int = 1, **settings: Any) -> list[tuple[int, int]]:
    calls: list[tuple[int, int]] = []
    torch.manual_seed(1)
    explain(net, torch.rand(items, 3, 12, 12), method, progress=lambda *call: calls.append(call), **settings)
    return calls


# as many changed inputs as each method passes by its definition
COUNTS = {
    "rise": ({"masks": 40, "memory": 100_000}, 40),
    "integrated_gradients": ({"steps": 12, "memory": 100_000}, 12),
    "smoothgrad": ({"samples": 9, "memory": 100_000}, 9),
    "occlusion": ({"window": 4, "stride": 4, "memory": 100_000}, 9),
    "score_cam": ({"layer": "0", "memory": 100_000}, 6),
    "ablation_cam": ({"layer": "0", "memory": 100_000}, 6),
}


@pytest.mark.parametrize("items", [1, 2])
@pytest.mark.parametrize("method", COUNTS)
def test_a_method_of_many_passes_is_counted(net: nn.Module, method: str, items: int) -> None:
    settings, count = COUNTS[method]
    calls = told(net, method, items, **settings)
    done = [each for each, _ in calls]
    assert done == sorted(set(done))
    assert calls[-1] == (count * items, count * items)
    assert all(total >= each for each, total in calls)


def test_small_chunks_are_told_one_by_one(net: nn.Module) -> None:
    assert told(net, "rise", masks=5, memory=1) == [(number, 5) for number in range(1, 6)]


def test_methods_of_one_pass_tell_their_end(net: nn.Module) -> None:
    assert told(net, "gradient") == [(1, 1)]


def test_what_several_methods_pass_adds_up(net: nn.Module) -> None:
    calls = told(net, [attributions["rise"](masks=7), attributions["integrated_gradients"](steps=5)])
    assert calls[-1] == (12, 12)


def test_masks_that_are_learned_are_counted_by_steps(net: nn.Module) -> None:
    calls = told(net, "meaningful_perturbation", steps=4)
    (end, total), done = calls[-1], [each for each, _ in calls]
    assert end == total
    assert {end - left for left in range(4)} <= set(done)


def test_maps_are_the_same(net: nn.Module) -> None:
    inputs = torch.rand(1, 3, 12, 12)
    silent = explain(net, inputs, "rise", masks=20)
    assert torch.equal(silent.values, explain(net, inputs, "rise", masks=20, progress=lambda done, total: None).values)


def test_nobody_is_told_of_what_he_did_not_ask(net: nn.Module, capfd: pytest.CaptureFixture[str]) -> None:
    inner = torch.rand(1, 3, 12, 12)

    @cnnviz.procedure
    def asks_another(run: cnnviz.Run) -> Tensor:
        explain(net, inner, "rise", masks=30)
        return run.inputs

    assert told(net, asks_another) == [(1, 1)]
    explain(net, inner, "rise", masks=30)
    assert capfd.readouterr() == ("", "")


def test_a_listener_that_raises_ends_the_question(net: nn.Module) -> None:
    def full(done: int, total: int) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        explain(net, torch.rand(1, 3, 12, 12), "rise", masks=20, progress=full)
    assert meter._here.meter is None


def test_true_shows_a_bar(net: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    explain(net, torch.rand(1, 3, 12, 12), "rise", masks=20, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "explaining" in err
    assert "20/20" in err


def test_metrics_are_counted_too(net: nn.Module) -> None:
    explanation, calls = explain(net, torch.rand(1, 3, 12, 12), "gradient"), []
    evaluate(explanation, "insertion", model=net, step=0.25, progress=lambda *call: calls.append(call))
    assert calls[-1] == (5, 5)


def test_a_synthesis_shows_a_bar(net: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    cnnviz.synthesize(net, "class_image", target=1, steps=3, size=12, progress=True)
    err = capsys.readouterr().err
    assert "synthesizing" in err
    assert "3/3" in err


def test_what_is_no_listener_is_refused(net: nn.Module) -> None:
    with pytest.raises(TypeError, match="progress='yes' is neither True, False nor a function"):
        explain(net, torch.rand(1, 3, 12, 12), progress="yes")


def test_what_is_computed_twice_is_counted_once() -> None:
    calls: list[tuple[int, int]] = []
    with meter.metered(lambda *call: calls.append(call)), meter.stage(10, shared=True) as part:
        assert part is not None
        for begin in (0, 5):
            part.turn(begin, begin + 5)
            for _ in range(2):  # replayed, then by whole passes
                with meter.stage(5) as inside:
                    assert inside is part
                    for _ in range(5):
                        with meter.stage(3) as counted_elsewhere:
                            assert counted_elsewhere is None
                        inside.advance(1)
    assert calls == [(number, 10) for number in range(1, 11)]
