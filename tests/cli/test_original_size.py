"""The command line answers on the user's own picture: at its size, where the network looked."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cnnviz import Explanation, explain, load_model
from cnnviz.__main__ import main

PHOTO = 500, 375


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photograph of 500 x 375: a square to the left of the middle, on noise."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(90, 130, (PHOTO[1], PHOTO[0], 3), np.uint8)
    pixels[120:260, 140:280] = (220, 40, 40)
    Image.fromarray(pixels).save("photo.png")
    return Path("photo.png")


def opened(path: str | Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.copy()


def _alike(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def runs(*words: str) -> None:
    assert main([*words, "-q"]) == 0


def test_the_answer_is_the_whole_photograph_with_the_map_where_the_crop_lay(photo: Path) -> None:
    runs("explain", "photo.png", "--size", "64", "--render", "heatmap", "-o", "place.png")
    runs("explain", "photo.png", "--size", "64", "-o", "map.png")
    runs("explain", "photo.png", "--size", "64", "--render", "heatmap", "-o", "crop.png", "--at", "input")
    whole, crop = opened("map.png"), opened("crop.png")
    assert whole.size == PHOTO
    assert crop.size == (64, 64)
    model = load_model("demo", size=64)
    box = model.preprocessing.crop_box(PHOTO[1], PHOTO[0])
    left, top, right, bottom = (round(side) for side in box)
    # the map of the crop, resampled to its place, is the map there, and nowhere else
    expected = np.asarray(crop.resize((right - left, bottom - top), Image.Resampling.BICUBIC))
    found = np.asarray(opened("place.png"))[top:bottom, left:right]
    alike = _alike(expected, found)
    assert alike > 0.999
    for step in (-2, 2):
        assert max(_alike(np.roll(expected, step, axis), found) for axis in (0, 1)) < alike
    rest = np.ones(PHOTO[::-1], bool)
    rest[top:bottom, left:right] = False
    np.testing.assert_array_equal(np.asarray(whole)[rest], np.asarray(opened(photo))[rest])


def test_a_figure_keeps_its_own_size_and_refuses_the_original(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs("explain", "photo.png", "--render", "panels", "-o", "panels.png")
    assert opened("panels.png").width > 300
    runs("explain", "photo.png", "--bar", "-o", "bar.png")
    assert main(["explain", "photo.png", "--render", "panels", "-o", "no.png", "--at", "original"]) == 2
    assert "panels draws a figure of its own, which lies over no picture" in capsys.readouterr().err
    assert not Path("no.png").exists()


def test_several_in_one_file_show_whole_pictures_that_are_reduced(photo: Path) -> None:
    opened(photo).resize((1500, 300)).save("wide.png")
    runs("explain", "photo.png", "wide.png", "-m", "grad_cam,gradient", "-o", "all.png")
    sheet = opened("all.png")
    assert 3 * 500 < sheet.width < 3 * 530
    assert 375 + 102 < sheet.height < 375 + 102 + 120


def test_in_a_sheet_a_map_alone_fills_its_picture(photo: Path) -> None:
    runs("explain", "photo.png", "-m", "grad_cam,gradient", "--size", "64", "-o", "both.png")
    runs("explain", "photo.png", "-m", "gradient", "--size", "64", "-o", "alone.png")
    alone, both = np.asarray(opened("alone.png")), np.asarray(opened("both.png"))
    assert (alone[:, 0] == 0).all()  # beyond the crop a map of magnitudes is black, as it is where it is zero
    assert (both[:, -40] == 0).all(1).sum() == 375


def test_masks_and_boxes_of_segment_fit_the_picture_and_evaluate(
    photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["segment", "photo.png", "--write-masks", "masks", "-o", "cut.png"]) == 0
    said = capsys.readouterr().out
    box = [int(side) for side in re.findall(r"box (\d+),(\d+),(\d+),(\d+)", said)[0]]
    assert opened("masks/photo.png").size == PHOTO
    assert opened("cut.png").size == PHOTO
    rows, columns = (np.asarray(opened("masks/photo.png")) > 0).nonzero()
    assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert main(["evaluate", "photo.png", "--annotations", "masks", "--metric", "roc_auc", "-q"]) == 0


def test_the_whole_picture_is_explained(photo: Path) -> None:
    runs("explain", "photo.png", "--preprocess", "whole", "-o", "values.safetensors")
    found = Explanation.load("values.safetensors")
    assert found.inputs.shape == (1, 3, 96, 128)
    assert found.originals is not None
    expected = explain(load_model("demo"), photo, preprocess="whole")
    np.testing.assert_allclose(found.values.numpy(), expected.values.numpy(), rtol=1e-5, atol=1e-6)


def test_what_is_odd_about_a_picture_is_told_once(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    levels = np.random.default_rng(0).integers(0, 4096, (96, 120), np.uint16)  # 12 bits in 16
    Image.fromarray(levels).save("dark.tif")
    assert main(["explain", "dark.tif", "-o", "dark.png"]) == 0
    assert capsys.readouterr().err.count("has 16 bits and values up to") == 1
    assert opened("dark.png").size == (120, 96)
