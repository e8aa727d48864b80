"""Reading pictures and inputs from files. Nothing that a file claims is believed before it is checked."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps, UnidentifiedImageError, features
from torch import Tensor

from cnnviz.images.arrays import ARRAYS, read_array
from cnnviz.images.file_kinds import HEAD, first_bytes, is_avif, is_heic, kind_of
from cnnviz.images.limits import RAISE, current_limit
from cnnviz.images.modes import in_mode, tell_few_values
from cnnviz.images.places import check_file, file_and_place, numbered
from cnnviz.images.preprocessing import MODES, Preprocessing
from cnnviz.images.told import filters

AVIF = ("AVIF",) if features.check("avif") else ()
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", *AVIF)  # Pillow reads many more, rarely and less safely
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif")


def read_picture(path: str | Path, limit: int | None = None, mode: str = "RGB") -> Image.Image:
    """The picture in a file, upright, 8 bits: RGB with transparency over white, or RGBA.

    Of several frames or pages the first, or that of ``scan.tif#3``, counted from 0. ``limit`` is that of
    :func:`cnnviz.images.pixel_limit` where it is None.

    Raises ValueError for a file that is no picture, is damaged or has more pixels than ``limit`` (or than
    Pillow finds safe), which is checked before anything is decoded; FileNotFoundError or IsADirectoryError
    for a path that is no file.
    """
    return _read(Path(path), limit, mode)


def read_stored(path: str | Path, limit: int | None = None) -> Image.Image:
    """The picture in a file, upright, in the mode in which it is stored; see :func:`read_picture`."""
    path, place = file_and_place(path)
    check_file(path)
    with path.open("rb") as file:  # Pillow leaves a file open that it fails on
        return _stored(file, first_bytes(path), path, limit, numbered(place, path, "frame"))


def read_content(content: bytes, name: str) -> Image.Image:
    """The picture in the content of a file, as :func:`read_stored` gives it; errors call it by the name."""
    return _stored(io.BytesIO(content), content[:HEAD], Path(name), None, None)


def picture_for(path: str | Path, preprocessing: Preprocessing) -> Image.Image:
    """The picture in a file with all that the preprocessing takes of it, upright: transparency, or 16 bits of gray."""
    return _read(Path(path), None, MODES.get(len(preprocessing.mean), "RGB"), deep=True)


def read_input(path: str | Path, preprocessing: Preprocessing) -> Tensor:
    """A file as the network takes it, (C, *spatial) float32: a picture prepared, or a ready array in .npy or .npz.

    An array is (C, *spatial) or (1, C, *spatial) with as many channels as the preprocessing, of any rank; of a batch
    (N, C, *spatial) the path names one, as in ``batch.npy#3``, and of several arrays in .npz too: ``arrays.npz#name``.
    Raises ValueError as ``read_picture`` does, or for an array that has other channels, NaN or infinity.
    """
    path = Path(path)
    if is_array(path):
        return read_array(path, preprocessing)
    picture = picture_for(path, preprocessing)
    try:
        return preprocessing(picture)
    except ValueError as reason:
        raise ValueError(f"picture '{path}': {reason}") from reason


def is_array(path: str | Path) -> bool:
    """True for the path of an array, as its suffix says."""
    return file_and_place(path)[0].suffix.lower() in ARRAYS


def one_line(reason: BaseException) -> str:
    """The message of an error on one line, or the name of its type where it has no message."""
    return " ".join(str(reason).split()) or type(reason).__name__


def _read(path: Path, limit: int | None, mode: str, deep: bool = False) -> Image.Image:
    picture = read_stored(path, limit)
    try:
        tell_few_values(picture, f"picture '{path}'")
        return in_mode(picture, mode, deep)
    except ValueError as reason:
        raise ValueError(f"picture '{path}': {reason}") from reason


def _stored(file: IO[bytes], head: bytes, path: Path, limit: int | None, frame: int | None) -> Image.Image:
    """The picture, upright; ``path`` is what errors call it."""
    limit = current_limit() if limit is None else limit
    opened = _opened(file, head, path, _formats_of(head, path), limit)
    # frames before it are decoded on the way, which have the size that is checked first
    _check_size(opened, path, limit)
    if frame is not None:
        _seek(opened, frame, path)
        _check_size(opened, path, limit)
    try:
        opened.load()
        with _quiet():
            opened.getexif()  # never before the limit is checked: for PNG it decodes everything
        return ImageOps.exif_transpose(opened)
    except Exception as reason:
        raise ValueError(f"picture '{path}' is damaged: {one_line(reason)}") from reason


def _formats_of(head: bytes, path: Path) -> tuple[str, ...]:
    """The formats that are tried. Raises ValueError for one that needs what is not installed."""
    if is_avif(head) and not AVIF:
        raise ValueError(f"picture '{path}' is AVIF, and this Pillow was built without it; save the picture as PNG")
    if not is_heic(head):
        return FORMATS
    if find_spec("pi_heif") is None:
        raise ValueError(f"picture '{path}' is HEIC, which needs: pip install 'cnnviz[heic]'; or save it as JPEG")
    import_module("pi_heif").register_heif_opener()
    return ("HEIF",)


def _opened(file: IO[bytes], head: bytes, path: Path, formats: tuple[str, ...], limit: int) -> Image.Image:
    """The picture with its header read, and no more."""
    try:
        with _quiet():
            return Image.open(file, formats=formats)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as reason:
        pixels = re.search(r"\(([0-9]+) pixels\)", str(reason))
        if pixels and int(pixels[1]) > limit:  # Pillow tells of a limit of its own, which is another
            raise ValueError(
                f"picture '{path}' has {int(pixels[1]):,} pixels, more than the limit of {limit:,}; make it smaller, "
                f"or {RAISE}"
            ) from reason
        raise ValueError(f"picture '{path}' has more pixels than are safe to open ({reason})") from reason
    except UnidentifiedImageError as reason:
        kind = kind_of(head, path)
        said = f": {kind}" if kind else f" ({', '.join(FORMATS)})"
        raise ValueError(f"'{path}' is not a picture that can be read{said}") from reason
    except Exception as reason:  # Pillow raises nearly anything on a hostile file
        raise ValueError(f"picture '{path}' is damaged: {one_line(reason)}") from reason


def _check_size(opened: Image.Image, path: Path, limit: int) -> None:
    width, height = opened.size
    if width * height > limit:
        raise ValueError(
            f"picture '{path}' has {width} x {height} = {width * height:,} pixels, more than the "
            f"limit of {limit:,}; make it smaller, or {RAISE}"
        )


def _seek(opened: Image.Image, frame: int, path: Path) -> None:
    try:
        with _quiet():
            opened.seek(frame)
    except EOFError:
        raise ValueError(f"picture '{path}' has no frame {frame}; they are numbered from 0") from None
    except Exception as reason:
        raise ValueError(f"picture '{path}' is damaged: {one_line(reason)}") from reason


@contextmanager
def _quiet() -> Iterator[None]:
    """Odd metadata, which does not change the pixels, goes unmentioned; the warning of a bomb is raised."""
    with filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
