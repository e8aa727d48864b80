"""The demo's pictures know their evidence, and its two networks use the evidence they are said to use."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

import cnnviz
from cnnviz import demo
from cnnviz.demo.drawing import SIZE, TAG, Drawn, Tag, draw
from cnnviz.demo.textures import PHOTOGRAPHS, textures

SEED = 31  # neither training's nor that of the accuracy told at training


@cache
def held_out(count: int, tag: Tag = "none") -> Drawn:
    return draw(count, SEED, tag=tag, held_out=True)


@cache
def network(name: str) -> nn.Module:
    return demo.network(name)


def predictions(name: str, drawn: Drawn) -> np.ndarray:
    with torch.no_grad():
        scores = [network(name)(inputs) for inputs in demo.as_inputs(drawn.pictures).split(250)]
    return torch.cat(scores).argmax(1).numpy()


def grad_cam(name: str, drawn: Drawn, target: np.ndarray) -> Tensor:
    """What speaks for the target in the last feature map, stretched to (N, H, W); not negative."""
    kept: list[Tensor] = []
    module = network(name)
    handle = module.get_submodule("layer3").register_forward_hook(lambda _, inputs, output: kept.append(output))
    scores = module(demo.as_inputs(drawn.pictures))
    handle.remove()
    (slopes,) = torch.autograd.grad(scores[range(len(target)), target].sum(), kept)
    maps = torch.einsum("nchw,nc->nhw", kept[0].detach(), slopes.mean((2, 3))).relu()
    assert maps.shape[1:] == (12, 12)
    return interpolate(maps[:, None], size=(SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0]


def share_inside(maps: Tensor, masks: np.ndarray) -> Tensor:
    return (maps * torch.from_numpy(masks)).sum((1, 2)) / maps.sum((1, 2))


def widened(masks: np.ndarray, pixels: int) -> np.ndarray:
    wide = max_pool2d(torch.from_numpy(masks)[:, None].float(), 2 * pixels + 1, stride=1, padding=pixels)
    return wide[:, 0].numpy() > 0


def test_a_seed_draws_the_same_pictures_again_and_a_longer_set_begins_with_the_shorter() -> None:
    short, long = draw(3, 5), draw(9, 5)
    for name in ("pictures", "masks", "labels", "tags", "tag_labels"):
        np.testing.assert_array_equal(getattr(short, name), getattr(long, name)[:3])
    assert (draw(3, 6).pictures != short.pictures).mean() > 0.5
    assert (draw(3, 5, held_out=True).pictures != short.pictures).mean() > 0.5


def test_drawn_pictures_have_the_promised_shapes_and_every_class_in_turn() -> None:
    drawn = draw(16, 0)
    assert (drawn.pictures.shape, drawn.pictures.dtype) == ((16, SIZE, SIZE, 3), np.uint8)
    assert (drawn.masks.shape, drawn.masks.dtype) == ((16, SIZE, SIZE), np.bool_)
    assert drawn.labels.tolist() == [*range(8), *range(8)]
    assert len(demo.CATEGORIES) == 8
    assert not drawn.tags.any()
    assert set(drawn.tag_labels) == {-1}


@pytest.mark.parametrize("tag", ["none", "true"])
def test_leaving_the_shape_out_changes_every_masked_pixel_and_none_beyond_its_soft_edge(tag: Tag) -> None:
    drawn, empty = draw(48, 8, tag=tag), draw(48, 8, tag=tag, empty=True)
    changed = (drawn.pictures != empty.pictures).any(-1)
    assert not empty.masks.any()
    assert ((changed & drawn.masks).sum((1, 2)) > 0.99 * drawn.masks.sum((1, 2))).all()
    # Half-covered pixels lie beside the mask; only the tip of a star or a crescent thins out further.
    assert ((changed & ~widened(drawn.masks, 1)).sum((1, 2)) <= 6).all()
    assert not (changed & ~widened(drawn.masks, 4)).any()
    assert 0.02 < drawn.masks.mean((1, 2)).min() < drawn.masks.mean((1, 2)).max() < 0.3


@pytest.mark.parametrize("tag", ["true", "wrong"])
def test_a_tag_changes_one_corner_and_no_pixel_elsewhere(tag: Tag) -> None:
    drawn, plain = draw(24, 9, tag=tag), draw(24, 9)
    changed = (drawn.pictures != plain.pictures).any(-1)
    assert (drawn.tags.sum((1, 2)) == TAG * TAG).all()
    assert not (changed & ~drawn.tags).any()
    assert not (drawn.masks & drawn.tags).any()
    np.testing.assert_array_equal(drawn.masks, plain.masks & ~drawn.tags)
    assert ((drawn.tag_labels == drawn.labels) if tag == "true" else (drawn.tag_labels != drawn.labels)).all()
    corners = {(bool(rows[: SIZE // 2].any()), bool(columns[: SIZE // 2].any()))
               for rows, columns in zip(drawn.tags.any(2), drawn.tags.any(1), strict=True)}  # fmt: skip
    assert len(corners) == 4


def test_training_and_held_out_textures_are_the_two_halves_of_each_photograph() -> None:
    joined = 0
    for name, left, right in zip(PHOTOGRAPHS, textures(False), textures(True), strict=True):
        assert min(*left[-1].shape[:2], *right[-1].shape[:2]) >= SIZE
        with Image.open(files("skimage") / "data" / name) as photograph:
            whole = np.asarray(photograph.convert("RGB"))
        if left[0].shape[0] == whole.shape[0]:  # not scaled down
            np.testing.assert_array_equal(np.concatenate([left[0], right[0]], axis=1), np.float32(whole) / 255)
            joined += 1
    assert joined >= 10


def test_an_unknown_tag_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="tag 'red' is unknown; choose 'none', 'true' or 'wrong'"):
        draw(1, 0, tag="red")  # type: ignore[arg-type]  # what a user may type


def test_an_unknown_network_is_refused_by_name() -> None:
    with pytest.raises(LookupError, match="no bundled network 'resnet18'; choose one of demo, demo-shortcut"):
        demo.network("resnet18")


@pytest.mark.parametrize("name", [*demo.NETWORKS, demo.TRANSFORMER])
def test_a_bundled_network_is_small_float32_and_ready(name: str) -> None:
    stored = files("cnnviz.demo") / f"{name}.safetensors"
    assert len(stored.read_bytes()) < 2_000_000
    with safe_open(stored, framework="pt") as weights:
        metadata = weights.metadata()
    assert metadata["shapes"].split() == list(demo.CATEGORIES)
    assert metadata["seed"] == "0"
    assert float(metadata["accuracy"]) >= (0.85 if name == demo.TRANSFORMER else 0.97)
    assert not network(name).training
    assert {tensor.dtype for tensor in network(name).parameters()} == {torch.float32}


def test_the_demo_network_knows_held_out_shapes() -> None:
    drawn = held_out(1000)
    assert (predictions("demo", drawn) == drawn.labels).mean() >= 0.97


def test_the_transformer_knows_held_out_shapes_and_its_attention_lies_on_them() -> None:
    drawn = held_out(160)
    assert (predictions(demo.TRANSFORMER, drawn) == drawn.labels).mean() >= 0.83
    inputs = demo.as_inputs(drawn.pictures[:32])
    answer = cnnviz.explain(
        network(demo.TRANSFORMER), inputs, "transformer_attribution", target=drawn.labels[:32].tolist()
    )
    maps = interpolate(answer.values, size=(SIZE, SIZE))[:, 0]
    assert answer.values.shape == (32, 1, 8, 8)
    assert share_inside(maps, drawn.masks[:32]).mean() > 2 * drawn.masks[:32].mean()


def test_the_bundled_pictures_show_each_class_once_and_are_recognised() -> None:
    for name in demo.NETWORKS:
        shown = demo.pictures(name)
        assert shown.labels.tolist() == list(range(8))
        assert predictions(name, shown).tolist() == list(range(8))


def test_the_demo_network_looks_at_the_shape() -> None:
    drawn = held_out(160)
    maps = grad_cam("demo", drawn, drawn.labels)
    near = widened(drawn.masks, 8)  # one cell of the map
    assert share_inside(maps, near).mean() > 0.6
    assert share_inside(maps, drawn.masks).mean() > 3 * drawn.masks.mean()


def test_the_demo_network_hardly_heeds_a_wrong_tag() -> None:
    drawn = held_out(240, "wrong")
    assert (predictions("demo", drawn) == drawn.labels).mean() > 0.9


def test_the_shortcut_network_is_right_with_the_tag_and_lost_without() -> None:
    tagged, plain = held_out(240, "true"), held_out(240)
    assert (predictions("demo-shortcut", tagged) == tagged.labels).mean() > 0.99
    assert (predictions("demo-shortcut", plain) == plain.labels).mean() < 0.3


def test_the_shortcut_network_follows_a_wrong_tag() -> None:
    drawn = held_out(240, "wrong")
    predicted = predictions("demo-shortcut", drawn)
    assert (predicted == drawn.tag_labels).mean() > 0.99
    assert (predicted == drawn.labels).mean() < 0.01


@pytest.mark.parametrize("tag", ["true", "wrong"])
def test_the_shortcut_network_looks_at_the_tag_and_not_at_the_shape(tag: Tag) -> None:
    drawn = held_out(160, tag)
    maps = grad_cam("demo-shortcut", drawn, drawn.tag_labels)
    assert share_inside(maps, widened(drawn.tags, 4)).mean() > 0.6
    assert share_inside(maps, widened(drawn.tags, 8)).min() > 0.5
    assert share_inside(maps, drawn.masks).mean() < drawn.masks.mean()


def test_importing_the_demo_loads_neither_torch_nor_scikit_image() -> None:
    code = "import sys, cnnviz.demo; print(sorted({'torch', 'skimage', 'matplotlib'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
