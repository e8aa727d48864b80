"""Opening what torch.save wrote, without running code of it.

torch's own restricted reader makes tensors and plain containers alone. Training scripts save more beside weights: their
arguments, numbers of NumPy, paths. For these names the reader gets types of ours that keep nothing and do nothing, so
that neither those libraries nor the file decide what happens.
"""

from __future__ import annotations

import pickle
import re
import threading
import warnings
from pathlib import Path
from typing import Any

import torch

from cnnviz.images.reading import one_line

NUMPY = ("numpy._core.multiarray", "numpy.core.multiarray")  # of NumPy 2, and as it was called before
NUMBERS = (
    *("bool_", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", "str_", "bytes_", "longlong", "ulonglong"),
)
PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")
INERT = (
    *("argparse.Namespace", "types.SimpleNamespace", "numpy.dtype", "numpy.ndarray"),
    *(f"{module}.{name}" for module in NUMPY for name in ("scalar", "_reconstruct")),
    *(f"numpy.{name}" for name in NUMBERS),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in PATHS),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(f"builtins.{name}" for name in ("int", "float", "str", "bool", "bytes", "list", "tuple", "dict", "range")),
    *("builtins.slice", "builtins.frozenset", "decimal.Decimal", "fractions.Fraction", "uuid.UUID"),
)
"""What may lie beside weights: types of values, none of which are needed."""
DICTS = (
    "collections.defaultdict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
"""Dictionaries of other types: they are read as plain ones."""

_reading = threading.Lock()  # torch keeps the names that are allowed for the whole process


class LeftOut:
    """Stands where a file has a value that nobody needs. It takes whatever the file says of it, and keeps nothing."""

    __slots__ = ()

    def __new__(cls, *args: Any, **settings: Any) -> LeftOut:
        return super().__new__(cls)

    def __init__(self, *args: Any, **settings: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _PlainDict(dict[Any, Any]):
    """Called, makes an empty dict: what a type was made with, such as its default, is left out."""

    def __new__(cls, *args: Any) -> dict[Any, Any]:  # type: ignore[misc]  # the reader fills nothing but dicts
        return {}


def _left_out(name: str) -> type[LeftOut]:
    """A type for what the name makes, called as that for messages."""
    made = name.rpartition(".")[2].replace("_reconstruct", "ndarray")
    return type(made, (LeftOut,), {"__slots__": ()})


ALLOWED: list[Any] = [
    *((_left_out(name), name) for name in INERT),
    *((_PlainDict, name) for name in DICTS),
]
"""Names as they stand in files, with what is made for each."""


def unpickled(path: Path, trust_model: bool) -> Any:
    """What torch.save wrote into the file, on the CPU.

    Raises ValueError for a damaged file, and for one that needs code unless ``trust_model`` is set.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old formats, which load all the same
        try:
            # given the path, torch.load would believe its suffix
            with _reading, torch.serialization.safe_globals(ALLOWED), path.open("rb") as file:
                return torch.load(file, "cpu", weights_only=True)
        except pickle.UnpicklingError as reason:
            code = re.search(r"GLOBAL ([\w.]+)", str(reason))
            if "Unsupported operand" in str(reason):
                raise ValueError(f"weights '{path}' are damaged, or not of torch.save") from reason
            if not trust_model:
                what = f"code ({code[1]}), not only numbers" if code else "more than numbers"
                raise untrusted(path, f"holds {what}") from reason
        except Exception as reason:  # torch.load fails on a broken file in many ways
            short = one_line(reason)[:200]
            raise ValueError(f"weights '{path}' are damaged or cut short: {short}") from reason
        try:
            with path.open("rb") as file:
                return torch.load(file, "cpu", weights_only=False)
        except Exception as reason:
            raise ValueError(f"model '{path}' does not load: {one_line(reason)}") from reason


def untrusted(path: Path, fact: str, instead: str = "save model.state_dict() instead") -> ValueError:
    """The error about a file that can run code."""
    return ValueError(
        f"file '{path}' {fact}, and opening it could do anything; {instead}, or, "
        "if you trust whoever made the file, pass --trust-model (in Python trust_model=True)"
    )
