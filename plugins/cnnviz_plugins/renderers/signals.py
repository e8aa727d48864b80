"""Signals and vectors, each point in the colour of how much it matters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cnnviz import Explanation, Renderer, renderer
from cnnviz.drawing import (
    GAP,
    LEGEND_WIDTH,
    LINE_HEIGHT,
    SMALL_TEXT,
    Floats,
    PixelFigure,
    Scale,
    check_rank,
    colormap_named,
    colors_of,
    fraction_of_peak,
    is_coarse,
    magnitudes,
    resized,
    values_of,
    wrapped_titles,
)
from cnnviz_plugins.renderers.panels import check_strengths, clipped, contrasted

WIDTH = 760
TICKS = 72  # room for numbers left of a row
FAINT = 25  # of 256 colours are light gray instead of nearly white, which could not be seen on white
FAINT_GRAY = 0.8


@renderer(ranks=(0, 1), default_for="all")
def line(
    contrast: float = 1.0, clip: float = 1.0, colormap: str | None = None, marks: str | Sequence[float] | None = None
) -> Renderer:
    """Signals in the colours of each point's importance, a row for each channel; of vectors the values as bars.

    ``clip`` draws a ``clip``-th of the highest magnitude, and all above it, at full strength; ``contrast`` is the power
    that colours are raised to. A map of one channel, as CAMs have, colours all rows. ``colormap`` None is turbo for
    coarse maps and reds for fine ones. ``marks`` are places along the signal, counted from 0, to draw a black line at:
    numbers, or text such as ``"30,75.5"``.
    """
    check_strengths(contrast, clip)
    marked = _places(marks)
    chosen = None if colormap is None else colormap_named(colormap)

    def draw(explanation: Explanation) -> NDArray[np.uint8]:
        check_rank(explanation, "line", 0, 1)
        if explanation.inputs.ndim == 2:
            return _bars(explanation, colormap_named(colormap or "RdBu_r"), clip, marked)
        coarse = is_coarse(explanation)
        signals = explanation.inputs.detach().cpu().double().numpy()
        maps = _importance(explanation)
        strengths, peaks = clipped(maps, clip)
        colors = chosen or colormap_named("turbo" if coarse else "Reds")
        if not coarse:
            colors = _seen_on_white(contrasted(colors, contrast))
        ends = peaks.ravel().tolist(), maps.max((1, 2)).tolist()
        each = zip(signals, strengths, wrapped_titles(explanation, WIDTH), *ends, strict=True)
        return np.stack([_rows(*figure, colors, marked) for figure in each])

    return draw


def curve(axes: Axes, points: Floats, strengths: Floats, colors: Colormap) -> None:
    """A signal (L,) as a line, each segment in the colour of the strength (L,) between its ends."""
    at = np.arange(len(points), dtype=np.float64)
    if len(points) == 1:  # a single point has no segment
        axes.scatter(at, points, s=16, color=colors_of(colors, strengths))
    pairs = np.stack([np.stack([at[:-1], points[:-1]], 1), np.stack([at[1:], points[1:]], 1)], 1)
    segments = colors_of(colors, (strengths[:-1] + strengths[1:]) / 2)
    axes.add_collection(LineCollection(list(pairs), colors=segments, linewidths=2, capstyle="round"))


def scales(axes: Axes, shown: Floats, length: int) -> None:
    """Room for all that is shown, and a thin frame."""
    low, high = float(shown.min()), float(shown.max())
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    axes.set_xlim(-0.5, length - 0.5)
    axes.set_ylim(low - margin, high + margin)
    for spine in axes.spines.values():
        spine.set(linewidth=0.6, edgecolor="silver")


def _places(marks: str | Sequence[float] | None) -> list[float]:
    given = marks.split(",") if isinstance(marks, str) else marks or ()
    try:
        return [float(mark) for mark in given]
    except (TypeError, ValueError):
        raise ValueError(f"marks={marks!r} are no places; give numbers with commas between, such as 30,75.5") from None


def _importance(explanation: Explanation) -> Floats:
    """(N, C, L) of the inputs, on one scale for all channels of an input."""
    count, channels, length = explanation.inputs.shape
    if explanation.values.shape[1] == channels and not is_coarse(explanation):
        return resized(np.abs(values_of(explanation)), (length,))
    together = resized(magnitudes(explanation), (length,))
    return np.broadcast_to(together[:, None], (count, channels, length)).copy()


def _seen_on_white(colors: Colormap) -> Colormap:
    table = colors(np.linspace(0, 1, 256))
    table[:FAINT, :3] = FAINT_GRAY
    return ListedColormap(table)


def _rows(
    signal: Floats,
    strengths: Floats,
    title: list[str],
    peak: float,
    highest: float,
    colors: Colormap,
    marks: Sequence[float],
) -> NDArray[np.uint8]:
    row = int(np.clip(1600 // len(signal), 44, 220))
    gap = LINE_HEIGHT + 2 if len(signal) > 1 else 0
    top = 2 * GAP + LINE_HEIGHT * len(title) + gap
    height = len(signal) * (row + gap) - gap
    figure = PixelFigure(TICKS + WIDTH + GAP + LEGEND_WIDTH, top + height + 3 * GAP)
    figure.text(title, TICKS + WIDTH / 2, GAP)
    for channel, (points, strong) in enumerate(zip(signal, strengths, strict=True)):
        above = top + channel * (row + gap)
        axes = figure.axes(TICKS, above, WIDTH, row)
        curve(axes, points, strong, colors)
        _ticks(axes, points, len(points), last=channel == len(signal) - 1)
        _mark(axes, marks)
        if len(signal) > 1:
            figure.text([f"channel {channel}"], TICKS, above - LINE_HEIGHT, "left", SMALL_TEXT)
    figure.legend(colors, peak, highest, TICKS + WIDTH + GAP, top, height)
    return figure.drawn()


def _bars(explanation: Explanation, colors: Colormap, clip: float, marks: Sequence[float]) -> NDArray[np.uint8]:
    """Vectors: how far each feature speaks for the target, upwards, or against it, downwards."""
    values = values_of(explanation)
    peaks = Scale("signed").peaks(values) / clip
    figures, titles = [], wrapped_titles(explanation, WIDTH)
    for bars, strong, title in zip(values, fraction_of_peak(values, peaks), titles, strict=True):
        top = 2 * GAP + LINE_HEIGHT * len(title)
        figure = PixelFigure(TICKS + WIDTH + 2 * GAP, top + 260 + 3 * GAP)
        figure.text(title, TICKS + WIDTH / 2, GAP)
        axes = figure.axes(TICKS, top, WIDTH, 260)
        paint = colors_of(colors, (np.sign(strong) * (0.35 + 0.65 * np.abs(strong)) + 1) / 2)
        axes.bar(np.arange(len(bars)), bars, width=0.8, color=paint)
        axes.axhline(0, color="gray", linewidth=0.8)
        _ticks(axes, np.append(bars, 0), len(bars), last=True)
        _mark(axes, marks)
        figures.append(figure.drawn())
    return np.stack(figures)


def _ticks(axes: Axes, shown: Floats, length: int, last: bool) -> None:
    scales(axes, shown, length)
    ends = sorted({float(shown.min()), float(shown.max())})
    axes.set_yticks(ends, [f"{end:.3g}" for end in ends], usetex=False)
    if last:
        ticks = MaxNLocator(8, integer=True).tick_values(0, length - 1)
        places = sorted({int(tick) for tick in ticks if 0 <= tick < length})
        axes.set_xticks(places, [str(place) for place in places], usetex=False)


def _mark(axes: Axes, marks: Sequence[float]) -> None:
    for mark in marks:
        axes.axvline(mark, color="black", linewidth=1)
