"""What the numbers of a picture mean: its modes, transparency and bits for each value."""

from __future__ import annotations

import numpy as np
from PIL import Image


def in_mode(picture: Image.Image, mode: str) -> Image.Image:
    """The picture as "L", "RGB" or "RGBA": transparency over white unless kept, 16 bits scaled to 8."""
    if picture.mode.startswith("I;16"):
        values = np.asarray(picture).astype(np.float64) / 257  # Pillow's own conversion would cut off at 255
        picture = Image.fromarray(values.round().astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"a picture of 32-bit numbers (mode {picture.mode}) does not say which value is white; "
            "save it with 8 or 16 bits, or as .npy"
        )
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        if mode != "RGBA":
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    if picture.mode == "LAB":
        raise ValueError("a picture in LAB colours cannot be read; save it in RGB")
    return picture if picture.mode == mode else picture.convert(mode)
