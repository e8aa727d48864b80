"""The first state of each tile as a picture, for readers whose browser runs no scripts; and what a tile says."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cnnviz.drawing.colors import colormap_named, colors_of
from cnnviz.drawing.input_images import as_uint8
from cnnviz.images.resampling import resize
from cnnviz.pages.report.content import Explained, Picture
from cnnviz.pages.report.maps import StoredMap
from cnnviz.pages.shared.texts import short_number

SIDE = 168
"""The most pixels of a still on a side."""
EVIDENCE, SIGNED = "viridis", "RdBu_r"


@cache
def colors(name: str) -> NDArray[np.uint8]:
    """256 colours (256, 3), uint8, of matplotlib's colour map of that name."""
    return as_uint8(colors_of(colormap_named(name), np.linspace(0, 1, 256)))


def still(picture: Picture, found: StoredMap, signed: bool) -> bytes:
    """The map over the picture, more opaque where it is stronger, as JPEG."""
    height, width = picture.pixels.shape[:2]
    scale = SIDE / max(height, width)
    small = Image.fromarray(picture.pixels).resize((max(1, round(width * scale)), max(1, round(height * scale))))
    canvas = np.asarray(small).astype(np.float32)
    left, top, right, bottom = (round(side * scale) for side in picture.box)
    size = max(bottom - top, 1), max(right - left, 1)
    values = resize(torch.from_numpy(found.values())[None, None], size)[0, 0].numpy()
    shares = (values / found.cut).clip(-1, 1) if found.cut else np.zeros_like(values)
    table = colors(SIGNED if signed else EVIDENCE)
    over = table[((shares + 1) / 2 * 255 if signed else shares.clip(0) * 255).round().astype(int)]
    inside = slice(max(top, 0), min(bottom, len(canvas))), slice(max(left, 0), min(right, canvas.shape[1]))
    part = slice(inside[0].start - top, inside[0].stop - top), slice(inside[1].start - left, inside[1].stop - left)
    weights = np.abs(shares)[part][..., None]
    canvas[inside] = canvas[inside] * (1 - weights) + over[part] * weights
    return jpeg(canvas.round().astype(np.uint8))


def jpeg(pixels: NDArray[np.uint8], quality: int = 75) -> bytes:
    """A picture (H, W, 3) as JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def scale_text(found: StoredMap, signed: bool) -> str:
    """From where to where the values of a map go."""
    if not found.high:
        return "blank: zero everywhere"
    peak = short_number(found.high)
    return f"\N{MINUS SIGN}{peak} to {peak}" if signed else f"0 to {peak}"


def said(method: str, explained: Explained, picture: Picture, found: StoredMap | None) -> str:
    """What a tile shows, for readers who don't see it."""
    of = f"{method} of {explained.name} for {picture.name}"
    if found is None:
        return f"{of}, as its renderer draws it"
    if not found.high:
        return f"{of}: the map is blank"
    highest = int(found.bytes.argmax())
    row, column = divmod(highest, found.bytes.shape[1])
    height, width = picture.pixels.shape[:2]
    left, top, right, bottom = picture.box
    across = (left + (column + 0.5) / found.bytes.shape[1] * (right - left)) / width
    down = (top + (row + 0.5) / found.bytes.shape[0] * (bottom - top)) / height
    return f"{of}: the peak is {place_of(across, down)} of the picture"


def place_of(across: float, down: float) -> str:
    """In which of nine parts a place is; ``report.js`` says the same."""
    vertical = "top" if down < 1 / 3 else "bottom" if down > 2 / 3 else ""
    horizontal = "left" if across < 1 / 3 else "right" if across > 2 / 3 else ""
    return f"at the {' '.join(filter(None, (vertical, horizontal)))}" if vertical or horizontal else "in the middle"
