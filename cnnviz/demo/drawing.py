"""Labelled pictures of one shape each, whose every pixel of evidence is known.

Picture i depends on the seed and i alone, so a longer set begins with the shorter one. A tag, or the shape
left out, changes its own pixels and no others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cnnviz.demo.shapes import OUTLINES
from cnnviz.demo.textures import crop

SHAPES = tuple(OUTLINES)
SIZE = 96
TAG = 14  # pixels on a side
TAG_MARGIN = 2

Tag = Literal["none", "true", "wrong"]
Array = NDArray[np.floating[Any]]

_HUES = (
    (1.0, 0.1, 0.1), (1.0, 0.55, 0.0), (1.0, 1.0, 0.1), (0.1, 0.8, 0.1),
    (0.1, 0.95, 1.0), (0.1, 0.2, 1.0), (0.6, 0.1, 0.9), (1.0, 0.45, 0.8),
)  # fmt: skip
_ROWS, _COLUMNS = np.mgrid[:SIZE, :SIZE].astype(np.float32)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Pictures and what is in them; N pictures of H x W pixels."""

    pictures: NDArray[np.uint8]  # (N, H, W, 3)
    masks: NDArray[np.bool_]  # (N, H, W), the visible pixels of the shape
    labels: NDArray[np.int64]  # (N,), index into SHAPES
    tags: NDArray[np.bool_]  # (N, H, W), the pixels of the tag
    tag_labels: NDArray[np.int64]  # (N,), the class that the tag names; -1 without a tag


def draw(count: int, seed: int, *, tag: Tag = "none", held_out: bool = False, empty: bool = False) -> Drawn:
    """Draw pictures; the classes take turns, so every run of eight holds each once.

    tag: "true" marks a corner with the colour of the class, "wrong" with that of another class.
    held_out: use the halves of the photographs that training never sees.
    empty: leave the shape out; everything else stays the same.
    """
    if tag not in ("none", "true", "wrong"):
        raise ValueError(f"tag {tag!r} is unknown; choose 'none', 'true' or 'wrong'")
    pictures = np.empty((count, SIZE, SIZE, 3), np.uint8)
    masks = np.zeros((count, SIZE, SIZE), np.bool_)
    labels = np.arange(count, dtype=np.int64) % len(SHAPES)
    tags = np.zeros((count, SIZE, SIZE), np.bool_)
    tag_labels = np.full(count, -1, np.int64)
    for i, label in enumerate(labels):
        picture, mask = _scene(np.random.default_rng((seed, i, 0)), int(label), held_out, empty)
        if tag != "none":
            rng = np.random.default_rng((seed, i, 1))
            tag_labels[i] = label if tag == "true" else (label + rng.integers(1, len(SHAPES))) % len(SHAPES)
            _stamp(rng, int(tag_labels[i]), picture, tags[i])
        pictures[i] = (picture * 255 + 0.5).astype(np.uint8)
        masks[i] = mask & ~tags[i]
    return Drawn(pictures, masks, labels, tags, tag_labels)


def _scene(rng: np.random.Generator, label: int, held_out: bool, empty: bool) -> tuple[Array, NDArray[np.bool_]]:
    picture = crop(rng, SIZE, held_out) * rng.uniform(0.75, 1.15, 3).astype(np.float32)
    picture = np.clip(picture, 0, 1)
    for _ in range(rng.integers(2, 7)):
        _clutter(rng, picture)
    coverage = _coverage(rng, label)
    mask = coverage >= 0.5
    fill = _fill(rng, picture[mask].mean(axis=0), held_out)
    if not empty:
        picture += coverage[..., None] * (fill - picture)
    return _lit(rng, picture), mask & (not empty)


def _turned(row: float, column: float, angle: float) -> tuple[Array, Array]:
    """Each pixel's place seen from a point, along two axes turned by the angle."""
    right, down = _COLUMNS - column, _ROWS - row
    cos, sin = math.cos(angle), math.sin(angle)
    return right * cos + down * sin, down * cos - right * sin


def _coverage(rng: np.random.Generator, label: int) -> Array:
    """How much of each pixel the shape covers, at a random place, size and angle, mirrored or not."""
    radius = rng.uniform(15, 29)
    reach = radius * 1.12  # the points of star and triangle
    x, y = _turned(rng.uniform(reach, SIZE - reach), rng.uniform(reach, SIZE - reach), rng.uniform(-0.7, 0.7))
    distance = radius * OUTLINES[SHAPES[label]](x / (radius if rng.random() < 0.5 else -radius), y / radius)
    coverage: Array = np.clip(0.5 - distance, 0, 1)
    return coverage


def _fill(rng: np.random.Generator, behind: Array, held_out: bool) -> Array:
    """A colour, or a texture in that colour, that stands out from what is behind the shape."""
    colour = rng.random(3, np.float32)
    while np.linalg.norm(colour - behind) < 0.4:
        colour = rng.random(3, np.float32)
    texture = crop(rng, SIZE, held_out)
    grain = (0.1, 0.6, 0.9)[rng.integers(3)] * (texture - texture.mean(axis=(0, 1)))
    fill: Array = np.clip(colour + grain, 0, 1)
    return fill


def _clutter(rng: np.random.Generator, picture: Array) -> None:
    """Lay a line or a small bent blob, of no class, into the picture."""
    x, y = _turned(rng.uniform(0, SIZE), rng.uniform(0, SIZE), rng.uniform(0, 2 * math.pi))
    if rng.random() < 0.4:
        distance = np.maximum(np.abs(y) - rng.uniform(0.5, 1.5), np.abs(x) - rng.uniform(8, 40))
    else:
        length, width, bend = rng.uniform(2, 6), rng.uniform(1, 4), rng.uniform(0.02, 0.3)
        distance = (np.hypot(x / length, (y + bend * x * x / length) / width) - 1) * min(length, width)
    coverage = np.clip(0.5 - distance, 0, 1)[..., None] * rng.uniform(0.6, 1)
    picture += coverage * (rng.random(3, np.float32) - picture)


def _lit(rng: np.random.Generator, picture: Array) -> Array:
    """Under a light that falls off to one side, with the noise of a camera."""
    along, _ = _turned(SIZE / 2, SIZE / 2, rng.uniform(0, 2 * math.pi))
    light = rng.uniform(0.8, 1.1) + rng.uniform(0, 0.3) / SIZE * along
    noise = rng.uniform(0, 0.04) * rng.standard_normal(picture.shape, np.float32)
    lit: Array = np.clip((picture * light[..., None] - 0.5) * rng.uniform(0.75, 1.1) + 0.5 + noise, 0, 1)
    return lit


def _stamp(rng: np.random.Generator, label: int, picture: Array, tag: NDArray[np.bool_]) -> None:
    """Print the tag of a class over a corner: a framed checkerboard in the colour of the class."""
    far = SIZE - TAG_MARGIN - TAG
    top, left = rng.choice((TAG_MARGIN, far), 2)
    board = (_ROWS[:TAG, :TAG] // 4 + _COLUMNS[:TAG, :TAG] // 4) % 2
    mark = np.where(board[..., None] > 0, np.float32(1), np.asarray(_HUES[label], np.float32))
    mark[[0, -1], :] = mark[:, [0, -1]] = 0
    picture[top : top + TAG, left : left + TAG] = mark
    tag[top : top + TAG, left : left + TAG] = True
