"""What commands say of files, names and values, and what they make of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnviz import Preprocessing, demo, explain, load_model
from cnnviz.__main__ import main
from cnnviz.images import InputWarning


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with one picture and its mask."""
    monkeypatch.chdir(tmp_path)
    drawn = demo.pictures()
    Image.fromarray(drawn.pictures[0]).save("circle.png")
    Path("masks").mkdir()
    Image.fromarray(drawn.masks[0]).save("masks/circle.png")
    return tmp_path


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit status, stdout and stderr of a command."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(list(words))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


Told = Callable[..., tuple[int, str, str]]


def test_arrays_that_are_not_prepared_are_told_and_explained(told: Told) -> None:
    values = np.asarray(Image.open("circle.png"), np.float32).transpose(2, 0, 1)
    prepared = (values / 255 - 0.5) / 0.5
    for name, array in (("raw.npy", values), ("unit.npy", values / 255), ("right.npy", prepared)):
        np.save(name, array)
    status, out, err = told("explain", "raw.npy", "unit.npy", "right.npy", "--method", "gradient", "-o", "maps/")
    assert (status, out.count("maps/")) == (0, 3)
    assert [line[:48] for line in sorted(err.splitlines())] == [
        "cnnviz: array 'raw.npy' has values far outside o",
        "cnnviz: array 'unit.npy' has values in 0..1, as ",
    ]


def test_the_limit_is_an_option(told: Told) -> None:
    np.save("large.npy", np.zeros((3, 96, 96), np.float32))
    for name, what in (("circle.png", "96 x 96 = 9,216 pixels"), ("large.npy", "9,216 places")):
        status, _, err = told("explain", name, "--limit", "9k", "-o", "a.png", "--overwrite")
        assert (status, err.count("\n")) == (2, 1)
        assert f"'{name}' has {what}, more than the limit of 9,000; make it smaller, or raise the limit (--limit" in err
        assert told("explain", name, "--method", "gradient", "--limit", "9.3k", "-o", "a.png", "--overwrite")[0] == 0
    assert (
        told("explain", "circle.png", "--limit", "many")[2] == "cnnviz: --limit is a number such as 200M, not 'many'\n"
    )
    assert (
        told("explain", "circle.png", "--method", "gradient", "-o", "a.png", "--overwrite")[0] == 0
    )  # it held for its command alone


def test_index_masks_are_measured_inside_of_the_levels_that_are_asked_for(told: Told) -> None:
    measure = (
        "evaluate",
        "circle.png",
        "--annotations",
        "masks",
        "--metric",
        "mass_inside",
        "-o",
        "scores.json",
        "--overwrite",
    )

    def mass(*more: str) -> float:
        status, _, err = told(*measure, *more)
        assert (status, err) == (0, "")
        found: float = json.loads(Path("scores.json").read_text())[0]["mass_inside"]
        return found

    right = mass()
    inside = np.asarray(Image.open("masks/circle.png")) > 0
    levels = inside * 15
    levels[:, 48:] = inside[:, 48:] * 1
    levels[:3] = 255
    Image.fromarray(levels.astype(np.uint8)).save("masks/circle.png")
    assert mass("--inside", "1,15") == right
    assert mass("--inside", "15") + mass("--inside", "1") == pytest.approx(right)
    status, _, err = told(*measure)
    assert status == 2
    assert "mask 'masks/circle.png' has the levels 0, 1, 15, 255; say which are inside with --inside 1,15" in err
    assert (
        "--inside is whole numbers with commas between, such as 1,15, or nonzero, not 'all'"
        in told(*measure, "--inside", "all")[2]
    )
    assert "there are none; give --annotations FOLDER" in told("evaluate", "circle.png", "--inside", "1")[2]


def test_a_mask_that_fits_two_pictures_costs_both(told: Told) -> None:
    for folder in ("one", "two"):
        Path(folder).mkdir()
        Image.open("circle.png").save(f"{folder}/circle.png")
        Image.open("circle.png").save(f"{folder}/{folder}.png")
        Image.open("masks/circle.png").save(f"masks/{folder}.png")
    measure = ("evaluate", "one", "two", "--annotations", "masks", "--metric", "mass_inside")
    status, _, err = told(*measure)
    assert status == 1
    assert err.count("fits 'one/circle.png' and 'two/circle.png'; put it into folders") == 1
    assert err.count("fits 'two/circle.png' and 'one/circle.png'; put it into folders") == 1
    for folder in ("one", "two"):
        Path("masks", folder).mkdir()
        Path(f"masks/{folder}/circle.png").write_bytes(Path("masks/circle.png").read_bytes())
    assert told(*measure)[::2] == (0, "")


def test_names_of_several_classes_are_refused_and_read_from_json(told: Told) -> None:
    Path("names.json").write_text(json.dumps({"names": ["crane", "Bull", "crane", "bull", *"abcd"]}))
    explained = (
        "explain",
        "circle.png",
        "--method",
        "gradient",
        "--categories",
        "names.json",
        "-o",
        "a.png",
        "--overwrite",
    )
    status, _, err = told(*explained, "--target", "crane")
    assert (status, err) == (2, "cnnviz: the classes 0, 2 are all named 'crane'; give the number of one\n")
    assert told(*explained, "--target", "bull")[1].startswith("a.png: bull")
    assert told(*explained, "--target", "Bull")[1].startswith("a.png: Bull")


def test_urls_and_frames(told: Told) -> None:
    status, _, err = told("explain", "https://example.com/cat.jpg")
    address = "'https://example.com/cat.jpg'"
    assert (status, err) == (
        2,
        f"cnnviz: {address} is a URL, and URLs are not fetched; download it first, and give the file\n",
    )
    first = Image.new("RGB", (96, 96))
    first.save("a.tiff", save_all=True, append_images=[Image.open("circle.png")])
    status, out, err = told("explain", "a.tiff#1", "--method", "gradient", "-o", "a.png", "--overwrite")
    assert (status, err) == (0, "")
    assert out == told("explain", "circle.png", "--method", "gradient", "-o", "b.png", "--overwrite")[1].replace(
        "b.png", "a.png"
    )
    status, _, err = told("explain", "a.tiff#1", "-o", "a.tiff", "--overwrite")
    assert (status, err) == (2, "cnnviz: a.tiff is read, and would be replaced; choose another name\n")
    status, out, _ = told("explain", "a.tiff#0", "a.tiff#1", "--method", "gradient", "-o", "frames/")
    assert (status, len(list(Path("frames").iterdir()))) == (0, 2)


def test_tensors_that_are_not_prepared_are_told_once() -> None:
    model = load_model("demo")
    inputs = demo.as_inputs(demo.pictures().pictures[:1])
    pictures = model.preprocessing.inverse(inputs)
    for given, said in (
        (pictures * 255, "far outside of what"),
        (pictures, "has values in 0..1, as pictures have them"),
    ):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("default")
            answers = [explain(model, given, "gradient", target=0) for _ in range(3)]
        assert [each.category for each in found] == [InputWarning]
        assert said in str(found[0].message)
        assert torch.equal(answers[0].inputs, given)  # told, and taken as it is
    explain(model, inputs, "gradient", target=0)  # a warning would be an error
    explain(model.module, pictures * 255, "gradient", target=0)  # nothing is known of its preprocessing
    known = Preprocessing((0.5,) * 3, (0.5,) * 3)
    with pytest.warns(InputWarning, match="the input has values far outside"):
        explain(model.module, pictures * 255, "gradient", target=0, preprocessing=known)
