"""The examples of the gallery run as they are written, and draw what they drew when somebody looked at it."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cnnviz import demo

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.py"))
KEPT = DOCS / "examples" / "kept"
DRAWN = {
    "six_methods": "six-methods.png",
    "top_five": "top-five.png",
    "depth": "depth.png",
    "subplot": "subplot.png",
    "heat_map": "heat-map.png",
    "many_targets": "many-targets.png",
    "save_and_read": "read-again.png",
    "compose": "compose.png",
    "segmentation_region": "segmentation-region.png",
    "original_size": "whole.png",
    "cut_out": "mask-0.png",
    "detection": "detection.png",
    "vision_transformer": "vision-transformer.png",
    "volumes": "volumes.png",
    "training": "",
    "ten_thousand": "ten-thousand.png",
}


@pytest.fixture
def demonstration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures of ``cnnviz demo -o demo`` in the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "demo" / "pictures"
    folder.mkdir(parents=True)
    for name, picture in zip(demo.CATEGORIES, demo.pictures().pictures, strict=True):
        Image.fromarray(picture).save(folder / f"{name}.png")


def pixels(path: Path) -> NDArray[np.float64]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(float)


@pytest.mark.usefixtures("demonstration")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_draws(example: Path) -> None:
    if example.stem == "training":
        pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    elif example.stem == "ten_thousand":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install -e '.[batch]'")
    made = runpy.run_path(str(example), run_name="__main__")
    if example.stem == "training":
        (events,) = Path("runs").iterdir()
        assert events.stat().st_size > 50_000  # four pictures of two epochs
        return
    drawn = pixels(Path(DRAWN[example.stem]))
    assert drawn.std() > 5  # guided backprop is mostly gray
    kept = KEPT / DRAWN[example.stem]
    if kept.exists():  # in 256 colours
        assert drawn.shape == pixels(kept).shape
        assert abs(drawn - pixels(kept)).mean() < 4
    if example.stem == "ten_thousand":
        assert len(made["answers"]) == 16
        assert len(made["wrong"]) == sum(row["label"] != row["class"] for row in made["answers"].table()) < 8
    if example.stem == "vision_transformer":
        assert made["results"]["grad_cam"].values.shape == (1, 1, 8, 8)
    if example.stem == "subplot":
        import matplotlib.pyplot as plt

        plt.close("all")


def test_every_example_is_in_the_gallery() -> None:
    """In its order, with a title and a text; and every picture that is kept is compared."""
    extension = ast.parse((DOCS / "_extensions" / "gallery_of_examples.py").read_text())
    (order,) = (
        node.value
        for node in extension.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ORDER"
    )
    listed = [node.value for node in ast.walk(order) if isinstance(node, ast.Constant)]
    assert sorted(listed) == [example.stem for example in EXAMPLES] == sorted(DRAWN)
    assert {path.name for path in KEPT.iterdir()} <= set(DRAWN.values())
    for example in EXAMPLES:
        title, line, empty, *text = (ast.get_docstring(ast.parse(example.read_text())) or "").splitlines()
        assert line == "=" * len(title)
        assert not empty
        assert text
