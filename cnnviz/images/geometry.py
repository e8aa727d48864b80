"""Which part of a picture an input shows: sizes and places of resizing and cropping, without any pixels."""

from __future__ import annotations

from typing import Literal, TypeAlias

Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""
Box: TypeAlias = tuple[float, float, float, float]
"""left, top, right, bottom in pixels of a picture; parts of a pixel count."""
Fit: TypeAlias = Literal["cover", "squash", "contain"]
FITS = ("cover", "squash", "contain")


def resized_size(size: Size, resize: int | Size | None, fit: Fit) -> Size:
    """What a picture of this size is resized to.

    "cover": the smallest size of the picture's own form that covers ``resize``; a number is the shorter side.
    "contain": the largest of its own form that ``resize`` contains; a number is the longer side.
    "squash": exactly ``resize``, whatever form the picture has; a number is the side of a square.
    """
    height, width = size
    if resize is None:
        return size
    if fit == "squash":
        return (resize, resize) if isinstance(resize, int) else resize
    if isinstance(resize, int) and fit == "cover":  # rounds down, as torchvision does
        shorter, longer = min(size), max(size)
        grown = int(resize * longer / shorter)
        return (resize, grown) if height <= width else (grown, resize)
    rows, columns = (resize, resize) if isinstance(resize, int) else resize
    ratios = height / rows, width / columns
    ratio = min(ratios) if fit == "cover" else max(ratios)
    return max(1, round(height / ratio)), max(1, round(width / ratio))  # rounds to the nearest, as timm does


def crop_start(length: int, kept: int) -> int:
    """Where the centre of so many pixels begins; below zero where the picture is shorter and is filled up."""
    return -((kept - length) // 2) if kept > length else round((length - kept) / 2)


def shown_box(size: Size, resize: int | Size | None, fit: Fit, crop: Size | None) -> Box:
    """The part of a picture of this size that is kept, in its own pixels; it may reach beyond the picture."""
    resized = resized_size(size, resize, fit)
    kept = crop or resized
    top, left = (crop_start(length, part) for length, part in zip(resized, kept, strict=True))
    rows, columns = (own / length for own, length in zip(size, resized, strict=True))
    return left * columns, top * rows, (left + kept[1]) * columns, (top + kept[0]) * rows
