"""Reading pictures and inputs from files. Nothing that a file claims is believed before it is checked."""

from __future__ import annotations

import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from cnnviz.images.modes import in_mode
from cnnviz.images.preprocessing import Preprocessing

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")  # Pillow reads many more, rarely and less safely
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
LIMIT = 64_000_000  # pixels

_filters = threading.Lock()  # warning filters belong to the whole process


def read_picture(path: str | Path, limit: int = LIMIT, mode: str = "RGB") -> Image.Image:
    """The picture in a file, upright, 8 bits: the first frame of many, RGB with transparency over white, or RGBA.

    Raises ValueError for a file that is no picture, is damaged or has more pixels than ``limit`` (or than
    Pillow finds safe), which is checked before anything is decoded; FileNotFoundError or IsADirectoryError
    for a path that is no file.
    """
    return _decoded(Path(path), mode, limit)


def read_input(path: str | Path, preprocessing: Preprocessing, limit: int = LIMIT) -> Tensor:
    """A file as the network takes it, (C, *spatial) float32: a picture prepared, or a ready array in .npy.

    An array is (C, *spatial) or (1, C, *spatial) with as many channels as the preprocessing, of any rank.
    Raises ValueError as ``read_picture`` does, or for an array that has other channels, NaN or infinity.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        return _array(path, len(preprocessing.mean))
    # four channels keep the transparency that read_picture would lose
    picture = _decoded(path, "RGBA" if len(preprocessing.mean) == 4 else "RGB", limit)
    try:
        return preprocessing(picture)
    except ValueError as reason:
        raise ValueError(f"picture '{path}': {reason}") from reason


def check_file(path: Path, what: str = "a picture") -> None:
    """Raises OSError or ValueError for a path that is no ordinary file; a pipe or device could be read for ever."""
    if not path.exists():
        raise FileNotFoundError(f"no file '{path}'")
    if path.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder, not {what}; name a file in it")
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"'{path}' is not an ordinary file")


def _decoded(path: Path, mode: str, limit: int) -> Image.Image:
    check_file(path)
    with path.open("rb") as file:  # Pillow leaves a file open that it fails on
        try:
            with _quiet():
                opened = Image.open(file, formats=FORMATS)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as reason:
            raise ValueError(f"picture '{path}' has more pixels than are safe to open ({reason})") from reason
        except UnidentifiedImageError as reason:
            raise ValueError(f"'{path}' is not a picture that can be read ({', '.join(FORMATS)})") from reason
        except Exception as reason:  # Pillow raises nearly anything on a hostile file
            raise ValueError(f"picture '{path}' is damaged: {one_line(reason)}") from reason
        width, height = opened.size
        if width * height > limit:
            raise ValueError(
                f"picture '{path}' has {width} x {height} = {width * height:,} pixels, more than the "
                f"limit of {limit:,}; make it smaller"
            )
        try:
            opened.load()
            with _quiet():
                opened.getexif()  # never before the limit is checked: for PNG it decodes everything
            picture = ImageOps.exif_transpose(opened)
        except Exception as reason:
            raise ValueError(f"picture '{path}' is damaged: {one_line(reason)}") from reason
    try:
        return in_mode(picture, mode)
    except ValueError as reason:
        raise ValueError(f"picture '{path}': {reason}") from reason


@contextmanager
def _quiet() -> Iterator[None]:
    """Odd metadata, which does not change the pixels, goes unmentioned; the warning of a bomb is raised."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def open_array(path: Path, name: str) -> NDArray[Any]:
    """The array in a .npy file, of any shape and type. Raises ValueError, which begins with ``name``, for no array."""
    try:
        # mapped, so that a header which promises more than the file holds is found before memory is taken
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as reason:  # the header is text that NumPy evaluates: it may fail in any way
        raise ValueError(f"{name} is not an array of numbers in .npy: {one_line(reason)}") from reason


def _array(path: Path, channels: int) -> Tensor:
    check_file(path)
    array = open_array(path, f"'{path}'")
    if array.dtype.kind != "f":
        raise ValueError(
            f"array '{path}' holds {array.dtype}; an array is what the model takes, normalized floating point, "
            "and pictures come as .png"
        )
    shape = array.shape
    if len(shape) >= 3 and shape[0] == 1 and shape[1] == channels:
        array = array[0]
    if array.ndim < 2 or array.shape[0] != channels:
        raise ValueError(
            f"array '{path}' is {shape} where ({channels}, ...) or (1, {channels}, ...) is needed; "
            f"the preprocessing's mean and std have {channels} values"
        )
    with np.errstate(over="ignore"):  # becomes infinite, which is refused below
        values = torch.from_numpy(np.array(array, np.float32))
    broken = ~torch.isfinite(values)
    if broken.any():
        count, place = int(broken.sum()), broken.nonzero()[0].tolist()
        raise ValueError(f"array '{path}' is broken: {count} values are NaN or infinite, first at {place}")
    return values


def one_line(reason: BaseException) -> str:
    """The message of an error on one line, or the name of its type where it has no message."""
    return " ".join(str(reason).split()) or type(reason).__name__
