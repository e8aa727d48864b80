"""The device gives what the CPU gives: every attribution and metric without draws; what draws runs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from quick import ATTENDING, LEARNING, quick
from torch import Tensor

from cnnviz import attributions, evaluate, explain, metrics, syntheses, synthesize
from cnnviz.testing import SmallNet

DRAWING = {
    *("d_rise", "gradient_shap", "kernel_shap", "lime", "rise", "shapley_sampling"),
    *("expected_gradients", "smoothgrad", "smoothgrad_squared", "vargrad"),
}
"""Attributions whose draws come from a generator of the device."""
DRAWING_METRICS = {"infidelity", "max_sensitivity", "randomization", "road"}
SYNTHESES: dict[str, dict[str, Any]] = {
    "class_image": {"target": 1, "steps": 3, "size": (14, 12)},
    "deep_dream": {"start": torch.rand(1, 3, 14, 12), "layer": "second", "octaves": 2, "steps": 2},
    "feature_image": {"layer": "second", "channel": 2, "steps": 3, "size": (14, 12)},
    "inversion": {"of": torch.randn(1, 3, 14, 12), "layer": "second", "steps": 3},
    "multiscale_ascent": {"layer": "second", "channel": 1, "scales": 2, "steps": 2, "size": (14, 12)},
}


def pictures() -> Tensor:
    return torch.randn(3, 3, 14, 12, generator=torch.Generator().manual_seed(7))


def explained(name: str, device: torch.device) -> Any:
    model = SmallNet(attention=name in ATTENDING).to(device)
    return explain(model, pictures().to(device), name, target=[0, 1, 2], seed=1, **quick(name))


@pytest.mark.parametrize("name", [name for name in attributions if name not in DRAWING])
def test_an_attribution_without_draws_agrees_with_the_cpu(name: str, device: torch.device) -> None:
    found, expected = explained(name, device), explained(name, torch.device("cpu"))
    assert {found.values.device, found.score.device, found.inputs.device} == {device}
    here, there = found.values.cpu().double().flatten(1), expected.values.double().flatten(1)
    assert here.any()
    assert float(torch.cosine_similarity(here, there).min()) >= 1 - 1e-5
    if name not in LEARNING:
        torch.testing.assert_close(here, there, rtol=0, atol=1e-3 * float(there.abs().max()))
    torch.testing.assert_close(found.score.cpu(), expected.score, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(DRAWING))
def test_an_attribution_with_draws_runs_and_gives_the_same_again(name: str, device: torch.device) -> None:
    found = explained(name, device).values
    assert found.device == device
    assert found.any()
    torch.testing.assert_close(explained(name, device).values, found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", metrics)
def test_a_metric_agrees_with_the_cpu(name: str, device: torch.device) -> None:
    few = {key: 2 for key in ("samples",) if key in metrics[name].settings}
    method = attributions["integrated_gradients"](steps=4) if name in {"max_sensitivity", "randomization"} else None
    masks = torch.zeros(3, 14, 12, dtype=torch.bool)
    masks[:, 2:9, 1:6] = True
    found = []
    for place in (device, torch.device("cpu")):
        explanation = explained("integrated_gradients", place)
        scored = evaluate(
            explanation, name, masks=masks.to(place), model=SmallNet().to(place), attribution=method, **few
        )
        assert scored.shape == (3,)
        found.append(scored.cpu().double())
    if name in DRAWING_METRICS:
        assert found[0].isfinite().all()
    else:
        torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", syntheses)
def test_a_synthesis_climbs_on_the_device_and_changes_nothing(name: str, device: torch.device) -> None:
    settings = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in SYNTHESES[name].items()}
    model = SmallNet().to(device)
    before = copy.deepcopy(model.state_dict())
    made = synthesize(model, name, **settings)
    assert made.inputs.device == device
    assert made.inputs.isfinite().all()
    assert made.inputs.flatten(1).std(1).gt(0).all()
    assert all(torch.equal(values, before[key]) for key, values in model.state_dict().items())
