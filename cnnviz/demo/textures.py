"""Natural textures: photographs that come with scikit-image, cut in two.

The left half serves training, the right half held-out pictures: no held-out pixel was ever trained on.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files
from typing import Any

import numpy as np
from numpy.typing import NDArray

PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png",
    "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png",
    "retina.jpg", "rocket.jpg",
)  # fmt: skip
NARROWEST, WIDEST = 100, 320  # the shorter side of a texture


@cache
def textures(held_out: bool) -> tuple[tuple[NDArray[np.floating[Any]], ...], ...]:
    """For each photograph, its half at up to three scales: (H, W, 3) in 0..1."""
    from PIL import Image

    try:
        folder = files("skimage") / "data"
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the demo's textures come with scikit-image, which is not installed; pip install scikit-image"
        ) from error
    halves = []
    for name in PHOTOGRAPHS:
        with as_file(folder / name) as path, Image.open(path) as photograph:
            whole = photograph.convert("RGB")
        middle = whole.width // 2
        half = whole.crop((middle if held_out else 0, 0, whole.width if held_out else middle, whole.height))
        largest = min(1.0, WIDEST / min(half.size))
        sizes = [(round(half.width * scale), round(half.height * scale)) for scale in
                 (largest, 0.7 * largest, 0.5 * largest)]  # fmt: skip
        scaled = [half.resize(size, Image.Resampling.LANCZOS) for size in sizes if min(size) >= NARROWEST]
        halves.append(tuple(np.asarray(picture, np.float32) / 255 for picture in scaled))
    return tuple(halves)


def crop(rng: np.random.Generator, size: int, held_out: bool) -> NDArray[np.floating[Any]]:
    """A square piece of one photograph, mirrored or not: (size, size, 3) in 0..1."""
    photographs = textures(held_out)
    scales = photographs[rng.integers(len(photographs))]
    half = scales[rng.integers(len(scales))]
    top, left = rng.integers(half.shape[0] - size + 1), rng.integers(half.shape[1] - size + 1)
    piece = half[top : top + size, left : left + size]
    return piece[:, ::-1] if rng.random() < 0.5 else piece
