"""What a file of weights is, by its first bytes and not by its name; nothing in it is run."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from cnnviz.images.reading import one_line

Kind = Literal["safetensors", "checkpoint", "TorchScript", "exported program", "index"]

NUMPY = "of NumPy; in Python, read it and save its tensors by name with torch.save"
PACKED = "compressed; unpack it first"
FOREIGN: dict[bytes, str] = {
    b"version https://git-lfs": "a pointer of git-lfs; fetch what it points to: git lfs pull",
    b"\x89HDF": "of HDF5 (Keras, TensorFlow); convert it to a state dict of PyTorch",
    b"\x93NUMPY": NUMPY,
    b"GGUF": "of GGUF (llama.cpp); convert it to a state dict of PyTorch",
    b"\x1f\x8b": PACKED,
    b"BZh": PACKED,
    b"\xfd7zXZ": PACKED,
    b"7z\xbc\xaf": PACKED,
    b"\x28\xb5\x2f\xfd": PACKED,
}
"""What files are that begin so, and the way out."""
FIELDS_OF_ONNX = (b"\x12", b"\x1a", b"\x22", b"\x3a", b"\x42")
"""What may follow the version in an ONNX file: the tag of its producer, of its domain, of its graph or of its sets."""


def kind_of(path: str | Path) -> Kind:
    """What the file's content is, whatever it is called; "index" is the list of weights that lie in several files.

    Raises FileNotFoundError where nothing is, ValueError for what are no weights of PyTorch.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no weights file '{path}'")
    if not path.is_file():
        raise ValueError(
            f"weights '{path}' are not a file; name a .safetensors, .pth or .pt file, or a folder with"
            " model.safetensors"
        )
    with path.open("rb") as file:
        start = file.read(256)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"{") and b"\0" not in start[:8]:  # before a header of JSON stands its length, with zeros
        return "index"
    if start[8:9] == b"{":
        return "safetensors"
    if start.startswith(b"\x80"):
        return "checkpoint"
    if start.startswith(b"PK\x03\x04"):
        return _kind_of_archive(path)
    raise not_weights(path, _foreign(start, text))


def not_weights(path: Path, what: str) -> ValueError:
    """The error about a file that is something else."""
    return ValueError(f"weights '{path}' are neither safetensors nor a file of torch.save: {what}")


def _foreign(start: bytes, text: bytes) -> str:
    for beginning, what in FOREIGN.items():
        if start.startswith(beginning):
            return f"the file is {what}"
    if not start:
        return "the file is empty; get it again"
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return "the file is a web page; get the file that the page leads to (its address may need a login, or ?raw)"
    if start[:1] == b"\x08" and start[2:3] in FIELDS_OF_ONNX:
        return "the file is of ONNX, with a network in it; give it as the model: --model FILE.onnx"
    return "save a state dict as either"


def _kind_of_archive(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as reason:
        raise ValueError(f"weights '{path}' are damaged or cut short: {one_line(reason)}") from reason
    names = [entry.filename.partition("/")[2] for entry in entries]
    if "constants.pkl" in names:
        return "TorchScript"
    if "archive_format" in names or "archive_version" in names:
        return "exported program"
    if entries and all(entry.filename.endswith(".npy") for entry in entries):
        raise not_weights(path, f"the file is {NUMPY}")
    # torch.save never compresses, and writes nothing twice: a small file stays small
    grows = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    grows = grows or sum(entry.file_size for entry in entries) > path.stat().st_size
    if "data.pkl" not in names or grows:
        raise ValueError(f"weights '{path}' are a zip archive, but not one that torch.save wrote")
    return "checkpoint"
