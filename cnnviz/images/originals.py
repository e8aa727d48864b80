"""The picture that an input was made of, at its own size: kept as pixels, or as the file that holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from cnnviz.images.geometry import Box
from cnnviz.images.modes import in_mode, tell_few_values
from cnnviz.images.places import file_and_place
from cnnviz.images.preprocessing import MODES, Preprocessing
from cnnviz.images.reading import is_array, picture_for, read_input, read_stored

At: TypeAlias = Literal["input", "original"]
"""The size at which something is drawn: that of the input, or of the picture that the input was cut out of."""


@dataclass(frozen=True, eq=False)
class Original:
    """The picture an input was made of, and where in it the input lies."""

    size: tuple[int, int]
    """(height, width) in pixels, upright."""
    box: Box
    """What the input shows: left, top, right, bottom in pixels of the picture; it may reach beyond the picture."""
    path: str | None = None
    """The file, absolute; None for a picture that is kept itself."""
    sha256: str | None = None
    """Of the content of the file, which is read again where the picture is drawn."""
    pixels: Tensor | None = None
    """The picture where there is no file, uint8 (H, W, C): gray, RGB or RGBA."""

    @property
    def region(self) -> tuple[int, int, int, int]:
        """The box in whole pixels, at least one: left, top, right, bottom. Each side is at most half a pixel off."""
        left, top, right, bottom = (round(side) for side in self.box)
        return left, top, max(right, left + 1), max(bottom, top + 1)

    def picture(self) -> Image.Image:
        """The whole picture, upright, RGB, or as it is kept.

        Raises FileNotFoundError where its file is not there any more, and ValueError where it holds something else now.
        """
        if self.pixels is not None:
            array = self.pixels.cpu().numpy()
            return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
        path = Path(self.path or "")
        if not file_and_place(path)[0].is_file():
            raise FileNotFoundError(
                f"the picture '{path}' that was explained is not there any more; put it back, "
                "or draw at='input' (--at input)"
            )
        if _digest(path) != self.sha256:
            raise ValueError(
                f"the picture '{path}' has changed since it was explained; explain it again, "
                "or draw at='input' (--at input)"
            )
        return in_mode(read_stored(path), "RGB")  # what is odd about it was told when it was explained

    def described(self) -> dict[str, Any]:
        """What a file says about it, as JSON has it; its pixels are kept apart."""
        return {"size": list(self.size), "box": list(self.box), "path": self.path, "sha256": self.sha256}

    @classmethod
    def from_described(cls, about: Mapping[str, Any], pixels: Tensor | None) -> Original:
        """Read back. Raises ValueError for what is no description of an original."""
        size, box, path, digest = (about.get(name) for name in ("size", "box", "path", "sha256"))
        numbers = isinstance(size, list) and isinstance(box, list) and len(size) == 2 and len(box) == 4
        if not numbers or not all(type(side) is int and side > 0 for side in size or ()):
            raise ValueError(f"its original is described by {str(dict(about))[:80]}, not by a size and a box")
        if not all(type(side) in (int, float) and abs(side) < 1e9 for side in box or ()):
            raise ValueError(f"its original has the box {box}, which is no place in a picture")
        height, width = size or (0, 0)
        left, top, right, bottom = box or (0, 0, 0, 0)
        if pixels is not None:
            if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[2] not in MODES:
                raise ValueError(f"its original is {pixels.dtype} {tuple(pixels.shape)}, not uint8 (H, W, C)")
            if tuple(pixels.shape[:2]) != (height, width):
                raise ValueError(f"its original is {tuple(pixels.shape)}, and its size {height} x {width}")
        elif not isinstance(path, str) or not isinstance(digest, str):
            raise ValueError("its original has neither pixels nor a path with a sha256")
        return cls((height, width), (left, top, right, bottom), path, digest, pixels)


def check_at(at: str) -> None:
    """Raises ValueError for a size that is none."""
    if at not in ("input", "original"):
        raise ValueError(f"there is no at={at!r}; use 'input', or 'original' for the picture at its own size")


def original_pixels(originals: Sequence[Original | None] | None) -> dict[str, Tensor]:
    """The pixels of originals that have no file, by the names under which a file of tensors holds them."""
    kept = enumerate(originals or ())
    return {f"original.{number}": each.pixels for number, each in kept if each is not None and each.pixels is not None}


def read_originals(
    described: Sequence[Mapping[str, Any] | None] | None, tensors: Mapping[str, Tensor]
) -> tuple[Original | None, ...] | None:
    """The originals that a file of tensors describes. Raises ValueError for what describes none."""
    if described is None:
        return None
    if not isinstance(described, list) or not all(isinstance(each, dict | None) for each in described):
        raise ValueError("its originals are no list of descriptions")
    return tuple(
        None if about is None else Original.from_described(about, tensors.get(f"original.{number}"))
        for number, about in enumerate(described)
    )


def opened(
    picture: str | Path | Image.Image | NDArray[Any], preprocessing: Preprocessing
) -> tuple[Tensor, Original | None]:
    """A picture as the network takes it, (C, *spatial), and its original; None for an array in .npy, which is its own.

    Pictures are files, PIL images, which are turned upright as their EXIF says, or uint8 arrays (H, W), (H, W, 3) or
    (H, W, 4). Raises what :func:`cnnviz.images.reading.read_input` raises.
    """
    if isinstance(picture, str | Path):
        path = Path(picture)
        if is_array(path):
            return read_input(path, preprocessing), None
        image = picture_for(path, preprocessing)
        try:
            return preprocessing(image), _of(image, preprocessing, path=str(path.absolute()), sha256=_digest(path))
        except ValueError as reason:
            raise ValueError(f"picture '{path}': {reason}") from reason
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(_checked(picture))
    image = ImageOps.exif_transpose(image)
    tell_few_values(image, "the picture")
    shown = in_mode(image, MODES.get(len(preprocessing.mean), "RGB"))
    pixels = torch.from_numpy(np.array(shown)).reshape(image.height, image.width, -1)
    return preprocessing(image), _of(image, preprocessing, pixels=pixels)


def _of(image: Image.Image, preprocessing: Preprocessing, **kept: Any) -> Original:
    return Original((image.height, image.width), preprocessing.crop_box(image.height, image.width), **kept)


def _checked(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(
            f"an array {array.dtype} {array.shape} is no picture; give uint8 (H, W), (H, W, 3) or (H, W, 4), or the "
            "input itself as floating point (N, C, *spatial)"
        )
    return np.ascontiguousarray(array)


def _digest(path: Path) -> str:
    with file_and_place(path)[0].open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
