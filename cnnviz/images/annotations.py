"""Annotations of evidence, read from files: mask pictures or arrays in a folder, boxes or spans in a table.

A file annotates the picture of its own name, in that picture's own pixels; what resizes and crops the picture for the
network does the same to its mask.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cnnviz.images.preprocessing import Preprocessing
from cnnviz.images.reading import SUFFIXES, open_array, read_picture

BOX, SPAN = ("file", "x0", "y0", "x1", "y1"), ("file", "start", "stop")
Region = tuple[tuple[int, int], ...]
"""Where it starts and stops along each axis, rows first."""
_KINDS = f"a table begins with the line {','.join(BOX)} (pixels), or {','.join(SPAN)} (places of a signal)"


class Annotations(Protocol):
    """Masks of the annotated evidence in files."""

    def mask(self, path: Path, size: tuple[int, ...]) -> NDArray[np.bool_]:
        """The mask (*spatial) of a picture or array of that spatial size; True on the evidence.

        Raises LookupError for a file without annotation, ValueError for an annotation that does not fit.
        """


@dataclass(frozen=True)
class MaskFolder:
    """Mask pictures or .npy arrays that have the names of what they annotate."""

    folder: Path

    def mask(self, path: Path, size: tuple[int, ...]) -> NDArray[np.bool_]:
        """True where the mask's file is brighter, or higher, than half of its maximum; see :class:`Annotations`."""
        candidates = [self.folder / f"{path.stem}{suffix}" for suffix in (".png", ".npy", *SUFFIXES)]
        file = next((candidate for candidate in candidates if candidate.is_file()), None)
        if file is None:
            raise LookupError(f"'{path}' has no mask: there is no {path.stem}.png or {path.stem}.npy in {self.folder}")
        if file.resolve() == path.resolve():
            raise ValueError(f"'{path}' would be its own mask; keep masks in a folder of their own")
        strengths = _array(file) if file.suffix == ".npy" else np.asarray(read_picture(file).convert("L"))
        if strengths.shape != size:
            raise ValueError(f"mask '{file}' is {_by(strengths.shape)}, and '{path}' {_by(size)}; they need one size")
        inside: NDArray[np.bool_] = strengths > max(float(strengths.max(initial=0)) / 2, 0.0)
        return inside


@dataclass(frozen=True)
class Regions:
    """Boxes or spans of a table by the name of the file they annotate: their start and stop along each axis.

    A file with several of them has all of their places.
    """

    table: Path
    regions: dict[str, tuple[Region, ...]]

    def mask(self, path: Path, size: tuple[int, ...]) -> NDArray[np.bool_]:
        """True within the file's boxes or spans; see :class:`Annotations`."""
        regions = self.regions.get(path.name, self.regions.get(path.stem))
        if regions is None:
            raise LookupError(f"'{path}' has no annotation: there is no line for {path.name} in {self.table}")
        mask = np.zeros(size, np.bool_)
        for region in regions:
            if len(region) != len(size):
                kind = "boxes of pictures" if len(region) == 2 else "spans of signals"
                raise ValueError(f"{self.table} holds {kind}, and '{path}' is {_by(size)}; give a folder of masks")
            if any(stop > length for (_, stop), length in zip(region, size, strict=True)):
                raise ValueError(f"{self.table}: a region of {path.name} ends beyond it, which is {_by(size)}")
            mask[tuple(slice(start, stop) for start, stop in region)] = True
        return mask


def read_annotations(path: str | Path) -> Annotations:
    """Read a folder of masks, or a .csv table of boxes (file,x0,y0,x1,y1) or of spans (file,start,stop).

    Boxes and spans are in pixels or places, and end just before their last number. Raises FileNotFoundError for what is
    not there, ValueError for what is neither, with its line.
    """
    path = Path(path)
    if path.is_dir():
        return MaskFolder(path)
    if not path.exists():
        raise FileNotFoundError(f"no folder of masks or table '{path}'")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"'{path}' is no table that can be read; {_KINDS}") from error
    titles = tuple(cell.lower() for cell in rows[0]) if rows else ()
    if titles not in (BOX, SPAN):
        raise ValueError(f"'{path}' is no table of boxes or spans; {_KINDS}")
    regions: dict[str, tuple[Region, ...]] = {}
    for number, row in enumerate(rows[1:], 2):
        if any(row):
            name = Path(row[0]).name
            regions[name] = (*regions.get(name, ()), _region(row, titles, f"{path}, line {number}"))
    return Regions(path, regions)


def read_mask(
    annotations: Annotations, path: str | Path, preprocessing: Preprocessing, size: tuple[int, ...]
) -> Tensor:
    """The mask of the evidence in a file as the network sees the file: bool (*spatial), of the size ``size``.

    A picture's mask is resized and cropped as the picture is. Raises LookupError where it is not annotated, ValueError
    where the annotation is of another size.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        return torch.from_numpy(annotations.mask(path, tuple(size)))
    picture = read_picture(path)
    mask = annotations.mask(path, (picture.height, picture.width))
    of_masks = replace(preprocessing, mean=(0.0,), std=(1.0,), fill=None, interpolation="nearest")
    seen = of_masks.picture(Image.fromarray(mask))
    return torch.from_numpy(np.asarray(seen) > 0)


def _region(row: list[str], titles: tuple[str, ...], place: str) -> Region:
    if len(row) != len(titles):
        raise ValueError(f"{place}: there are {len(row)} values where {','.join(titles)} are needed")
    try:
        numbers = [int(cell) for cell in row[1:]]
    except ValueError:
        raise ValueError(f"{place}: {','.join(row[1:])} are not whole numbers of pixels or places") from None
    sides = len(numbers) // 2 if titles == BOX else 1
    # a box is written x before y, and an array has its rows first
    region = tuple((numbers[side], numbers[side + sides]) for side in reversed(range(sides)))
    if any(not 0 <= start < stop for start, stop in region):
        raise ValueError(f"{place}: {','.join(row[1:])} hold no place; they start at 0 or later, and stop after that")
    return region


def _array(path: Path) -> NDArray[Any]:
    array = open_array(path, f"mask '{path}'")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"mask '{path}' holds {array.dtype}, not numbers")
    return array


def _by(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
