"""The commands that measure: small runs of each, and what they claim."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks import coverage, features


def test_coverage_tells_what_works_and_what_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    methods = ["grad_cam", "cam", "deconvnet", "guided_backprop", "guided_grad_cam"]
    said = dict(coverage.outcomes("mobilenet_v3_small", methods))
    assert set(said.values()) == {"works"}
    said = dict(coverage.outcomes("efficientnet_b0", methods))
    assert said["grad_cam"] == said["cam"] == "works"
    assert said["guided_backprop"].startswith("refuses: rule 'guided' changes nothing in EfficientNet")
    page = coverage.page({"efficientnet_b0": said}, methods)
    assert "| efficientnet_b0 | ✓ | ✓ | [1] | [2] | [2] |" in page
    assert len(coverage.model_names()) >= 80


def test_a_failure_is_told_and_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["coverage", "resnet18"])
    monkeypatch.setattr(coverage, "outcomes", lambda name, methods: [("cam", "FAILS: RuntimeError: oh")])
    monkeypatch.setattr(torch, "set_flush_denormal", lambda on: True)
    monkeypatch.setattr(coverage.warnings, "filterwarnings", lambda *args: None)
    assert coverage.main() == 1
    assert "cam: FAILS: RuntimeError: oh" in capsys.readouterr().out


def test_feature_images_are_measured_as_the_pictures_they_are() -> None:
    (case,) = features.cases(["demo"])
    case = features.Case(case.model, case.layer, case.pictures[-24:])
    (row,) = features.measure(case, [20], steps=48)
    assert row.ours >= 2 * row.pictures
    assert row.passes[0] >= 48
    assert row.passes[1] >= row.passes[0]
    assert row.ends < 0.05
    drawn = (case.model.preprocessing.inverse(case.pictures[:2]) * 255).round().byte().movedim(1, -1).numpy()
    torch.testing.assert_close(features.read_back(case, drawn), case.pictures[:2], atol=0.01, rtol=0)
    assert features.at_the_ends(drawn * 0) == 1
