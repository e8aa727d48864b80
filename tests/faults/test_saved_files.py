"""Files that are written and read: descriptions and tensors that do not belong together, names, and hostile content."""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults.references import Net, pictures
from faults.situations import ERRORS, cross
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from cnnviz import Explanation, Preprocessing, evaluate, explain, load_model
from cnnviz.images.annotations import MaskFolder
from cnnviz.images.reading import read_input
from cnnviz.images.writing import write

TENSORS = ("values", "inputs", "score", "target", "probability", "note.completeness_gap")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An explanation of one picture with a note, as cnnviz saves it."""
    file = tmp_path_factory.mktemp("saved") / "kept.safetensors"
    explain(Net(), pictures(size=(8, 8)).float(), "integrated_gradients", target=1, steps=2).save(file)
    return file


def parts(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(file, framework="pt") as kept:
        return {name: kept.get_tensor(name) for name in kept.keys()}, json.loads(kept.metadata()["cnnviz"])  # noqa: SIM118


def test_the_file_as_it_was_saved_is_read(saved: Path) -> None:
    tensors, about = parts(saved)
    assert set(tensors) == set(TENSORS)
    read = Explanation.load(saved)
    assert torch.equal(read.values, tensors["values"])
    assert read.recipe == about["recipe"]


TEXTS = {
    "a list": "[]",
    "null": "null",
    "a number": "5",
    "text": '"recipe"',
    "no JSON": "{",
    "nothing": "",
    "a list 100,000 deep": "[" * 100_000,
    "an object 100,000 deep": '{"a":' * 100_000,
    "an empty object": "{}",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "a recipe that is a number": {"recipe": 5},
    "a recipe that is missing": {"recipe": None},
    "an unknown preprocessing setting": {"preprocessing": {"x": 1}},
    "a preprocessing that is a list": {"preprocessing": [1]},
    "a preprocessing that is text": {"preprocessing": "mean"},
    "a mean that is null": {"preprocessing": {"mean": None, "std": [1]}},
    "a mean of text": {"preprocessing": {"mean": ["a"], "std": [1]}},
    "a mean that is a number": {"preprocessing": {"mean": 0.5, "std": 0.5}},
    "a mean that is NaN": {"preprocessing": {"mean": [float("nan")], "std": [1]}},
    "a mean of objects": {"preprocessing": {"mean": [{}], "std": [1]}},
    "a crop that is half a number": {"preprocessing": {"mean": [0], "std": [1], "crop": 5.5}},
    "a crop of text": {"preprocessing": {"mean": [0], "std": [1], "crop": ["a", "b"]}},
    "a resize that is text": {"preprocessing": {"mean": [0], "std": [1], "resize": "a"}},
    "an interpolation that is a list": {"preprocessing": {"mean": [0], "std": [1], "interpolation": []}},
    "categories that are a number": {"categories": 5},
    "categories that are text": {"categories": "cat"},
    "categories of numbers": {"categories": [1, 2]},
    "categories that are an object": {"categories": {"0": "cat"}},
    "a renderer that is a number": {"renderer": 5},
    "a renderer that is a list": {"renderer": []},
    "an objective that is a number": {"objective": 5},
    "options that are a list": {"options": []},
    "options that are null": {"options": None},
    "an unknown option": {"options": {"x": 1}},
    "a seed that is text": {"options": {"seed": "1"}},
    "a seed that is a truth value": {"options": {"seed": True}},
    "a seed beyond 64 bits": {"options": {"seed": 10**30}},
    "a memory that is text": {"options": {"memory": "1MB"}},
    "fold that is a number": {"options": {"fold": 1}},
    "a precision that is a number": {"options": {"precision": 16}},
}
CHANGES: dict[str, dict[str, Tensor | None]] = {
    "five scores": {"score": torch.ones(5)},
    "no scores": {"score": torch.ones(0)},
    "a score without dimensions": {"score": torch.tensor(1.0)},
    "scores of classes": {"score": torch.ones(1, 5)},
    "a score of whole numbers": {"score": torch.tensor([1])},
    "a complex score": {"score": torch.ones(1, dtype=torch.complex64)},
    "a NaN score": {"score": torch.tensor([torch.nan])},
    "no score": {"score": None},
    "three targets": {"target": torch.tensor([1, 2, 3])},
    "a target of 1.5": {"target": torch.tensor([1.5])},
    "a negative target": {"target": torch.tensor([-2])},
    "a target that is true": {"target": torch.tensor([True])},
    "a target without dimensions": {"target": torch.tensor(1)},
    "values without dimensions": {"values": torch.tensor(1.0)},
    "values of one dimension": {"values": torch.ones(1)},
    "values without space": {"values": torch.ones(1, 3)},
    "values of a volume": {"values": torch.ones(1, 1, 4, 4, 4)},
    "empty values": {"values": torch.ones(1, 1, 0, 4)},
    "complex values": {"values": torch.ones(1, 1, 4, 4, dtype=torch.complex64)},
    "values of whole numbers": {"values": torch.ones(1, 1, 4, 4, dtype=torch.int64)},
    "values that are true": {"values": torch.ones(1, 1, 4, 4, dtype=torch.bool)},
    "values in float8": {"values": torch.ones(1, 1, 4, 4).to(torch.float8_e4m3fn)},
    "NaN values": {"values": torch.full((1, 1, 4, 4), torch.nan)},
    "infinite values": {"values": torch.full((1, 1, 4, 4), torch.inf)},
    "values of two inputs": {"values": torch.ones(2, 1, 4, 4)},
    "no values": {"values": None},
    "inputs of two": {"inputs": torch.ones(2, 3, 8, 8)},
    "inputs without space": {"inputs": torch.ones(1, 3)},
    "inputs of bytes": {"inputs": torch.ones(1, 3, 8, 8, dtype=torch.uint8)},
    "NaN inputs": {"inputs": torch.full((1, 3, 8, 8), torch.nan)},
    "empty inputs": {"inputs": torch.ones(1, 0, 8, 8)},
    "no inputs": {"inputs": None},
    "a note for five": {"note.completeness_gap": torch.ones(5)},
    "a note without dimensions": {"note.completeness_gap": torch.tensor(1.0)},
}


def refused(file: Path) -> str:
    with pytest.raises(ValueError, match=r"^.*kept\.safetensors is not an explanation that cnnviz saved: ") as caught:
        Explanation.load(file)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    for words in ("object is not", "unexpected keyword", "argument after", "required positional"):
        assert words not in text.replace("unexpected keyword argument 'x'", "")
    return text


@pytest.mark.parametrize("case", TEXTS)
def test_a_description_that_is_none(case: str, saved: Path, tmp_path: Path) -> None:
    file = tmp_path / "kept.safetensors"
    save_file(parts(saved)[0], file, {"cnnviz": TEXTS[case]})
    refused(file)


@pytest.mark.parametrize("case", SETTINGS)
def test_a_description_of_other_types(case: str, saved: Path, tmp_path: Path) -> None:
    file, (tensors, about) = tmp_path / "kept.safetensors", parts(saved)
    save_file(tensors, file, {"cnnviz": json.dumps(about | SETTINGS[case])})
    refused(file)


@pytest.mark.parametrize("case", CHANGES)
def test_tensors_that_do_not_belong_together(case: str, saved: Path, tmp_path: Path) -> None:
    file, (tensors, about) = tmp_path / "kept.safetensors", parts(saved)
    (name,) = CHANGES[case]
    changed = {key: value for key, value in (tensors | CHANGES[case]).items() if value is not None}
    save_file(changed, file, {"cnnviz": json.dumps(about)})
    text = refused(file)
    assert {"score": "score", "inputs": "input"}.get(name, name.removeprefix("note.").rstrip("s")) in text


SHAPES = ("five scores", "complex values", "empty values", "values of one dimension", "a target of 1.5")


@pytest.mark.parametrize("case", SHAPES)
def test_metrics_refuse_what_does_not_belong_together(case: str, saved: Path) -> None:
    changed: dict[str, Any] = dict(CHANGES[case])
    with pytest.raises(ValueError, match=r"^its (values|inputs|score|target)"):
        evaluate(replace(Explanation.load(saved), **changed), "sparseness")


def test_what_is_no_file_of_an_explanation(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder, not an explanation; name a file in it"):
        Explanation.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file"):
        Explanation.load(tmp_path / "absent.safetensors")
    for device in ("/dev/zero", "/dev/null"):
        if os.path.exists(device):
            with pytest.raises(ValueError, match="is not an ordinary file"):
                Explanation.load(device)
    os.mkfifo(pipe := tmp_path / "pipe.safetensors")
    with pytest.raises(ValueError, match="is not an ordinary file"):
        Explanation.load(pipe)
    (file := tmp_path / "kept.safetensors").write_bytes(b"no safetensors")
    refused(file)
    file.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    refused(file)
    save_file({"values": torch.ones(1)}, file)
    assert "has no 'cnnviz'" in refused(file)


def header(**tensors: Any) -> bytes:
    """A .safetensors file with a header of its own and 64 bytes of content."""
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


HEADERS: dict[str, bytes] = {
    "4-bit numbers": header(a={"dtype": "F4", "shape": [8, 16], "data_offsets": [0, 64]}),
    "6-bit numbers": header(a={"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 64]}),
    "8-bit exponents": header(a={"dtype": "F8_E8M0", "shape": [64], "data_offsets": [0, 64]}),
    "an unknown type": header(a={"dtype": "X9", "shape": [64], "data_offsets": [0, 64]}),
    "offsets beyond the file": header(a={"dtype": "F32", "shape": [99], "data_offsets": [0, 396]}),
    "offsets that overlap": header(
        a={"dtype": "F32", "shape": [16], "data_offsets": [0, 64]},
        b={"dtype": "F32", "shape": [16], "data_offsets": [0, 64]},
    ),
    "a negative size": header(a={"dtype": "F32", "shape": [-16], "data_offsets": [0, 64]}),
    "a size that overflows": header(a={"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 64]}),
    "a size that is text": header(a={"dtype": "F32", "shape": ["16"], "data_offsets": [0, 64]}),
    "no object": struct.pack("<Q", 2) + b"[]" + bytes(64),
    "nested too deeply": struct.pack("<Q", 20000) + b"[" * 20000 + bytes(64),
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_are_malformed(case: str, tmp_path: Path) -> None:
    file = tmp_path / "kept.safetensors"
    file.write_bytes(HEADERS[case])
    refused(file)
    with pytest.raises(ValueError, match=r"kept\.safetensors") as caught:
        load_model("demo", weights=file)
    assert "\n" not in str(caught.value)


def test_weights_of_packed_numbers_are_refused(tmp_path: Path) -> None:
    weights = load_model("demo", weights="random").module.state_dict()
    name = next(name for name, weight in weights.items() if weight.ndim == 4)
    torch.save(weights | {name: weights[name].to(torch.uint8).view(torch.float4_e2m1fn_x2)}, file := tmp_path / "w.pth")
    with pytest.raises(ValueError, match="where the network computes in floating point; save them dense and unquant"):
        load_model("demo", weights=file)


ARRAYS: dict[str, Callable[[Any], Any]] = {
    "an archive": lambda file: np.savez(file, a=np.ones((4, 4))),
    "objects": lambda file: np.save(file, np.array([[{}]], dtype=object), allow_pickle=True),
    "text": lambda file: np.save(file, np.array([["a"]])),
    "complex numbers": lambda file: np.save(file, np.ones((4, 4), complex)),
    "records": lambda file: np.save(file, np.ones((4, 4), [("a", "f4")])),
    "times": lambda file: np.save(file, np.zeros((4, 4), "datetime64[s]")),
    "a pickle": lambda file: pickle.dump({"a": 1}, file),
    "half a header": lambda file: file.write(b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran"),
    "another version": lambda file: file.write(b"\x93NUMPY\x09\x00" + bytes(100)),
    "nothing": lambda file: None,
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_and_masks_that_are_none(case: str, tmp_path: Path) -> None:
    with (tmp_path / "picture.npy").open("wb") as file:
        ARRAYS[case](file)
    for read in (
        lambda: MaskFolder(tmp_path).mask(Path("picture.png"), (4, 4)),
        lambda: read_input(tmp_path / "picture.npy", Preprocessing((0.0,), (1.0,))),
    ):
        with pytest.raises(ValueError, match=r"picture\.npy") as caught:
            read()
        assert "\n" not in str(caught.value)


# Writing


@pytest.mark.parametrize("length", [1, 200, 246, 250, 255])
def test_names_as_long_as_the_file_system_takes(length: int, tmp_path: Path) -> None:
    file = tmp_path / ("y" * (length - 4) + ".png" if length > 4 else "y")
    write(file, b"whole")
    assert file.read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_names_of_several_bytes_for_a_letter(tmp_path: Path) -> None:
    write(file := tmp_path / ("é" * 125 + ".png"), b"whole")
    assert file.read_bytes() == b"whole"


def test_a_name_that_is_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="can't be written: File name too long; choose another place"):
        write(tmp_path / ("y" * 256), b"whole")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002, 0o000], ids=oct)
def test_files_are_for_those_whom_the_umask_lets(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write(file := tmp_path / "a.png", b"whole")
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o666 & ~mask


def test_the_umask_is_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to the whole process: a file that another thread makes meanwhile would be for everyone."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask was changed"))
    workers = [threading.Thread(target=write, args=(tmp_path / f"{number}", b"whole")) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(number) for number in range(8)]


# Code in files

HOSTILE: dict[str, Callable[[Any, Path], Any]] = {
    "a zip checkpoint": lambda content, file: torch.save({"x": content}, file),
    "a legacy checkpoint": lambda content, file: torch.save({"x": content}, file, _use_new_zipfile_serialization=False),
    "a bare pickle": lambda content, file: file.write_bytes(pickle.dumps(content)),
}


class Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@cross(HOSTILE, (".pth", ".pt", ".safetensors", ".npy", ".ckpt", ".png"))
def test_no_code_in_a_file_runs(case: str, name: str, tmp_path: Path) -> None:
    mark, file = tmp_path / "ran", tmp_path / f"hostile{name}"
    HOSTILE[case](Touches(mark), file)
    ways: list[Callable[[], Any]] = [
        lambda: load_model("demo", weights=file),
        lambda: load_model(str(file)),
        lambda: read_input(file, Preprocessing((0.0,) * 3, (1.0,) * 3)),
        lambda: Explanation.load(file),
        lambda: explain(load_model("demo", weights="random"), file, "gradient"),
    ]
    for way in ways:
        with pytest.raises((*ERRORS, OSError)):
            way()
    assert not mark.exists()
    with file.open("rb") as content:
        assert re.search(rb"touch|Path", content.read())
