"""What the numbers of a picture mean: its modes, transparency and bits for each value."""

from __future__ import annotations

import numpy as np
from PIL import Image

from cnnviz.images.told import tell


def in_mode(picture: Image.Image, mode: str, deep: bool = False) -> Image.Image:
    """The picture as "L", "RGB" or "RGBA": transparency over white unless kept, 16 bits scaled to 8.

    ``deep`` keeps the 16 bits of a gray picture that is asked for in gray: then it is "I;16".
    """
    if picture.mode.startswith("I;16"):
        values = np.asarray(picture)
        if deep and mode == "L":
            return Image.fromarray(values.astype(np.uint16))
        # Pillow's own conversion would cut off at 255
        picture = Image.fromarray((values.astype(np.float64) / 257).round().astype(np.uint8))
    if picture.mode in ("I", "F"):
        kind = "32-bit floating point" if picture.mode == "F" else "whole numbers of 32 bits, or with a sign"
        raise ValueError(
            f"a picture of {kind} (mode {picture.mode}) does not say which value is white; "
            "save it with 8 or 16 bits scaled to white, or what the network takes as .npy"
        )
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        if mode != "RGBA":
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    if picture.mode == "LAB":
        raise ValueError("a picture in LAB colours cannot be read; save it in RGB")
    return picture if picture.mode == mode else picture.convert(mode)


def tell_few_values(picture: Image.Image, name: str) -> None:
    """Warn of 16 bits of which only the lowest are used, which are nearly black."""
    if not picture.mode.startswith("I;16"):
        return
    highest = int(np.asarray(picture).max(initial=0))
    if 0 < highest < 2**12:
        tell(
            f"{name} has 16 bits and values up to {highest} of 65535, so it is nearly black to the network; if "
            f"{2 ** highest.bit_length() - 1} is white, multiply by {2 ** (16 - highest.bit_length())} first"
        )
