"""Reading pictures and inputs from files, and writing results into them.

Nothing that a file claims is believed before it is checked; a file is written whole or not at all.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import stat
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from cnnviz.images.preprocessing import Preprocessing, in_mode

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")  # Pillow reads many more, rarely and less safely
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
LIMIT = 64_000_000  # pixels

_filters = threading.Lock()  # warning filters belong to the whole process


def find_pictures(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Files in the order given; a folder stands for the pictures and .npy files right inside, sorted by name.

    Hidden files are left out of folders, and a file named twice is listed once.
    Raises FileNotFoundError for what is not there or a folder without pictures, ValueError for no paths.
    """
    files: dict[Path, None] = {}
    for path in map(Path, [paths] if isinstance(paths, (str, Path)) else paths):
        inside = sorted(_pictures_in(path)) if path.is_dir() else [path]
        if not inside:
            raise FileNotFoundError(
                f"folder '{path}' holds no pictures ({', '.join(SUFFIXES)}, .npy); folders inside it are not searched"
            )
        if not path.exists():
            raise FileNotFoundError(f"no file or folder '{path}'")
        files |= dict.fromkeys(inside)
    if not files:
        raise ValueError("no pictures given; name at least one file or folder")
    return list(files)


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


def _pictures_in(folder: Path) -> Iterable[Path]:
    for path in folder.iterdir():
        if path.suffix.lower() in (*SUFFIXES, ".npy") and not path.name.startswith(".") and path.is_file():
            yield path


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


PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


def write(path: Path, content: bytes) -> None:
    """Put a whole file in place, or leave what was there."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist; make it first")
    # a short name of its own: with the name of the file in it, it could be longer than the file system takes
    temporary = path.parent / f".{secrets.token_hex(8)}.cnnviz"
    made = False
    try:
        # the kernel applies the umask, which belongs to the whole process and is never set here
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        made = True
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException as error:
        if made:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise type(error)(f"{path} can't be written: {error.strerror}; choose another place") from error
        raise


def picture_suffix(path: str | Path) -> str:
    """The suffix that says how a picture is written. Raises ValueError for one that does not."""
    suffix = Path(path).suffix.lower()
    if suffix not in PICTURES:
        raise ValueError(f"{path} has no suffix of a picture; use {', '.join(PICTURES)}")
    return suffix


def encoded(picture: NDArray[np.uint8], suffix: str) -> bytes:
    """A picture, uint8 (H, W, 3) or gray (H, W), in the file format of that suffix."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, Image.registered_extensions()[suffix.lower()])
    return stream.getvalue()


def packed(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> bytes:
    """Tensors by name in the format ``.safetensors``, with a description in JSON as the metadata ``cnnviz``."""
    from safetensors.torch import save

    arrays = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(arrays, {"cnnviz": json.dumps(description)})


def write_pictures(path: str | Path, pictures: Sequence[NDArray[np.uint8]]) -> list[Path]:
    """Write pictures, uint8 (H, W, 3) or gray (H, W); several become ``name-0.png``, ``name-1.png``, ...

    Returns the files written.
    """
    path = Path(path)
    paths = [path] if len(pictures) == 1 else [path.with_stem(f"{path.stem}-{n}") for n in range(len(pictures))]
    for file, picture in zip(paths, pictures, strict=True):
        write(file, encoded(picture, file.suffix))
    return paths


def write_result(
    path: str | Path, pack: Callable[[], bytes], draw: Callable[[], Sequence[NDArray[np.uint8]]]
) -> list[Path]:
    """Write what ``pack`` gives into a ``.safetensors`` file, or else what ``draw`` gives as pictures.

    Returns the files written. Raises ValueError for a suffix that is neither, before anything is drawn.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        write(path, pack())
        return [path]
    if path.suffix.lower() not in PICTURES:
        raise ValueError(f"{path} has no suffix that can be written; use .safetensors or {', '.join(PICTURES)}")
    return write_pictures(path, draw())
