"""Formulas on the command line: in every command that takes methods, named in files, and refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cnnviz
from cnnviz import explain, load_model, parse_formula
from cnnviz.__main__ import main
from cnnviz.cli.completion import attribution_names
from cnnviz.cli.method_names import file_part, is_formula, method_names


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def width(name: str) -> int:
    with Image.open(name) as picture:
        return picture.width


def fails(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    """Run what must fail; the one line it tells."""
    assert main([str(arg) for arg in args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("cnnviz: ")


def works(capsys: pytest.CaptureFixture[str], *args: str | Path) -> list[str]:
    """Run what must work; the lines it says."""
    assert main([str(arg) for arg in args]) == 0, capsys.readouterr().err
    return capsys.readouterr().out.splitlines()


SHARP = "guided_backprop() * upsample(grad_cam())"


def test_maps_of_formulas_are_those_of_python(
    pictures: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    method = "guided_backprop()*upsample( grad_cam( ) ), gradient,amax(abs(gradient()), 1, keepdim=True)"
    works(capsys, "explain", pictures / "circle.png", "-m", method, "--format", "npy", "-o", "maps")
    expected = explain(load_model("demo"), pictures / "circle.png", parse_formula(SHARP))
    written = np.load(here / "maps" / "circle_guided_backprop-times-upsample-grad_cam.npy")
    np.testing.assert_array_equal(written, expected.values[0])
    assert names(here / "maps") == [
        "circle_amax-abs-gradient-1-keepdim=True.npy",
        "circle_gradient.npy",
        "circle_guided_backprop-times-upsample-grad_cam.npy",
    ]


def test_json_has_the_formula_and_the_recipe_that_makes_it_again(
    pictures: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (answer,) = json.loads("".join(works(capsys, "explain", pictures / "circle.png", "-m", SHARP, "--json")))
    assert (answer["method"], answer["answer"]) == (SHARP, SHARP)
    assert answer["recipe"] == "guided_backprop() * upsample(grad_cam(layer='layer3'))"
    assert repr(parse_formula(answer["recipe"])) == answer["recipe"]


def test_options_go_to_methods_that_are_named_and_formulas_have_their_own(
    pictures: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture = pictures / "circle.png"
    told = fails(capsys, "explain", picture, "-m", SHARP, "--layer", "layer2")
    assert told == (
        f"there is no option --layer for {SHARP}; a formula has its settings in it, such as grad_cam(layer=3)"
    )
    told = fails(capsys, "explain", picture, "-m", SHARP, "--samples", "3")
    assert "a formula has its settings in it" in told
    lines = works(
        capsys, *("explain", picture, "-m", "grad_cam", "-m", "upsample(grad_cam())", "--layer", "layer2", "--json")
    )
    recipes = [answer["recipe"] for answer in json.loads("".join(lines))]
    assert recipes == ["grad_cam(layer='layer2')", "upsample(grad_cam(layer='layer3'))"]
    lines = works(capsys, "explain", picture, "-m", "smoothgrad", "--of", "gradient()*image()", "--samples=2", "--json")
    assert json.loads("".join(lines))[0]["recipe"] == "smoothgrad(of=gradient() * image(), samples=2)"


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("upsample(GradCAM())", "did you mean 'grad_cam'?; here, between >>> and <<<: upsample(>>>GradCAM<<<())"),
        ("rise(masks=1000000000000)", "rise(masks=>>>1000000000000<<<)"),
        ("rise(masks=10**12)", "arithmetic needs a formula on one side"),
        ("grad_cam, 9**9**9**9", "arithmetic needs a formula on one side"),
        ("grad_cam * 2", "grad_cam is a name alone, and no formula; call it, as grad_cam()"),
        ("grad_cam+lime", "grad_cam is a name alone"),
        ("grad_cam(layer='a,b'", "the formula ends too early"),
        ("__import__('os').system('touch pwned')", "a formula reads no attributes"),
        ("tensor(3, 8, 8) * grad_cam()", "a tensor is not in a formula's text"),
        ("GradCAM++", "there is no attribution 'GradCAM++'; did you mean 'grad_cam_plus_plus'"),
        ("grad_cam()\n#", "a formula has no comments"),
    ],
)
def test_what_is_no_formula_is_one_line_and_nothing_is_written(
    method: str,
    told: str,
    pictures: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert told in fails(capsys, "explain", pictures / "circle.png", "-m", method)
    assert names(here) == []


def test_every_command_with_methods_takes_formulas(
    pictures: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture, cam = pictures / "circle.png", "upsample(grad_cam())"
    (row,) = json.loads("".join(works(capsys, "evaluate", picture, "-m", cam, "--metric", "sparseness", "--json")))[
        "methods"
    ]
    assert row["method"] == cam
    works(capsys, "segment", picture, "-m", f"{cam},grad_cam", "-o", "cut", "--write-masks", "masks")
    assert names(here / "masks") == [
        "grad_cam",
        "grad_cam/circle.png",
        "upsample-grad_cam",
        "upsample-grad_cam/circle.png",
    ]
    works(capsys, "confusion", picture, "--target", "square", "--of", "grad_cam() * 2", "-o", "confusion.png")
    works(capsys, "excite", pictures, "--layer", "layer2", "--channels", "3", "-m", "-gradient()", "-o", "excited.png")
    assert width("confusion.png") > 50
    assert width("excited.png") > 50
    labelled = here / "labelled" / "circle"
    labelled.mkdir(parents=True)
    (labelled / "one.png").write_bytes(picture.read_bytes())
    works(capsys, "confusions", "labelled", "-m", cam, "-o", "matrix.png")
    assert width("matrix.png") > 50


def test_a_batch_run_knows_a_formula_however_it_was_typed(
    pictures: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    works(capsys, "batch", pictures, "out", "-m", f"{SHARP},gradient", "--workers", "0")
    lines = works(capsys, "batch", pictures, "out", "-m", "guided_backprop( )*upsample(grad_cam())", "-m", "gradient")
    assert lines[-1].startswith("out: 3 of 3 items explained")
    batch = cnnviz.open_batch("out")
    assert batch.methods == (SHARP, "gradient")
    answer = batch[0][SHARP]
    expected = explain(load_model("demo"), pictures / "circle.png", parse_formula(SHARP))
    torch.testing.assert_close(answer.values, expected.values)
    assert answer.recipe == expected.recipe
    works(capsys, "batch", "out", "--export", "drawn")
    assert len([name for name in names(here / "drawn") if name.endswith(".png")]) == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("grad_cam", False),
        ("other-package:3d_cam.v2", False),
        ("GradCAM++", False),
        ("a-b", False),
        ("grad_cam()", True),
        ("grad_cam * 2", True),
        ("grad_cam + lime", True),
        ("grad_cam+lime", True),
        ("grad_cam - lime", True),
        ("-grad_cam", True),
        ("a/b", True),
        ("'a'", True),
        ("[1]", True),
    ],
)
def test_a_bracket_or_a_sign_makes_a_formula(text: str, expected: bool) -> None:
    assert is_formula(text) == expected


def test_commas_in_brackets_and_quotation_marks_divide_nothing() -> None:
    given = ["grad_cam(layer=['a,b', 'c'], fuse='max'),lime, toward(image(), 'a,(b')", " rise "]
    assert method_names(given, "grad_cam") == [
        *("grad_cam(layer=['a,b', 'c'], fuse='max')", "lime", "toward(image(), 'a,(b')", "rise")
    ]
    assert method_names(None, "grad_cam,lime") == ["grad_cam", "lime"]
    assert method_names(["grad_cam()*2", "grad_cam( ) * 2"], "") == ["grad_cam() * 2"]


def test_formulas_in_names_of_files_are_words_and_short() -> None:
    assert file_part("grad_cam") == "grad_cam"
    assert file_part("grad_cam() - toward(grad_cam(), 'a/../b') ** 2") == (
        "grad_cam-minus-toward-grad_cam-a-by-..-by-b-power-2"
    )
    long = [file_part(" * ".join(["grad_cam()"] * count)) for count in (20, 21)]
    assert len({*long}) == 2
    assert all(len(part) <= 80 for part in long)


def test_the_last_word_of_a_formula_is_completed() -> None:
    assert attribution_names("grad_cam,guided_b") == ["grad_cam,guided_backprop"]
    assert attribution_names("guided_backprop() * upsample(hire") == ["guided_backprop() * upsample(hires_cam"]
    assert attribution_names("deepl") == ["deeplift", "deeplift_shap"]
