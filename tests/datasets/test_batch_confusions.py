"""Confusions of a batch are those of its pictures, and no picture is explained again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnviz
from cnnviz import demo
from cnnviz.__main__ import main
from cnnviz.datasets import Batch, true_class
from cnnviz.demo.drawing import draw
from cnnviz.tasks import labelled_pictures

CLASSES = demo.CATEGORIES[:2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures of two classes whose tags tell another class, and runs over them with both targets."""
    folder = tmp_path_factory.mktemp("confused")
    drawn = draw(40, seed=7, tag="wrong", held_out=True)
    for number, (picture, label) in enumerate(zip(drawn.pictures, drawn.labels, strict=True)):
        if label < len(CLASSES):
            place = folder / "pictures" / CLASSES[label]
            place.mkdir(exist_ok=True, parents=True)
            Image.fromarray(picture).save(place / f"{number:02}.png")
    model = cnnviz.load_model("demo-shortcut")
    for name, target in (("predicted", None), ("true", true_class)):
        cnnviz.batch(model, folder / "pictures", "grad_cam", folder / name, target=target, labels="folder", workers=0)
    return folder


@pytest.mark.parametrize("cell", ["typical", "surest", "mean"])
def test_a_batch_gives_the_matrix_of_its_pictures(folder: Path, cell: str) -> None:
    pictures = labelled_pictures(folder / "pictures", None, demo.CATEGORIES)
    expected = cnnviz.confusion_matrix(cnnviz.load_model("demo-shortcut"), pictures, cell=cell)  # type: ignore[arg-type]
    found = cnnviz.confusion_matrix(cnnviz.open_batch(folder / "predicted"), cell=cell)  # type: ignore[arg-type]
    assert found.counts == expected.counts
    assert found.cells == expected.cells
    assert len(found) == 10
    assert found.examples == expected.examples
    assert found.classes == expected.classes
    assert found.caption == expected.caption
    assert found.table() == expected.table()
    assert np.allclose(found.explanation.values, expected.explanation.values, atol=1e-5)
    assert np.allclose(found.explanation.inputs, expected.explanation.inputs, atol=1e-6)
    assert np.abs(found.render().astype(int) - expected.render()).max() <= 2


def test_true_classes_need_maps_of_true_classes(folder: Path) -> None:
    of_true = cnnviz.open_batch(folder / "true")
    found = cnnviz.confusion_matrix(of_true, toward="truth")
    assert found.explanation.target is not None
    assert found.explanation.target.tolist() == [truth for truth, _ in found.cells]
    with pytest.raises(ValueError, match=r"another class than the predicted class; use toward='truth'"):
        cnnviz.confusion_matrix(of_true)


def test_a_batch_without_labels_or_method_is_refused(folder: Path, batch: Batch) -> None:
    with pytest.raises(ValueError, match="the items of the batch have no labels"):
        cnnviz.confusion_matrix(batch)
    with pytest.raises(LookupError, match="no method 'gradient' in the batch; it has grad_cam"):
        cnnviz.confusion_matrix(cnnviz.open_batch(folder / "predicted"), attribution="gradient")
    with pytest.raises(TypeError, match="a batch has its own pictures"):
        cnnviz.confusion_matrix(batch, [])
    with pytest.raises(TypeError, match="confusion_matrix needs pictures"):
        cnnviz.confusion_matrix(cnnviz.load_model("demo"))


def test_the_command_draws_a_batch_and_loads_no_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cnnviz.cli.prepared.load_model", None)
    words = [
        "confusions",
        str(folder / "predicted"),
        "-o",
        str(tmp_path / "m.png"),
        "--counts",
        str(tmp_path / "c.csv"),
    ]
    assert main([*words, "--opacity", "0.4"]) == 0
    assert "m.png: 0 of 10 pictures named right (0.0%)" in capsys.readouterr().out
    matrix = cnnviz.confusion_matrix(cnnviz.open_batch(folder / "predicted"))
    assert (tmp_path / "c.csv").read_text() == matrix.table()
    with Image.open(tmp_path / "m.png") as drawn:
        assert (np.asarray(drawn) == matrix.render(opacity=0.4)).all()
    for option in (["--layer", "layer2"], ["--model", "demo"], ["--labels", "l.csv"], ["--seed", "3"]):
        assert main([*words, "--overwrite", *option]) == 2
        assert f"{option[0]} changes nothing of a batch run" in capsys.readouterr().err
