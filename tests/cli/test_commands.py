"""What the command line promises: files named as asked, every setting an option, one clear line for every failure."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, TypeAlias  # noqa: F401  # cases name them as text

import numpy as np
import pytest
import torch
from PIL import Image

import cnnviz
from cnnviz import Explanation, attribution, attributions, demo, explain, load_model, renderers
from cnnviz import Formula as F  # noqa: F401  # cases name it as text
from cnnviz import Layer as Layer
from cnnviz.__main__ import main
from cnnviz.cli import batch_explain, method_options, value_parsing
from cnnviz.drawing.text import LINE
from cnnviz.registry.registry import Method, registries

Kind: TypeAlias = Literal["mean", "max"]
NoFormula: TypeAlias = str

SIGNAL_NET = """
from torch import nn

def small():
    pooled = nn.AdaptiveAvgPool1d(1), nn.Flatten()
    return nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), *pooled, nn.Linear(4, 3))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, empty."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    return folder


def opened(path: str | Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.copy()


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def fails(capsys: pytest.CaptureFixture[str], *args: str | Path, status: int = 2) -> str:
    """Run what must fail; the one line it tells."""
    assert main([str(arg) for arg in args]) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("cnnviz: ")
    return lines[0].removeprefix("cnnviz: ")


def works(capsys: pytest.CaptureFixture[str], *args: str | Path) -> list[str]:
    """Run what must work; the lines it says."""
    assert main([str(arg) for arg in args]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out.splitlines()


# What is written where


def test_by_default_a_picture_for_each_picture_and_method_is_written_into_a_new_folder(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = works(capsys, "explain", pictures, "--method", "grad_cam,gradient", "-m", "grad_cam")
    methods = ("grad_cam", "gradient")
    expected = [f"cnnviz-explain/{shape}_{method}.png" for shape in demo.CATEGORIES[:3] for method in methods]
    assert names(here) == sorted(["cnnviz-explain", *expected])
    assert [line.partition(":")[0] for line in lines] == expected
    assert all(re.fullmatch(r"cnnviz-explain/(\w+)_\w+\.png: \1 \d+\.\d\d \(\d+ %\)", line) for line in lines)


def test_the_written_picture_is_the_one_that_python_draws(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    works(capsys, "explain", pictures / "square.png", "--method", "layer_cam", "--target", "Circle", "-o", "out.png")
    expected = explain(load_model("demo"), pictures / "square.png", "layer_cam", target=0).render()
    np.testing.assert_array_equal(np.asarray(opened("out.png")), expected[0])


def test_several_results_and_one_file_make_a_grid(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--batch", "2", "-m", "grad_cam,gradient", "-o", "all.png")
    assert works(capsys, "explain", pictures, *options)[0].startswith("all.png: circle")
    whole = opened("all.png").size
    works(capsys, "explain", pictures / "circle.png", *options, "--overwrite")
    row = opened("all.png").size
    assert names(here) == ["all.png"]
    assert row[0] == whole[0] > 3 * 96
    assert 2.5 * row[1] < whole[1] <= 3 * (row[1] + LINE), "the titles of several pictures begin with their files"


def test_a_folder_is_made_and_its_names_stay_apart(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("a", "b"):
        (here / folder).mkdir()
        opened(pictures / "circle.png").save(here / folder / "x.png")
    works(capsys, "explain", "a/x.png", "b/x.png", "-o", "new/maps", "-q")
    assert names(here / "new") == ["maps", "maps/a-x_grad_cam.png", "maps/b-x_grad_cam.png"]


def test_a_picture_to_explain_is_never_replaced(pictures: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("x.png", "x_grad_cam.png"):
        opened(pictures / "circle.png").save(name)
    before = Path("x_grad_cam.png").read_bytes()
    told = fails(capsys, "explain", "x.png", "x_grad_cam.png", "-o", "./", "--overwrite")
    assert told == "x_grad_cam.png is read, and would be replaced; choose another name"
    told = fails(capsys, "explain", "x.png", "-o", "../here/x.png", "--overwrite")
    assert told == "../here/x.png is read, and would be replaced; choose another name"
    assert Path("x_grad_cam.png").read_bytes() == before
    assert names(here) == ["x.png", "x_grad_cam.png"]


def test_values_are_kept_and_read_back(pictures: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    works(capsys, "explain", pictures, "--method", "grad_cam", "--batch", "2", "-o", "maps.safetensors")
    kept = Explanation.load("maps.safetensors")
    paths = sorted(pictures.iterdir())
    expected = explain(load_model("demo"), paths, "grad_cam")
    torch.testing.assert_close(kept.values, expected.values)
    assert kept.titles() == expected.titles()
    several = fails(capsys, "explain", pictures, "--method", "grad_cam,gradient", "-o", "more.safetensors")
    assert "keeps the values of one method" in several


def test_what_was_written_is_shown_on_request(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, int]] = []
    monkeypatch.setattr(Image.Image, "show", lambda picture: shown.append(picture.size))
    assert works(capsys, "explain", pictures, "--show", "--quiet") == []
    assert shown == [(96, 96)] * 3
    told = fails(capsys, "explain", pictures / "circle.png", "--show", "-o", "x.safetensors")
    assert told == "--show opens pictures, and x.safetensors keeps values; leave one of them out"


def test_signals_of_other_peoples_networks(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "signal_net_of_cli.py").write_text(SIGNAL_NET)
    wave = np.sin(np.linspace(0, 9, 80, dtype=np.float32))
    np.save("wave.npy", np.stack([wave, -wave]))
    model = ("--model", "signal_net_of_cli:small")
    assert works(capsys, "explain", "wave.npy", *model, "-m", "gradient", "-o", "x.png")[0].startswith("x.png: class ")
    assert opened("x.png").size[0] > 80
    layers = works(capsys, "layers", "signal_net_of_cli:small", "--size", "80", "--plain")
    assert layers[0] == "0\tConv1d\t4x80\t1\t"
    assert layers[1] == "1\tReLU\t4x80\t\tautomatic"
    assert "give it, such as --size 224" in fails(capsys, "layers", "signal_net_of_cli:small")


def test_grey_and_transparent_pictures_are_taken(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = opened(pictures / "circle.png")
    picture.convert("L").save("grey.png")
    picture.convert("RGBA").resize((40, 80)).save("transparent.png")
    works(capsys, "explain", "grey.png", "transparent.png", "-o", "out/")
    assert [opened(path).mode for path in sorted(Path("out").iterdir())] == ["RGB", "RGB"]


# Settings


def test_settings_go_to_whoever_knows_them(pictures: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    circle = pictures / "circle.png"
    options = ("--of", "guided_grad_cam", "--samples=3", "--sigma", "0.2", "--layer", "7", "--seed", "4")
    works(capsys, "explain", circle, "-m", "smoothgrad", *options, "-o", "a.safetensors", "--render", "color")
    kept = Explanation.load("a.safetensors")
    inner = attributions["guided_grad_cam"](layer=7)
    expected = explain(load_model("demo"), circle, attributions["smoothgrad"](inner, 3, 0.2), seed=4)
    torch.testing.assert_close(kept.values, expected.values)
    assert kept.recipe == expected.recipe == "smoothgrad(of=guided_grad_cam(layer=7), samples=3, sigma=0.2)"

    works(capsys, "explain", circle, "--relu", "--opacity", "0.2", "--colormap=viridis", "-o", "b.png")
    by_hand = explain(load_model("demo"), circle, "grad_cam", relu=True).render(opacity=0.2, colormap="viridis")
    np.testing.assert_array_equal(np.asarray(opened("b.png")), by_hand[0])


def test_settings_may_be_of_some_of_several_methods(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("-m", "grad_cam,integrated_gradients", "--no-relu", "--opacity", "0.3", "-o", "x.png")
    works(capsys, "explain", "--steps", "4", pictures / "circle.png", *options)
    assert names(here) == ["x.png"]


def test_a_baseline_is_a_number_a_name_or_a_file(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = (
        "explain",
        pictures / "circle.png",
        "-m",
        "integrated_gradients",
        "--steps",
        "3",
        "-o",
        "x.safetensors",
        "--overwrite",
    )
    model, circle = load_model("demo"), pictures / "circle.png"
    square = demo.as_inputs(demo.pictures().pictures[1:2])
    np.save("square.npy", square[0].numpy())
    for text, baseline in (
        ("-0.5", -0.5),
        ("white", "white"),
        ("square.npy", square),
        (pictures / "square.png", square),
    ):
        works(capsys, *ask, "--baseline", text)
        expected = explain(model, circle, "integrated_gradients", baseline=baseline, steps=3)
        torch.testing.assert_close(Explanation.load("x.safetensors").values, expected.values)


@pytest.mark.parametrize(
    ("annotation", "default", "text", "expected"),
    [
        ("int", 5, "12", 12),
        ("float", 0.5, "1e-3", 1e-3),
        ("bool", False, "true", True),
        ("bool", True, "no", False),
        ("str", "a", "7", "7"),
        ("str | float", "percentile", "0.5", 0.5),
        ("str | float", "percentile", "image", "image"),
        ("Layer", None, "-1", -1),
        ("cnnviz.Layer", None, "features.3", "features.3"),
        ("Layer", None, "none", None),
        ("int | None", None, "3", 3),
        ("F", "gradient", "grad_cam", "grad_cam"),
        ('Literal["linear", "nearest"]', "linear", "nearest", "nearest"),
        ("Literal[1, 2]", 1, "2", 2),
        (int, 5, "12", 12),
        (float | None, None, "0.5", 0.5),
        (Parameter.empty, 0.5, "2", 2.0),
        ("Unheard", 3, "4", 4),
        ("Unheard", None, "word", "word"),
    ],
)  # fmt: skip
def test_a_setting_is_read_as_its_annotation_or_default_says(
    annotation: Any, default: Any, text: str, expected: Any
) -> None:
    found = method_options.converted(method_of(annotation, default), {"x": text})["x"]
    assert found == expected
    assert type(found) is type(expected)


def method_of(annotation: Any, default: Any) -> Method[Any]:
    """A method with one setting x."""

    def build(x: Any = default) -> Any:
        return lambda run: run.inputs

    if annotation is Parameter.empty:
        del build.__annotations__["x"]
    else:
        build.__annotations__["x"] = annotation
    return attribution(build)


@pytest.mark.parametrize(
    ("annotation", "default", "text", "told"),
    [
        ("Kind", "mean", "zzz", "mean or max, not 'zzz'"),
        ("Kind | None", None, "zzz", "mean or max or none, not 'zzz'"),
        ("Optional[int]", None, "five", "a whole number or none, not 'five'"),
        ("Annotated[int, 'positive']", 1, "five", "a whole number, not 'five'"),
        ("bool", False, "perhaps", "true or false, not 'perhaps'"),
    ],
)
def test_a_setting_of_another_type_is_refused_also_behind_an_alias(
    annotation: str, default: Any, text: str, told: str
) -> None:
    with pytest.raises(ValueError, match=f"^--x of build is {told}$"):
        method_options.converted(method_of(annotation, default), {"x": text})


def test_a_formula_setting_is_known_by_its_type_whatever_it_is_called() -> None:
    for annotation in ("F", "F | None", "cnnviz.Formula"):
        method = method_of(annotation, "gradient")
        assert method_options.formula_settings(method) == {"x": "gradient"}
        assert method_options.annotation(method, "x") == "Formula"
        (built,) = method(x="grad_cam").formulas
        assert built == ("x", cnnviz.attributions["grad_cam"]())
    assert not method_options.formula_settings(method_of("NoFormula", "gradient"))


def test_sizes_numbers_and_memory_as_people_type_them() -> None:
    assert value_parsing.byte_count("512MB") == 512_000_000
    assert value_parsing.byte_count("1.5 gib") == 3 * 2**29
    assert value_parsing.byte_count("4096") == 4096
    assert value_parsing.size("224") == 224
    assert value_parsing.size("224x320") == (224, 320)
    assert value_parsing.numbers("0.5, 1", "--std") == (0.5, 1.0)
    assert value_parsing.numbers("5, 9", "--channels", int) == (5, 9)
    assert value_parsing.names(["a, b", "a,c"], "d") == ["a", "b", "c"]
    assert value_parsing.names(None, "d,e") == ["d", "e"]
    for wrong in ("lots", "5 TB", "", "-1"):
        with pytest.raises(ValueError, match="--memory is a size such as 512MB"):
            value_parsing.byte_count(wrong)


# Failures


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--model", "resnet51"), "no model 'resnet51' (did you mean 'resnet"),
        (("--method", "grad_cm"), "there is no attribution 'grad_cm'; did you mean 'grad_cam'?"),
        (("--render", "overly"), "there is no renderer 'overly'; did you mean 'overlay'?"),
        (("--layer", "layer9"), "DemoNet has no layer 'layer9'; did you mean 'layer"),
        (("--layer", "10"), "there is no convolution 10; DemoNet has 1 to 9"),
        (("--target", "sqare"), "there is no class 'sqare'; did you mean 'square'"),
        (("--target", "8"), "there is no class 8; the model has 8, numbered 0 to 7"),
        (("--step", "3"), "there is no option --step for grad_cam; it takes --call, --extra, --fuse, --grid,"),
        (("--rleu",), "there is no option --rleu for grad_cam; did you mean --relu?"),
        (("--metod", "gradient"), "there is no option --metod for grad_cam; did you mean --method?"),
        (("--opacity", "much"), "--opacity of overlay is a number, not 'much'"),
        (("--relu=perhaps",), "--relu of grad_cam is true or false, not 'perhaps'"),
        (("--colormap",), "--colormap has no value; say --colormap VALUE or --colormap=VALUE"),
        (("--opacity", "7"), "opacity"),
        (("--fade", "0.5"), "overlay has no setting 'fade'; it takes colormap"),
        (("--method", "smoothgrad", "--of", "gradent"), "there is no attribution 'gradent'; did you mean 'gradient'?"),
        (("--method", "integrated_gradients", "--baseline", "blak"), "there is no baseline 'blak'"),
        (("--method", "integrated_gradients", "--baseline", "no.npy"), "no file 'no.npy'"),
        (("--mean", "a,b"), "--mean is numbers with commas between, such as 0.5,0.5,0.5, not 'a,b'"),
        (("--size", "big"), "--size is pixels, such as 224, or height x width, such as 224x320, not 'big'"),
        (("--size", "3x4x5"), "--size of pictures is 224 or 224x320, not '3x4x5'"),
        (("--memory", "lots"), "--memory is a size such as 512MB or 2GB, not 'lots'"),
        (("--dtype", "int8"), "there is no --dtype int8; there are float32, float64"),
        (("--device", "quantum"), "there is no device 'quantum'; say cpu, cuda, cuda:1, mps or auto"),
        (("--device", "cuda:77"), "there is no cuda:77"),
        (("--device", "mps:3"), "there is no mps:3: 0 MPS devices are found; say --device cpu"),
        (("--device", "vulkan"), "there is no vulkan: 0 VULKAN devices are found; say --device cpu"),
        (("--batch", "0"), "(cnnviz explain --help tells more)"),
        (("--weights", "none.pth"), "no weights file 'none.pth'"),
        (("--categories", "none.txt"), "no file 'none.txt' of categories; write one name per line"),
        (("-o", "missing/x.png"), "the folder missing does not exist; make it first"),
        (("-o", "x.bmq"), "x.bmq has no suffix that can be written"),
        (("-o", "file"), "file is a file; say -o file.png, or name another folder"),
        (("nowhere.png",), "no file or folder 'nowhere.png'"),
        (("empty",), "folder 'empty' holds no pictures"),
        (("broken.png",), "'broken.png' is not a picture that can be read"),
        (("broken.npy",), "'broken.npy' is not an array of numbers in .npy"),
    ],
)  # fmt: skip
def test_every_failure_is_one_line_and_writes_nothing(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], told: str
) -> None:
    (here / "empty").mkdir()
    for name in ("file", "broken.png", "broken.npy"):
        (here / name).write_text("this is no picture")
    before = names(here)
    picture = () if options[0][0] != "-" else (pictures / "circle.png",)
    line = fails(capsys, "explain", *picture, *options)
    assert told in line
    assert not re.search(r"Error\(|\[Errno|<class|object at", line)
    assert names(here) == before


def test_usage_is_told_in_one_line_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(capsys, "explain") == "Missing argument 'PICTURES...'. (cnnviz explain --help tells more)"
    assert "No such command 'explian'" in fails(capsys, "explian")
    assert "Missing option '--target'" in fails(capsys, "confusion", "x.png")
    assert fails(capsys, "explain", "--relu") == "no pictures given; name at least one file or folder"


def test_one_bad_picture_among_many_costs_only_itself(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "broken.png").write_text("this is no picture")
    circle, square = pictures / "circle.png", pictures / "square.png"
    assert main(["explain", str(circle), "broken.png", "gone.png", str(square), "-o", "out"]) == 1
    said = capsys.readouterr()
    assert names(here / "out") == ["circle_grad_cam.png", "square_grad_cam.png"]
    assert len(said.out.splitlines()) == len(said.err.splitlines()) == 2
    assert "cnnviz: no file or folder 'gone.png'" in said.err
    assert "cnnviz: 'broken.png' is not a picture that can be read" in said.err


def test_inputs_of_another_size_cost_only_themselves(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("tiny.npy", np.zeros((3, 2, 2), np.float32))
    np.save("wide.npy", np.zeros((3, 2, 2, 2), np.float32))
    assert main(["explain", str(pictures / "circle.png"), "wide.npy", "-o", "out/"]) == 1
    assert "wide.npy: " in capsys.readouterr().err
    assert names(here / "out") == ["circle_grad_cam.png"]
    np.save("other.npy", np.zeros((3, 64, 64), np.float32))
    told = fails(capsys, "explain", pictures / "circle.png", "other.npy", "-o", "one.png")
    assert told == "the pictures reach the model in different sizes; give --size, or a folder, such as -o maps/"


def test_nothing_half_written_stays_when_writing_fails(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device", "x.png")

    monkeypatch.setattr(os, "replace", full)
    assert fails(capsys, "explain", pictures / "circle.png", "-o", "x.png") == (
        "x.png can't be written: No space left on device; choose another place"
    )
    assert names(here) == []


def test_interrupted_work_keeps_what_is_finished(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, calls = batch_explain.Explainer.__call__, []

    def interrupted(self: batch_explain.Explainer, *given: Any) -> dict[str, Explanation]:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answer(self, *given)

    monkeypatch.setattr(batch_explain.Explainer, "__call__", interrupted)
    told = fails(capsys, "explain", pictures, "--batch", "1", status=130)
    assert told == "interrupted; 1 of 3 pictures are answered, and --skip-existing goes on with the others"
    assert names(here) == ["cnnviz-explain", "cnnviz-explain/circle_grad_cam.png"]
    assert opened("cnnviz-explain/circle_grad_cam.png").size == (96, 96)


def test_the_traceback_is_shown_on_request_only(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unforeseen(*args: Any) -> None:
        raise AttributeError("first line\nsecond line")

    monkeypatch.setattr(batch_explain.Explainer, "__call__", unforeseen)
    told = fails(capsys, "explain", pictures / "circle.png")
    assert told == "AttributeError: first line; CNNVIZ_TRACEBACK=1 shows where"
    monkeypatch.setenv("CNNVIZ_TRACEBACK", "1")
    assert main(["explain", str(pictures / "circle.png")]) == 2
    assert "in unforeseen" in capsys.readouterr().err


def test_warnings_of_libraries_stay_silent_unless_asked_for(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = batch_explain.Explainer.__call__

    def warned(self: batch_explain.Explainer, *given: Any) -> dict[str, Explanation]:
        warnings.warn("of interest to programmers", FutureWarning, stacklevel=1)
        return answer(self, *given)

    monkeypatch.setattr(batch_explain.Explainer, "__call__", warned)
    works(capsys, "explain", pictures / "circle.png")
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    assert "of interest to programmers" in fails(capsys, "explain", pictures / "circle.png")


def test_names_do_not_steer_the_terminal(pictures: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "names.txt").write_text("\n".join(f"\x1b[31mclass {index}" for index in range(8)), encoding="utf-8")
    lines = works(capsys, "explain", pictures / "square.png", "--categories", "names.txt")
    assert lines[0].startswith("cnnviz-explain/square_grad_cam.png: ?[31mclass 1 ")


# The other commands


def test_confusion_splits_any_method(pictures: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    circle = pictures / "circle.png"
    works(capsys, "confusion", circle, "--target", "heart", "--layer", "6", "-o", "x.safetensors")
    kept = Explanation.load("x.safetensors")
    expected = explain(load_model("demo"), circle, attributions["grad_cam"](layer=6), target="heart").values.sum(1)
    torch.testing.assert_close(kept.values[:, 1] - kept.values[:, 0], expected)
    assert kept.notes["prediction"].tolist() == [0]
    works(capsys, "confusion", circle, "--target", "6", "--of", "gradient", "--opacity", "0.5")
    assert names(here) == ["cnnviz-confusion", "cnnviz-confusion/circle_saliency_confusion.png", "x.safetensors"]


def test_methods_are_listed_and_have_their_pages(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split("\t") for line in works(capsys, "methods", "--plain")]
    assert [row[:2] for row in rows] == [[registry.kind, name] for registry in registries for name in registry]
    assert ["attribution", "cam", attributions["cam"].summary, attributions.origin("cam")] in rows
    table = "\n".join(works(capsys, "methods"))
    assert "guided_grad_cam" in table
    page = "\n".join(works(capsys, "methods", "integrated_gradients"))
    assert "arXiv:1703.01365" in page
    assert re.search(r"--steps +int +50", page)
    assert "no settings" in works(capsys, "methods", "input_x_gradient")[-1]
    unknown = fails(capsys, "methods", "grad_cm")
    assert unknown == "there is no method 'grad_cm'; did you mean 'grad_cam'?"


def test_a_plugin_that_does_not_load_harms_nobody(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import EntryPoint

    offers = dict(attributions._offers()), dict(renderers._offers())
    for found, reg in zip(offers, (attributions, renderers), strict=True):
        found["broken"] = EntryPoint("broken", "no_such_module_at_all:broken", reg.group)
        monkeypatch.setattr(reg, "_entries", found)
    rows = [line.split("\t") for line in works(capsys, "methods", "--plain")]
    fault = "does not load: No module named 'no_such_module_at_all'"
    assert [row[2] for row in rows if row[1] == "broken"] == [fault, fault]
    works(capsys, "explain", pictures / "circle.png", "--opacity", "0.5")
    told = fails(capsys, "explain", pictures / "circle.png", "-m", "broken")
    assert f"{fault}. Set CNNVIZ_BLOCK=broken to hide it." in told
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if line.startswith("fault: 'broken' from")]) == 2


def test_doctor_finds_nothing_wrong_here(capsys: pytest.CaptureFixture[str]) -> None:
    lines = works(capsys, "doctor")
    assert f"torch {torch.__version__.partition('+')[0]}" in [line.partition("+")[0] for line in lines]
    named = ("attributions", "syntheses", "renderers", "metrics", "backends")
    for registry, kinds in zip(registries, named, strict=True):
        assert f"{len(registry)} {kinds} load" in lines


@pytest.mark.parametrize("words", [("--layer", "layer2,3"), ("--layer", "layer2", "--layer", "3")])
def test_several_layers_are_repeated_or_have_commas_between(
    words: tuple[str, ...], pictures: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    works(capsys, "explain", pictures / "square.png", *words, "--fuse", "max", "-o", "x.safetensors")
    expected = explain(load_model("demo"), pictures / "square.png", layer=["layer2", 3], fuse="max")
    kept = Explanation.load("x.safetensors")
    assert torch.equal(kept.values, expected.values)
    assert kept.recipe == expected.recipe


def test_one_layer_is_asked_of_methods_that_fuse_none(
    pictures: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = ("--method", "activation", "--layer", "layer2,layer3")
    assert "no layer 'layer2,layer3'" in fails(capsys, "explain", pictures / "square.png", *several)


def test_layers_are_listed_with_what_the_option_takes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split("\t") for line in works(capsys, "layers", "demo", "--plain")]
    assert rows[0] == ["conv1", "Conv2d", "24x48x48", "1", ""]
    assert [row[0] for row in rows if row[4]] == ["layer3"]
    assert [row[3] for row in rows if row[3]] == [str(number) for number in range(1, 10)]
    larger = [line.split("\t") for line in works(capsys, "layers", "demo", "--plain", "--size", "64x128")]
    assert larger[0][2] == "24x32x64"
    assert "layer3" in "\n".join(works(capsys, "layers", "demo"))
    assert "did you mean 'demo'" in fails(capsys, "layers", "dmo")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href") and value]


def test_the_demonstration_finds_the_shortcut(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = works(capsys, "demo", "-o", "shown here")
    shares = {
        name: int(share)
        for name, share in re.findall(r"^([\w-]+): (\d+)% of Grad-CAM's positive energy", "\n".join(lines), re.M)
    }
    assert shares["demo-shortcut"] > 25 > 5 > shares["demo"]
    assert lines[-2] == "open shown here/index.html"
    assert lines[-1] == "then your own picture: cnnviz report your.jpg --model resnet50 -o mine.html"
    text = Path("shown here/index.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert "script" not in page.tags
    assert len(page.sources) == 12
    assert page.sources.count("report.html") == 1
    assert Path("shown here/report.html").is_file()
    for source in filter(lambda each: each != "report.html", page.sources):
        assert opened(Path("shown here") / source).mode == "RGB"
    written = re.findall(r"<code>cnnviz (.*?)</code>", text)
    assert len(written) == 4


def test_the_report_escapes_what_it_is_told() -> None:
    from cnnviz.cli.demo_page import Figure, page

    text = page("<b>", "a & b", [Figure('a"b.png', "<i>", "1 < 2", "cnnviz x && y")], [])
    assert "<b>" not in text
    assert "<i>" not in text
    assert "1 &lt; 2" in text
    assert "cnnviz x &amp;&amp; y" in text
    assert 'src="a%22b.png"' in text


def test_help_and_version_need_no_torch() -> None:
    check = (
        "import sys; from cnnviz.__main__ import main\n"
        "for args in (['--help'], ['--version'], [], *([c, '--help'] for c in sys.argv[1:])):\n"
        "    assert main(args) == 0, args\n"
        "import os\n"
        "os.environ |= dict(_CNNVIZ_COMPLETE='complete_bash', COMP_WORDS='cnnviz methods inte', COMP_CWORD='2')\n"
        "assert main([]) == 0\n"
        "slow = {'torch', 'torchvision', 'matplotlib', 'skimage', 'numpy', 'starlette', 'uvicorn'} & set(sys.modules)\n"
        "sys.exit(f'imported: {slow}' if slow else 0)"
    )
    commands = ["explain", "confusion", "methods", "layers", "demo", "doctor", "serve"]
    done = subprocess.run([sys.executable, "-c", check, *commands], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "integrated_gradients" in done.stdout
    assert all(f" cnnviz {command} " in done.stdout for command in commands)
    assert "Default: a new folder, cnnviz-COMMAND" in " ".join(done.stdout.replace("│", " ").split())


# With real networks and photographs


def test_guided_grad_cam_of_a_snake(assets: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = works(
        capsys, "explain", assets / "images/seed/snake.png", "--model", "squeezenet1_0",
        "--weights", assets / "models/squeezenet1_0-imagenet.pth",
        "--method", "guided_grad_cam", "--target", "56", "-o", "snake.png",
    )  # fmt: skip
    assert re.fullmatch(r"snake\.png: king snake 58\.\d\d \(100 %\)", lines[0])
    assert opened("snake.png").size == (224, 224)
    picture = np.asarray(opened("snake.png")).astype(float)
    # gray where nothing speaks for the snake: the gravel in the upper right corner, and not the snake's body
    assert picture[:40, 160:].std() < 4 < picture.std()


def test_a_class_of_imagenet_by_name(assets: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ("explain", assets / "images/seed/cat_dog.png", "--model", "squeezenet1_0",
           "--weights", assets / "models/squeezenet1_0-imagenet.pth")  # fmt: skip
    assert works(capsys, *ask, "--target", "tiger cat")[0].startswith("cnnviz-explain/cat_dog_grad_cam.png: tiger cat ")
    assert "there is no class 'tiger cta'; did you mean 'tiger cat'" in fails(capsys, *ask, "--target", "tiger cta")
