"""The recipes run as they are written, and the pages show what they draw."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cnnviz import demo

DOCS = Path(__file__).parents[2] / "docs"
RECIPES = sorted((DOCS / "recipes").glob("*.py"))
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
    "tensorboard_images": "",
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
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_and_draws(recipe: Path) -> None:
    if recipe.stem == "tensorboard_images":
        pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    runpy.run_path(str(recipe), run_name="__main__")
    if recipe.stem == "tensorboard_images":
        (events,) = Path("runs").iterdir()
        assert events.stat().st_size > 50_000  # four pictures of two epochs
        return
    drawn = pixels(Path(DRAWN[recipe.stem]))
    assert drawn.std() > 5  # guided backprop is mostly gray
    kept = DOCS / "pictures" / "recipes" / DRAWN[recipe.stem]
    if kept.exists():  # the page shows it, in 256 colours
        assert drawn.shape == pixels(kept).shape
        assert abs(drawn - pixels(kept)).mean() < 4
    if recipe.stem == "subplot":
        import matplotlib.pyplot as plt

        plt.close("all")


def test_every_recipe_is_on_the_page() -> None:
    page = (DOCS / "recipes.md").read_text()
    assert {recipe.stem for recipe in RECIPES} == set(DRAWN)
    assert all(f"recipes/{recipe.name}" in page for recipe in RECIPES)
    shown = {path.name for path in (DOCS / "pictures" / "recipes").iterdir()}
    assert all(f"(pictures/recipes/{name})" in page for name in shown)
