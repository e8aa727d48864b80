"""One call takes a picture to a picture, and a wrong one writes nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnnviz
from cnnviz import demo, explain, load_model
from cnnviz.explanations import draw as drawing
from cnnviz.images.preprocessing import IMAGENET


@pytest.fixture
def star(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture of a star, alone in the working folder."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(demo.pictures().pictures[demo.CATEGORIES.index("star")]).save("star.png")
    return Path("star.png")


def test_a_picture_in_and_a_picture_out(star: Path) -> None:
    found = cnnviz.draw(star, "out.png", model="demo")
    expected = explain(load_model("demo"), star).render()[0]
    np.testing.assert_array_equal(np.asarray(found), expected)
    with Image.open("out.png") as written:
        np.testing.assert_array_equal(np.asarray(written), expected)
    cnnviz.draw(star, "out.jpg", "guided_backprop", model="demo")
    assert sorted(path.name for path in Path().iterdir()) == ["out.jpg", "out.png", "star.png"]


def test_without_a_path_nothing_is_written(star: Path) -> None:
    with Image.open(star) as picture:
        found = cnnviz.draw(picture, model=load_model("demo"))
    assert (found.size, found.mode) == ((96, 96), "RGB")
    assert [path.name for path in Path().iterdir()] == ["star.png"]


def test_settings_go_to_the_method_and_to_the_renderer(star: Path) -> None:
    found = cnnviz.draw(
        star, None, "smoothgrad", model="demo", target="heart", renderer="color", seed=3, samples=4, style="std"
    )
    answer = explain(load_model("demo"), star, "smoothgrad", target=6, seed=3, samples=4)
    np.testing.assert_array_equal(np.asarray(found), answer.render("color", style="std")[0])
    # a formula has its settings in it
    made = cnnviz.attributions["grad_cam"](layer="layer2")
    formula = cnnviz.draw(star, None, made, model="demo", opacity=0.2)
    np.testing.assert_array_equal(
        np.asarray(formula), explain(load_model("demo"), star, made).render("overlay", opacity=0.2)[0]
    )


def test_a_network_of_ones_own_sees_pictures_as_those_of_imagenet_do(star: Path) -> None:
    network = demo.network("demo")
    found = cnnviz.draw(star, model=network)
    expected = explain(network, star, preprocessing=IMAGENET)
    np.testing.assert_array_equal(np.asarray(found), expected.render(at="original")[0])
    assert found.size == (96, 96)
    seen = cnnviz.draw(star, model=network, at="input")
    np.testing.assert_array_equal(np.asarray(seen), expected.render()[0])


def test_a_figure_has_its_own_size_unless_the_original_is_asked_for(star: Path) -> None:
    assert cnnviz.draw(star, model="demo", renderer="panels").size > (96, 96)
    with pytest.raises(ValueError, match="panels draws a figure of its own"):
        cnnviz.draw(star, model="demo", renderer="panels", at="original")


def test_a_network_is_loaded_once(star: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(drawing, "load_model", lambda name: loaded.append(name) or load_model(name))
    drawing._loaded.cache_clear()
    for _ in range(3):
        cnnviz.draw(star, model="demo")
    drawing._loaded.cache_clear()
    assert loaded == ["demo"]


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"opacty": 1}, TypeError, "overlay has no setting 'opacty'; did you mean 'opacity'?"),
        ({"path": "out.gif"}, ValueError, "out.gif has no suffix of a picture; use .png"),
        ({"path": "no/out.png"}, FileNotFoundError, "the folder no does not exist; make it first"),
        ({"method": "gard_cam"}, LookupError, "there is no attribution 'gard_cam'; did you mean 'grad_cam'?"),
        ({"path": "star.png"}, ValueError, "star.png is the picture to explain, and would be replaced; choose another"),
        ({"renderer": "overlai"}, LookupError, "there is no renderer 'overlai'; did you mean 'overlay'?"),
        ({"target": "stra"}, LookupError, "there is no class 'stra'; did you mean 'star'"),
        ({"picture": "none.png"}, FileNotFoundError, "no file 'none.png'"),
        ({"model": "resnet5000"}, LookupError, "no model 'resnet5000' (did you mean 'resnet"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(
    star: Path, how: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        cnnviz.draw(**{"picture": star, "path": "out.png", "model": "demo"} | how)
    assert [path.name for path in Path().iterdir()] == ["star.png"]
