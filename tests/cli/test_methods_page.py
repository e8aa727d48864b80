"""``cnnviz methods NAME``: every setting with its type in one wording, its values, and one line of meaning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import pytest
from PIL import Image
from torch import nn

import cnnviz
from cnnviz.__main__ import main
from cnnviz.cli.method_options import annotation
from cnnviz.registry.registry import Method, registries
from cnnviz.registry.setting_meanings import meaning_of

SETTINGS = [
    (registry[name], setting) for registry in registries for name in registry for setting in registry[name].settings
]


def page(capsys: pytest.CaptureFixture[str], name: str) -> list[str]:
    assert main(["methods", name, "--plain"]) == 0
    return capsys.readouterr().out.splitlines()


def test_every_setting_says_what_it_is() -> None:
    assert not [f"{method.name} {setting}" for method, setting in SETTINGS if not meaning_of(method, setting)]


def test_every_type_is_told_in_one_wording() -> None:
    told = [annotation(method, setting) for method, setting in SETTINGS]
    assert not [
        each for each in told if any(part in each for part in ("typing", "Literal", "class", "collections", "'"))
    ]


@pytest.mark.parametrize(
    ("name", "setting", "told"),
    [
        ("overlay", "blend", "heat | alpha | sum"),
        ("overlay", "background", "color | gray"),
        ("overlay", "normalize", "image | shared | percentile | signed | float"),
        ("panels", "channels", "sum | max"),
        ("panels", "background", "faded | pale"),
        ("color", "style", "zero | minmax | std"),
        ("segmentation", "sign", "auto | positive | magnitude | signed"),
        ("grad_cam", "layout", "auto | tokens | channels_last | channels_first"),
        ("grad_cam", "layer", "Layer"),
        ("guided_grad_cam", "layer", "Layer"),
        ("integrated_gradients", "baseline", "Baseline"),
        ("extremal_perturbation", "baseline", "Baseline | None"),
        ("smoothgrad", "of", "Formula"),
        ("occlusion", "window", "int | str | Sequence[int] | None"),
    ],
)
def test_settings_with_few_values_list_them(name: str, setting: str, told: str) -> None:
    (method,) = [registry[name] for registry in registries if name in registry]
    assert annotation(method, setting) == told


def test_a_stranger_without_postponed_annotations_is_told_alike() -> None:
    # as a file without `from __future__ import annotations` has them
    def rising(layer=None, way="a", count=3): ...  # type: ignore[no-untyped-def]

    rising.__annotations__ = {
        "layer": str | int | Sequence[str] | nn.Module | cnnviz.LayerAt | None,
        "way": Literal["a", "b"],
        "count": Annotated[int, "how many\n  of them"],
    }
    method = Method(rising)
    assert [annotation(method, name) for name in method.settings] == [
        "str | int | Sequence[str] | Module | LayerAt | None",
        "a | b",
        "int",
    ]
    assert meaning_of(method, "count") == "how many of them"
    rising.__annotations__["layer"] = cnnviz.Layer
    assert annotation(Method(rising), "layer") == "Layer"


def test_a_page_has_no_marks_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    lines = page(capsys, "segmentation")
    assert "cnnviz.segment. dim is how dark the rest is, 0 to 1. Where the map is blank, nothing stands out." in lines
    assert "--dim\tfloat\t0.65\thow dark the rest is, 0 to 1" in lines


def test_a_beginning_of_names_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "guided"]) == 2
    told = capsys.readouterr().err
    assert "there is no method 'guided'; did you mean 'guided_backprop' or 'guided_grad_cam'?" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-m", "saliency"], "there is no attribution 'saliency'; did you mean 'gradient'? captum calls it Saliency"),
        (["-m", "Grad_CAM"], "there is no attribution 'Grad_CAM'; did you mean 'grad_cam'?"),
        (["-m", "gradcam++"], "did you mean 'grad_cam_plus_plus'?"),
        (
            ["--cmap", "jet"],
            "there is no option --cmap for grad_cam; did you mean --colormap? matplotlib calls it cmap",
        ),
        (
            ["--alpha", "0.4"],
            "there is no option --alpha for grad_cam; did you mean --opacity? matplotlib calls it alpha",
        ),
        (["--target-layer", "layer2"], "did you mean --layer? torchcam calls it target_layer"),
        (["-m", "rise", "--samples", "9"], "there is no option --samples for rise; did you mean --masks?"),
        (["-m", "integrated_gradients", "--n-steps", "9"], "did you mean --steps? captum calls it n_steps"),
        (["--internal-batch-size", "9"], "chunks are as large as the memory allows: say --memory"),
        (["--target-category", "9"], "the class is --target"),
        (
            ["--zzz"],
            "it takes --call, --extra, --fuse, --grid, --layer, --layout, --relu; cnnviz methods overlay lists",
        ),
        (["--zzz", "--render", "boxes"], "--relu; what draws it takes --colormap, --opacity, --width"),
        (["--layer", ""], "the value behind --layer is empty"),
    ],
)
def test_an_option_of_others_is_a_hint(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (96, 96)).save(tmp_path / "black.png")
    assert main(["explain", str(tmp_path / "black.png"), *words]) == 2
    assert told in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["black.png"]
