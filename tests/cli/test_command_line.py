"""What is the same for all commands: help, completion, JSON, what is told beside the answers, devices."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import nn

from cnnviz import attributions, demo, evaluate, explain, load_model, syntheses
from cnnviz.__main__ import main
from cnnviz.cli.app import app
from cnnviz.cli.completion import MODELS
from cnnviz.cli.documents import print_document
from cnnviz.cli.targets import label_of, separate_targets
from cnnviz.demo import BUNDLED
from cnnviz.registry.registry import registries

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # of the group that it is
SHAPES = demo.CATEGORIES[:3]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, empty."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    return folder


def said(capsys: pytest.CaptureFixture[str], *args: str | Path, status: int = 0) -> str:
    """Run a command, whose stderr is empty unless it fails; what it says on stdout."""
    assert main([str(arg) for arg in args]) == status
    out, err = capsys.readouterr()
    assert (err == "") == (status == 0)
    return out


def document(capsys: pytest.CaptureFixture[str], *args: str | Path, status: int = 0) -> Any:
    """The only JSON document on stdout, which has no NaN in it."""

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    return json.loads(said(capsys, *args, "--json", status=status), parse_constant=refuse)


def fails(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    """Run what must fail, with one line on stderr and nothing on stdout; the line."""
    assert main([str(arg) for arg in args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line.removeprefix("cnnviz: ")


# Help


@pytest.mark.parametrize("command", ["explain", "deconv-segment", "doctor"])
def test_help_is_had_in_every_way_that_people_try(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, command, "--help")
    assert f" cnnviz {command} " in text
    assert said(capsys, command, "-h") == said(capsys, "help", command) == text


def test_help_of_everything_and_of_nothing_known(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "--help")
    assert said(capsys, "-h") == said(capsys, "help") == said(capsys) == text
    assert "No such command 'explian'" in fails(capsys, "help", "explian")
    assert said(capsys, "-V") == said(capsys, "--version")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_ends_in_an_example_with_options_that_there_are(command: str) -> None:
    found = re.fullmatch(rf"\[bold\]Example:\[/bold\] cnnviz {command}( .*)?", COMMANDS[command].epilog)
    assert found is not None
    known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
    if COMMANDS[command].context_settings.get("ignore_unknown_options"):
        known |= {
            f"--{setting}" for method in (*syntheses.values(), *attributions.values()) for setting in method.settings
        }
    assert set(re.findall(r"(?<= )--?[a-z-]+", found[1] or "")) <= known


# Completion


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("he", ["help"]),
        ("help ev", ["evaluate"]),
        ("explain -m grad_cam,guided_g", ["grad_cam,guided_grad_cam"]),
        ("explain --method integ", ["integrated_gradients"]),
        ("explain --render over", ["overlay"]),
        ("explain --device m", ["mps"]),
        ("explain --format np", ["npy", "npz"]),
        ("explain --verb", ["--verbose"]),
        ("evaluate --metric roc_auc,ins", ["roc_auc,insertion"]),
        ("synthesize deep", ["deep_dream"]),
        ("methods saliency_c", ["saliency_confusion"]),
        ("layers demo-s", ["demo-shortcut", "demo-segmentation"]),
    ],
)
def test_the_shell_is_offered_names(
    line: str, offered: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_CNNVIZ_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"cnnviz {line}")
    monkeypatch.setenv("COMP_CWORD", str(len(line.split())))
    assert said(capsys).split() == offered


def test_completion_is_installed_by_an_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda *level: ("zsh", "/bin/zsh"))
    assert "_CNNVIZ_COMPLETE=complete_zsh" in said(capsys, "--show-completion")
    assert "--install-completion" in said(capsys, "-h")
    assert BUNDLED == MODELS


# JSON


def test_explanations_as_rows(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.png").write_text("no picture")
    asked = ("explain", pictures, "broken.png", "gone.png", "-m", "grad_cam,gradient", "-o", "maps/")
    rows = document(capsys, *asked, status=1)
    paths = [pictures / f"{shape}.png" for shape in SHAPES]
    results = explain(load_model("demo"), paths, ["grad_cam", "gradient"])
    assert [row["file"] for row in rows] == [*(str(path) for path in paths for _ in range(2)), "broken.png", "gone.png"]
    for place, row in enumerate(rows[:6]):
        name, item = ("grad_cam", "gradient")[place % 2], place // 2
        result = results[name][item]
        assert (row["answer"], row["method"], row["recipe"]) == (name, name, result.recipe)
        assert (row["class_index"], row["class_name"]) == (int(result.target), SHAPES[item])
        assert row["score"] == pytest.approx(result.score.item(), rel=1e-5)
        assert row["probability"] == pytest.approx(result.probability.item(), rel=1e-4)
        assert row["output"] == [f"maps/{SHAPES[item]}_{name}.png"]
        assert Path(row["output"][0]).exists()
        assert (row["status"], row["error"], row["objective"]) == ("done", None, None)
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert [row["status"] for row in rows[6:]] == ["failed", "failed"]
    assert "is not a picture that can be read" in rows[6]["error"]
    assert rows[7]["error"] == "no file or folder 'gone.png'"
    assert rows[7]["score"] is None


def test_rows_of_one_file_and_of_a_command_that_fails(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = document(capsys, "explain", pictures, "-o", "all.png", "--top-classes", "2")
    assert [row["answer"] for row in rows] == ["grad_cam_1"] * 3 + ["grad_cam_2"] * 3
    assert {tuple(row["output"]) for row in rows} == {("all.png",)}
    assert {row["method"] for row in rows} == {"grad_cam"}
    rows = document(capsys, "explain", pictures / "circle.png", "--layer", "nothing", status=2)
    assert [row["status"] for row in rows] == ["failed"]
    assert "has no layer 'nothing'" in rows[0]["error"]
    assert main(["explain", str(pictures), "--json", "--stepz", "3"]) == 2
    assert capsys.readouterr().out == ""


def test_segmentations_have_boxes(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = document(capsys, "segment", pictures, "-o", "cut/", "--write-masks", "masks/")
    assert [row["class_name"] for row in rows] == list(SHAPES)
    for row in rows:
        with Image.open(row["mask"]) as mask:
            inside = np.asarray(mask) > 127
        columns, lines = np.nonzero(inside.any(0))[0], np.nonzero(inside.any(1))[0]
        assert row["box"] == [columns[0], lines[0], columns[-1] + 1, lines[-1] + 1]
        assert row["share"] == pytest.approx(inside.mean(), abs=1e-6)


def test_scores_with_what_failed(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.png").write_text("no picture")
    told = document(capsys, "evaluate", pictures, "broken.png", "--metric", "sparseness", "-o", "t.csv", status=1)
    result = explain(load_model("demo"), [pictures / f"{shape}.png" for shape in SHAPES])
    expected = evaluate(result, "sparseness").tolist()
    assert [row["sparseness"] for row in told["pictures"]] == pytest.approx(expected, rel=1e-4)
    (row,) = told["methods"]
    assert (row["method"], row["pictures"], row["blank"]) == ("grad_cam", 3, 0)
    assert row["sparseness"] == pytest.approx(sum(expected) / 3, rel=1e-4)
    assert [failure["file"] for failure in told["failures"]] == ["broken.png"]
    assert Path("t.csv").exists()
    told = document(capsys, "evaluate", pictures / "circle.png", "--metric", "sparseness")
    assert told["methods"][0]["sparseness_error"] is None


def test_methods_layers_and_the_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    entries = document(capsys, "methods")
    names = [(registry.kind, name) for registry in registries for name in registry]
    assert [(entry["kind"], entry["name"]) for entry in entries] == names
    (entry,) = document(capsys, "methods", "integrated_gradients")
    assert entry in entries
    assert "arXiv:1703.01365" in entry["page"]
    steps = next(setting for setting in entry["settings"] if setting["name"] == "steps")
    expected = {"name": "steps", "option": "--steps", "type": "int", "required": False, "default": 50}
    assert steps | expected == steps
    assert steps["meaning"]

    told = document(capsys, "layers", "demo")
    module = load_model("demo").module
    shapes: dict[str, list[int]] = {}
    for name, layer in module.named_modules():
        layer.register_forward_hook(lambda layer, args, output, name=name: shapes.update({name: [*output.shape[1:]]}))
    module(torch.zeros(1, 3, 96, 96))
    assert (told["model"], told["input_shape"]) == ("demo", [3, 96, 96])
    assert {layer["name"]: layer["shape"] for layer in told["layers"]} == {k: v for k, v in shapes.items() if k}
    assert [layer["name"] for layer in told["layers"] if layer["automatic"]] == ["layer3"]
    assert [layer["number"] for layer in told["layers"] if layer["number"]] == list(range(1, 10))

    told = document(capsys, "doctor")
    assert told["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert told["loaded"]["attributions"] == len(attributions)
    assert (told["cuda"], told["mps"], told["faults"]) == ([], False, [])


def test_what_is_no_number_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_document({"a": math.nan, "b": [math.inf, 1.5, True, None, "\x1b[31mé"], "c": Path("x")})
    text = capsys.readouterr().out
    assert json.loads(text) == {"a": None, "b": [None, 1.5, True, None, "\x1b[31mé"], "c": "x"}
    assert text.isascii()
    assert "\x1b" not in text


# Targets


@pytest.mark.parametrize("words", [("--target", "circle,square"), ("--target", "circle", "--target", "1")])
def test_several_targets_are_explained_each(
    words: tuple[str, ...], pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = document(capsys, "explain", pictures / "triangle.png", *words, "-m", "gradient", "--format", "npy")
    second = words[-1].rpartition(",")[2]
    assert [row["answer"] for row in rows] == ["gradient_circle", f"gradient_{second}"]
    for number, row in enumerate(rows):
        expected = explain(load_model("demo"), pictures / "triangle.png", "gradient", target=number)
        assert row["class_index"] == number
        np.testing.assert_allclose(np.load(row["output"][0]), expected.values[0].numpy(), rtol=1e-4, atol=1e-6)


def test_commas_of_names_and_of_forms_separate_nothing() -> None:
    names = ("tench, Tinca tinca", "a", "b")
    assert separate_targets(["Tench, tinca tinca", "a, b", "near:0.5,1", "b"], names) == [
        "Tench, tinca tinca", "a", "b", "near:0.5,1",
    ]  # fmt: skip
    assert separate_targets(["against:a,b"], names) == ["against:a,b"]
    assert label_of("tiger cat/2:x") == "tiger-cat-2-x"


def test_a_table_has_a_target_for_each_picture(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text("file,target\ncircle.png,heart\nsquare.png,0\ntriangle.png,Star\n")
    rows = document(capsys, "explain", pictures, "--targets", "t.csv", "--batch", "2", "--format", "npy")
    classes = [demo.CATEGORIES.index("heart"), 0, demo.CATEGORIES.index("star")]
    assert [row["class_index"] for row in rows] == classes
    for row, number in zip(rows, classes, strict=True):
        expected = explain(load_model("demo"), row["file"], target=number)
        np.testing.assert_allclose(np.load(row["output"][0]), expected.values[0].numpy(), rtol=1e-3, atol=1e-5)


def test_tables_that_do_not_fit_are_refused(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        (Path(folder) / "x.png").write_bytes((pictures / "circle.png").read_bytes())
    cases = {
        "a/x.png,1\n": "'b/x.png' has no line in table 't.csv', and so 1 of 2 pictures have no target",
        "x.png,1\n": "'x.png' is both 'a/x.png' and 'b/x.png'; write as much of their paths as tells them apart",
        "a/x.png,1\nb/x.png,stra\n": "table 't.csv', line 2: there is no class 'stra'; did you mean",
        "a/x.png,1\na/x.png,2\n": "line 2: a/x.png has another class above",
    }
    for text, told in cases.items():
        Path("t.csv").write_text(text)
        assert told in fails(capsys, "explain", "a/x.png", "b/x.png", "--targets", "t.csv")
    Path("t.csv").write_text("a/x.png,1\nx.png,2\n")
    rows = document(capsys, "explain", "a/x.png", "b/x.png", "--targets", "t.csv")
    assert [row["class_index"] for row in rows] == [1, 2], "the longer path counts"
    asked = ("explain", "a/x.png", "--targets", "t.csv")
    assert "and --target says another; say one of them" in fails(capsys, *asked, "--target", "1")
    assert "and --top-classes says another" in fails(capsys, *asked, "--top-classes", "2")


# Raw maps


def test_all_maps_of_a_picture_in_one_file(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("-m", "grad_cam,gradient", "--format", "npz", "-o", "maps/")
    lines = said(capsys, "explain", pictures, *asked).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [f"maps/{shape}_maps.npz" for shape in SHAPES]
    assert re.fullmatch(r"maps/circle_maps\.npz: circle \d+\.\d\d \(\d+ %\)", lines[0])
    results = explain(load_model("demo"), pictures / "square.png", ["grad_cam", "gradient"])
    with np.load("maps/square_maps.npz") as kept:
        assert sorted(kept) == sorted(
            name + more for name in results for more in ("", ".score", ".class_index", ".class_name")
        )
        for name, result in results.items():
            np.testing.assert_allclose(kept[name], result.values[0].numpy(), rtol=1e-3, atol=1e-5)
            assert kept[f"{name}.score"] == pytest.approx(result.score.item(), rel=1e-5)
            assert (kept[f"{name}.class_index"], kept[f"{name}.class_name"]) == (1, "square")


def test_formats_are_of_folders(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    circle = pictures / "circle.png"
    said(capsys, "explain", circle, "--format", "webp", "-o", "maps/")
    with Image.open("maps/circle_grad_cam.webp") as picture:
        assert (picture.format, picture.size) == ("WEBP", (96, 96))
    assert "there is no --format gif; there are png, jpg" in fails(capsys, "explain", circle, "--format", "gif")
    told = fails(capsys, "explain", circle, "--format", "npz", "-o", "x.png")
    assert told == "--format says what is written in a folder, and x.png is a file; name a folder"
    assert "--show opens pictures, and --format npy keeps" in fails(
        capsys, "explain", circle, "--show", "--format", "npy"
    )


# What is told beside


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many inputs each pass of the demo network had."""
    kind, counts = type(load_model("demo").module), []
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda net, x: (counts.append(len(x)), forward(net, x))[1])
    return counts


def test_verbose_tells_what_was_computed(passed: list[int], pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = (
        "explain",
        pictures,
        "-m",
        "grad_cam,integrated_gradients",
        "--steps",
        "2",
        "--batch",
        "2",
        "-o",
        "m/",
        "--overwrite",
    )
    plain = said(capsys, *asked)
    passed.clear()
    assert main([str(word) for word in (*asked, "--verbose")]) == 0
    out, err = capsys.readouterr()
    assert out == plain
    network, *recipes, first, second = [line.removeprefix("cnnviz: ") for line in err.splitlines()]
    assert network == "network demo, DemoNet: cpu, float32"
    assert recipes == [
        "grad_cam(layer='layer3'): maps of 1x12x12, computed in float32",
        "integrated_gradients(steps=2): maps of 3x96x96, computed in float32",
    ]
    counts = re.findall(r"(\d) pictures? of 3x96x96: (\d+) forward pass(?:es)?, \d+\.\d{3} s a picture", first + second)
    assert [int(pictures) for pictures, _ in counts] == [2, 1]
    assert sum(int(passes) for _, passes in counts) == len(passed)
    assert main(["explain", str(pictures / "circle.png"), "-v", "--fold"]) == 0
    assert "pass" not in capsys.readouterr().err, "the passes of the folded network are not those of this one"


@pytest.mark.parametrize(("cuda", "mps", "chosen"), [(2, True, "cuda"), (0, True, "mps"), (0, False, "cpu")])
def test_the_fastest_device_is_chosen(
    cuda: int, mps: bool, chosen: str, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    asked: list[torch.device] = []

    def to(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
        asked.append(device)
        raise RuntimeError("enough")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(nn.Module, "to", to)
    fails(capsys, "explain", pictures / "circle.png")
    assert [device.type for device in asked] == [chosen]
    if mps:
        fails(capsys, "explain", pictures / "circle.png", "--device", "mps")
        assert asked[-1].type == "mps"
    else:
        told = fails(capsys, "explain", pictures / "circle.png", "--device", "mps")
        assert told == "there is no mps: 0 MPS devices are found; say --device cpu"


# The documentation


def shapes_of(value: Any) -> Any:
    """The keys of a document; of a list those of its first entry."""
    if isinstance(value, dict):
        return {key: shapes_of(each) for key, each in value.items()}
    return [shapes_of(each) for each in value[:1]] if isinstance(value, list) else None


def test_documents_are_as_the_page_says(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
    told = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", page, re.M | re.S)]
    # tests/datasets has the audit's, test_sanity_command.py that of sanity
    explained, segmented, evaluated, _, methods, layers, _, doctor = told
    circle, broken = pictures / "circle.png", "broken.png"
    Path(broken).write_text("no picture")
    rows = document(capsys, "explain", circle)
    assert shapes_of(rows) == shapes_of(explained)
    rows = document(capsys, "segment", circle, "-o", "cut/")
    assert rows[0].keys() == explained[0].keys() | segmented[0].keys()
    rows = document(capsys, "evaluate", circle, broken, "--metric", "sparseness", status=1)
    assert shapes_of(rows) == shapes_of(evaluated)
    assert shapes_of(document(capsys, "methods", "grad_cam")) == shapes_of(methods)
    assert shapes_of(document(capsys, "layers", "demo")) == shapes_of(layers)
    found = document(capsys, "doctor")
    assert found.keys() == doctor.keys()
    assert found["versions"].keys() == doctor["versions"].keys()
    assert found["loaded"].keys() == doctor["loaded"].keys()
