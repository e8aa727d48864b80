"""Training: the same seed gives the same network, and every network is fitted to what it shall know."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from benchmarks import training
from cnnviz import demo
from cnnviz.demo.drawing import draw


def test_training_a_classifier_twice_from_one_seed_gives_one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.PICTURES, "demo", 2 * training.BATCH)
    monkeypatch.setitem(training.EPOCHS, "demo", 1)
    first, second, other = (training.classifier("demo", seed) for seed in (3, 3, 4))
    torch.testing.assert_close(first.state_dict(), second.state_dict())
    assert not torch.equal(first.state_dict()["fc.weight"], other.state_dict()["fc.weight"])


def test_training_for_segmentation_twice_from_one_seed_gives_one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SEGMENTATION_BATCH": 8, "NAMING": 16, "SEGMENTING": 8}.items():
        monkeypatch.setattr(training, name, value)
    first, second, other = (training.segmentation_net(seed) for seed in (3, 3, 4))
    torch.testing.assert_close(first.state_dict(), second.state_dict())
    assert not torch.equal(first.scores.weight, other.scores.weight)


def test_truth_is_the_shape_on_its_mask_and_background_elsewhere() -> None:
    drawn = draw(8, 0)
    maps = training.class_maps(drawn)
    for item in range(8):
        mask = torch.from_numpy(drawn.masks[item])
        assert set(maps[item][mask].tolist()) == {item}
        assert set(maps[item][~mask].tolist()) == {8}


def test_random_labels_are_learned_by_heart() -> None:
    module, share = training.learned_by_heart(pictures=16, epochs=12)
    assert not module.training
    assert 0 < share <= 1
    assert module(torch.zeros(1, 3, 96, 96)).shape == (1, 8)


def test_the_command_writes_weights_that_say_how_good_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"SEGMENTATION_BATCH": 8, "NAMING": 8, "SEGMENTING": 8}.items():
        monkeypatch.setattr(training, name, value)
    monkeypatch.setattr(training, "draw", lambda count, *rest, **settings: draw(min(count, 16), *rest, **settings))
    monkeypatch.setitem(training.EPOCHS, "demo", 1)
    training.main(["--networks", "demo", "demo-segmentation", "--out", str(tmp_path), "--seed", "5"])
    said = capsys.readouterr().out
    for name, figure in {"demo": "accuracy", "demo-segmentation": "iou"}.items():
        with safe_open(tmp_path / f"{name}.safetensors", framework="pt") as weights:
            assert weights.metadata()["seed"] == "5"
            assert 0 <= float(weights.metadata()[figure]) <= 1
            assert set(weights.keys()) == set(demo.network(name).state_dict())
        assert f"{name}: " in said
