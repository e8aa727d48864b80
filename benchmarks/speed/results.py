"""The page of measured speed, made of the kept rows: tables in docs/speed.md, pictures in docs/pictures.

``python -m benchmarks.speed.results`` reads benchmarks/results/speed-cpu.json, and those of CUDA, of relevance, of
rates, of growth and of an earlier version where they are. Nothing is measured here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean

from benchmarks.command import one_line_errors
from benchmarks.markdown import grouped, table
from benchmarks.records import DOCS, HOME, Records, read
from benchmarks.speed.comparing import HALVED, TOGETHER
from benchmarks.speed.gpu_page import earlier, rates
from benchmarks.speed.plots import growth_picture, speed_picture
from benchmarks.speed.rows import EARLIER, GROWTH, RATES, SPEED, LeftOut, Point, Row, median_ratio, spread

ALIKE = 0.9999
"""The cosine that maps must reach, where a peer may be pinned."""


@dataclass(frozen=True)
class Figure:
    """A ratio to reach, as a geometric mean over networks and batches."""

    what: str
    methods: tuple[str, ...]
    peer: str
    most: float
    cosine: float = ALIKE

    def of(self, rows: Iterable[Row]) -> list[Row]:
        return [row for row in rows if row.theirs and row.peer == self.peer and row.method in self.methods]


FIGURES = (
    Figure("Grad-CAM", ("grad_cam",), "captum", 0.85),
    Figure("Grad-CAM", ("grad_cam",), "grad-cam", 0.4),
    Figure("saliency", ("gradient",), "captum", 0.85),
    Figure("guided backprop", ("guided_backprop",), "captum", 0.85),
    Figure("input x gradient", ("input_x_gradient",), "captum", 0.85),
    Figure("Guided Grad-CAM", ("guided_grad_cam",), "captum", 0.6),
    Figure(TOGETHER, (TOGETHER,), "cnnviz grad_cam", 1.5),
    Figure("integrated gradients, 50 steps", ("integrated_gradients",), "captum", 0.75),
    Figure("SmoothGrad, 25 samples", ("smoothgrad",), "captum", 0.75),
    Figure("occlusion, 32 x 32 every 16", ("occlusion",), "captum", 0.25),
    Figure("Score-CAM", ("score_cam",), "grad-cam", 0.6),
    Figure("Ablation-CAM", ("ablation_cam",), "grad-cam", 0.01),
    Figure("in bfloat16", tuple(f"{method} in bfloat16" for method in HALVED), "cnnviz float32", 0.6, 0.99),
)


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.results", description=__doc__)
    parser.add_argument("--results", type=Path, default=HOME, help="the folder of the JSON files")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder that speed.md and pictures/ go to")
    options = parser.parse_args(arguments)
    pictures = options.docs / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    speeds = {"cpu": read(options.results / "speed-cpu.json", SPEED)}
    cuda, grown = options.results / "speed-cuda.json", options.results / "growth-cpu.json"
    if cuda.exists():
        speeds["cuda"] = read(cuda, SPEED)
    growth = read(grown, GROWTH) if grown.exists() else None
    for device, records in speeds.items():
        speed_picture(records.rows, records.where(), pictures / picture_name(device))
    if growth is not None:
        growth_picture(growth.rows, growth.where(), pictures / "growth.png")
    (options.docs / "speed.md").write_text(page(speeds, growth, apart(options.results)))
    print(f"{options.docs / 'speed.md'} is made of {', '.join(f'{len(speed.rows)} rows' for speed in speeds.values())}")
    return 0


def picture_name(device: str) -> str:
    return "speed.png" if device == "cpu" else f"speed-{device}.png"


def apart(results: Path) -> Iterator[str]:
    """The lines about what was measured apart: relevance, rates on GPUs, and figures of an earlier version."""
    propagated = results / "speed-relevance-cpu.json"
    if propagated.exists():
        yield from relevance(read(propagated, SPEED))
    rated, noted = results / "rates-cuda.json", results / "speed-cuda-0.3.0.json"
    if rated.exists():
        yield from rates(read(rated, RATES))
    if noted.exists():
        yield from earlier(read(noted, EARLIER))


def page(
    speeds: dict[str, Records[Row, LeftOut]],
    growth: Records[Point, LeftOut] | None = None,
    later: Iterable[str] = (),
) -> str:
    """The whole page, in Markdown; ``later`` are further lines before those of growth."""
    lines = [
        "# Speed",
        "",
        "Every method beside every peer that has it: the same network and pictures, the same number of threads, both "
        "in turns in one process, so that what else the machine does meets both alike. Ratios are of medians; below 1 "
        "cnnviz is faster. A forward pass is one of the whole batch in `inference_mode`. Untrained networks have He's "
        "initialization and batch norm statistics of the pictures, and denormal numbers count as zero for both. lucent "
        "is not measured: it can't be installed beside today's torch. Not every map may be compared: peers differ on "
        "purpose or by fault, which is said.",
        "",
    ]
    points = growth.rows if growth else []
    for device, records in speeds.items():
        picture = f"pictures/{picture_name(device)}"
        lines += [f"## On {records.about['device']}", "", f"{records.where()}.", ""]
        lines += [f"![Time of cnnviz relative to its peers, for every method, network and batch]({picture})", ""]
        lines += ["### Figures to reach", "", *figures(records), *memory_figures(points), ""]
        lines += ["### Time relative to the peer", "", *ratios(records.rows), ""]
        lines += ["### Time in forward passes", "", *in_forward_passes(records.rows), ""]
        lines += ["### Agreement and memory", "", *agreements(records.rows), ""]
        lines += ["### Left out", "", *left_out(records.left_out), ""]
    lines += later
    if growth is not None:
        lines += ["## Growth", "", f"{growth.where()}.", ""]
        lines += ["![Time and peak memory where one thing grows and all else stays](pictures/growth.png)", ""]
    return "\n".join(lines)


def relevance(records: Records[Row, LeftOut]) -> Iterator[str]:
    """Relevance beside zennit, measured after the rest and with other versions."""
    yield from ("## Relevance", "", f"{records.where()}.", "")
    yield (
        "zennit has its canonizer for residual networks. It leaves `eps` in merged batch norms, which moves "
        "its map of resnet50 a little. Both start with one at the class, so that the maps can be compared."
    )
    yield from ("", "Time relative to the peer:", "", *ratios(records.rows), "")
    yield from ("Time in forward passes:", "", *in_forward_passes(records.rows), "")
    yield from ("Agreement and memory:", "", *agreements(records.rows), "")
    yield from (["Left out:", "", *left_out(records.left_out), ""] if records.left_out else [])


def figures(records: Records[Row, LeftOut]) -> Iterator[str]:
    """What was to be reached, and whether it is."""
    yield "| what | beside | geometric mean | lowest to highest | measured | lowest cosine | to reach | reached |"
    yield "|---|---|--:|--:|--:|--:|--:|---|"
    for figure in FIGURES:
        rows = figure.of(records.rows)
        missing = sum(entry.method in figure.methods and entry.peer == figure.peer for entry in records.left_out)
        if not rows:
            reason = "left out" if missing else "not measured"
            yield f"| {figure.what} | {figure.peer} | | | 0 of {missing} | | <= {figure.most} | {reason} |"
            continue
        ratios = [median_ratio(row.ours, row.theirs) for row in rows]
        mean, cosines = geometric_mean(ratios), [row.cosine for row in rows if row.cosine is not None]
        reached = "yes" if mean <= figure.most and all(cosine >= figure.cosine for cosine in cosines) else "no"
        yield (
            f"| {figure.what} | {figure.peer} | {short(mean)} | {short(min(ratios))} to {short(max(ratios))} | "
            f"{len(rows)} of {len(rows) + missing} | {lowest(cosines)} | <= {figure.most} | {reached} |"
        )


def memory_figures(points: Sequence[Point]) -> Iterator[str]:
    """Whether memory stays, where steps and samples grow."""
    for kind, method in (("steps", "integrated_gradients"), ("samples", "smoothgrad")):
        peaks = {point.value: point.peak for point in points if point.grows == kind and point.method == method}
        few, many = peaks.get(10), peaks.get(200)
        if few and many:
            reached = "yes" if many <= 1.1 * few else "no"  # what the allocator rounds
            what = f"peak memory of {method}, 200 {kind}"
            yield f"| {what} | 10 {kind} | {many / few:.2f} | | 1 of 1 | | no growth | {reached} |"


def ratios(rows: Sequence[Row]) -> Iterator[str]:
    """Ours to theirs, for every method and peer; in brackets the spread of the rounds."""
    columns = places(rows)
    titles = ["method", "beside", *(f"{name} x {batch}" for name, batch in columns), "mean"]

    def cells(method: str, peer: str, compared: list[Row]) -> list[str]:
        by_place = {(row.network, row.batch): cell(row) for row in compared}
        mean = geometric_mean(median_ratio(row.ours, row.theirs) for row in compared)
        return [method, peer, *(by_place.get(place, "") for place in columns), f"**{short(mean)}**"]

    return table("ll" + "r" * (len(columns) + 1), titles, (cells(*pair, compared) for pair, compared in by_peer(rows)))


def by_peer(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, str], list[Row]]]:
    """For every method and peer the rows of them."""
    for pair in dict.fromkeys((row.method, row.peer) for row in rows if row.theirs):
        yield pair, [row for row in rows if (row.method, row.peer) == pair and row.theirs]


def cell(row: Row) -> str:
    low, high = spread(row.ours, row.theirs)
    ratio = short(median_ratio(row.ours, row.theirs))
    return f"{ratio} ({short(low)}-{short(high)})" if len(row.ours) > 1 else f"{ratio} (once)"


def in_forward_passes(rows: Sequence[Row]) -> Iterator[str]:
    """Ours to a forward pass; the first row says what that takes."""
    columns = places(rows)

    def cells(method: str) -> Iterator[str]:
        yield method
        for place in columns:
            at_place = [row for row in rows if row.method == method and (row.network, row.batch) == place]
            yield short(geometric_mean(median_ratio(row.ours, row.forward) for row in at_place)) if at_place else ""

    fastest = [min(min(row.forward) for row in rows if (row.network, row.batch) == place) for place in columns]
    first = ["the fastest forward pass", *(f"{1000 * seconds:.1f} ms" for seconds in fastest)]
    methods = dict.fromkeys(row.method for row in rows)
    titles = ["method", *(f"{name} x {batch}" for name, batch in columns)]
    return table("l" + "r" * len(columns), titles, [first, *([*cells(method)] for method in methods)])


def agreements(rows: Sequence[Row]) -> Iterator[str]:
    """The worst of all networks and batches, and what memory both need."""
    titles = ["method", "beside", "lowest cosine", "largest difference, of the peak", "not compared"]

    def cells(method: str, peer: str, compared: list[Row]) -> list[str]:
        differences = [row.difference for row in compared if row.difference is not None]
        largest = f"{max(differences):.0e}" if differences else ""
        both = [(row.ours_peak, row.theirs_peak) for row in compared]
        peaks = ", ".join(f"{ours / 2**20:.0f} / {theirs / 2**20:.0f}" for ours, theirs in both if ours and theirs)
        cosines = [row.cosine for row in compared if row.cosine is not None]
        return [method, peer, lowest(cosines), largest, remarks(compared), peaks]

    compared = (cells(*pair, compared) for pair, compared in by_peer(rows))
    return table("llrrlr", [*titles, "peak memory, MiB"], compared)


def remarks(rows: Sequence[Row]) -> str:
    """What is said of rows, with the network unless the same is said of all networks."""
    by_network = dict.fromkeys((row.network, row.remark) for row in rows if row.remark)
    texts = dict.fromkeys(remark for _, remark in by_network)
    if len(texts) > 1 or len(by_network) < len({row.network for row in rows}):
        texts = dict.fromkeys(f"{network}: {remark}" for network, remark in by_network)
    return "; ".join(texts).replace("maps not compared: ", "")


def left_out(entries: Sequence[LeftOut]) -> Iterator[str]:
    """What is not there, by reason."""
    reasons = grouped(((out.method, out.peer, out.reason), f"{out.network} x {out.batch}") for out in entries)
    for (method, peer, reason), networks in reasons.items():
        yield f"- {method} beside {peer or 'nobody'}, {networks}: {reason}"
    if not reasons:
        yield "Nothing."


def places(rows: Iterable[Row]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((row.network, row.batch) for row in rows))


def lowest(cosines: Sequence[float]) -> str:
    return f"{min(cosines):.6f}" if cosines else ""


def short(value: float) -> str:
    return f"{value:.2f}" if value >= 0.095 else f"{value:.2g}"


if __name__ == "__main__":
    sys.exit(main())
