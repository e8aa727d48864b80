"""The object that a map points at, outlined in its picture."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from matplotlib.colors import is_color_like, to_rgb
from numpy.typing import NDArray
from skimage.morphology import dilation

from cnnviz import Explanation, Renderer, renderer, segment
from cnnviz.drawing import as_uint8, check_rank, check_share, gray, mixed, pictures_of, values_of
from cnnviz.explanations import Sign


@renderer(canvas="map")
def segmentation(
    foreground: float = 95.0,
    background: Annotated[float, "percentile of the map up to which places are of the rest"] = 30.0,
    iterations: int = 1,
    sign: Sign = "auto",
    color: str = "yellow",
    dim: float = 0.65,
    box: bool = True,
    outline: bool = True,
) -> Renderer:
    """The object that the map points at, with its outline and its box; the rest of the picture is gray and dim.

    ``foreground`` and ``background`` are percentiles of the map, ``iterations`` the number of cuts: see
    :func:`cnnviz.segment`. ``dim`` is how dark the rest is, 0 to 1. Where the map is blank, nothing stands out.
    """
    check_share("dim", dim)
    if not is_color_like(color):
        raise ValueError(f"there is no color {color!r}; use one of matplotlib's, such as 'yellow' or '#ff8800'")
    ink = np.array(to_rgb(color))

    def draw(explanation: Explanation) -> NDArray[np.uint8]:
        check_rank(explanation, "segmentation", 2)
        values_of(explanation)
        segmented = segment(explanation, foreground, background, iterations, sign)
        pictures = pictures_of(explanation)
        masks = segmented.masks.cpu().numpy()
        drawn = np.where(masks[..., None], pictures, gray(pictures) * (1 - dim))
        pen = np.ones((2 * max(1, round(min(pictures.shape[1:3]) / 150)) + 1,) * 2)
        for picture, mask, (left, top, right, bottom) in zip(drawn, masks, segmented.boxes.tolist(), strict=True):
            if outline:
                picture[dilation(mask, pen) & ~mask] = ink
            if box and right > left:
                inside = np.zeros_like(mask)
                inside[top:bottom, left:right] = True
                edge = dilation(inside, pen) & ~inside
                picture[edge] = mixed(picture[edge], np.broadcast_to(ink, picture[edge].shape), 0.6)
        return as_uint8(drawn)

    return draw
