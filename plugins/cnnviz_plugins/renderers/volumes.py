"""Volumes as pictures: slices, and maximum projections along the three axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import Colormap
from numpy.typing import NDArray

from cnnviz import Explanation, Renderer, renderer
from cnnviz.drawing import (
    GAP,
    LEGEND_WIDTH,
    LINE_HEIGHT,
    SMALL_TEXT,
    Floats,
    Legend,
    Normalization,
    PixelFigure,
    Scale,
    WithLegends,
    check_rank,
    check_share,
    colormap_named,
    colors_of,
    display_size,
    drawable_titles,
    fraction_of_peak,
    heat,
    heat_and_peaks,
    legends,
    mixed,
    pictures_of,
    wrapped,
)

SMALLEST = 96  # pixels, so that a label has room
AXES = ("depth", "height", "width")


@renderer(ranks=(3,), default_for="all", canvas="figure")
def slices(
    count: int = 9,
    axis: int = 0,
    colormap: str | Colormap = "turbo",
    opacity: float = 0.7,
    normalize: Normalization = "percentile",
    percentile: float = 99.9,
    absolute: bool = False,
) -> Renderer:
    """Evenly spaced slices across a spatial axis with the map over them, and the highest of all slices at each place.

    The labels count slices from 0. One scale is used for all slices of a volume.
    """
    if count < 1:
        raise ValueError(f"count={count} shows nothing; use 1 or more")
    if axis not in (0, 1, 2):
        raise ValueError(f"axis={axis} is not one of a volume's; use 0 (depth), 1 (height) or 2 (width)")
    check_share("opacity", opacity)
    colors, scale = colormap_named(colormap), Scale(normalize, percentile)
    across = AXES[axis]

    def draw(explanation: Explanation) -> NDArray[np.uint8]:
        check_rank(explanation, "slices", 3)
        maps = np.moveaxis(heat(explanation, scale, absolute), axis + 1, 1)
        volumes = np.moveaxis(pictures_of(explanation), axis + 1, 1)
        depth = maps.shape[1]
        most = min(count, depth)
        places = [(2 * number + 1) * depth // (2 * most) for number in range(most)]  # the middles of equal parts
        labels = [*(f"{across} {place}" for place in places), "maximum"]
        under = np.concatenate([volumes[:, places], volumes.max(1, keepdims=True)], 1)
        strengths = np.concatenate([maps[:, places], maps.max(1, keepdims=True)], 1)
        cells = mixed(under, colors_of(colors, strengths), opacity * strengths)
        return _grids(cells, labels, drawable_titles(explanation))

    return WithLegends(draw, lambda explanation: legends(colors, *heat_and_peaks(explanation, scale, absolute)))


@renderer(ranks=(3,), canvas="figure")
def projection(
    colormap: str | Colormap = "turbo",
    opacity: float = 0.7,
    normalize: Normalization = "percentile",
    percentile: float = 99.9,
    absolute: bool = False,
) -> Renderer:
    """Maximum projections along each axis: the volume above, and the map's over it below.

    Of everything behind one point the brightest is seen, and of the map the strongest. The bar tells its values.
    """
    check_share("opacity", opacity)
    colors, scale = colormap_named(colormap), Scale(normalize, percentile)

    def draw(explanation: Explanation) -> NDArray[np.uint8]:
        check_rank(explanation, "projection", 3)
        maps, peaks = heat_and_peaks(explanation, scale, absolute)
        inputs = zip(pictures_of(explanation), fraction_of_peak(maps, peaks), strict=True)
        pairs = [_maximum_projections(volume, strengths, colors, opacity) for volume, strengths in inputs]
        whole = sum(_sides(explanation.inputs.shape[2:])[1]) + 4 * GAP
        titles = [wrapped(title, whole) for title in drawable_titles(explanation)]
        tallest = LINE_HEIGHT * max(map(len, titles))
        figures = zip(pairs, titles, legends(colors, maps, peaks), strict=True)
        return np.stack([_projections(*figure, tallest) for figure in figures])

    return draw


def _maximum_projections(
    volume: Floats, strengths: Floats, colors: Colormap, opacity: float
) -> tuple[list[Floats], list[Floats]]:
    """Maximum projections of the volume (D, H, W, 3) along its axes, and with those of the map (D, H, W) over them."""
    under = [volume.max(axis) for axis in range(3)]
    heats = [strengths.max(axis) for axis in range(3)]
    over = [mixed(side, colors_of(colors, heat), opacity * heat) for side, heat in zip(under, heats, strict=True)]
    return under, over


def _sides(shape: Sequence[int]) -> tuple[float, list[float]]:
    """The factor by which all lengths of a volume are enlarged, and the width of the column of each projection."""
    factor = display_size(max(shape), 1)[0] / max(shape)
    return factor, [max(length * factor, SMALLEST) for length in (shape[2], shape[2], shape[1])]


def _projections(
    pair: tuple[list[Floats], list[Floats]], title: Sequence[str], legend: Legend, title_height: int
) -> NDArray[np.uint8]:
    depth, (height, width) = pair[0][1].shape[0], pair[0][0].shape[:2]
    factor, rooms = _sides((depth, height, width))
    row = max(depth, height) * factor
    lefts = [GAP + sum(rooms[:column]) + GAP * column for column in range(3)]
    right = lefts[2] + rooms[2] + GAP
    top = 2 * GAP + title_height
    figure = PixelFigure(round(right + LEGEND_WIDTH), round(top + LINE_HEIGHT + 2 * row + 2 * GAP))
    figure.text(title, right / 2, GAP)
    for column, (left, room) in enumerate(zip(lefts, rooms, strict=True)):
        figure.text([f"along {AXES[column]}"], left + room / 2, top, size=SMALL_TEXT)
        for number, pictures in enumerate(pair):
            rows, columns = (max(1, round(length * factor)) for length in pictures[column].shape[:2])
            above = top + LINE_HEIGHT + number * (row + GAP)
            figure.picture(pictures[column], left + (room - columns) / 2, above + (row - rows) / 2, (rows, columns))
    figure.legend(legend, right, top + LINE_HEIGHT + row + GAP, row)
    return figure.drawn()


def _grids(cells: Floats, labels: Sequence[str], titles: Sequence[str]) -> NDArray[np.uint8]:
    height, width = display_size(*cells.shape[2:4])
    columns = _columns(len(labels))
    room = max(width, SMALLEST)
    whole = columns * (room + GAP) + GAP
    wrapped_titles = [wrapped(title, whole - 2 * GAP) for title in titles]
    top = 2 * GAP + LINE_HEIGHT * max(map(len, wrapped_titles))
    rows = -(-len(labels) // columns)
    figures = []
    for pictures, title in zip(cells, wrapped_titles, strict=True):
        figure = PixelFigure(whole, top + rows * (height + LINE_HEIGHT + GAP))
        figure.text(title, whole / 2, GAP)
        for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
            left = GAP + number % columns * (room + GAP)
            above = top + number // columns * (height + LINE_HEIGHT + GAP)
            figure.text([label], left + room / 2, above, size=SMALL_TEXT)
            figure.picture(picture, left + (room - width) / 2, above + LINE_HEIGHT, (height, width))
        figures.append(figure.drawn())
    return np.stack(figures)


def _columns(cells: int) -> int:
    """The number of columns that leaves the fewest places empty, among those that give nearly a square."""
    side = int(np.ceil(np.sqrt(cells)))
    return min(range(side, 2 * side), key=lambda columns: (-cells % columns, columns))
