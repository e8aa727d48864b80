"""Whatever cnnviz registers keeps every promise of the kit, each a test of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from quick import ATTENDING, quick
from torch import Tensor, nn

from cnnviz import attributions, explain
from cnnviz.testing import Check, SmallNet, checks
from cnnviz.testing.state_snapshot import state, unchanged

TARGET_BLIND = ("activation", "attention_rollout", "eigen_cam", "projections")
ATTRIBUTIONS = {name: quick(name) | {"target_blind": name in TARGET_BLIND} for name in attributions}
for name in ATTENDING:
    ATTRIBUTIONS[name] |= {"attention": True}
for name in ("rise", "d_rise"):
    ATTRIBUTIONS[name] |= {"cells": 2, "masks": 32}  # of fewer, chance decides where the evidence is
ATTRIBUTIONS["lime"] |= {"samples": 8}  # of fewer, too
ATTRIBUTIONS["gradient_shap"] |= {"samples": 16}  # with fewer, most points lie where nothing changes
SHOWN = {rank: torch.randn(3, *(14, 12, 10)[:rank], generator=torch.Generator().manual_seed(0)) for rank in (1, 2, 3)}
SYNTHESES: dict[str, list[dict[str, Any]]] = {
    "class_image": [
        {"rank": 2, "target": 1, "steps": 3, "small_norms": 10.0, "small_contributions": 10.0, "start": "noise"},
        {"rank": 1, "target": 1, "steps": 3, "penalty": 0.1, "even": False},
    ],
    "deep_dream": [
        {"rank": 2, "layer": "second", "octaves": 2, "steps": 2, "jitter": 2},
        {"rank": 1, "layer": "second", "channel": 1, "octaves": 2, "steps": 2, "even": False, "decay": 0.1},
    ],
    "feature_image": [
        *({"rank": rank, "layer": "second", "channel": 2, "steps": 3} for rank in (1, 2, 3)),
        {"rank": 2, "target": 2, "steps": 20, "diversity": 0.5},
        {"rank": 2, "layer": "second", "channel": 2, "at": "middle", "robust": False, "steps": 2},
    ],
    "inversion": [
        *({"rank": rank, "of": SHOWN[rank], "layer": "second", "steps": 3} for rank in (1, 2, 3)),
        {"rank": 2, "of": SHOWN[2], "layer": "first", "canvas": "pixels", "norm_weight": 0.1, "lr": 1.0, "steps": 3},
    ],
    "multiscale_ascent": [
        {"rank": 2, "layer": 2, "channel": 1, "scales": 2, "steps": 2, "blur": 2},
        {"rank": 3, "layer": 2, "channel": 1, "scales": 2, "steps": 1},
    ],
}
METRICS: dict[str, list[dict[str, Any]]] = {
    "roc_auc": [{}, {"per": "section"}, {"per": "interval", "count": 4}],
    "pointing_game": [{}, {"tolerance": 2.5}],
    "mask_iou": [{}, {"by": "segmentation"}],
}


# those of Ray need a cluster, see tests/plugins/test_ray.py
@pytest.mark.parametrize(
    "check", [x for x in checks("cnnviz", ATTRIBUTIONS | SYNTHESES | METRICS) if x.method != "ray"]
)
def test_promise(check: Check) -> None:
    check()


class Bounded(nn.Module):
    """Brings its weight into bounds in every pass, where it is already: it must be what it was."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, -0.5]))

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = self.weight.data.clamp(-1, 1)
        return x * self.weight.sum() * 2


@pytest.mark.parametrize("name", attributions)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_model_that_writes_into_itself_is_left_as_it_was(name: str, rank: int) -> None:
    model = SmallNet(rank, between=Bounded(), attention=name in ATTENDING)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    inputs = torch.randn(3, 3, *(12, 10, 8)[:rank], generator=torch.Generator().manual_seed(7), requires_grad=True)
    with unchanged(name, lambda: state(model, inputs)):
        values = explain(model, inputs, name, target=torch.tensor([0, 1, 2]), **quick(name)).values
    assert values.any()
