"""Figures laid out in pixels from the top left, on canvases of their own, with text wrapped to its place.

pyplot is never used and nothing is kept, so threads may draw side by side; a user's style changes no figure.
"""

from __future__ import annotations

import textwrap
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from numpy.typing import NDArray

from cnnviz_plugins.renderers._arrays import as_uint8, colors_of
from cnnviz_plugins.renderers._intensity import Floats

DPI = 100
FONT = "DejaVu Sans"  # comes with matplotlib
TEXT, SMALL = 10.0, 8.0
LINE = 18  # from line to line of TEXT
GAP = 12
LEGEND = 106  # a colour bar with its numbers
SMALLEST, LARGEST = 320, 512


class Sheet:
    """A white figure being drawn, width by height pixels."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self.figure = Figure(((width + 0.5) / DPI, (height + 0.5) / DPI), dpi=DPI, facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """An empty place without ticks."""
        bottom = self.height - top - height
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(place, facecolor="white")
        axes.grid(False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.tick_params(labelsize=SMALL, labelfontfamily=FONT, labelcolor="black", color="black", direction="out")
        return axes

    def picture(self, picture: Floats, left: float, top: float, size: tuple[int, int]) -> None:
        """A picture (h, w, 3) in 0..1 stretched to a size (height, width)."""
        axes = self.axes(left, top, size[1], size[0])
        axes.set_axis_off()
        enlarged = size[0] >= picture.shape[0]
        axes.imshow(
            as_uint8(picture), aspect="auto", origin="upper", interpolation="nearest" if enlarged else "antialiased"
        )

    def text(self, lines: Sequence[str], x: float, top: float, align: str = "center", size: float = TEXT) -> None:
        """Lines of text below each other, aligned at x."""
        for number, line in enumerate(lines):
            y = 1 - (top + LINE * (number + 0.5)) / self.height
            self.figure.text(
                x / self.width,
                y,
                line,
                ha=align,
                va="center_baseline",
                color="black",
                fontsize=size,
                family=FONT,
                parse_math=False,  # a class may be named "$5"
                usetex=False,
            )

    def legend(self, colors: Colormap, peak: float, highest: float, left: float, top: float, height: float) -> None:
        """A colour bar from 0 to the peak, which says where values go on beyond it up to the highest."""
        axes = self.axes(left, top, 14, height)
        steps = np.linspace(1, 0, 256)[:, None]
        axes.imshow(colors_of(colors, steps), aspect="auto", origin="upper", extent=(0, 1, 0, 1))
        ticks = [0.0, 0.5, 1.0] if peak > 0 else [0.0]  # a blank map has no scale
        labels = [f"{tick * peak:.3g}" for tick in ticks]
        if highest > peak > 0 and f"{highest:.3g}" != labels[-1]:
            labels[-1] = f"\u2265 {labels[-1]}"
        axes.set_yticks(ticks, labels, usetex=False)
        axes.yaxis.tick_right()
        for spine in axes.spines.values():
            spine.set(linewidth=0.6, edgecolor="black")

    def drawn(self) -> NDArray[np.uint8]:
        """The finished figure (height, width, 3)."""
        self.canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib does not type its canvas
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]  # nor this


def wrapped(text: str, width: float, size: float = TEXT) -> list[str]:
    """Lines as long as fit so many pixels; words are broken only where one alone is too long."""
    canvas = FigureCanvasAgg(Figure((1, 1), dpi=DPI))
    measure = canvas.get_renderer()  # type: ignore[no-untyped-call]  # matplotlib does not type its canvas
    font = FontProperties(family=FONT, size=size)

    def too_wide(letters: int) -> bool:
        lines = textwrap.wrap(text, letters)
        return any(measure.get_text_width_height_descent(line, font, False)[0] > width for line in lines)

    return textwrap.wrap(text, max(1, bisect_left(range(1, len(text) + 1), True, key=too_wide)))


def shown_size(height: int, width: int) -> tuple[int, int]:
    """How large a picture is shown: small ones in whole multiples, so that no pixel is smeared, large ones reduced."""
    longest = max(height, width)
    factor = LARGEST / longest if longest > LARGEST else max(1, SMALLEST // longest)
    return max(1, round(height * factor)), max(1, round(width * factor))
