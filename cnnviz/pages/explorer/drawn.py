"""Results as pictures and files for the page."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cnnviz.drawing.colors import colors_of
from cnnviz.drawing.telling import legends_of
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.originals import At
from cnnviz.images.writing import encoded
from cnnviz.registry.registry import RendererMethod

VALUES = (".npz", ".npy", ".safetensors")
STOPS = 16
"""Colours that tell a colour map."""
SHOWN = 1024
"""Pixels of the longer side of a picture that is only looked at."""


def drawn(
    explanation: Explanation, renderer: RendererMethod, settings: Mapping[str, Any], at: At, most: int | None
) -> bytes:
    """The picture as PNG, at most so many pixels on a side. Raises what :meth:`cnnviz.Explanation.render` raises."""
    pixels = explanation.render(renderer(**settings), at)[0]
    return encoded(pixels, ".png") if most is None or max(pixels.shape) <= most else shown(Image.fromarray(pixels))


def scale(explanation: Explanation, renderer: RendererMethod, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the colours mean: colours of the colour map, and the values at its ends; None where no renderer tells it."""
    told = legends_of(renderer(**settings), explanation)
    if told is None:
        return None
    (legend,) = told
    colors = colors_of(legend.colors, np.linspace(0, 1, STOPS))
    stops = ["#" + "".join(f"{round(255 * part):02x}" for part in color) for color in colors.tolist()]
    return {"colors": stops, "low": legend.lowest, "high": legend.peak, "blank": not legend.peak > 0}


def values_file(explanation: Explanation, suffix: str) -> bytes:
    """The file that :meth:`cnnviz.Explanation.save` writes."""
    with tempfile.TemporaryDirectory(prefix="cnnviz-") as folder:
        (path,) = explanation.save(Path(folder) / f"values{suffix}")
        return path.read_bytes()


def shown(image: Image.Image) -> bytes:
    """A picture for the page, which browsers can show whatever it was, as PNG."""
    copy = image.copy()
    copy.thumbnail((SHOWN, SHOWN))
    if copy.mode not in ("L", "RGB", "RGBA"):
        copy = copy.convert("RGB")
    stream = io.BytesIO()
    copy.save(stream, "PNG")
    return stream.getvalue()
