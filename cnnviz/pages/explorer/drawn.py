"""Results as pictures and files for the page."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cnnviz.drawing.arrays import heat_and_peaks, values_of
from cnnviz.drawing.arrays import resized as enlarged
from cnnviz.drawing.colors import colormap_named, colors_of
from cnnviz.drawing.intensity import Scale
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.originals import At
from cnnviz.images.writing import encoded
from cnnviz.registry.registry import RendererMethod

VALUES = (".npz", ".npy", ".safetensors")
STOPS = 16
"""Colours that tell a colour map."""
SHOWN = 1024
"""Pixels of the longer side of a picture that is only looked at."""


def drawn(explanation: Explanation, renderer: RendererMethod, settings: Mapping[str, Any], at: At) -> bytes:
    """The picture as PNG. Raises what :meth:`cnnviz.Explanation.render` raises."""
    return encoded(explanation.render(renderer(**settings), at)[0], ".png")


def scale(explanation: Explanation, renderer: RendererMethod, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the colours mean: some of the colour map, and the values at its ends; None where there is no such scale.

    By the settings that renderers share: who has ``absolute`` draws heat from zero to a peak, who has not draws both
    signs around zero.
    """
    known = renderer.settings
    if not {"colormap", "normalize", "percentile"} <= set(known) or explanation.inputs.ndim != 4:
        return None
    values = {name: parameter.default for name, parameter in known.items()} | dict(settings)
    policy = Scale(values["normalize"], values["percentile"])
    if "absolute" in known:
        _, peaks = heat_and_peaks(explanation, policy, values["absolute"])
        ends = 0.0, float(peaks.max())
    else:
        summed = enlarged(values_of(explanation).sum(1), tuple(explanation.inputs.shape[2:]))
        peak = float(policy.peaks(summed).max())
        ends = -peak, peak
    colors = colors_of(colormap_named(values["colormap"]), np.linspace(0, 1, STOPS))
    stops = ["#" + "".join(f"{round(255 * part):02x}" for part in color) for color in colors.tolist()]
    return {"colors": stops, "low": ends[0], "high": ends[1], "blank": not math.isfinite(ends[1]) or ends[1] == 0}


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
