"""A small batch run of drawn pictures, of which one is damaged, as several tests read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((40, 56), (48, 48), (64, 50), (48, 48), (72, 48), (48, 60), (50, 50))
BROKEN = 3
"""The number of the item that is no picture."""
METHODS = ("grad_cam", "gradient")


@dataclass(frozen=True)
class Run:
    """A folder of pictures, and the batch run over them."""

    pictures: Path
    out: Path

    @property
    def files(self) -> list[Path]:
        return sorted(self.pictures.rglob("*.png"))


def draw_pictures(folder: Path) -> None:
    noise = np.random.default_rng(0)
    for number, (height, width) in enumerate(SIZES):
        file = folder / f"{'ab'[number % 2]}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (height, width, 3), np.uint8)).save(file)
