"""Where a map is warm: pictures of the inputs' own size, coloured by the strength of each place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from matplotlib.colors import Colormap
from numpy.typing import NDArray

from cnnviz import Explanation, Renderer, renderer
from cnnviz.drawing import (
    GAP,
    LEGEND_WIDTH,
    LINE_HEIGHT,
    Floats,
    Legend,
    Normalization,
    PixelFigure,
    Scale,
    WithLegends,
    as_uint8,
    check_rank,
    check_share,
    colormap_named,
    colors_of,
    display_size,
    fraction_of_peak,
    gray,
    heat_and_peaks,
    legends,
    mixed,
    pictures_of,
    resized,
    values_of,
)

Blend = Literal["heat", "alpha", "sum"]
Background = Literal["color", "gray"]


@renderer(canvas="map")
def heatmap(
    colormap: str | Colormap = "turbo",
    normalize: Normalization = "percentile",
    percentile: float = 99.5,
    absolute: bool = False,
    bar: bool = False,
) -> Renderer:
    """The map alone, in colours: what speaks for the target, with ``absolute`` also what speaks against it.

    ``bar`` puts a colour bar with the values beside it.
    """
    colors, scale = colormap_named(colormap), Scale(normalize, percentile)

    def draw(explanation: Explanation) -> NDArray[np.uint8]:
        check_rank(explanation, "heatmap", 2)
        maps, peaks = heat_and_peaks(explanation, scale, absolute)
        pictures = colors_of(colors, fraction_of_peak(maps, peaks))
        return _beside_legends(pictures, legends(colors, maps, peaks)) if bar else as_uint8(pictures)

    return draw if bar else _telling(draw, colors, scale, absolute)


@renderer(default_for="coarse")
def overlay(
    colormap: str | Colormap = "turbo",
    opacity: float = 0.7,
    blend: Blend = "heat",
    background: Background = "color",
    normalize: Normalization = "percentile",
    percentile: float = 99.5,
    absolute: bool = False,
    bar: bool = False,
) -> Renderer:
    """The map over its picture, more opaque where it is warmer.

    ``blend="alpha"`` lays it evenly, ``"sum"`` adds both and divides by the brightest; ``background="gray"`` takes
    the picture's colours away; ``bar`` puts a colour bar with the values beside it.
    """
    if blend not in get_args(Blend):
        raise ValueError(f"there is no blend {blend!r}; use {', '.join(get_args(Blend))}")
    if background not in ("color", "gray"):
        raise ValueError(f"there is no background {background!r}; use 'color' or 'gray'")
    check_share("opacity", opacity)
    colors, scale = colormap_named(colormap), Scale(normalize, percentile)

    def draw(explanation: Explanation) -> NDArray[np.uint8]:
        check_rank(explanation, "overlay", 2)
        pictures = pictures_of(explanation)
        under = gray(pictures) if background == "gray" else pictures
        maps, peaks = heat_and_peaks(explanation, scale, absolute)
        strengths = fraction_of_peak(maps, peaks)
        over = colors_of(colors, strengths)
        if blend == "sum":
            both = _over_brightest(under + over)
        else:
            both = mixed(under, over, opacity * strengths if blend == "heat" else opacity)
        return _beside_legends(both, legends(colors, maps, peaks)) if bar else as_uint8(both)

    return draw if bar else _telling(draw, colors, scale, absolute)


@renderer(canvas="map")
def diverging(
    colormap: str | Colormap = "RdBu_r",
    fade: float = 0.6,
    normalize: Normalization = "percentile",
    percentile: float = 99.5,
) -> Renderer:
    """Both signs, as far from the middle colour as they are from zero, over the gray picture.

    ``fade`` is how pale the picture is; at 1 the map is alone. Several channels are summed.
    """
    check_share("fade", fade)
    colors, scale = colormap_named(colormap), Scale(normalize, percentile)

    def values(explanation: Explanation) -> Floats:
        return resized(values_of(explanation).sum(1), explanation.inputs.shape[2:])

    def tell(explanation: Explanation) -> list[Legend]:
        maps = values(explanation)
        return both_signs(colors, maps, scale.peaks(maps))

    def draw(explanation: Explanation) -> NDArray[np.uint8]:
        check_rank(explanation, "diverging", 2)
        strengths = scale(values(explanation))
        over = colors_of(colors, (strengths + 1) / 2)
        if fade == 1:
            return as_uint8(over)
        pale = 1 - (1 - fade) * (1 - gray(pictures_of(explanation)))
        return as_uint8(mixed(pale, over, np.sqrt(np.abs(strengths))))

    return WithLegends(draw, tell)


def both_signs(colors: Colormap, maps: Floats, peaks: Floats) -> list[Legend]:
    """A legend for each of the maps (N, ...) from minus its peak (N, 1, ...) to its peak."""
    return [
        replace(legend, lowest=-legend.peak, highest=float(np.abs(values).max()))
        for legend, values in zip(legends(colors, maps, peaks), maps, strict=True)
    ]


def _telling(draw: Renderer, colors: Colormap, scale: Scale, absolute: bool) -> WithLegends:
    """The renderer of heat in these colours, with its legends."""
    return WithLegends(draw, lambda explanation: legends(colors, *heat_and_peaks(explanation, scale, absolute)))


def _beside_legends(pictures: Floats, bars: Sequence[Legend]) -> NDArray[np.uint8]:
    size = display_size(*pictures.shape[1:3])
    height = max(size[0], 3 * LINE_HEIGHT)
    figures = []
    for picture, legend in zip(pictures, bars, strict=True):
        figure = PixelFigure(GAP + size[1] + GAP + LEGEND_WIDTH, height + 2 * GAP)
        figure.picture(picture, GAP, GAP + (height - size[0]) / 2, size)
        figure.legend(legend, 2 * GAP + size[1], GAP, height)
        figures.append(figure.drawn())
    return np.stack(figures)


def _over_brightest(pictures: Floats) -> Floats:
    brightest: Floats = pictures.max((1, 2, 3), keepdims=True)
    return np.divide(pictures, brightest, out=np.zeros_like(pictures), where=brightest > 0)
