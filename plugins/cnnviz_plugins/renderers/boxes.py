"""The detections that are explained, drawn over the map."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import Colormap, to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cnnviz import Explanation, Renderer, renderer
from cnnviz.drawing import check_rank
from cnnviz_plugins.renderers.heatmaps import overlay

COLORS = ("#ffffff", "#ff3db8", "#3dff6e", "#ffb53d", "#3db8ff", "#c9ff3d")


@renderer
def boxes(colormap: str | Colormap = "turbo", opacity: float = 0.7, width: int | None = None) -> Renderer:
    """The map over its picture, and around each detection that is explained its box, in a colour of its own.

    ``width`` is that of the lines in pixels; None suits the picture's size. Of other targets the map is alone.
    """
    if width is not None and width < 1:
        raise ValueError(f"width={width} draws nothing; use 1 or more")
    under = overlay(colormap=colormap, opacity=opacity)

    def draw(explanation: Explanation) -> NDArray[np.uint8]:
        check_rank(explanation, "boxes", 2)
        pictures: NDArray[np.uint8] = under(explanation)
        if explanation.boxes is None:
            return pictures
        sizes = explanation.inputs.shape[2:], pictures.shape[1:3]
        rows, columns = (drawn / own for own, drawn in zip(*sizes, strict=True))
        places = explanation.boxes.double().cpu().numpy() * np.array([columns, rows, columns, rows])
        line = width or max(1, round(min(sizes[1]) / 100))
        return np.stack([_outlined(*item, line) for item in zip(pictures, places, strict=True)])

    return draw


def _outlined(picture: NDArray[np.uint8], places: NDArray[np.float64], width: int) -> NDArray[np.uint8]:
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    for number, (left, top, right, bottom) in enumerate(places.tolist()):
        color = tuple(round(255 * share) for share in to_rgb(COLORS[number % len(COLORS)]))
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=color, width=width)
    return np.asarray(canvas)
