"""The eleven pictures of the collection that cnnviz began with: named as there, drawn as its formulas say, cheaply."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from cnnviz import demo, explain, load_model
from cnnviz.__main__ import main
from cnnviz.cli.classic import KINDS

NAMES = [
    *("Vanilla_BP_color", "Vanilla_BP_gray", "Guided_BP_color", "Guided_BP_gray", "neg_sal", "pos_sal"),
    *("Cam_Grayscale", "Cam_Heatmap", "Cam_On_Image", "GGrad_Cam", "GGrad_Cam_gray"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a picture of a star and one of a ring."""
    monkeypatch.chdir(tmp_path)
    drawn = demo.pictures()
    for name in ("star", "ring"):
        Image.fromarray(drawn.pictures[demo.CATEGORIES.index(name)]).save(tmp_path / f"{name}.png")
    return tmp_path


def opened(path: str | Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_eleven_pictures_are_named_as_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(KINDS) == NAMES
    assert main(["classic", "star.png", "ring.png", "--target", "star", "-o", "results/"]) == 0
    written = sorted(path.name for path in Path("results").iterdir())
    assert written == sorted(f"{picture}_{name}.png" for picture in ("star", "ring") for name in NAMES)
    assert {opened(path).shape for path in Path("results").iterdir()} == {(96, 96, 3)}
    said = capsys.readouterr()
    assert said.err == ""
    assert all(
        re.fullmatch(r"results/\w+\.png: star -?\d+\.\d\d \((\d+|< 0\.1) %\)", line) for line in said.out.splitlines()
    )


def minmax(values: NDArray[Any]) -> NDArray[Any]:
    return (values - values.min()) / (values.max() - values.min())


def gray(values: NDArray[Any]) -> NDArray[Any]:
    sums = np.abs(values).sum(-1)
    low, high = sums.min(), np.percentile(sums, 99)
    return np.repeat(np.clip((sums - low) / (high - low), 0, 1)[..., None], 3, -1)


def of_one_channel(values: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(values[..., None], 3, -1)


def values(method: str, target: int) -> NDArray[Any]:
    """Of the star, (H, W, C) of fine maps and (H, W) of Grad-CAM at the picture's size, rectified as in the paper."""
    found = explain(load_model("demo"), "star.png", method, target=target).values
    if method == "grad_cam":
        found = torch.nn.functional.interpolate(found.relu(), (96, 96), mode="bilinear")[:, 0]
        return found[0].double().numpy()
    return found[0].permute(1, 2, 0).double().numpy()


FORMULAS: dict[str, tuple[str, Callable[[Any], Any], list[str]]] = {
    "Vanilla_BP_color": ("gradient", minmax, ["--style", "minmax"]),
    "Vanilla_BP_gray": ("gradient", gray, []),
    "Guided_BP_color": ("guided_backprop", minmax, ["--style", "minmax"]),
    "Guided_BP_gray": ("guided_backprop", gray, []),
    "neg_sal": ("guided_backprop", lambda each: np.maximum(0, -each) / -each.min(), ["--normalize", "image"]),
    "pos_sal": ("guided_backprop", lambda each: np.maximum(0, each) / each.max(), ["--normalize", "image"]),
    "Cam_Grayscale": ("grad_cam", lambda each: of_one_channel(minmax(each)), []),
    "Cam_Heatmap": (
        "grad_cam",
        lambda each: matplotlib.colormaps["hsv"](each / each.max())[..., :3],
        ["--colormap", "hsv"],
    ),
    "GGrad_Cam": ("guided_grad_cam", minmax, ["--style", "minmax"]),
    "GGrad_Cam_gray": ("guided_grad_cam", gray, []),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_their_formulas_are_kept_or_can_be_had(here: Path, name: str) -> None:
    method, formula, options = FORMULAS[name]
    assert main(["classic", "star.png", "--target", "heart", *options, "-o", "results"]) == 0
    expected = formula(values(method, demo.CATEGORIES.index("heart")))
    shown = opened(f"results/star_{name}.png") / 255
    np.testing.assert_allclose(shown, np.clip(expected, 0, 1), atol=0.021 if "Heatmap" in name else 0.003)


def test_on_the_picture_the_heat_lies_over_it(here: Path) -> None:
    assert main(["classic", "star.png", "--blend", "sum", "--colormap", "jet", "-o", "results"]) == 0
    cam = values("grad_cam", demo.CATEGORIES.index("star"))
    both = matplotlib.colormaps["jet"](cam / cam.max())[..., :3] + opened("star.png") / 255
    np.testing.assert_allclose(opened("results/star_Cam_On_Image.png") / 255, both / both.max(), atol=0.021)


def test_zero_is_middle_gray_in_colour_unless_asked_otherwise(here: Path) -> None:
    assert main(["classic", "star.png", "-o", "results"]) == 0
    guided = values("guided_backprop", demo.CATEGORIES.index("star"))
    shown = opened("results/star_Guided_BP_color.png")
    nothing = (guided == 0).all(-1)
    assert nothing.sum() > 9
    assert np.abs(shown[nothing].astype(int) - 128).max() <= 1
    assert (shown[guided > 0] >= 127).all()
    assert (shown[guided < 0] <= 128).all()


def test_one_pass_forward_and_two_back_serve_all(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = type(demo.network("demo"))
    forward, grad, passes, depth = network.forward, torch.autograd.grad, {"forward": 0, "back": 0}, [0]

    def counted(self: Any, x: torch.Tensor) -> torch.Tensor:
        passes["forward"] += 1
        return forward(self, x)

    def counting(*args: Any, **kwargs: Any) -> Any:
        passes["back"] += depth[0] == 0  # a rule calls it from inside of a pass, for one operation
        depth[0] += 1
        try:
            return grad(*args, **kwargs)
        finally:
            depth[0] -= 1

    monkeypatch.setattr(network, "forward", counted)
    monkeypatch.setattr(torch.autograd, "grad", counting)
    assert main(["classic", "star.png", "ring.png", "--layer", "layer3", "-o", "results", "--sheet", "all.png"]) == 0
    assert passes == {"forward": 1 + 1, "back": 2 + 1}  # where the layer lies is found by a pass of its own, once


def test_a_sheet_has_them_all_and_the_picture(here: Path) -> None:
    assert main(["classic", "star.png", "ring.png", "-o", "results", "--sheet", "sheet.png"]) == 0
    sheet = opened("sheet.png")

    def holds(picture: NDArray[np.uint8]) -> bool:
        large = picture.repeat(2, 0).repeat(2, 1)  # as small pictures are shown
        like = np.ones((sheet.shape[0] - 192, sheet.shape[1] - 192), np.bool_)
        for row, column in ((0, 0), (0, 191), (191, 0), (191, 191), (90, 80), (60, 110)):
            moved = sheet[row : row + like.shape[0], column : column + like.shape[1]]
            like &= (moved == large[row, column]).all(-1)
        tops, lefts = np.nonzero(like)
        return any(
            np.array_equal(sheet[top : top + len(large), left : left + len(large)], large)
            for top, left in zip(tops, lefts, strict=True)
        )

    pictures = [*Path("results").iterdir(), Path("star.png"), Path("ring.png")]
    assert len(pictures) == 24
    assert [path.name for path in pictures if not holds(opened(path))] == []
    assert sheet.shape[1] > 6 * 192
    assert sheet.shape[0] > 4 * 192


def test_one_file_takes_them_all(here: Path) -> None:
    assert main(["classic", "star.png", "-q", "-o", "all.jpg"]) == 0
    assert opened("all.jpg").shape[1] > 12 * 192
    assert sorted(path.name for path in here.iterdir()) == ["all.jpg", "ring.png", "star.png"]


def test_a_picture_that_cannot_be_read_costs_only_itself(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.png").write_text("no picture")
    assert main(["classic", "broken.png", "star.png", "-o", "results", "--sheet", "sheet.png"]) == 1
    assert "broken.png' is not a picture that can be read" in capsys.readouterr().err
    assert len(list(Path("results").iterdir())) == 11
    assert Path("sheet.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "stra"], "there is no class 'stra'; did you mean 'star'"),
        (["--layer", "layer9"], "DemoNet has no layer 'layer9'; did you mean 'layer"),
        (["--stile", "minmax"], "there is no option --stile for gradient and guided_backprop and grad_cam and "),
        (["--sheet", "sheet.gif"], "sheet.gif has no suffix of a picture; use .png"),
        (["--sheet", "no/sheet.png"], "the folder no does not exist; make it first"),
        (["--sheet", "star.png"], "star.png is read, and would be replaced; choose another name"),
        (["-o", "x.safetensors"], "x.safetensors keeps the values of one method, and 11 were asked for"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_and_nothing_is_written(
    here: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    before = sorted(path.name for path in here.iterdir())
    assert main(["classic", "star.png", *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert sorted(path.name for path in here.iterdir()) == before
