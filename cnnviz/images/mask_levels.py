"""What is inside of a mask: of black and white, of transparency, or of an index mask, whose numbers are classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from cnnviz.images.arrays import check_places, open_array
from cnnviz.images.modes import in_mode
from cnnviz.images.reading import read_stored

Inside: TypeAlias = Sequence[int] | Literal["nonzero"] | None
"""The levels of an index mask that are inside, all but 0, or None: what the mask itself says."""
VOID = 255  # what data sets write where nothing is known: borders of objects
LOSSY = (".jpg", ".jpeg", ".webp")
_FEW = 64
"""So many levels may be numbers of classes; of more a mask is taken for a gray picture."""


def array_inside(file: Path, inside: Inside) -> NDArray[np.bool_]:
    """True inside of a mask in .npy, of its shape. Raises ValueError for what is no mask."""
    array = open_array(file, f"mask '{file}'")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"mask '{file}' holds {array.dtype}, not numbers")
    check_places(array.size, f"mask '{file}'")
    levels = np.asarray(array)
    if not np.isfinite(levels).all():
        raise ValueError(f"mask '{file}' holds NaN or infinity; a mask has finite numbers")
    return _inside(levels, file, inside)


def picture_inside(file: Path, inside: Inside) -> NDArray[np.bool_]:
    """True inside of a mask picture, (H, W).

    Raises ValueError for what is no picture, and for one that does not say what is inside.
    """
    picture = read_stored(file)
    if picture.has_transparency_data and not (inside is not None and picture.mode == "P"):
        picture = picture.convert("RGBA")
        alpha = np.asarray(picture.getchannel("A"))
        if alpha.min(initial=VOID) != alpha.max(initial=0):
            return _opaque(picture, alpha, file, inside)
        picture = picture.convert("RGB")  # opaque everywhere: its transparency says nothing
    if picture.mode == "P":
        colors = picture.convert("RGB")
        if not _is_gray(np.asarray(colors)):
            return _of_classes(np.asarray(picture), file, inside)
        # what is brighter is inside, whatever order the palette has
        levels = np.asarray(picture if inside is not None else colors.convert("L"))
    elif picture.mode in ("1", "L", "I", "F") or picture.mode.startswith("I;16"):
        levels = np.asarray(picture)
    else:
        colors = in_mode(picture, "RGB")
        if inside is not None and not _is_gray(np.asarray(colors)):
            raise ValueError(f"mask '{file}' has colours and no levels; leave --inside out, or save an index mask")
        levels = np.asarray(colors.convert("L"))
    return _inside(levels, file, inside, lossy=file.suffix.lower() in LOSSY)


def _opaque(picture: Image.Image, alpha: NDArray[np.uint8], file: Path, inside: Inside) -> NDArray[np.bool_]:
    """Where it is opaque, unless what is opaque is black and white itself."""
    if inside is not None:
        raise ValueError(f"mask '{file}' has transparency, which says what is inside; leave --inside out")
    opaque: NDArray[np.bool_] = alpha > alpha.max() / 2
    seen = np.asarray(picture.convert("RGB"))[opaque]
    if _is_gray(seen) and set(np.unique(seen)) == {0, 255}:
        raise ValueError(
            f"mask '{file}' has transparency, and black and white where it is opaque; save it without transparency, "
            "or make all that is inside opaque"
        )
    return opaque


def _of_classes(levels: NDArray[np.uint8], file: Path, inside: Inside) -> NDArray[np.bool_]:
    """Of a palette of colours: the numbers are classes, 0 is the background, and 255 is void beside a class."""
    objects = [level for level in _levels(levels) if level not in (0, VOID)]
    if inside == "nonzero":
        return np.isin(levels, objects or [VOID])
    if inside is not None:
        return np.isin(levels, list(inside))
    if len(objects) > 1:
        raise _Several(file, levels)
    return np.isin(levels, objects or [VOID])


def _inside(levels: NDArray[Any], file: Path, inside: Inside, lossy: bool = False) -> NDArray[np.bool_]:
    if inside is not None:
        return ~np.isin(levels, [0]) if inside == "nonzero" else np.isin(levels, list(inside))
    if not lossy and _are_classes(levels):
        raise _Several(file, levels)
    brighter: NDArray[np.bool_] = levels > max(float(levels.max(initial=0)) / 2, 0.0)
    return brighter


def _are_classes(levels: NDArray[Any]) -> bool:
    """True for more than two levels that have areas; those of smooth edges have none."""
    if not 2 < len(_levels(levels)) <= _FEW or min(levels.shape) < 3:
        return False
    windows = sliding_window_view(levels, (3,) * levels.ndim)
    axes = tuple(range(levels.ndim, 2 * levels.ndim))
    low = windows.min(axes)
    return len(_levels(low[low == windows.max(axes)])) > 2


def _levels(values: NDArray[Any]) -> list[Any]:
    if values.dtype == np.uint8:  # counted, which is faster than sorted
        return [int(level) for level in np.flatnonzero(np.bincount(values.reshape(-1), minlength=256))]
    found: list[Any] = np.unique(values).tolist()
    return found


def _is_gray(colors: NDArray[np.uint8]) -> bool:
    return bool((colors[..., :1] == colors).all())


class _Several(ValueError):
    def __init__(self, file: Path, levels: NDArray[Any]):
        found = _levels(levels)
        written = ", ".join(f"{level:g}" for level in found[:12]) + (", ..." if len(found) > 12 else "")
        super().__init__(
            f"mask '{file}' has the levels {written}; say which are inside with --inside 1,15 or --inside nonzero "
            "(in Python read_annotations(..., inside=...))"
        )
