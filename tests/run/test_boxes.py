"""Detections as targets: boxes found in every known form of output, and what is read of them in variants."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from nets import randomized
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from cnnviz import Explanation, attributions, detect, evaluate, explain
from cnnviz.targets import box, several

NAMES = ("background", "person", "dog")
HEIGHT, WIDTH = 24, 32


def pictures(items: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(items, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Anchors(nn.Module):
    """Twelve proposals, 3 x 4, with probabilities of three classes, as YOLO's or DETR's networks give them."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 5, stride=4, padding=2), nn.Softplus(), nn.Conv2d(6, 8, 3, stride=2, padding=1)
        )
        self.head = nn.Conv2d(8, 9, 1)
        self.form = form
        randomized(self, seed=4)

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, 12, 4) as centre and size, logits (N, 12, 4), objectness (N, 12)."""
        maps = self.head(self.body(x)).flatten(2).transpose(1, 2)
        y, x_ = torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij")
        centres = torch.stack([x_.flatten(), y.flatten()], 1).double() * 8 + 4 + maps[..., :2].tanh()
        return torch.cat([centres, 6 + 4 * maps[..., 2:4].sigmoid()], 2), maps[..., 4:8], maps[..., 8].sigmoid()

    def forward(self, x: Tensor) -> Any:
        boxes, logits, objectness = self.raw(x)
        if self.form == "v8":
            return torch.cat([boxes, logits[..., :3].sigmoid()], 2).transpose(1, 2), [boxes]
        if self.form == "v5":
            return torch.cat([boxes, objectness[..., None], logits[..., :3].sigmoid()], 2)
        shares = boxes / boxes.new_tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
        if self.form == "detr":
            return {"pred_logits": logits, "pred_boxes": shares}
        return logits[..., :3].sigmoid(), corners(boxes), objectness


def own(output: Any) -> tuple[Tensor, Tensor, Tensor]:
    """What is said about one image by a head of its own."""
    classes, boxes, objectness = output
    return boxes[0], classes[0], objectness[0]


FORMS = ("v8", "v5", "detr", "own")


def how(form: str) -> dict[str, Any]:
    return {"boxes": own} if form == "own" else {}


def corners(boxes: Tensor) -> Tensor:
    low, high = boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
    return torch.cat([low, high], -1)


def said(form: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Boxes (N, 12, 4), class probabilities (N, 12, 3), objectness, and what of="class" reads."""
    boxes, logits, objectness = Anchors(form).raw(x)
    classes = logits.softmax(-1)[..., :3] if form == "detr" else logits[..., :3].sigmoid()
    scores = logits[..., :3] if form == "detr" else classes
    return corners(boxes), classes, objectness if form in ("v5", "own") else None, scores


def iou(a: Tensor, b: Tensor) -> Tensor:
    width = (torch.min(a[2], b[2]) - torch.max(a[0], b[0])).clamp(min=0)
    height = (torch.min(a[3], b[3]) - torch.max(a[1], b[1])).clamp(min=0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (areas[0] + areas[1] - width * height)


def found_by_loop(form: str, x: Tensor, threshold: float = 0.25) -> list[list[int]]:
    """The numbers of the proposals of each image that count, the highest score first."""
    boxes, classes, objectness, _ = said(form, x)
    images = []
    for item in range(len(x)):
        scores = [
            float(classes[item, a].detach().max() * (1 if objectness is None else objectness[item, a].detach()))
            for a in range(12)
        ]
        kept: list[int] = []
        for a in sorted(range(12), key=lambda a: -scores[a]):
            label = classes[item, a].argmax()
            rivals = [b for b in kept if classes[item, b].argmax() == label and form != "detr"]
            if scores[a] >= threshold and not any(iou(boxes[item, a], boxes[item, b]) > 0.5 for b in rivals):
                kept.append(a)
        images.append(kept)
    return images


@pytest.mark.parametrize("form", FORMS)
def test_what_is_found_is_what_a_loop_finds(form: str) -> None:
    x = pictures()
    boxes, classes, objectness, _ = said(form, x)
    for threshold in (None, 0.4):
        found = detect(Anchors(form), x, categories=NAMES, threshold=threshold, **how(form))
        expected = found_by_loop(form, x, threshold or 0.25)
        assert [len(image) for image in found] == [len(image) for image in expected]
        for item, image in enumerate(found):
            assert [each.number for each in image] == list(range(len(image)))
            for each, a in zip(image, expected[item], strict=True):
                np.testing.assert_allclose(each.box, boxes[item, a].tolist())
                assert each.label == int(classes[item, a].argmax())
                assert each.name == NAMES[each.label]
                sure = 1 if objectness is None else objectness[item, a].item()
                assert each.score == pytest.approx(classes[item, a].max().item() * sure)
    assert any(found_by_loop(form, x)), "the test needs detections"


def read_by_loop(form: str, x: Tensor, numbers: list[int], of: str, places: Tensor, labels: Tensor) -> Tensor:
    boxes, classes, objectness, scores = said(form, x)
    wanted = said(form, pictures())[1].detach()
    rows = []
    for item, a in enumerate(numbers):
        if of == "class":
            rows.append(scores[item, a, labels[item]])
        elif of == "objectness":
            assert objectness is not None
            rows.append(objectness[item, a])
        elif of == "overlap":
            rows.append(iou(boxes[item, a], places[item]))
        elif of == "match":
            products = []
            for b in range(12):
                cosine = torch.cosine_similarity(classes[item, b], wanted[item, a], dim=0)
                sure = 1 if objectness is None else objectness[item, b]
                products.append(iou(boxes[item, b], places[item]) * cosine * sure)
            rows.append(torch.stack(products).max())
        else:
            rows.append(boxes[item, a, ("x1", "y1", "x2", "y2").index(of)])
    return torch.stack(rows)


READS = ("class", "overlap", "x1", "y1", "x2", "y2", "objectness", "match")


def test_a_detector_may_be_a_black_box() -> None:
    net, images = Anchors("v8").double().eval(), pictures()
    found = detect(lambda batch: net(batch), images, categories=NAMES)
    assert found == detect(net, images, categories=NAMES)
    assert any(found)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("of", READS)
def test_a_box_is_read_as_by_hand(form: str, of: Any) -> None:
    """Its gradient, and its score in variants: of the same proposal, whichever is the strongest there."""
    net, x = Anchors(form), pictures()
    target = box(0, of=of, **how(form))
    if of == "objectness" and form in ("v8", "detr"):
        with pytest.raises(ValueError, match="the model gives no objectness of its boxes"):
            explain(net, x, "gradient", target=target)
        return
    numbers = [image[0] for image in found_by_loop(form, x)]
    boxes, classes, _, _ = said(form, x)
    places = torch.stack([boxes[item, a] for item, a in enumerate(numbers)]).detach()
    labels = torch.stack([classes[item, a].argmax() for item, a in enumerate(numbers)])
    read = lambda inputs: read_by_loop(form, inputs, numbers, of, places, labels)  # noqa: E731
    leaf = x.clone().requires_grad_()
    score = read(leaf)
    (slope,) = torch.autograd.grad(score.sum(), leaf)
    found = explain(net, x, "gradient", target=target)
    torch.testing.assert_close(found.score, score.detach())
    torch.testing.assert_close(found.values, slope)
    assert found.boxes is not None
    torch.testing.assert_close(found.boxes[:, 0], places)
    windows = explain(net, x, "occlusion", target=target, window=12, stride=12, baseline=0.0).values
    for top in range(0, HEIGHT, 12):
        for left in range(0, 24, 12):
            variant = x.clone()
            variant[:, :, top : top + 12, left : left + 12] = 0
            drop = (score - read(variant)).detach()
            torch.testing.assert_close(windows[:, 0, top + 5, left + 5], drop)


@pytest.mark.parametrize("form", FORMS)
def test_a_class_and_a_place_choose_a_detection(form: str) -> None:
    net, x = Anchors(form), pictures(1)
    found = detect(net, x, categories=NAMES, **how(form))[0]
    for name in {each.name for each in found}:
        best = max((each for each in found if each.name == name), key=lambda each: each.score)
        answer = explain(net, x, "gradient", target=box(str(name), **how(form)), categories=NAMES)
        assert answer.boxes is not None
        np.testing.assert_allclose(answer.boxes[0, 0].tolist(), best.box)
        for each in (other for other in found if other.name == name):
            centre = ((each.box[0] + each.box[2]) / 2, (each.box[1] + each.box[3]) / 2)
            there = explain(net, x, "gradient", target=box(str(name), at=centre, **how(form)), categories=NAMES)
            inside = [
                e
                for e in found
                if e.name == name and e.box[0] <= centre[0] <= e.box[2] and e.box[1] <= centre[1] <= e.box[3]
            ]
            assert there.boxes is not None
            np.testing.assert_allclose(there.boxes[0, 0].tolist(), max(inside, key=lambda e: e.score).box)


@pytest.mark.parametrize("form", FORMS)
def test_a_missed_object_is_the_likeliest_proposal_there(form: str) -> None:
    net, x = Anchors(form), pictures()
    place = torch.tensor([9.0, 7.0, 16.0, 15.0], dtype=torch.float64)
    boxes, classes, _, _ = said(form, x)
    numbers = [
        max(range(12), key=lambda a: (iou(boxes[item, a], place) * classes[item, a, 1]).item()) for item in range(2)
    ]
    read = lambda inputs: read_by_loop(form, inputs, numbers, "class", boxes, torch.tensor([1, 1]))  # noqa: E731
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(read(leaf).sum(), leaf)
    target = box(tuple(place.tolist()), "person", **how(form))  # type: ignore[arg-type]
    torch.testing.assert_close(explain(net, x, "gradient", target=target, categories=NAMES).values, slope)


def test_what_is_not_found_is_told() -> None:
    net, x = Anchors("v5"), pictures()
    count = len(detect(net, x)[0])
    for target, error, message in (
        (box(count), ValueError, f"there is no box {count} in input 0, where {count} were found; give a box"),
        (box("dog", threshold=2.0), ValueError, "no 'dog' was found in input 0; give a box"),
        (box("cat"), LookupError, "there is no class 'cat'"),
        (box((1, 2, 3, 4), 9), ValueError, "there is no class 9; the model has 3"),
    ):
        with pytest.raises(error, match=message):
            explain(net, x, "gradient", target=target, categories=NAMES)
    for build, message in (
        (lambda: box(0, of="area"), "a box has no 'area'"),  # type: ignore[arg-type]
        (lambda: box((3, 2, 1, 4)), r"the box \(3, 2, 1, 4\) is no x1, y1, x2, y2"),
    ):
        with pytest.raises(ValueError, match=message):
            build()


def test_an_output_without_boxes_is_told() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * HEIGHT * WIDTH, 5)).double().eval()
    with pytest.raises(TypeError, match=r"the model gives \(2, 5\), in which no boxes are known; give boxes="):
        detect(net, pictures())
    with pytest.raises(TypeError, match="in which no boxes are known"):
        explain(net, pictures(), "gradient", target=box(0))
    with pytest.raises(ValueError, match=r"boxes= gave \[\(1, 12, 4\), .*; it gives \(A, 4\)"):
        detect(Anchors("own"), pictures(), boxes=lambda output: (output[1], output[0], output[2]))


def test_each_input_has_a_box_of_its_own_and_boxes_combine() -> None:
    net, x = Anchors("v5"), pictures()
    each = explain(net, x, "gradient", target=[box(0), box(1)])
    for item, number in enumerate((0, 1)):
        alone = explain(net, x[item : item + 1], "gradient", target=box(number))
        torch.testing.assert_close(each.values[item : item + 1], alone.values)
        torch.testing.assert_close(each.boxes[item : item + 1], alone.boxes)  # type: ignore[index]
    both = explain(net, x, "gradient", target=box(0) - box(1))
    first, second = explain(net, x, "gradient", target=several(box(0), box(1)))
    torch.testing.assert_close(both.values, first.values - second.values)
    assert both.boxes is not None
    assert both.boxes.shape == (2, 2, 4)
    assert both.objective == "box(0) - box(1)"


@pytest.mark.parametrize("metric", ["deletion", "infidelity", "max_sensitivity", "randomization"])
def test_metrics_ask_for_the_same_box(metric: str) -> None:
    net, x = Anchors("v8"), pictures()
    numbers = [image[0] for image in found_by_loop("v8", x)]
    labels = said("v8", x)[1][torch.arange(2), numbers].argmax(1)
    read = lambda out: out[0][torch.arange(2), 4 + labels, torch.tensor(numbers)]  # noqa: E731
    scores = []
    for target in (box(0), read):
        explanation = explain(net, x, "gradient", target=target)
        scores.append(evaluate(explanation, metric, model=net, target=target))
    torch.testing.assert_close(scores[0], scores[1])


# torchvision's detectors


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 5, stride=4, padding=2), nn.Conv2d(6, 8, 3, padding=1)
        self.out_channels = 8

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.second(self.first(x).relu()).relu()
        return maps


@cache
def tiny_detector() -> nn.Module:
    """torchvision's Faster R-CNN with few random weights, on pictures of one size with two persons, left and right."""
    torch.manual_seed(0)
    net = FasterRCNN(
        Backbone(),
        num_classes=3,
        min_size=48,
        max_size=64,
        rpn_anchor_generator=AnchorGenerator(sizes=((16,),), aspect_ratios=((1.0,),)),
        box_roi_pool=MultiScaleRoIAlign(featmap_names=["0"], output_size=3, sampling_ratio=2),
        box_score_thresh=0.0,
        box_detections_per_img=8,
        rpn_post_nms_top_n_test=12,
        box_nms_thresh=0.3,
    )
    net.double().eval()
    with torch.no_grad():  # as they are initialized, all boxes have one score
        net.rpn.head.cls_logits.weight *= 100
        net.roi_heads.box_predictor.cls_score.weight *= 40
    return net


def people() -> Tensor:
    """A bright figure at the left and one at the right, (1, 3, 48, 64)."""
    picture = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.1
    picture[..., 16:32, 8:20] += 0.8
    picture[..., 16:32, 44:56] += 0.7
    return picture


def left_and_right() -> tuple[int, int]:
    """The numbers of the detections of both persons."""
    found = detect(tiny_detector(), people())[0]
    numbers = []
    for place in (torch.tensor([8.0, 16, 20, 32]), torch.tensor([44.0, 16, 56, 32])):
        overlaps = [float(iou(torch.tensor(each.box), place)) for each in found]
        assert max(overlaps) > 0.4, "the test needs a detection there"
        numbers.append(overlaps.index(max(overlaps)))
    assert found[numbers[0]].label == found[numbers[1]].label
    return numbers[0], numbers[1]


@torch.no_grad()
def test_a_detector_finds_what_it_returns() -> None:
    net, x = tiny_detector(), people()
    expected = net(list(x))[0]
    found = detect(net, list(x), categories=NAMES)[0]
    assert len(found) == len(expected["boxes"]) > 1
    for number, each in enumerate(found):
        np.testing.assert_allclose(each.box, expected["boxes"][number].tolist())
        assert (each.label, each.name) == (int(expected["labels"][number]), NAMES[each.label])
        assert each.score == pytest.approx(expected["scores"][number].item())


@pytest.mark.parametrize("layer", ["backbone.second", "backbone.first", "rpn.head.conv.0.0"])
def test_two_persons_have_maps_of_their_own(layer: str) -> None:
    """Gradient and Grad-CAM at the backbone and at a layer on the way, against hooks and autograd."""
    net, x = tiny_detector(), people()
    maps = []
    for number in left_and_right():
        kept: list[Tensor] = []

        def keep(module: nn.Module, args: Any, output: Tensor, kept: list[Tensor] = kept) -> None:
            output.requires_grad_()
            kept.append(output)

        handle = net.get_submodule(layer).register_forward_hook(keep)
        leaf = x.clone().requires_grad_()
        score = net(list(leaf))[0]["scores"][number]
        handle.remove()
        if layer.startswith("rpn"):
            with pytest.raises(ValueError, match=r"does not depend on layer|zero everywhere"):
                explain(net, x, "grad_cam", layer=layer, target=box(number))
            continue
        slope, at_layer = torch.autograd.grad(score, [leaf, kept[-1]])
        cam = (at_layer.mean((2, 3), keepdim=True) * kept[-1].detach()).sum(1, keepdim=True)
        found = explain(net, x, ["gradient", "grad_cam"], layer=layer, target=box(number))
        torch.testing.assert_close(found["gradient"].values, slope)
        torch.testing.assert_close(found["grad_cam"].values, cam)
        torch.testing.assert_close(found["gradient"].score, score.detach()[None])
        maps.append(found["gradient"].values)
    assert not maps or not torch.allclose(maps[0], maps[1])


@torch.no_grad()
def test_a_variant_is_read_at_the_same_person_or_not_at_all() -> None:
    net, x = tiny_detector(), people()
    first, _ = left_and_right()
    plain = net(list(x))[0]
    place, label = plain["boxes"][first].detach(), plain["labels"][first]

    def read(variant: Tensor) -> float:
        best, overlap = 0.0, 0.5
        result = net(list(variant))[0]
        for own_box, own_label, score in zip(result["boxes"], result["labels"], result["scores"], strict=True):
            share = float(iou(own_box, place))
            if own_label == label and share >= overlap:
                best, overlap = float(score), share + 1e-12
        return best

    found = explain(net, x, "occlusion", target=box(first), window=16, stride=16, baseline=0.0).values
    for top in range(0, 48, 16):
        for left in range(0, 64, 16):
            variant = x.clone()
            variant[..., top : top + 16, left : left + 16] = 0
            expected = float(plain["scores"][first]) - read(variant)
            assert float(found[0, 0, top + 8, left + 8]) == pytest.approx(expected, abs=1e-9)


def test_a_path_that_finds_nothing_has_no_slope_and_says_so() -> None:
    net, x = tiny_detector(), people()
    found = explain(net, x, "integrated_gradients", steps=4, target=box(0))
    assert found.values.isfinite().all()
    plain = float(found.score)

    def read(output: Any) -> Tensor:
        score: Tensor = output[0]["scores"][:1]
        return score if abs(score.item() - plain) < 1e-12 else torch.zeros(1, dtype=torch.float64)

    with pytest.raises(ValueError, match="of a changed input is constant, as where a detector finds nothing"):
        explain(net, x, "integrated_gradients", steps=4, target=read)


def test_images_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one batch, and these are \(3, 48, 64\) and \(3, 40, 64\); bring"):
        explain(tiny_detector(), [people()[0], people()[0, :, :40]], "gradient", target=box(0))


# D-RISE and the picture


def masked_by_loop(form: str, x: Tensor, count: int, cells: int, number: int) -> Tensor:
    from cnnviz import Run
    from cnnviz_plugins.attributions.rise import Masks

    run = Run(Anchors(form), x, torch.tensor([0]))
    numbers = [image[number] for image in found_by_loop(form, x)]
    boxes, classes, _, _ = said(form, x)
    places = torch.stack([boxes[item, a] for item, a in enumerate(numbers)]).detach()
    labels = torch.stack([classes[item, a].argmax() for item, a in enumerate(numbers)])
    total = torch.zeros(len(x), 1, HEIGHT, WIDTH, dtype=torch.float64)
    for mask in Masks(cells, 0.5).draw(run, 0, count)[:, 0, 0].double():
        score = read_by_loop(form, x * mask, numbers, "match", places, labels).detach()
        total += score.view(-1, 1, 1, 1) * (mask / 0.5 - 1)
    return total / count


@pytest.mark.parametrize("form", FORMS)
def test_d_rise_is_a_loop_over_masks(form: str) -> None:
    x = pictures()
    found = explain(Anchors(form), x, "d_rise", target=box(0, **how(form)), masks=12, cells=4)
    torch.testing.assert_close(found.values, masked_by_loop(form, x, 12, 4, 0), rtol=1e-6, atol=1e-9)
    assert found.notes["standard_error"].shape == found.values.shape
    assert found.renderer == "boxes"


def test_boxes_that_are_asked_together_share_the_masks() -> None:
    net, x = Anchors("v8"), pictures()
    passed: list[int] = []
    net.register_forward_hook(lambda module, args, output: passed.append(len(args[0])))
    found = explain(net, x, "d_rise", target=several(box(0), box(1), box(2)), masks=12, cells=4)
    assert sum(passed) <= 2 * (12 + 1 + 2), "the batch, the masks, and whether inputs are independent"
    for number, each in enumerate(found):
        torch.testing.assert_close(each.values, masked_by_loop("v8", x, 12, 4, number), rtol=1e-6, atol=1e-9)


@torch.no_grad()
def test_d_rise_of_torchvisions_detector_is_a_loop() -> None:
    from cnnviz import Run
    from cnnviz_plugins.attributions.rise import Masks

    net, x = tiny_detector(), people()
    number, _ = left_and_right()
    plain = net(list(x))[0]
    place, label = plain["boxes"][number].detach(), plain["labels"][number]
    total = torch.zeros_like(x[:, :1])
    for mask in Masks(4, 0.5).draw(Run(net, x, lambda out: x.new_zeros(1)), 0, 10)[:, 0, 0].double():
        result = net(list(x * mask))[0]
        rows = zip(result["boxes"], result["labels"], result["scores"], strict=True)
        score = max(
            [float(iou(own_box, place) * score) for own_box, own_label, score in rows if own_label == label], default=0
        )
        total += score * (mask / 0.5 - 1)
    found = explain(net, x, "d_rise", target=box(number), masks=10, cells=4)
    torch.testing.assert_close(found.values, total / 10, rtol=1e-6, atol=1e-9)


def test_settings_of_d_rise_are_those_of_the_paper() -> None:
    settings = {name: setting.default for name, setting in attributions["d_rise"].settings.items()}
    assert settings == {"masks": 5000, "cells": 16, "p": 0.5, "baseline": 0.0}
    with pytest.raises(ValueError, match=r"masks=1, cells=16, p=0\.5 can't be"):
        attributions["d_rise"](masks=1)


def test_boxes_are_drawn_around_what_is_explained(tmp_path: Any) -> None:
    net, x = Anchors("v5"), pictures(1)
    found = explain(net, x, "gradient", target=box(0) + box(1))
    blank = replace(found, values=torch.zeros_like(found.values[:, :1]))
    plain = replace(blank, boxes=None).render("boxes")[0].astype(int)
    drawn = blank.render("boxes", width=1)[0].astype(int)
    scale = drawn.shape[1] / WIDTH
    assert found.boxes is not None
    changed = np.abs(drawn - plain).sum(2) > 0
    for left, top, _, bottom in (found.boxes[0] * scale).round().int().tolist():
        edge = changed[max(0, top + 1) : bottom - 1, max(0, left)]
        assert edge.mean() > 0.5, "the left side of the box is drawn"
    colors = {tuple(color) for color in drawn[changed].tolist()}
    assert len(colors) == 2, "one for each box"
    found.save(tmp_path / "kept.safetensors")
    torch.testing.assert_close(Explanation.load(tmp_path / "kept.safetensors").boxes, found.boxes)
    with pytest.raises(ValueError, match="width=0 draws nothing"):
        found.render("boxes", width=0)
