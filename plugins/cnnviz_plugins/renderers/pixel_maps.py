"""Fine maps, one value for each input value, as pictures of their own: gray, coloured, and each sign alone."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cnnviz import Explanation, Renderer, renderer
from cnnviz.drawing import (
    Floats,
    Legend,
    Normalization,
    Scale,
    WithLegends,
    as_uint8,
    check_rank,
    colormap_named,
    magnitudes,
    resized,
    values_of,
)
from cnnviz_plugins.renderers.heatmaps import both_signs

Style = Literal["zero", "minmax", "std"]
STYLES = get_args(Style)


@renderer(default_for="fine", canvas="map")
def grayscale(normalize: Normalization = "percentile", percentile: float = 99.0) -> Renderer:
    """How much each pixel matters: magnitudes summed over channels, from black at the lowest to white at the peak."""
    scale = Scale(normalize, percentile)

    def draw(explanation: Explanation) -> NDArray[np.uint8]:
        check_rank(explanation, "grayscale", 2)
        strengths = scale(scale.above_lowest(resized(magnitudes(explanation), explanation.inputs.shape[2:])))
        return as_uint8(np.repeat(strengths[..., None], 3, -1))

    def tell(explanation: Explanation) -> list[Legend]:
        maps = resized(magnitudes(explanation), explanation.inputs.shape[2:])
        above = scale.above_lowest(maps)
        peaks, black = scale.peaks(above).ravel(), (maps - above).reshape(len(maps), -1).max(1)
        highest, gray = maps.reshape(len(maps), -1).max(1), colormap_named("gray")
        rows = zip(peaks.tolist(), black.tolist(), highest.tolist(), strict=True)
        return [Legend(gray, peak and low + peak, high, low if peak else 0.0) for peak, low, high in rows]

    return WithLegends(draw, tell)


@renderer(canvas="map")
def color(style: Style = "zero", normalize: Normalization = "percentile", percentile: float = 99.5) -> Renderer:
    """The values of red, green and blue as a picture.

    ``style="zero"``: zero is mid gray, the peak of either sign black or white. ``"minmax"``: the lowest value is black
    and the highest white. ``"std"``: the mean is mid gray and a standard deviation a tenth of the range.
    ``normalize`` and ``percentile`` are for ``"zero"``.
    """
    if style not in STYLES:
        raise ValueError(f"there is no style {style!r}; use {', '.join(STYLES)}")
    scale = Scale(normalize, percentile)

    def draw(explanation: Explanation) -> NDArray[np.uint8]:
        check_rank(explanation, "color", 2)
        values = _red_green_blue(explanation)
        if style == "zero":
            return as_uint8(0.5 + scale(values) / 2)
        whole = Scale("image")
        above = whole.above_lowest(values)
        if style == "minmax":
            return as_uint8(whole(above))
        centred, spread = above - above.mean((1, 2, 3), keepdims=True), above.std((1, 2, 3), keepdims=True)
        return as_uint8(0.5 + 0.1 * np.divide(centred, spread, out=np.zeros_like(values), where=spread > 0))

    def tell(explanation: Explanation) -> list[Legend]:
        values = _red_green_blue(explanation)
        return both_signs(colormap_named("gray"), values, scale.peaks(values))

    return WithLegends(draw, tell) if style == "zero" else draw


@renderer(canvas="map")
def positive(normalize: Normalization = "percentile", percentile: float = 99.5) -> Renderer:
    """What speaks for the target, in the colours of the input's channels; zero is black."""
    return _one_sign("positive", 1, Scale(normalize, percentile))


@renderer(canvas="map")
def negative(normalize: Normalization = "percentile", percentile: float = 99.5) -> Renderer:
    """What speaks against the target, in the colours of the input's channels; zero is black."""
    return _one_sign("negative", -1, Scale(normalize, percentile))


def _one_sign(name: str, sign: int, scale: Scale) -> Renderer:
    def draw(explanation: Explanation) -> NDArray[np.uint8]:
        check_rank(explanation, name, 2)
        values = sign * _red_green_blue(explanation)
        return as_uint8(scale(values.clip(0), values))

    return draw


def _red_green_blue(explanation: Explanation) -> Floats:
    """Values (N, H, W, 3), signed: of RGBA the first three, of any other number of channels the mean."""
    values = values_of(explanation)
    values = values[:, :3] if values.shape[1] in (3, 4) else np.repeat(values.mean(1, keepdims=True), 3, 1)
    return np.moveaxis(resized(values, explanation.inputs.shape[2:]), 1, -1)
