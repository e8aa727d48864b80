"""torchvision's detectors as they are, with random weights: the automatic layer, and the map that hooks give."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection

from cnnviz import explain
from cnnviz.formulas import MapWarning
from cnnviz.targets import box

DETECTORS: dict[str, tuple[str, dict[str, Any], str]] = {
    "fasterrcnn": (
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        {"min_size": 64, "max_size": 96, "box_score_thresh": 0.0},
        r"backbone\.fpn\.layer_blocks\.0",
    ),
    "ssdlite": (
        "ssdlite320_mobilenet_v3_large",
        {"score_thresh": 0.0},
        r"head\.classification_head\.module_list\.\d\.0",
    ),
}
"""By name what makes it, and the automatic layer of its first detection, whichever level that is of."""


def detector(name: str) -> nn.Module:
    make, settings = DETECTORS[name][:2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = getattr(detection, make)(weights=None, weights_backbone=None, num_classes=5, **settings)
    if name == "ssdlite":
        normalized(model.double())
    evaluated: nn.Module = model.double().eval()
    return evaluated


def normalized(model: Any) -> None:
    """Statistics as of a trained network; without them nothing is left of the picture in the last layers."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        noise = torch.rand(4, 3, 320, 320, generator=torch.Generator().manual_seed(1)).double()
        model.head(list(model.train().backbone(noise).values()))


def picture() -> Tensor:
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)).double()


def by_hooks(model: nn.Module, x: Tensor, layer: str, read: Callable[[Any], Tensor]) -> Tensor:
    """Grad-CAM of a layer that runs once."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, args, output: kept.append(output))
    try:
        score = read(model([x[0]]))
    finally:
        handle.remove()
    (maps,) = kept
    (grad,) = torch.autograd.grad(score, maps)
    return (grad.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).detach()


@pytest.mark.parametrize("name", DETECTORS)
def test_the_first_detection_is_explained_at_the_last_layer_before_its_scores(name: str) -> None:
    model, x = detector(name), picture()
    for target in (lambda output: output[0]["scores"][:1], box(0)):
        found = explain(model, x, "grad_cam", target=target)
        chosen = re.fullmatch(rf"grad_cam\(layer='({DETECTORS[name][2]})'\)", found.recipe)
        assert chosen is not None, found.recipe
        expected = by_hooks(model, x, chosen[1], lambda output: output[0]["scores"][0])
        assert expected.abs().max() > 0
        torch.testing.assert_close(found.values, expected, rtol=1e-8, atol=1e-14)


class Levels(nn.Module):
    """One stage, with a head whose channels are anchors times classes, as RetinaNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.tower = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.logits = nn.Conv2d(6, 3 * 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.logits(self.tower(self.body(x).relu()).relu())
        scores = logits.view(len(x), 3, 4, *logits.shape[2:]).permute(0, 3, 4, 1, 2).reshape(len(x), -1, 4).sigmoid()
        return scores.flatten(1).topk(20, 1).values


@pytest.mark.parametrize("count", [1, 3])
def test_maps_of_anchors_times_classes_are_scores(count: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Levels().double().eval()
    x, target = picture()[..., :16, :24], lambda output: output[:, :count].sum(1)
    assert explain(model, x, target=target).recipe == "grad_cam(layer='tower')"
    with pytest.warns(MapWarning, match="layer 'logits' holds the scores themselves"):
        explain(model, x, target=target, layer="logits")


def test_a_layer_of_which_each_head_reads_a_half_holds_no_scores() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.heads = nn.Conv2d(3, 8, 3), nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)])

        def forward(self, x: Tensor) -> Tensor:
            parts = self.body(x).relu().mean((2, 3)).chunk(2, 1)
            return torch.cat([head(part) for head, part in zip(self.heads, parts, strict=True)], 1)

    assert explain(Halves().double().eval(), picture(), target=1, layer="body").recipe == "grad_cam(layer='body')"
