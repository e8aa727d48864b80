"""Volumes as the slices a reader would leaf through."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cnnviz import Explanation, renderer
from cnnviz_plugins.drawing import check_rank, check_share, colormap_named, colors_of, heat, mixed, pictures_of
from cnnviz_plugins.normalization import Floats, Scale
from cnnviz_plugins.sheets import GAP, LINE, SMALL, Sheet, shown_size, wrapped

Draw = Callable[[Explanation], NDArray[np.uint8]]
SMALLEST = 96  # pixels, so that a label has room


@renderer
def slices(
    count: int = 9,
    axis: int = 0,
    colormap: str = "turbo",
    opacity: float = 0.7,
    normalize: str | float = "percentile",
    percentile: float = 99.9,
    absolute: bool = False,
) -> Draw:
    """Evenly spaced slices across a spatial axis with the map over them, and the highest of all slices at each place.

    The labels count slices from 0. One scale is used for all slices of a volume.
    """
    if count < 1:
        raise ValueError(f"count={count} shows nothing; use 1 or more")
    if axis not in (0, 1, 2):
        raise ValueError(f"axis={axis} is not one of a volume's; use 0 (depth), 1 (height) or 2 (width)")
    check_share("opacity", opacity)
    colors, scale = colormap_named(colormap), Scale(normalize, percentile)
    across = ("depth", "height", "width")[axis]

    def draw(explanation: Explanation) -> NDArray[np.uint8]:
        check_rank(explanation, "slices", 3)
        warmth = np.moveaxis(heat(explanation, scale, absolute), axis + 1, 1)
        volumes = np.moveaxis(pictures_of(explanation), axis + 1, 1)
        depth = warmth.shape[1]
        shown = min(count, depth)
        places = [(2 * number + 1) * depth // (2 * shown) for number in range(shown)]  # the middles of equal parts
        labels = [*(f"{across} {place}" for place in places), "maximum"]
        under = np.concatenate([volumes[:, places], volumes.max(1, keepdims=True)], 1)
        strengths = np.concatenate([warmth[:, places], warmth.max(1, keepdims=True)], 1)
        cells = mixed(under, colors_of(colors, strengths), opacity * strengths)
        return _grids(cells, labels, explanation.titles())

    return draw


def _grids(cells: Floats, labels: Sequence[str], titles: Sequence[str]) -> NDArray[np.uint8]:
    height, width = shown_size(*cells.shape[2:4])
    columns = _columns(len(labels))
    room = max(width, SMALLEST)
    whole = columns * (room + GAP) + GAP
    wrapped_titles = [wrapped(title, whole - 2 * GAP) for title in titles]
    top = 2 * GAP + LINE * max(map(len, wrapped_titles))
    rows = -(-len(labels) // columns)
    figures = []
    for each, title in zip(cells, wrapped_titles, strict=True):
        sheet = Sheet(whole, top + rows * (height + LINE + GAP))
        sheet.text(title, whole / 2, GAP)
        for number, (cell, label) in enumerate(zip(each, labels, strict=True)):
            left = GAP + number % columns * (room + GAP)
            above = top + number // columns * (height + LINE + GAP)
            sheet.text([label], left + room / 2, above, size=SMALL)
            sheet.picture(cell, left + (room - width) / 2, above + LINE, (height, width))
        figures.append(sheet.drawn())
    return np.stack(figures)


def _columns(cells: int) -> int:
    """Nearly a square, with as few places left empty as may be."""
    side = int(np.ceil(np.sqrt(cells)))
    return min(range(side, 2 * side), key=lambda columns: (-cells % columns, columns))
