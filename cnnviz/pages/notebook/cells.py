"""Pictures as the template takes them: data in the page, with their words and their colour bar."""

from __future__ import annotations

import io
from base64 import b64encode
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cnnviz.drawing.colors import colors_of
from cnnviz.drawing.figure import Legend
from cnnviz.drawing.montage import Pixels, fitted
from cnnviz.pages.notebook.page import Figure, short

WIDE = 2.8  # times as long are pictures with text of their own
COLORS = 96  # of a colour bar
SHORTEST, LONGEST = 40, 320  # pixels of a colour bar with its numbers


@dataclass(frozen=True)
class Drawn:
    """A picture as the template takes it."""

    content: str
    width: int
    height: int


def cell(figure: Figure, side: int) -> dict[str, object]:
    """The picture at most ``side`` pixels long, what is told of it, and its colour bar."""
    longest = round(side * WIDE) if figure.wide else side
    drawn = None if figure.pixels is None else _drawn(figure.pixels, longest, not figure.wide)
    lines = [short(line) for line in figure.lines]
    return {
        "head": short(figure.head),
        "picture": drawn,
        "lines": lines,
        "told": ", ".join(filter(None, (short(figure.head), *lines))),
        "bar": None if figure.legend is None or drawn is None else _bar(figure.legend, drawn.width),
    }


def _drawn(pixels: Pixels, side: int, enlarge: bool) -> Drawn:
    """As PNG or as JPEG, whichever is shorter. A smaller picture stays as it is, and is shown enlarged."""
    longest = max(pixels.shape[:2])
    pixels = fitted(pixels, side) if longest > side or 2 * longest <= side else pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    photograph, plain = _encoded(image, "JPEG", quality=85, subsampling=0), _encoded(image, "PNG")
    kind, content = ("png", plain) if len(plain) <= len(photograph) else ("jpeg", photograph)
    factor = side / max(image.size) if enlarge else 1.0
    return Drawn(f"data:image/{kind};base64,{content}", *(max(1, round(length * factor)) for length in image.size))


def _encoded(image: Image.Image, kind: str, **settings: int) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return b64encode(stream.getvalue()).decode()


def _bar(legend: Legend, width: int) -> dict[str, object] | None:
    """The colours of the values from the lowest to the highest that is drawn; None for a map that is blank."""
    if legend.peak <= 0:
        return None
    strip = np.round(colors_of(legend.colors, np.linspace(0, 1, COLORS)) * 255).astype(np.uint8)
    content = f"data:image/png;base64,{_encoded(Image.fromarray(strip[None]), 'PNG')}"
    low, high = (f"{value:.3g}" for value in (legend.lowest, legend.peak))
    if abs(legend.lowest) < legend.peak / 1000:  # in three digits of the whole scale
        low = "0"
    if legend.highest > legend.peak and f"{legend.highest:.3g}" != high:
        high = f"≥ {high}"
    length = max(SHORTEST, min(width, LONGEST) - 9 * len(low + high))
    return {"low": low, "high": high, "picture": Drawn(content, length, 10)}
