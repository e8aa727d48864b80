"""Writing results into files. A file is written whole or not at all."""

from __future__ import annotations

import io
import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

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
