"""The commands that measure: small runs of each, and what they claim."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from benchmarks import coverage, expected_layers, features, zoo

SMALL = (
    *("squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5", "resnet18", "ssdlite320_mobilenet_v3_large"),
    *("timm:pvt_v2_b0", "timm:vit_tiny_patch16_224", "timm:xcit_nano_12_p16_224", "timm:mobilenetv3_small_050"),
    *("hf:beit", "hf:convnext", "hf:detr", "hf:resnet", "hf:segformer", "hf:swin", "hf:vit"),
)
"""The smallest networks of the list."""


def network(name: str) -> zoo.Network:
    return next(network for network in zoo.networks() if network.name == name)


def test_coverage_tells_what_works_and_what_refuses() -> None:
    methods = ["grad_cam", "cam", "deconvnet", "guided_backprop", "guided_grad_cam"]
    said = dict(coverage.outcomes(network("mobilenet_v3_small"), methods))
    assert (said.pop("layer"), said.pop("grid")) == ("features", "2x2")
    assert set(said.values()) == {"works"}
    said = dict(coverage.outcomes(network("efficientnet_b0"), methods))
    assert said["grad_cam"] == said["cam"] == "works"
    assert said["guided_backprop"].startswith("refuses: rule 'guided' changes nothing in EfficientNet")
    page = coverage.page({"efficientnet_b0": said}, methods)
    assert "| efficientnet_b0 | `features` | 2x2 | right |" in page
    assert "| efficientnet_b0 | ✓ | ✓ | [1] | [2] | [2] |" in page
    assert "\n2. refuses: rule 'guided' changes nothing in this network: none of" in page
    assert "1 of 1 are those" in page


def test_networks_of_every_kind_are_asked() -> None:
    names = [network.name for network in zoo.networks()]
    assert len(names) == len(set(names))
    assert all(":" in name for name in set(expected_layers.EXPECTED) - set(names))  # whose library is not installed
    assert len([name for name in names if ":" not in name]) >= 105
    assert len(zoo.TIMM.split()) >= 60
    assert len(expected_layers.EXPECTED) >= 40


def test_a_wrong_layer_is_told() -> None:
    assert expected_layers.verdict("resnet18", "layer4", "2x2") == "right"
    assert expected_layers.verdict("resnet18", "conv1", "2x2") == "wrong: layer4|layer4.1 2x2 wanted"
    assert expected_layers.verdict("resnet18", "layer4", "4x4").startswith("wrong")
    assert expected_layers.verdict("fasterrcnn_resnet50_fpn", "backbone.fpn.layer_blocks.2", "8x6") == "right"
    assert expected_layers.verdict("some other", "layer4", "2x2") == "not listed"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: torch.ones(1), "works"),
        (lambda: torch.zeros(1), "FAILS: the map is zero everywhere, without a word"),
        (lambda: torch.full((1,), torch.nan), "FAILS: gives values that are no numbers"),
    ],
)
def test_what_an_answer_is_worth(answer: Callable[[], torch.Tensor], said: str) -> None:
    assert coverage.outcome(answer) == said


def test_a_map_of_zeros_may_be_announced_and_a_refusal_has_one_line() -> None:
    def announced() -> torch.Tensor:
        warnings.warn("the map is zero everywhere", stacklevel=1)
        return torch.zeros(1)

    def fails(error: Exception) -> torch.Tensor:
        raise error

    assert coverage.outcome(announced) == "works"
    assert coverage.outcome(lambda: fails(ValueError("no"))) == "refuses: no"
    assert coverage.outcome(lambda: fails(ValueError("no\nno"))).startswith("FAILS")
    assert coverage.outcome(lambda: fails(RuntimeError("oh"))) == "FAILS: RuntimeError: oh"


@pytest.mark.parametrize("name", SMALL)
def test_the_automatic_layer_is_the_one_a_person_would_choose(name: str) -> None:
    library = {"timm": "timm", "hf": "transformers"}.get(name.partition(":")[0])
    if library is not None and not zoo.installed(library):
        pytest.skip(f"{library} is not installed")
    said = dict(coverage.outcomes(network(name), ["grad_cam"]))
    assert expected_layers.verdict(name, said["layer"], said["grid"]) == "right", said
    assert said["grad_cam"] == "works"


def test_a_network_has_its_time_and_may_not_end_the_run() -> None:
    def spins() -> nn.Module:
        while True:
            pass

    def ends() -> nn.Module:
        os._exit(3)

    late = "no answer within the 1 s of CPU time of a network"
    assert coverage.ask(zoo.Network("slow", spins), ["cam"], 1) == {"layer": late, "grid": late, "cam": late}
    ended = "FAILS: the process ended"
    assert coverage.ask(zoo.Network("ends", ends), ["cam"], 30) == {"layer": ended, "grid": ended, "cam": ended}


def test_a_failure_is_told_and_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"layer": "layer4", "grid": "2x2", "cam": "FAILS: RuntimeError: oh"}
    monkeypatch.setattr(sys, "argv", ["coverage", "resnet18", "--methods", "cam"])
    monkeypatch.setattr(coverage, "ask", lambda network, methods, seconds: row)
    monkeypatch.setattr(torch, "set_flush_denormal", lambda on: True)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(coverage.warnings, "filterwarnings", lambda *args: None)
    assert coverage.main() == 1
    assert "cam: FAILS: RuntimeError: oh" in capsys.readouterr().out
    row["cam"] = "works"
    assert coverage.main() == 0
    row["layer"] = "conv1"
    assert coverage.main() == 1


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
