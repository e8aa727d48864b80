"""Writing results into files. A file is written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from cnnviz.images.places import file_and_place

SOFTWARE = "cnnviz"  # the mark of answers
SOFTWARE_TAG = 0x0131  # of EXIF
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


LARGEST = {".webp": 16383, ".jpg": 65500, ".jpeg": 65500}  # pixels on a side


def write(path: Path, content: bytes) -> None:
    """Put a whole file in place, or leave what was there.

    A symbolic link is followed: the file that it leads to is written. A file that is replaced keeps its permissions.
    Raises PermissionError for one that is read-only.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist; make it first")
    try:
        place = path.resolve() if path.is_symlink() else path
        mode = stat.S_IMODE(place.stat().st_mode) if place.exists() else None
    except OSError as error:  # a name that is too long, for one
        raise _told(error, path) from error
    check_replaceable(path)
    # a short name of its own: with the name of the file in it, it could be longer than the file system takes
    temporary = place.parent / f".{secrets.token_hex(8)}.cnnviz"
    made = False
    try:
        # the kernel applies the umask, which belongs to the whole process and is never set here
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        made = True
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        if mode is not None:
            temporary.chmod(mode)
        os.replace(temporary, place)
    except BaseException as error:
        if made:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _told(error, path) from error
        raise


def check_replaceable(path: Path) -> None:
    """Raises PermissionError for a file that is there and read-only."""
    if path.exists() and not path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{path} can't be written: it is read-only; choose another place")


def _told(error: OSError, path: Path) -> OSError:
    """The error with the file and the way out."""
    told = type(error)(f"{path} can't be written: {error.strerror}; choose another place")
    told.errno = error.errno
    return told


def picture_suffix(path: str | Path) -> str:
    """The suffix that says how a picture is written. Raises ValueError for one that does not."""
    suffix = Path(path).suffix.lower()
    if suffix not in PICTURES:
        raise ValueError(f"{path} has no suffix of a picture; use {', '.join(PICTURES)}")
    return suffix


def encoded(picture: NDArray[np.uint8], suffix: str, source: str | None = None, marked: bool = True) -> bytes:
    """A picture, uint8 (H, W, 3) or gray (H, W), in the file format of that suffix, marked as an answer of cnnviz.

    ``source`` tells of which picture, see :func:`source_of`. By the mark answers are left out of folders of pictures;
    a picture that is to be explained is not ``marked``. Raises ValueError for a picture that is too large for the
    format.
    """
    height, width = picture.shape[:2]
    most = LARGEST.get(suffix.lower())
    if most is not None and max(height, width) > most:
        raise ValueError(
            f"a picture of {width} x {height} pixels can't be written as {suffix}, which takes {most} pixels on a "
            "side; choose .png, or write fewer pictures into one file"
        )
    stream = io.BytesIO()
    kind = Image.registered_extensions()[suffix.lower()]
    mark = SOFTWARE if source is None else f"{SOFTWARE} {source}"
    settings: dict[str, Any] = {}
    if marked and kind == "PNG":
        settings["pnginfo"] = PngInfo()
        settings["pnginfo"].add_text("Software", mark)
    elif marked:
        settings["exif"] = Image.Exif()
        settings["exif"][SOFTWARE_TAG] = mark
    Image.fromarray(picture).save(stream, kind, **settings)
    return stream.getvalue()


def mark_of(path: Path) -> str | None:
    """The mark of an answer, :data:`SOFTWARE` and maybe its source; None for any other file."""
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP", "TIFF")) as picture:
            mark = picture.info.get("Software") if picture.format == "PNG" else picture.getexif().get(SOFTWARE_TAG)
    except Exception:  # whatever it is, it is no answer; who reads it tells what is wrong with it
        return None
    return mark if isinstance(mark, str) and mark.split(" ")[0] == SOFTWARE else None


def is_answer(path: str | Path) -> bool:
    """True for a picture that cnnviz made. Of PNG and JPEG, whose mark comes first, only the beginning is read."""
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(4096)
    except OSError:  # who reads it tells what is wrong with it
        return False
    if head.startswith((b"\x89PNG", b"\xff\xd8")) and SOFTWARE.encode() not in head:
        return False
    return mark_of(Path(path)) is not None


def source_of(path: Path) -> str:
    """Sixteen digits that tell the content of a file from that of others, and a frame from other frames."""
    path, place = file_and_place(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update((place or "").encode())
    return digest.hexdigest()[:16]


def packed(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> bytes:
    """Tensors by name in the format ``.safetensors``, with a description in JSON as the metadata ``cnnviz``."""
    from safetensors.torch import save

    arrays: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        kept = tensor.detach().cpu().contiguous()
        place = kept.untyped_storage().data_ptr()
        arrays[name] = kept.clone() if place in seen else kept  # the format refuses tensors that share memory
        seen.add(place)
    return save(arrays, {"cnnviz": json.dumps(description)})


def write_pictures(path: str | Path, pictures: Sequence[NDArray[np.uint8]], source: str | None = None) -> list[Path]:
    """Write pictures, uint8 (H, W, 3) or gray (H, W); several become ``name-0.png``, ``name-1.png``, ...

    ``source`` is as for :func:`encoded`. Returns the files written.
    """
    path = Path(path)
    paths = [path] if len(pictures) == 1 else [path.with_stem(f"{path.stem}-{n}") for n in range(len(pictures))]
    for file, picture in zip(paths, pictures, strict=True):
        write(file, encoded(picture, file.suffix, source))
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
