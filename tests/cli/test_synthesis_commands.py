"""``cnnviz synthesize`` and ``cnnviz invert``: pictures where they were asked for, and one line for every failure."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from cnnviz import demo, load_model, synthesize
from cnnviz.__main__ import main

FEATURE = ("synthesize", "feature_image", "--layer", "layer3", "--steps", "2", "--size", "32")
NETS = """
from torch import nn

def signals():
    return nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())

def volumes():
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with two drawn pictures."""
    monkeypatch.chdir(tmp_path)
    for name, picture in zip(("one", "two"), demo.pictures().pictures, strict=False):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    return tmp_path


def works(capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    assert main(list(args)) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out.splitlines()


def fails(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(list(args)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("cnnviz: ")


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_a_target_may_be_a_channel(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = ("--target", "channel:layer3:5", "--steps", "2", "--size", "32")
    (line,) = works(capsys, "synthesize", "feature_image", *target, "-o", "five.png")
    assert line.startswith("five.png: feature_image(objective=channel(layer='layer3', index=5), steps=2) ")
    made = synthesize(load_model("demo"), "feature_image", layer="layer3", channel=5, steps=2, size=32)
    with Image.open(here / "five.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), made.pictures()[0])
    assert fails(capsys, "synthesize", "class_image", *target).startswith("class_image has no setting 'objective'")
    assert fails(capsys, "synthesize", "feature_image", "--target", "channel:layer3").startswith(
        "--target channel:layer3"
    )


def test_one_channel_is_one_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = works(capsys, *FEATURE, "--channel", "5", "-o", "five.png")
    assert line.startswith("five.png: feature_image(layer='layer3', channel=5, steps=2) ")
    made = synthesize(load_model("demo"), "feature_image", layer="layer3", channel=5, steps=2, size=32)
    with Image.open(here / "five.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), made.pictures()[0])


def test_several_are_a_labelled_grid(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    works(capsys, *FEATURE, "--channel", "5,7,9", "-o", "three.png")
    assert size(here / "three.png") == (350, 396)  # two in a row, enlarged to 160, under a line of text
    works(capsys, *FEATURE, "--channel", "5,7,9", "--count", "2", "-o", "rows.png")
    assert size(here / "rows.png") == (350, 589)  # a row for each channel
    (line,) = works(capsys, *FEATURE, "--channel", "5", "--steps", "4", "--snapshots", "2", "-o", "way.png")
    assert size(here / "way.png") == (350, 203)
    assert line.endswith(" in 4 steps")


def test_a_folder_takes_a_file_for_each(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = works(capsys, *FEATURE, "--channel", "5,7", "--count", "2", "--snapshots", "1", "-o", "made/")
    names = sorted(path.name for path in (here / "made").iterdir())
    each = [f"feature_image_layer3_{channel}" for channel in (5, 7)]
    assert names == sorted(
        f"{name}{step}-{n}.png" for name in each for step in ("", "_step1", "_step2") for n in (0, 1)
    )
    assert len(lines) == len(names)
    works(capsys, "synthesize", "class_image", "--target", "star", "--steps", "1", "--size", "16")
    assert (here / "cnnviz-synthesize" / "class_image_star.png").is_file()


def test_values_are_kept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    works(capsys, *FEATURE, "--channel", "5", "--count", "3", "-o", "made.safetensors")
    with safe_open(here / "made.safetensors", framework="pt") as file:
        assert file.get_slice("inputs").get_shape() == [3, 3, 32, 32]
    assert "made.safetensors keeps the values of one method, and 2 were asked" in fails(
        capsys, *FEATURE, "--channel", "5,6", "-o", "made.safetensors"
    )


def test_settings_may_come_first_and_pictures_are_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ("--layer", "layer2", "--start", "one.png", "--octaves", "1", "--steps", "1")
    (line,) = works(capsys, "synthesize", *how, "deep_dream", "--size", "48x64", "-o", "dream.png", "--no-even")
    assert size(here / "dream.png") == (64, 48)
    assert "even=False" in line


def test_signals_and_volumes_are_made(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "nets_of_ranks.py").write_text(NETS)
    how = ("--channel", "1", "--layer", "1", "--steps", "2")
    works(
        capsys, "synthesize", "feature_image", *how, "--model", "nets_of_ranks:signals", "--size", "40", "-o", "s.png"
    )
    assert size(here / "s.png") == (640, 240)
    works(
        capsys,
        "synthesize",
        "feature_image",
        *how,
        "--model",
        "nets_of_ranks:volumes",
        "--size",
        "4x6x8",
        "-o",
        "v.png",
    )
    assert size(here / "v.png") == (17, 13)
    assert "the size of Sequential's input is not known; give it, such as size=224" in fails(
        capsys, "synthesize", "feature_image", *how, "--model", "nets_of_ranks:signals", "-o", "s.png", "--overwrite"
    )


def test_an_interruption_writes_what_there_is(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnnviz.feature_visualization.ascent import Ascent

    ascend, steps = Ascent.ascend, []

    def impatient(step: int) -> None:
        steps.append(step)
        if len(steps) == 4:  # the second step of the second image, before it is counted
            raise KeyboardInterrupt

    monkeypatch.setattr(Ascent, "ascend", partialmethod(ascend, after=impatient))
    assert main([*FEATURE, "--channel", "5,7,9", "-o", "made.png"]) == 130
    said = capsys.readouterr()
    assert said.err == "cnnviz: interrupted; what was finished is written\n"
    assert said.out.count("feature_image(") == 2
    assert said.out.endswith(" in 1 steps, interrupted\n")
    assert size(here / "made.png")[0] == 350


def test_an_inversion_has_a_row_for_each_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = works(
        capsys, "invert", "one.png", "two.png", "--layers", "conv1,layer2", "--steps", "2", "-o", "rows.png"
    )
    assert line.count("relative_error") == 4
    assert size(here / "rows.png") == (616, 498)  # the picture and two inversions, twice; of 96 pixels, enlarged
    works(capsys, "invert", "one.png", "--depth", "2", "--steps", "1", "-o", "depth/", "--quiet")
    assert sorted(path.name for path in (here / "depth").iterdir()) == [
        "one_inversion_conv1.png",
        "one_inversion_layer3.0.png",
    ]


def test_what_can_not_be_made_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(capsys, "synthesize", "feature_imag").startswith("there is no synthesis 'feature_imag'; did you mean")
    assert "there is no option --chanel for feature_image; did you mean --channel?" in fails(
        capsys, *FEATURE, "--chanel", "3"
    )
    assert "--channel is a number, or several such as 1,5,9, not 'x'" in fails(capsys, *FEATURE, "--channel", "x")
    assert "class_image has no setting 'channel'" in fails(
        capsys, "synthesize", "class_image", "--target", "star", "--channel", "3"
    )
    assert "'extra' is neither a synthesis nor a setting of feature_image; make one thing" in fails(
        capsys, *FEATURE, "extra", "--channel", "3"
    )
    assert "there is no channel 96 in layer 'layer3'; it has 96, numbered 0 to 95" in fails(
        capsys, *FEATURE, "--channel", "96", "-o", "made.png"
    )
    assert "there is no class 'sta'; did you mean 'star'?" in fails(
        capsys, "synthesize", "class_image", "--target", "sta"
    )
    assert "--layer names layers and --depth chooses them; say one of them" in fails(
        capsys, "invert", "one.png", "--layer", "conv1", "--depth", "2"
    )
    assert "the folder nowhere does not exist; make it first" in fails(capsys, *FEATURE, "-o", "nowhere/made.png")
    assert "DemoNet has no layer 'conv9'" in fails(capsys, "invert", "one.png", "--layer", "conv9", "-o", "made.png")
    assert not (here / "made.png").exists()
