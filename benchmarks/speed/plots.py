"""Pictures of what was measured, each with the device and the versions it is of; their page has the commands."""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from benchmarks.speed.rows import Point, Row, median_ratio

COLORS = {"squeezenet1_0": "#1b6ca8", "mobilenet_v2": "#d1495b", "resnet50": "#2e8b57", "vgg16": "#b07aa1"}
OTHERS = ("#555555", "#e08e0b", "#00838f", "#7b5ea7")


def speed_picture(rows: Sequence[Row], caption: str, path: Path) -> None:
    """Every ratio to a peer on a logarithmic axis, a line for each method and peer."""
    rows = [row for row in rows if row.theirs]
    lines = sorted(dict.fromkeys((row.method, row.peer) for row in rows))
    figure = Figure(figsize=(10, 1.8 + 0.26 * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    batches = sorted({row.batch for row in rows})
    for height, line in enumerate(reversed(lines)):
        compared = [row for row in rows if (row.method, row.peer) == line]
        ratios = [median_ratio(row.ours, row.theirs) for row in compared]
        for row, ratio in zip(compared, ratios, strict=True):
            color, marker = COLORS.get(row.network, "#555555"), "o" if row.batch == batches[0] else "s"
            axes.plot(ratio, height, marker, color=color, markersize=4.5, alpha=0.75, markeredgewidth=0)
        axes.plot(geometric_mean(ratios), height, "|", color="black", markersize=13, markeredgewidth=1.8)
    axes.set_yticks(range(len(lines)), [f"{method}, {peer}" for method, peer in reversed(lines)], fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.grid(axis="x", which="major", linewidth=0.4)
    axes.margins(y=0.04)
    axes.set_xlabel("time of cnnviz / time of the peer (left of 1: cnnviz is faster)", fontsize=8)
    _legend(axes, {row.network for row in rows}, batches)
    _captioned(figure, caption, path)


def _legend(axes: Any, networks: set[str], batches: list[int]) -> None:
    for name, color in COLORS.items():
        if name in networks:
            axes.plot([], [], "o", color=color, label=name, markersize=5)
    for batch, marker in zip(batches, "os", strict=False):
        axes.plot([], [], marker, color="#555555", label=f"batch {batch}", markersize=5)
    axes.plot([], [], "|", color="black", label="geometric mean", markersize=10, markeredgewidth=1.8)
    axes.figure.legend(loc="outside upper center", ncols=7, fontsize=8, frameon=False)


def growth_picture(points: Sequence[Point], caption: str, path: Path) -> None:
    """Time above, peak memory below, a column for each thing that grows."""
    kinds = list(dict.fromkeys(point.grows for point in points))
    figure = Figure(figsize=(max(6.0, 2.3 * len(kinds)), 5.4), layout="constrained")
    grid = figure.subplots(2, len(kinds), squeeze=False, sharex="col")
    methods = list(dict.fromkeys(point.method for point in points))
    colors = dict(zip(methods, [*COLORS.values(), *OTHERS], strict=False))
    for column, kind in enumerate(kinds):
        of_kind = [point for point in points if point.grows == kind]
        for method in dict.fromkeys(point.method for point in of_kind):
            line = [point for point in of_kind if point.method == method]
            style: dict[str, Any] = {"color": colors.get(method), "linewidth": 1.4, "markersize": 4}
            seconds = [statistics.median(point.seconds) for point in line]
            grid[0, column].plot([point.value for point in line], seconds, "o-", label=method, **style)
            peaks = [(point.value, point.peak / 2**20) for point in line if point.peak]
            if peaks:
                grid[1, column].plot(*zip(*peaks, strict=True), "o-", **style)
        for row, what in enumerate(("seconds", "peak memory, MiB")):
            axes = grid[row, column]
            axes.set_ylim(0, 1.08 * axes.dataLim.ymax)  # so that no point lies on the frame
            axes.grid(linewidth=0.3)
            axes.tick_params(labelsize=7)
            if column == 0:
                axes.set_ylabel(what)
        grid[1, column].set_xlabel(kind)
        grid[0, column].legend(fontsize=6, frameon=False)
    networks = dict.fromkeys(f"{point.grows}: {point.network}" for point in points)
    _captioned(figure, f"{caption}. {'; '.join(networks)}", path)


def _captioned(figure: Figure, caption: str, path: Path) -> None:
    wide = int(figure.get_figwidth() * 16)
    where = "\n".join(textwrap.wrap(re.sub(r": `[^`]+`(; `[^`]+`)*", "", caption), wide))
    figure.supxlabel(where, fontsize=6.5, color="#444444")
    figure.savefig(path, dpi=130)
