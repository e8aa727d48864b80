"""torchvision's detectors, and other large networks, with random weights: the automatic layer, and its map."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
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


@pytest.mark.parametrize("method", ["grad_cam", "score_cam", "ablation_cam"])
@pytest.mark.parametrize("name", ["fasterrcnn", "retinanet"])
def test_where_nothing_is_found_no_layer_is_on_the_way(name: str, method: str) -> None:
    """Layers that decide that nothing is found are none of which a map could be made."""
    if name == "retinanet":
        sizes = {"min_size": 64, "max_size": 96}
        model: Any = detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5, **sizes)
        model = model.double().eval()
    else:
        model = detector(name)
    with pytest.raises(
        LookupError, match=r"no layer of \w+ that has spatial extent changes the score; a score that is"
    ):
        explain(
            model, picture(), method, target=lambda output: output[0]["scores"][output[0]["labels"] == 99].sum()[None]
        )


@pytest.mark.parametrize(
    ("name", "layer", "of_aux"),
    [
        ("fcn_resnet50", "classifier.2", "aux_classifier.2"),
        ("deeplabv3_mobilenet_v3_large", "classifier.3", "aux_classifier.2"),
    ],
)
def test_of_a_segmentation_neither_its_scores_nor_the_other_head_are_explained(
    name: str, layer: str, of_aux: str
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = models.get_model(name, weights=None, weights_backbone=None, aux_loss=True, num_classes=4).eval()
    x = picture().float()
    for head, expected in (("out", layer), ("aux", of_aux)):
        target = lambda output, head=head: output[head][:, 1].mean((1, 2))  # noqa: E731  # as users write it
        assert explain(model, x, target=target).recipe == f"grad_cam(layer={expected!r})"


def test_a_network_of_videos_with_channels_last_has_a_map_of_time_and_space() -> None:
    """Its last stage gives (N, T, H, W, C)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = (
            models.video.swin_transformer.SwinTransformer3d([2, 4, 4], 12, [1, 1], [2, 2], [2, 2, 2], num_classes=3)
            .double()
            .eval()
        )
    x = torch.randn(2, 3, 8, 32, 48, generator=torch.Generator().manual_seed(0)).double()
    found = explain(model, x, "grad_cam", target=1)
    assert found.recipe == "grad_cam(layer='norm')"
    kept: list[Tensor] = []
    handle = model.norm.register_forward_hook(lambda module, args, output: kept.append(output))
    score = model(x)[:, 1].sum()
    handle.remove()
    maps, grad = (each.movedim(-1, 1) for each in (kept[0], torch.autograd.grad(score, kept[0])[0]))
    expected = (grad.mean((2, 3, 4), keepdim=True) * maps).sum(1, keepdim=True).detach()
    torch.testing.assert_close(found.values, expected, rtol=1e-8, atol=1e-12)
