"""A labelled folder becomes a confusion matrix: right counts, the right picture in each cell, little memory."""

from __future__ import annotations

import csv
import re
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import AveragingNet, tiny_inputs
from PIL import Image
from torch import Tensor

from cnnviz import confusion_matrix, demo, explain, load_model
from cnnviz.__main__ import main
from cnnviz.demo.drawing import draw
from cnnviz.drawing.confusion_matrix import draw_confusion_matrix
from cnnviz.tasks import labelled_pictures
from cnnviz.tasks.confusion_matrix import most_confused

CLASSES = demo.CATEGORIES[:3]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve drawn pictures whose tags tell another class, in the folders of their classes."""
    folder = tmp_path_factory.mktemp("labelled")
    drawn = draw(32, seed=7, tag="wrong", held_out=True)
    for number, (picture, label) in enumerate(zip(drawn.pictures, drawn.labels, strict=True)):
        if label < len(CLASSES):
            place = folder / CLASSES[label]
            place.mkdir(exist_ok=True)
            Image.fromarray(picture).save(place / f"{number:02}.png")
    return folder


def labelled(rank: int = 2, items: int = 14) -> list[tuple[Tensor, int]]:
    """Noise with labels that are often wrong."""
    inputs = 2 * tiny_inputs(rank, items, seed=5)
    return [(each, number % 3) for number, each in enumerate(inputs)]


def confused(rank: int = 2) -> AveragingNet:
    """A network that has no favourite among the classes."""
    net = AveragingNet(rank)
    with torch.no_grad():
        scores = net(torch.stack([picture for picture, _ in labelled(rank)]))
        net.head.bias -= scores.mean(0)
    return net


def by_hand(model: Any, pictures: list[tuple[Tensor, int]]) -> dict[tuple[int, int], list[tuple[float, int]]]:
    """For each cell the score and number of every picture in it."""
    cells: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for number, (picture, label) in enumerate(pictures):
        with torch.no_grad():
            scores = model(picture[None])[0].tolist()
        guess = scores.index(max(scores))
        cells.setdefault((label, guess), []).append((scores[guess], number))
    return cells


@pytest.mark.parametrize("cell", ["typical", "surest"])
@pytest.mark.parametrize("toward", ["prediction", "truth"])
def test_each_cell_shows_its_picture_with_its_own_map(rank: int, cell: Any, toward: Any) -> None:
    model, pictures = confused(rank), labelled(rank)
    cells = by_hand(model, pictures)
    assert len(cells) > 4
    assert max(map(len, cells.values())) > 2
    found = confusion_matrix(model, pictures, cell=cell, toward=toward, batch=3, layer="second")
    assert dict(found.counts) == {place: len(each) for place, each in cells.items()}
    assert set(found.cells) == set(cells)
    for place, each, example in zip(found.cells, found.explanation, found.examples, strict=True):
        ranked = sorted(cells[place])
        assert example == (ranked[-1] if cell == "surest" else ranked[(len(ranked) - 1) // 2])[1]
        truth, guess = place
        alone = explain(
            model, pictures[example][0][None], layer="second", target=guess if toward == "prediction" else truth
        )
        assert torch.equal(each.inputs, alone.inputs)
        torch.testing.assert_close(each.values, alone.values)
        torch.testing.assert_close(each.score, alone.score)


def test_a_mean_is_of_all_pictures_of_the_cell_and_of_their_maps(rank: int) -> None:
    model, pictures = confused(rank), labelled(rank)
    cells = by_hand(model, pictures)
    found = confusion_matrix(model, pictures, "integrated_gradients", cell="mean", batch=4, steps=3)
    for (truth, guess), each in zip(found.cells, found.explanation, strict=True):
        inputs, values, score = 0, 0, 0.0
        for one, number in cells[truth, guess]:
            alone = explain(model, pictures[number][0][None], "integrated_gradients", target=guess, steps=3)
            inputs, values, score = inputs + alone.inputs, values + alone.values, score + one
        count = len(cells[truth, guess])
        torch.testing.assert_close(each.inputs, inputs / count)
        torch.testing.assert_close(each.values, values / count)
        assert each.score.item() == pytest.approx(score / count)


def test_signals_and_volumes_are_drawn_too(rank: int) -> None:
    found = confusion_matrix(confused(rank), labelled(rank))
    assert found.render().shape[-1] == 3
    assert len(found) == 14
    right = sum(count for (truth, guess), count in found.counts.items() if truth == guess)
    assert found.accuracy == right / 14
    assert found.caption[0] == f"{right} of 14 pictures named right ({right / 14:.1%})"


def test_memory_holds_a_batch_and_a_picture_for_each_cell() -> None:
    """Pictures are made when they are asked for, and counted while they live."""
    alive: list[weakref.ref[Tensor]] = []
    most, asked = [0], [0]
    values = 2 * tiny_inputs(2, 60, seed=5)

    class Lazy:
        def __len__(self) -> int:
            return len(values)

        def __getitem__(self, number: int) -> tuple[Tensor, int]:
            if number >= len(values):
                raise IndexError
            made = values[number].clone()
            alive.append(weakref.ref(made))
            asked[0] += 1
            most[0] = max(most[0], sum(each() is not None for each in alive))
            return made, number % 3

    lazy: Any = Lazy()
    found = confusion_matrix(confused(), lazy, batch=4)
    assert most[0] <= 6  # those of a batch, the next, and one that a loop still names
    assert asked[0] == 60 + len(found.cells)
    storage = found.explanation.inputs.untyped_storage().nbytes()
    assert storage == len(found.cells) * values[0].numel() * 8
    means = confusion_matrix(confused(), lazy, batch=4, cell="mean")
    assert most[0] <= 6
    assert asked[0] == 60 + len(found.cells) + 120
    assert means.counts == found.counts


def test_progress_is_told_and_ends() -> None:
    told: list[tuple[int, int]] = []
    found = confusion_matrix(confused(), labelled(), batch=5, progress=lambda done, of: told.append((done, of)))
    assert told[:3] == [(5, 14), (10, 14), (14, 14)]
    assert told[-1] == (14 + len(found.cells),) * 2
    assert told == sorted(told)


def test_of_many_classes_the_most_confused_aremost_confused() -> None:
    counts = {(0, 0): 90, (1, 2): 5, (2, 2): 1, (3, 4): 7, (5, 1): 4, (6, 7): 2, (8, 8): 80}
    assert most_confused(counts, 12) == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert most_confused(counts, 2) == [3, 4]
    assert most_confused(counts, 5) == [1, 2, 3, 4, 5]
    assert most_confused(counts, 3) == [0, 3, 4]  # no second pair fits; a class of many pictures does
    assert most_confused({(0, 0): 1, (1, 1): 2, (2, 2): 3}, 2) == [1, 2]


def test_what_is_not_drawn_is_told_and_counted() -> None:
    pictures = labelled()
    found = confusion_matrix(confused(), pictures, most=2)
    assert len(found.classes) == 2
    assert sum(found.counts.values()) == 14
    assert all(set(place) <= set(found.classes) for place in found.cells)
    assert found.caption[0].endswith("2 of 3 classes drawn, the most confused")


# The drawing


def plain(color: tuple[int, int, int], size: tuple[int, int] = (40, 40)) -> Any:
    return np.full((*size, 3), color, np.uint8)


def middle(picture: Any, color: tuple[int, int, int]) -> tuple[float, float]:
    rows, columns = np.nonzero((picture == color).all(-1))
    return float(rows.mean()), float(columns.mean())


def test_rows_are_true_classes_and_columns_predicted_ones() -> None:
    colors = {(3, 3): (1, 2, 3), (3, 5): (200, 0, 0), (5, 3): (0, 200, 0)}
    counts = {(3, 3): 6, (3, 5): 2, (5, 3): 4}
    drawn = draw_confusion_matrix(
        {place: plain(color) for place, color in colors.items()}, counts, {3: "a", 5: "b"}, {3: 8, 5: 4}
    )
    (right, wrong, back) = (middle(drawn, color) for color in colors.values())
    assert right[0] == wrong[0] < back[0]
    assert right[1] == back[1] < wrong[1]
    # around each picture the tint of its share of the row: three quarters right, a quarter and all wrong
    for tint, place in (((155, 200, 162), right), ((248, 224, 217), wrong), ((228, 133, 102), back)):
        tinted = middle(drawn, tint)
        assert tinted[1] == pytest.approx(place[1], abs=14)
        assert place[0] - 160 < tinted[0] < place[0]  # most of it above the picture, where the count stands


def test_a_class_without_pictures_has_a_column_and_no_row() -> None:
    names, pictures = {0: "a", 1: "b"}, {(0, 1): plain((1, 2, 3))}
    both = draw_confusion_matrix(pictures, {(0, 1): 1, (1, 1): 1}, names, {0: 1, 1: 1})
    one = draw_confusion_matrix(pictures, {(0, 1): 1}, names, {0: 1})
    assert both.shape[1] == one.shape[1]
    assert one.shape[0] < both.shape[0] - 100


@pytest.mark.parametrize("classes", [1, 2, 3, 8, 12, 30])
@pytest.mark.parametrize("size", [(8, 8), (96, 96), (600, 300)])
def test_the_matrix_is_of_a_size_to_look_at(classes: int, size: tuple[int, int]) -> None:
    names = {index: f"a class with the name {index}" for index in range(classes)}
    counts = {(index, index): 1 for index in names}
    pictures = {place: plain((9, 9, 9), size) for place in counts}
    drawn = draw_confusion_matrix(
        pictures, counts, names, dict.fromkeys(names, 1), ["A line that says something. " * 9]
    )
    assert drawn.shape[1] <= 1900 if classes <= 12 else drawn.shape[1] <= classes * 120 + 250
    areas = (drawn == 9).all(-1).sum() / classes
    assert areas >= 96 * 48 * (0.8 if size[0] < 96 else 1) * 0.5
    assert (drawn[:, [0, -1]] == 255).all()


# Labels


def test_folders_name_their_classes(tmp_path: Path) -> None:
    for name in ("king_snake", "7", "Tabby", ".hidden", "empty"):
        (tmp_path / name).mkdir()
        if name != "empty":
            Image.new("RGB", (4, 4)).save(tmp_path / name / "x.png")
    categories = [*"abcdef", "king snake", "g", "tabby, tabby cat", "empty"]
    found = {path.parent.name: number for path, number in labelled_pictures(tmp_path, categories=categories)}
    assert found == {"king_snake": 6, "7": 7, "Tabby": 8}
    (tmp_path / "spinder").mkdir()
    with pytest.raises(LookupError, match=r"spinder': there is no class 'spinder'; there are 10 classes"):
        labelled_pictures(tmp_path, categories=categories)


def test_a_folder_whose_name_several_classes_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "crane").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "crane" / "x.png")
    with pytest.raises(LookupError, match=r"folder '.*crane': the classes 1, 2 are all named 'crane'; give the number"):
        labelled_pictures(tmp_path, categories=["a", "crane", "crane"])
    # the exact name first, with underscores as they are and as spaces
    for name, categories, number in (
        ("crane", ["Crane", "crane"], 1),
        ("hot_dog", ["hot dog", "hot_dog"], 1),
        ("hot_dog", ["Hot Dog", "hot dog"], 1),
    ):
        (tmp_path / "crane").rename(tmp_path / name)
        assert labelled_pictures(tmp_path, categories=categories)[0][1] == number
        (tmp_path / name).rename(tmp_path / "crane")


def test_a_table_names_files_and_labels(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    expected = [(tmp_path / "a.png", 1), (tmp_path / "in" / "b.png", 0)]
    for text in (
        "a.png,dog\nin/b.png,cat\n",
        "\ufefffile,label\na.png,dog\n\nin/b.png,0\n",
        "number,class,path,\n1,dog,a.png,\n2,cat,in/b.png,more\n",
        'file,label\r\n"a.png","dog"\r\nin/b.png, cat',
        "image,class\na.png,dog\nin/b.png,cat\n",
        "filepath,category\na.png,dog\nin/b.png,cat\n",
    ):
        table.write_text(text)
        assert labelled_pictures(tmp_path, table, ["cat", "dog"]) == expected


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ValueError, "labels.csv' has no rows; write a line such as cat.jpg,tabby for each picture"),
        ("file,label\n", ValueError, "labels.csv' has no rows"),
        ("file,kind\na.png,cat\n", ValueError, "has no column 'label'; its first line names file, kind"),
        ("photo,class\na.png,cat\n", ValueError, "has no column 'file'; its first line names photo, class"),
        ("a.png\n", ValueError, "line 1: it needs a file and a label, such as cat.jpg,tabby"),
        ("file,label\na.png,cat\nb.png,\n", ValueError, "line 3: it needs a file and a label"),
        ("a.png,horse\n", LookupError, "labels.csv', line 1: there is no class 'horse'"),
        ("a.png,2\n", LookupError, "labels.csv', line 1: there is no class 2; there are 2, numbered from 0"),
    ],
)
def test_a_table_that_is_none_is_told(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(error, match=re.escape(message)):
        labelled_pictures(tmp_path, tmp_path / "labels.csv", ["cat", "dog"])


def test_a_table_in_another_encoding_is_told(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"a.png,caf\xe9\n")
    with pytest.raises(ValueError, match="is not comma-separated text in UTF-8"):
        labelled_pictures(tmp_path, tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text("a.png,b\n")
    with pytest.raises(LookupError, match="no class names are known, so 'b' can't be found; give the class by number"):
        labelled_pictures(tmp_path, tmp_path / "labels.csv")


# What is refused


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"cell": "best"}, ValueError, "there is no cell 'best'; it is typical or surest or mean"),
        ({"toward": "0"}, ValueError, "there is no toward '0'; it is prediction or truth"),
        ({"most": 1}, ValueError, "most=1 is at least 2, for a confusion is of two classes"),
        ({"attribution": "gard_cam"}, LookupError, "did you mean 'grad_cam'?"),
        ({"lyaer": "second"}, TypeError, "grad_cam has no setting 'lyaer'; did you mean 'layer'?"),
        ({"pictures": []}, ValueError, "there are no pictures that can be read"),
        ({"pictures": [(tiny_inputs()[0], 3)]}, ValueError, "there is no class 3; the model has 3, numbered 0 to 2"),
        ({"pictures": [("x.png", 0)]}, TypeError, "a picture is a str; without a preprocessing only tensors are taken"),
    ],
)
def test_what_cannot_be_meant_is_told(how: dict[str, Any], error: type[Exception], message: str) -> None:
    asked = {"pictures": labelled(items=3)} | how
    with pytest.raises(error, match=re.escape(message)):
        confusion_matrix(AveragingNet(), **asked)


def test_pictures_of_different_sizes_have_no_matrix() -> None:
    pictures = [(torch.rand(2, 5 + label, 6, dtype=torch.float64), label) for label in (0, 1, 2) * 2]
    with pytest.raises(ValueError, match="different sizes"):
        confusion_matrix(AveragingNet(), pictures)
    with pytest.raises(ValueError, match="different sizes, and have no mean; give them one size"):
        confusion_matrix(AveragingNet(), [(each, 0) for each, _ in pictures], cell="mean")


# The command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_draws_what_python_finds(folder: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = (
        "--model",
        "demo-shortcut",
        "--layer",
        "layer2",
        "--opacity",
        "0.4",
        "--batch",
        "3",
        "--most-classes",
        "5",
    )
    assert main(["confusions", str(folder), *options, "-o", "matrix.png", "--counts", "counts.csv"]) == 0
    model = load_model("demo-shortcut")
    pictures = labelled_pictures(folder, categories=model.categories)
    assert [path.parent.name for path, _ in pictures] == sorted(path.parent.name for path, _ in pictures)
    found = confusion_matrix(model, pictures, layer="layer2", most=5)
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out == f"matrix.png: {found.caption[0]}\n"
    with Image.open("matrix.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), found.render("overlay", opacity=0.4))
    with open("counts.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["true", "predicted", "count"]
    assert sum(int(count) for *_, count in rows[1:]) == len(pictures) == 12
    assert {truth for truth, *_ in rows[1:]} == set(CLASSES)
    # the tag tells another class, and this network believes it
    assert not any(truth == guess for truth, guess, _ in rows[1:])


def test_labels_come_from_a_table_too(folder: Path, here: Path) -> None:
    files = sorted(folder.rglob("*.png"))[:4]
    lines = [f"{file.relative_to(folder)},{file.parent.name}" for file in files]
    (here / "labels.csv").write_text("\n".join(["file,label", *lines]))
    command = ["confusions", str(folder), "--labels", "labels.csv", "--method", "guided_backprop", "--cell", "mean"]
    assert main([*command, "--toward", "truth", "--counts", "counts.csv"]) == 0
    assert sorted(path.name for path in here.iterdir()) == ["confusions.png", "counts.csv", "labels.csv"]
    with open("counts.csv", newline="") as file:
        assert sum(int(count) for *_, count in list(csv.reader(file))[1:]) == 4


def test_unreadable_pictures_are_told_and_left_out(
    folder: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = here / "in" / "circle"
    copied.mkdir(parents=True)
    for file in sorted((folder / "circle").iterdir())[:2]:
        (copied / file.name).write_bytes(file.read_bytes())
    (copied / "broken.png").write_text("no picture")
    assert main(["confusions", "in"]) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "broken.png' is not a picture that can be read" in said.err
    assert " of 2 pictures named right" in said.out
    for file in copied.glob("[0-9]*"):
        file.unlink()
    (here / "confusions.png").unlink()
    assert main(["confusions", "in"]) == 2
    assert "there are no pictures that can be read" in capsys.readouterr().err
    assert not (here / "confusions.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cell", "best"], "there is no cell 'best'; it is typical or surest or mean"),
        (["--opacitty", "1"], "there is no option --opacitty for grad_cam; did you mean --opacity?"),
        (["--render", "heatmap", "--opacity", "1"], "there is no option --opacity for grad_cam"),
        (["--colormap", "turbbo", "--counts", "c.csv"], "there is no colour map 'turbbo'; did you mean 'turbo'?"),
        (["-o", "matrix.txt"], "matrix.txt has no suffix of a picture; use .png"),
        (["-o", "no/matrix.png"], "the folder no does not exist; make it first"),
        (["--labels", "none.csv"], "no table 'none.csv'; write a line such as cat.jpg,tabby for each picture"),
        (["other"], "one folder of labelled pictures is explained at once, not 2"),
    ],
)
def test_the_command_says_what_is_wrong_and_writes_nothing(
    folder: Path, here: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["confusions", str(folder), *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert list(here.iterdir()) == []


def test_folders_that_are_no_classes_are_told(folder: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["confusions", str(folder / "circle")]) == 2
    assert "has no folders of pictures, one for each class; or give a table of labels" in capsys.readouterr().err
    assert main(["confusions", "nowhere"]) == 2
    assert "no folder 'nowhere'" in capsys.readouterr().err
    first = next(iter(folder.rglob("*.png")))
    before = first.read_bytes()
    assert main(["confusions", str(folder), "-o", str(first)]) == 2
    assert "is read, and would be replaced; choose another name" in capsys.readouterr().err
    assert first.read_bytes() == before


def test_a_network_in_float64_and_without_class_names_is_taken(folder: Path) -> None:
    model = load_model("demo")
    bare = replace(model, module=model.module.double(), categories=None)
    pictures = [(path, demo.CATEGORIES.index(path.parent.name)) for path in sorted(folder.rglob("*.png"))[:3]]
    found = confusion_matrix(bare, pictures)
    assert found.explanation.values.dtype == torch.float64
    assert found.table().splitlines()[1].startswith("class 0,class ")


def test_a_matrix_is_saved_whole_or_not_at_all(here: Path) -> None:
    found = confusion_matrix(confused(), labelled())
    found.save("matrix.png", "heatmap", bar=True)
    with Image.open("matrix.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), found.render("heatmap", bar=True))
    with pytest.raises(ValueError, match=r"matrix\.gif has no suffix of a picture; use \.png"):
        found.save("matrix.gif")
    assert [path.name for path in here.iterdir()] == ["matrix.png"]


def test_on_a_terminal_a_bar_tells_how_far_it_is(
    folder: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["confusions", str(folder)]) == 0
    assert "looking" in capsys.readouterr().err
    assert main(["confusions", str(folder), "--quiet", "--overwrite"]) == 0
    assert capsys.readouterr().err == ""
