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
    Legend,
    PixelFigure,
    Scale,
    check_rank,
    colormap_named,
    colors_of,
    fraction_of_peak,
    is_coarse,
    legends,
    magnitudes,
    resized,
    values_of,
    wrapped_titles,
)
from cnnviz_plugins.renderers.panels import check_strengths, clipped, contrasted

WIDTH = 760
TICKS = 72  # pixels: for numbers left of a row
FAINT = 25  # of 256 colours are light gray instead of nearly white, which cannot be seen on white
FAINT_GRAY = 0.8


@renderer(ranks=(0, 1), default_for="all", canvas="figure")
def line(
    contrast: float = 1.0,
    clip: float = 1.0,
    colormap: str | Colormap | None = None,
    marks: str | Sequence[float] | None = None,
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
        titles = wrapped_titles(explanation, WIDTH)
        figures = zip(signals, strengths, titles, legends(colors, maps, peaks), strict=True)
        return np.stack([_rows(*figure, marked) for figure in figures])

    return draw


def curve(axes: Axes, points: Floats, strengths: Floats, colors: Colormap) -> None:
    """A signal (L,) as a line, each segment in the colour of the strength (L,) between its ends."""
    at = np.arange(len(points), dtype=np.float64)
    if len(points) == 1:  # a single point has no segment
        axes.scatter(at, points, s=16, color=colors_of(colors, strengths))
    pairs = np.stack([np.stack([at[:-1], points[:-1]], 1), np.stack([at[1:], points[1:]], 1)], 1)
    segments = colors_of(colors, (strengths[:-1] + strengths[1:]) / 2)
    axes.add_collection(LineCollection(list(pairs), colors=segments, linewidths=2, capstyle="round"))


def frame(axes: Axes, points: Floats, length: int) -> None:
    """Set the limits of the axes so that all points lie inside, and draw a thin frame."""
    low, high = float(points.min()), float(points.max())
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    axes.set_xlim(-0.5, length - 0.5)
    axes.set_ylim(low - margin, high + margin)
    for spine in axes.spines.values():
        spine.set(linewidth=0.6, edgecolor="silver")


def _places(marks: str | Sequence[float] | None) -> list[float]:
    places = marks.split(",") if isinstance(marks, str) else marks or ()
    try:
        return [float(mark) for mark in places]
    except (TypeError, ValueError):
        raise ValueError(f"marks={marks!r} are no places; give numbers with commas between, such as 30,75.5") from None


def _importance(explanation: Explanation) -> Floats:
    """Magnitudes (N, C, L) at the size of the inputs; a map of one channel is repeated for all channels."""
    count, channels, length = explanation.inputs.shape
    if explanation.values.shape[1] == channels and not is_coarse(explanation):
        return resized(np.abs(values_of(explanation)), (length,))
    single = resized(magnitudes(explanation), (length,))
    return np.broadcast_to(single[:, None], (count, channels, length)).copy()


def _seen_on_white(colors: Colormap) -> Colormap:
    table = colors(np.linspace(0, 1, 256))
    table[:FAINT, :3] = FAINT_GRAY
    return ListedColormap(table)


def _rows(
    signal: Floats, strengths: Floats, title: list[str], legend: Legend, marks: Sequence[float]
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
        curve(axes, points, strong, legend.colors)
        _ticks(axes, points, len(points), last=channel == len(signal) - 1)
        _mark(axes, marks)
        if len(signal) > 1:
            figure.text([f"channel {channel}"], TICKS, above - LINE_HEIGHT, "left", SMALL_TEXT)
    figure.legend(legend, TICKS + WIDTH + GAP, top, height)
    return figure.drawn()


def _bars(explanation: Explanation, colors: Colormap, clip: float, marks: Sequence[float]) -> NDArray[np.uint8]:
    """The values of vectors as bars: evidence for the target upwards, against it downwards."""
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


def _ticks(axes: Axes, points: Floats, length: int, last: bool) -> None:
    frame(axes, points, length)
    ends = sorted({float(points.min()), float(points.max())})
    axes.set_yticks(ends, [f"{end:.3g}" for end in ends], usetex=False)
    if last:
        ticks = MaxNLocator(8, integer=True).tick_values(0, length - 1)
        places = sorted({int(tick) for tick in ticks if 0 <= tick < length})
        axes.set_xticks(places, [str(place) for place in places], usetex=False)


def _mark(axes: Axes, marks: Sequence[float]) -> None:
    for mark in marks:
        axes.axvline(mark, color="black", linewidth=1)
