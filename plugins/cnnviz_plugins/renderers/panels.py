"""The picture, what matters in it, and both together, side by side with titles and colour bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from matplotlib.colors import Colormap, ListedColormap
from numpy.typing import NDArray

from cnnviz import Explanation, Renderer, renderer
from cnnviz.drawing import (
    GAP,
    LEGEND_WIDTH,
    LINE_HEIGHT,
    Floats,
    Legend,
    PixelFigure,
    Scale,
    check_rank,
    colormap_named,
    colors_of,
    display_size,
    fraction_of_peak,
    gray,
    is_coarse,
    legends,
    magnitudes,
    mixed,
    pictures_of,
    resized,
    values_of,
    wrapped_titles,
)

PALE = 230 / 255
FADED = 0.4  # of a picture's contrast, so that both the picture and red on it can be seen
NARROWEST = 150  # pixels, so that a title has room


@renderer(canvas="figure")
def panels(
    contrast: float = 2.0,
    clip: float = 1.0,
    channels: Annotated[Literal["sum", "max"], "how the channels of a place are joined"] = "sum",
    background: Literal["faded", "pale"] = "faded",
    colormap: str | Colormap | None = None,
) -> Renderer:
    """The picture, what matters in it, and both together, with the values' colour bars.

    ``clip`` draws a ``clip``-th of the highest magnitude, and all above it, at full strength; ``contrast`` is the power
    that colours are raised to, more than 1 shows weak places stronger. ``channels="sum"`` adds the magnitudes of a
    place, ``"max"`` takes the magnitude of its highest value. Coarse maps, as CAMs are, lie over the gray picture and
    take no contrast; fine ones over a ``"faded"`` picture, or a ``"pale"`` one where nothing is darker than 230 of
    255. ``colormap`` None is jet for coarse maps and reds on white for fine ones.
    """
    check_strengths(contrast, clip)
    if channels not in ("sum", "max"):
        raise ValueError(f"there is no way {channels!r} to join channels; use 'sum' or 'max'")
    if background not in ("faded", "pale"):
        raise ValueError(f"there is no background {background!r}; use 'faded' or 'pale'")
    chosen = None if colormap is None else colormap_named(colormap)

    def draw(explanation: Explanation) -> NDArray[np.uint8]:
        check_rank(explanation, "panels", 2)
        coarse = is_coarse(explanation)
        maps = magnitudes(explanation) if channels == "sum" or coarse else np.abs(values_of(explanation).max(1))
        maps = resized(maps, explanation.inputs.shape[2:])
        strengths, peaks = clipped(maps, clip)
        colors = chosen or colormap_named("jet" if coarse else "Reds")
        if not coarse:
            colors = contrasted(colors, contrast)
        heat, pictures = colors_of(colors, strengths), pictures_of(explanation)
        over = _under_heat(gray(pictures), heat, "coarse" if coarse else background)
        room = max(display_size(*pictures.shape[1:3])[1], NARROWEST)
        three = zip(pictures, heat, over, strict=True)
        figures = zip(three, wrapped_titles(explanation, room), legends(colors, maps, peaks), strict=True)
        return np.stack([_triple(*figure) for figure in figures])

    return draw


def _under_heat(pictures: Floats, heat: Floats, background: str) -> Floats:
    if background == "coarse":
        return mixed(pictures, heat, 0.3)
    if background == "pale":
        darker: Floats = np.minimum(heat, pictures.clip(PALE))
        return darker
    return heat * (1 - FADED * (1 - pictures))


def clipped(maps: Floats, clip: float) -> tuple[Floats, Floats]:
    """Strengths (N, ...) in 0..1 of magnitudes, and the magnitude of full strength (N, 1, ...)."""
    peaks = Scale("image").peaks(maps) / clip
    return fraction_of_peak(maps, peaks), peaks


def check_strengths(contrast: float, clip: float) -> None:
    """Raises ValueError for powers and divisors that leave nothing to see."""
    if not contrast > 0:
        raise ValueError(f"contrast={contrast} leaves no colours; use a number above 0, 1 for the colour map as it is")
    if not clip >= 1:
        raise ValueError(f"clip={clip} leaves the highest colours unused; use 1 for the whole range, or more")


def contrasted(colors: Colormap, contrast: float) -> Colormap:
    """The colour map from white on, its colours raised to a power."""
    table = colors(np.linspace(0, 1, 256))
    table[0] = 1
    return ListedColormap(table**contrast)


def _triple(pictures: tuple[Floats, Floats, Floats], title: Sequence[str], legend: Legend) -> NDArray[np.uint8]:
    title_height = LINE_HEIGHT * len(title)
    size = display_size(*pictures[0].shape[:2])
    room, row, top = max(size[1], NARROWEST), max(size[0], 3 * LINE_HEIGHT), GAP + title_height + 6
    lefts = (GAP, room + 3 * GAP, 2 * room + 4 * GAP + LEGEND_WIDTH)
    figure = PixelFigure(lefts[2] + room + GAP + LEGEND_WIDTH, top + row + GAP)
    for picture, left, lines in zip(pictures, lefts, (title, ["Importance"], ["Overlay"]), strict=True):
        figure.text(lines, left + room / 2, GAP + title_height - LINE_HEIGHT * len(lines))
        figure.picture(picture, left + (room - size[1]) / 2, top + (row - size[0]) / 2, size)
    for left in lefts[1:]:
        figure.legend(legend, left + room + GAP, top, row)
    return figure.drawn()
