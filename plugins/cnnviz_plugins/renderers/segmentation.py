"""The object that a map points at, outlined in its picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.colors import is_color_like, to_rgb
from numpy.typing import NDArray

from cnnviz import Explanation, Sign, renderer, segment
from cnnviz_plugins.renderers._arrays import as_uint8, check_rank, check_share, gray, mixed, pictures_of, values_of

Draw = Callable[[Explanation], NDArray[np.uint8]]


@renderer
def segmentation(
    foreground: float = 95.0,
    background: float = 30.0,
    iterations: int = 1,
    sign: Sign = "auto",
    color: str = "yellow",
    dim: float = 0.65,
    box: bool = True,
    outline: bool = True,
) -> Draw:
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
        found = segment(explanation, foreground, background, iterations, sign)
        pictures = pictures_of(explanation)
        masks = found.masks.cpu().numpy()
        drawn = np.where(masks[..., None], pictures, gray(pictures) * (1 - dim))
        width = max(1, round(min(pictures.shape[1:3]) / 150))
        for picture, mask, (left, top, right, bottom) in zip(drawn, masks, found.boxes.tolist(), strict=True):
            if outline:
                picture[_around(mask, width)] = ink
            if box and right > left:
                whole = np.zeros_like(mask)
                whole[top:bottom, left:right] = True
                edge = _around(whole, width)
                picture[edge] = mixed(picture[edge], np.broadcast_to(ink, picture[edge].shape), 0.6)
        return as_uint8(drawn)

    return draw


def _around(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The places just outside of a mask, so many pixels wide."""
    grown = F.max_pool2d(torch.from_numpy(mask)[None].float(), 2 * width + 1, 1, width)[0]
    around: NDArray[np.bool_] = (grown > 0).numpy() & ~mask
    return around
