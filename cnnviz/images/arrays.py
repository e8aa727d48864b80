"""Reading arrays from .npy and .npz: shape and type are checked before a value is read."""

from __future__ import annotations

import math
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnnviz.images.file_kinds import other_kind
from cnnviz.images.input_values import oddities
from cnnviz.images.limits import RAISE, current_limit
from cnnviz.images.places import check_file, file_and_place, numbered
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.images.told import tell

ARRAYS = (".npy", ".npz")
_parsing = threading.Lock()  # NumPy parses headers as Python, whose parser in 3.11 fails in several threads at once


def open_array(path: Path, name: str) -> NDArray[Any]:
    """The array in a .npy file, of any shape and type; its values are read when they are asked for.

    Raises ValueError, which begins with ``name``, for no array.
    """
    # mapped, so that a header which promises more than the file holds is found before memory is taken
    with _told_apart(path, f"{name} is not an array of numbers in .npy"), _parsing:
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    return array


def check_places(count: int, name: str) -> None:
    """Raises ValueError, which begins with ``name``, for more places than the limit, before they are read."""
    limit = current_limit()
    if count > limit:
        raise ValueError(f"{name} has {count:,} places, more than the limit of {limit:,}; make it smaller, or {RAISE}")


def read_array(path: Path, preprocessing: Preprocessing) -> Tensor:
    """An array as the network takes it, (C, *spatial) float32; see :func:`cnnviz.images.reading.read_input`."""
    file, place = file_and_place(path)
    check_file(file)
    name, channels = f"array '{path}'", len(preprocessing.mean)
    if file.suffix.lower() == ".npz":
        array = _of_archive(file, place, channels)
    else:
        array = _item(open_array(file, f"'{file}'"), numbered(place, file, "item"), file, channels)
    check_places(math.prod(array.shape[1:]), name)
    with np.errstate(over="ignore"):  # becomes infinite, which is refused below
        values = torch.from_numpy(np.array(array, np.float32))
    broken = ~torch.isfinite(values)
    if broken.any():
        count, first = int(broken.sum()), broken.nonzero()[0].tolist()
        raise ValueError(f"{name} is broken: {count} values are NaN or infinite, first at {first}")
    for flag, text in oddities(values[None], preprocessing):
        if flag:
            tell(f"{name} {text}")
    return values


def _item(array: NDArray[Any], number: int | None, file: Path, channels: int) -> NDArray[Any]:
    """The input (C, *spatial) that is asked for, of an array or of a batch; nothing is read."""
    _check_type(array.dtype, file)
    shape = array.shape
    batch = len(shape) >= 3 and shape[1] == channels
    if number is not None and (not batch or number >= shape[0]):
        raise ValueError(f"array '{file}' is {shape}, and has no item {number} of a batch (N, {channels}, ...)")
    if number is not None or (batch and shape[0] == 1):
        item: NDArray[Any] = array[number or 0]
        return item
    if len(shape) < 2 or shape[0] != channels:
        hint = ""
        if batch:
            hint = f"; it is a batch of {shape[0]}: give each as '{file.name}#0', '{file.name}#1', ..."
        elif len(shape) > 2 and shape[-1] == channels:
            hint = "; its channels are last: move them to the front, np.moveaxis(array, -1, 0)"
        raise ValueError(
            f"array '{file}' is {shape} where ({channels}, ...) or (1, {channels}, ...) is needed; "
            f"the preprocessing's mean and std have {channels} values{hint}"
        )
    return array


def _of_archive(file: Path, name: str | None, channels: int) -> NDArray[Any]:
    """The only array of an .npz, or the one of that name, as an input (C, *spatial)."""
    what = f"'{file}' is not an archive of arrays in .npz"
    with _told_apart(file, what):
        archive = zipfile.ZipFile(file)
    with archive:
        member = _member(archive.namelist(), name, file)
        with _told_apart(file, what), archive.open(member) as stream, _parsing:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
        _check_type(dtype, file)
        check_places(math.prod(shape) // channels, f"array '{file}'")  # a batch is unpacked whole
        with _told_apart(file, what), archive.open(member) as stream, _parsing:
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return _item(array, None, file, channels)


def _member(members: Sequence[str], name: str | None, file: Path) -> str:
    if name is None and len(members) == 1:
        return members[0]
    names = ", ".join(member.removesuffix(".npy") for member in members[:8])
    if name is None:
        raise ValueError(f"'{file}' holds {len(members)} arrays: {names}; name one, as in '{file.name}#NAME'")
    if f"{name}.npy" not in members:
        raise ValueError(f"'{file}' holds no array {name!r}; it holds {names or 'none'}")
    return f"{name}.npy"


def _check_type(dtype: np.dtype[Any], file: Path) -> None:
    if dtype.kind != "f":
        raise ValueError(
            f"array '{file}' holds {dtype}; an array is what the model takes, normalized floating point, "
            "and pictures come as .png"
        )


@contextmanager
def _told_apart(file: Path, what: str) -> Iterator[None]:
    """Whatever fails inside becomes a ValueError that says what the file holds instead."""
    try:
        yield
    except Exception as reason:  # a header is text that NumPy evaluates: it may fail in any way
        why = other_kind(file) or " ".join(str(reason).split()) or type(reason).__name__
        raise ValueError(f"{what}: {why}") from reason
