"""Annotations of evidence, read from files: mask pictures or arrays in a folder, boxes or spans in a table.

A file annotates the picture of its own name, in that picture's own pixels; what resizes and crops the picture for the
network does the same to its mask.
"""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cnnviz.images.mask_levels import Inside, array_inside, picture_inside
from cnnviz.images.places import not_there
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.images.reading import SUFFIXES, is_array, read_picture

BOX, SPAN = ("file", "x0", "y0", "x1", "y1"), ("file", "start", "stop")
Region = tuple[tuple[int, int], ...]
"""Where it starts and stops along each axis, rows first."""
Key = TypeVar("Key", bound=Hashable)
_LOWER = dict.fromkeys((".png", ".npy", *SUFFIXES))
_SUFFIXES = (*_LOWER, *map(str.upper, _LOWER))
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
    inside: Inside = None
    """The levels of index masks that are inside."""
    pictures: tuple[Path, ...] = ()
    """All that are asked for: a mask that fits several of them is refused."""

    def mask(self, path: Path, size: tuple[int, ...]) -> NDArray[np.bool_]:
        """True inside of the file's mask; see :class:`Annotations`.

        A mask lies in the folder, or in the same folders inside it as its file: ``masks/cats/1.png`` is that of
        ``photos/cats/1.jpg``. Inside is where it is opaque, where an index mask has ``inside``, or what is brighter, or
        higher, than half of its maximum.
        """
        file = self._file(path)
        if file is None:
            raise LookupError(f"'{path}' has no mask: there is no {path.stem}.png or {path.stem}.npy in {self.folder}")
        if file.resolve() == path.resolve():
            raise ValueError(f"'{path}' would be its own mask; keep masks in a folder of their own")
        _check_shared(path, self._users[file], f"mask '{file}'", "put it into folders named as theirs")
        inside = (array_inside if file.suffix.lower() == ".npy" else picture_inside)(file, self.inside)
        if inside.shape != size:
            raise ValueError(f"mask '{file}' is {_by(inside.shape)}, and '{path}' {_by(size)}; they need one size")
        return inside

    def _file(self, path: Path) -> Path | None:
        """The mask in the folders that are as many of the file's own as there are; one mask only."""
        folders = path.absolute().parts[1:-1]
        for depth in range(len(folders) + 1):
            place = self.folder.joinpath(*folders[depth:])
            for name in (path.name, path.stem) if place.is_dir() else ():
                files = [place / f"{name}{suffix}" for suffix in _SUFFIXES]
                found = [file for file in files if file.is_file()]
                if len(found) > 1 and not found[0].samefile(found[1]):
                    raise ValueError(f"'{path}' has two masks, '{found[0]}' and '{found[1]}'; keep one of them")
                if found:
                    return found[0]
        return None

    @cached_property
    def _users(self) -> dict[Path | None, list[Path]]:
        return _users(self.pictures, self._file)


@dataclass(frozen=True)
class Regions:
    """Boxes or spans of a table by the file they annotate: their start and stop along each axis.

    A file with several of them has all of their places.
    """

    table: Path
    regions: Mapping[tuple[str, ...], tuple[Region, ...]]
    """By as much of a file's path as the table gives, in parts."""
    pictures: tuple[Path, ...] = ()
    """All that are asked for: a line that fits several of them is refused."""

    def mask(self, path: Path, size: tuple[int, ...]) -> NDArray[np.bool_]:
        """True within the file's boxes or spans; see :class:`Annotations`."""
        entry = self._entry(path)
        if entry is None:
            others = [Path(*parts) for parts in self.regions if parts[-1] in (path.name, path.stem)]
            hint = f"; there is '{others[0]}', which is another path" if others else ""
            raise LookupError(f"'{path}' has no annotation: there is no line for {path.name} in {self.table}{hint}")
        written = f"'{Path(*entry)}' of {self.table}"
        _check_shared(path, self._users[entry], written, "write as much of their paths as tells them apart")
        mask = np.zeros(size, np.bool_)
        for region in self.regions[entry]:
            if len(region) != len(size):
                kind = "boxes of pictures" if len(region) == 2 else "spans of signals"
                raise ValueError(f"{self.table} holds {kind}, and '{path}' is {_by(size)}; give a folder of masks")
            if any(stop > length for (_, stop), length in zip(region, size, strict=True)):
                raise ValueError(f"{self.table}: a region of {path.name} ends beyond it, which is {_by(size)}")
            mask[tuple(slice(start, stop) for start, stop in region)] = True
        return mask

    def _entry(self, path: Path) -> tuple[str, ...] | None:
        """Of all that fit, the one that gives most of the path; with the suffix before without."""
        parts = path.absolute().parts
        for start in range(len(parts)):
            for entry in ((*parts[start:-1], path.name), (*parts[start:-1], path.stem)):
                if entry in self.regions:
                    return entry
        return None

    @cached_property
    def _users(self) -> dict[tuple[str, ...] | None, list[Path]]:
        return _users(self.pictures, self._entry)


def read_annotations(path: str | Path, *, inside: Inside = None, pictures: Iterable[str | Path] = ()) -> Annotations:
    """Read a folder of masks, or a .csv table of boxes (file,x0,y0,x1,y1) or of spans (file,start,stop).

    Boxes and spans are in pixels or places, and end just before their last number. A line may give a name, or as much
    of the path as tells files of one name apart.

    Args:
        path: the folder or the table.
        inside: which levels of index masks are inside, such as (1, 15), or "nonzero". None is what a mask itself says.
        pictures: all files that will be asked for. An annotation that fits several of them is refused then.

    Raises FileNotFoundError for what is not there, ValueError for what is neither, with its line.
    """
    path, files = Path(path), tuple(map(Path, pictures))
    if path.is_dir():
        return MaskFolder(path, inside, files)
    if not path.exists():
        raise not_there(path, "folder of masks or table")
    if inside is not None:
        raise ValueError(f"'{path}' is a table, and what is inside is asked of masks; leave --inside out")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"'{path}' is no table that can be read; {_KINDS}") from error
    titles = tuple(cell.lower() for cell in rows[0]) if rows else ()
    if titles not in (BOX, SPAN):
        raise ValueError(f"'{path}' is no table of boxes or spans; {_KINDS}")
    regions: dict[tuple[str, ...], tuple[Region, ...]] = {}
    for number, row in enumerate(rows[1:], 2):
        if any(row):
            entry = _parts(row[0], path)
            regions[entry] = (*regions.get(entry, ()), _region(row, titles, f"{path}, line {number}"))
    return Regions(path, regions, files)


def read_mask(
    annotations: Annotations, path: str | Path, preprocessing: Preprocessing, size: tuple[int, ...]
) -> Tensor:
    """The mask of the evidence in a file as the network sees the file: bool (*spatial), of the size ``size``.

    A picture's mask is resized and cropped as the picture is. Raises LookupError where it is not annotated, ValueError
    where the annotation is of another size.
    """
    path = Path(path)
    if is_array(path):
        return torch.from_numpy(annotations.mask(path, tuple(size)))
    picture = read_picture(path)
    return mask_as_seen(annotations.mask(path, (picture.height, picture.width)), preprocessing)


def mask_as_seen(mask: NDArray[np.bool_], preprocessing: Preprocessing) -> Tensor:
    """The mask (H, W) of a picture, resized and cropped as the picture is: bool (*spatial)."""
    of_masks = replace(preprocessing, mean=(0.0,), std=(1.0,), fill=None, interpolation="nearest")
    seen = of_masks.picture(Image.fromarray(mask))
    return torch.from_numpy(np.asarray(seen) > 0)


def mask_in_file(file: Path) -> NDArray[np.bool_]:
    """True inside of a mask picture (H, W), or of a mask in .npy. Raises ValueError for what is no mask."""
    return (array_inside if file.suffix.lower() == ".npy" else picture_inside)(file, None)


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


def _parts(written: str, table: Path) -> tuple[str, ...]:
    """A path of a table in parts; one that leads upwards begins at the table's folder."""
    path = Path(PureWindowsPath(written).as_posix()) if "\\" in written else Path(written)
    if ".." in path.parts:
        path = Path(os.path.normpath(table.absolute().parent / path))
    return path.parts


def _users(pictures: Iterable[Path], owned: Callable[[Path], Key | None]) -> dict[Key | None, list[Path]]:
    """The pictures that have each annotation."""
    users: dict[Key | None, list[Path]] = defaultdict(list)
    for picture in pictures:
        with suppress(ValueError):  # told when it is this picture's turn
            users[owned(picture)].append(picture)
    return users


def _check_shared(path: Path, users: Sequence[Path], annotation: str, way_out: str) -> None:
    other = next((user for user in users if user.absolute() != path.absolute()), None)
    if other is not None:
        raise ValueError(f"{annotation} fits '{path}' and '{other}'; {way_out}")


def _by(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
