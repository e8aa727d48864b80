"""Figures with axes, colour bars and text, laid out in pixels from the top left.

Each has a canvas of its own. pyplot is never used and nothing global is changed, so threads may draw at the same time;
the user's matplotlib style changes no figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from numpy.typing import NDArray

from cnnviz.drawing.colors import colors_of
from cnnviz.drawing.fonts import FAMILY, drawable_titles, families
from cnnviz.drawing.input_images import as_uint8
from cnnviz.drawing.intensity import Floats
from cnnviz.drawing.text import wrapped_to
from cnnviz.explanations.explanation import Explanation

DPI = 100
TEXT, SMALL_TEXT = 10.0, 8.0  # points
LINE_HEIGHT = 18  # pixels from line to line of TEXT
GAP = 12  # pixels
LEGEND_WIDTH = 106  # pixels: of a colour bar with its numbers
SMALLEST, LARGEST = 320, 512  # pixels: of a displayed picture's longer side


@dataclass(frozen=True)
class Legend:
    """The colour bar of one map."""

    colors: Colormap
    peak: float
    """The value drawn at full strength; 0 for a blank map."""
    highest: float
    """The highest value of the map, which may be above the peak."""
    lowest: float = 0.0
    """The value drawn in the first colour; where both signs are drawn, minus the peak."""


def legends(colors: Colormap, maps: Floats, peaks: Floats) -> list[Legend]:
    """A legend for each of the maps (N, ...), whose peaks are (N, 1, ...)."""
    highest = maps.reshape(len(maps), -1).max(1)
    return [Legend(colors, *values) for values in zip(peaks.ravel().tolist(), highest.tolist(), strict=True)]


class PixelFigure:
    """A white matplotlib figure, ``width`` by ``height`` pixels; places are counted from its top left."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self.figure = Figure(((width + 0.5) / DPI, (height + 0.5) / DPI), dpi=DPI, facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Empty axes without ticks."""
        bottom = self.height - top - height
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(place, facecolor="white")
        axes.grid(False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.tick_params(
            labelsize=SMALL_TEXT, labelfontfamily=FAMILY, labelcolor="black", color="black", direction="out"
        )
        return axes

    def picture(self, picture: Floats, left: float, top: float, size: tuple[int, int]) -> None:
        """Draw a picture (h, w, 3), within 0 and 1, stretched to ``size`` (height, width)."""
        axes = self.axes(left, top, size[1], size[0])
        axes.set_axis_off()
        enlarged = size[0] >= picture.shape[0]
        axes.imshow(
            as_uint8(picture), aspect="auto", origin="upper", interpolation="nearest" if enlarged else "antialiased"
        )

    def text(self, lines: Sequence[str], x: float, top: float, align: str = "center", size: float = TEXT) -> None:
        """Draw lines of text below each other, aligned at ``x``: "left", "center" or "right" of it."""
        for number, line in enumerate(lines):
            y = 1 - (top + LINE_HEIGHT * (number + 0.5)) / self.height
            self.figure.text(
                x / self.width,
                y,
                line,
                ha=align,
                va="center_baseline",
                color="black",
                fontsize=size,
                family=families(line),
                parse_math=False,  # a class may be named "$5"
                usetex=False,
            )

    def legend(self, legend: Legend, left: float, top: float, height: float) -> None:
        """Draw a colour bar from the lowest value to the peak, whose label has a "≥" if the map goes above it."""
        axes = self.axes(left, top, 14, height)
        steps = np.linspace(1, 0, 256)[:, None]
        axes.imshow(colors_of(legend.colors, steps), aspect="auto", origin="upper", extent=(0, 1, 0, 1))
        ticks = [0.0, 0.5, 1.0] if legend.peak > 0 else [0.0]  # a blank map has no scale
        span = legend.peak - legend.lowest
        labels = [f"{legend.lowest + tick * span:.3g}" for tick in ticks]
        if legend.highest > legend.peak > 0 and f"{legend.highest:.3g}" != labels[-1]:
            labels[-1] = f"\u2265 {labels[-1]}"
        axes.set_yticks(ticks, labels, usetex=False)
        axes.yaxis.tick_right()
        for spine in axes.spines.values():
            spine.set(linewidth=0.6, edgecolor="black")

    def drawn(self) -> NDArray[np.uint8]:
        """The finished figure, (height, width, 3)."""
        self.canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib does not type its canvas
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]  # nor this


def wrapped(text: str, width: float, size: float = TEXT) -> list[str]:
    """The text in lines of at most ``width`` pixels, as :meth:`PixelFigure.text` draws them at that size in points."""
    canvas = FigureCanvasAgg(Figure((1, 1), dpi=DPI))
    measure = canvas.get_renderer()  # type: ignore[no-untyped-call]  # matplotlib does not type its canvas
    font = FontProperties(family=families(text), size=size)
    return wrapped_to(width, [text], lambda line: float(measure.get_text_width_height_descent(line, font, False)[0]))


def wrapped_titles(explanation: Explanation, width: float) -> list[list[str]]:
    """The title of each input, wrapped, with empty lines before it so that all titles have the same number of lines."""
    titles = [wrapped(title, width) for title in drawable_titles(explanation)]
    most = max(map(len, titles))
    return [[""] * (most - len(title)) + title for title in titles]


def display_size(height: int, width: int) -> tuple[int, int]:
    """The (height, width) of a picture in a figure: a small one is enlarged by a whole number, a large one reduced."""
    longest = max(height, width)
    factor = LARGEST / longest if longest > LARGEST else max(1, SMALLEST // longest)
    return max(1, round(height * factor)), max(1, round(width * factor))
