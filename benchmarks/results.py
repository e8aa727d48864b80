"""The page of measured speed, made of what was kept: tables in docs/speed.md, pictures in docs/pictures.

``python -m benchmarks.results`` reads benchmarks/results/speed-cpu.json, and those of CUDA and of growth where they
are. Nothing is measured here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.comparing import TOGETHER
from benchmarks.plots import growth_picture, speed_picture
from benchmarks.records import HOME, Records, Row, geometric_mean, median_ratio, read, spread

DOCS = Path(__file__).parent.parent / "docs"
ALIKE = 0.9999
"""The cosine that maps must reach, where a peer may be pinned."""


class Kept(Protocol):
    """Measurements of any kind, with where they were made."""

    about: dict[str, Any]
    commands: list[str]


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


_HALVED = tuple(
    f"{each} in bfloat16"
    for each in ("grad_cam", "gradient", "guided_backprop", "integrated_gradients", "smoothgrad", "occlusion")
)
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
    Figure("in bfloat16", _HALVED, "cnnviz float32", 0.6, 0.99),
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__)
    parser.add_argument("--results", type=Path, default=HOME, help="the folder of the JSON files")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder that speed.md and pictures/ go to")
    options = parser.parse_args(arguments)
    try:
        (options.docs / "pictures").mkdir(parents=True, exist_ok=True)
        speeds = {"cpu": read(options.results / "speed-cpu.json")}
        cuda, grown = options.results / "speed-cuda.json", options.results / "growth-cpu.json"
        speeds |= {"cuda": read(cuda)} if cuda.exists() else {}
        growth = read(grown) if grown.exists() else None
        for device, records in speeds.items():
            name = "speed.png" if device == "cpu" else f"speed-{device}.png"
            speed_picture(records, where(records), options.docs / "pictures" / name)
        if growth is not None:
            growth_picture(growth, where(growth), options.docs / "pictures" / "growth.png")
        (options.docs / "speed.md").write_text(page(speeds, growth))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.docs / 'speed.md'} is made of {', '.join(f'{len(each.rows)} rows' for each in speeds.values())}")
    return 0


def page(speeds: dict[str, Records], growth: Records | None = None) -> str:
    """The whole page, in Markdown."""
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
    for device, records in speeds.items():
        picture = "speed.png" if device == "cpu" else f"speed-{device}.png"
        lines += [f"## On {records.about['device']}", "", where(records) + ".", ""]
        lines += [
            f"![Time of cnnviz relative to its peers, for every method, network and batch](pictures/{picture})",
            "",
        ]
        lines += ["### Figures to reach", "", *figures(records, growth), "", "### Time relative to the peer", ""]
        lines += [*ratios(records.rows), "", "### Time in forward passes", "", *in_forward_passes(records.rows), ""]
        lines += ["### Agreement and memory", "", *agreements(records.rows), ""]
        lines += ["### Left out", "", *left_out(records), ""]
    if growth is not None:
        lines += ["## Growth", "", where(growth) + ".", ""]
        lines += ["![Time and peak memory where one thing grows and all else stays](pictures/growth.png)", ""]
    return "\n".join(lines)


def where(records: Kept) -> str:
    """Device, versions, date and commands, in one sentence without its end."""
    about = records.about
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    device = about["processor"] if about["device"] == "CPU" else f"{about['device']}, CUDA {about['cuda']}"
    commands = "; ".join(f"`{each}`" for each in records.commands)
    return (
        f"{device}, {about['cores']} cores, {about['threads']} threads, {about['system']}, Python {about['python']}; "
        f"{versions}; {about['date']}: {commands}"
    )


def figures(records: Records, growth: Records | None = None) -> Iterator[str]:
    """What was to be reached, and whether it is."""
    yield "| what | beside | geometric mean | lowest to highest | measured | lowest cosine | to reach | reached |"
    yield "|---|---|--:|--:|--:|--:|--:|---|"
    for figure in FIGURES:
        rows = figure.of(records.rows)
        missing = sum(each.method in figure.methods and each.peer == figure.peer for each in records.left_out)
        if not rows:
            reason = "left out" if missing else "not measured"
            yield f"| {figure.what} | {figure.peer} | | | 0 of {missing} | | <= {figure.most} | {reason} |"
            continue
        found = [median_ratio(row.ours, row.theirs) for row in rows]
        mean, cosines = geometric_mean(found), [row.cosine for row in rows if row.cosine is not None]
        reached = mean <= figure.most and all(each >= figure.cosine for each in cosines)
        lowest = f"{min(cosines):.6f}" if cosines else ""
        yield (
            f"| {figure.what} | {figure.peer} | {short(mean)} | {short(min(found))} to {short(max(found))} | "
            f"{len(rows)} of {len(rows) + missing} | {lowest} | <= {figure.most} | {'yes' if reached else 'no'} |"
        )
    if growth is not None:
        yield from memory_figures(growth)


def memory_figures(growth: Records) -> Iterator[str]:
    for kind, method in (("steps", "integrated_gradients"), ("samples", "smoothgrad")):
        peaks = {each.value: each.peak for each in growth.points if each.grows == kind and each.method == method}
        few, many = peaks.get(10), peaks.get(200)
        if few and many:
            reached = "yes" if many <= 1.1 * few else "no"  # what the allocator rounds
            what = f"peak memory of {method}, 200 {kind}"
            yield f"| {what} | 10 {kind} | {many / few:.2f} | | 1 of 1 | | no growth | {reached} |"


def ratios(rows: Sequence[Row]) -> Iterator[str]:
    """Ours to theirs, for every method and peer; in brackets the spread of the rounds."""
    columns = places(rows)
    yield f"| method | beside | {' | '.join(f'{name} x {batch}' for name, batch in columns)} | mean |"
    yield f"|---|---|{'--:|' * (len(columns) + 1)}"
    for method, peer in dict.fromkeys((row.method, row.peer) for row in rows if row.theirs):
        found = {(row.network, row.batch): row for row in rows if (row.method, row.peer) == (method, peer)}
        cells = [cell(found[place]) if place in found and found[place].theirs else "" for place in columns]
        mean = geometric_mean(median_ratio(row.ours, row.theirs) for row in found.values() if row.theirs)
        yield f"| {method} | {peer} | {' | '.join(cells)} | **{short(mean)}** |"


def cell(row: Row) -> str:
    low, high = spread(row.ours, row.theirs)
    found = short(median_ratio(row.ours, row.theirs))
    return f"{found} ({short(low)}-{short(high)})" if len(row.ours) > 1 else f"{found} (once)"


def in_forward_passes(rows: Sequence[Row]) -> Iterator[str]:
    """Ours to a forward pass; the first row says what that takes."""
    columns = places(rows)
    yield f"| method | {' | '.join(f'{name} x {batch}' for name, batch in columns)} |"
    yield f"|---|{'--:|' * len(columns)}"
    passes = {place: [row.forward for row in rows if (row.network, row.batch) == place] for place in columns}
    fastest = [f"{1000 * min(min(each) for each in passes[place]):.1f} ms" for place in columns]
    yield f"| the fastest forward pass | {' | '.join(fastest)} |"
    for method in dict.fromkeys(row.method for row in rows):
        found: dict[tuple[str, int], list[float]] = {}
        for row in rows:
            if row.method == method:
                found.setdefault((row.network, row.batch), []).append(median_ratio(row.ours, row.forward))
        cells = [short(geometric_mean(found[place])) if place in found else "" for place in columns]
        yield f"| {method} | {' | '.join(cells)} |"


def agreements(rows: Sequence[Row]) -> Iterator[str]:
    """The worst of all networks and batches, and what memory both need."""
    yield "| method | beside | lowest cosine | largest difference, of the peak | not compared | peak memory, MiB |"
    yield "|---|---|--:|--:|---|--:|"
    for method, peer in dict.fromkeys((row.method, row.peer) for row in rows if row.theirs):
        found = [row for row in rows if (row.method, row.peer) == (method, peer) and row.theirs]
        cosines = [row.cosine for row in found if row.cosine is not None]
        differences = [row.difference for row in found if row.difference is not None]
        remarks = dict.fromkeys(f"{row.network}: {row.remark}" for row in found if row.remark)
        if len({each.partition(": ")[2] for each in remarks}) == 1 and len(remarks) == len({r.network for r in found}):
            remarks = dict.fromkeys(each.partition(": ")[2] for each in remarks)
        said = "; ".join(remarks).replace("maps not compared: ", "")
        both = [(row.ours_peak, row.theirs_peak) for row in found]
        peaks = ", ".join(f"{ours / 2**20:.0f} / {theirs / 2**20:.0f}" for ours, theirs in both if ours and theirs)
        lowest = f"{min(cosines):.6f}" if cosines else ""
        largest = f"{max(differences):.0e}" if differences else ""
        yield f"| {method} | {peer} | {lowest} | {largest} | {said} | {peaks} |"


def left_out(records: Records) -> Iterator[str]:
    """What is not there, by reason."""
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for each in records.left_out:
        reasons.setdefault((each.method, each.peer, each.reason), []).append(f"{each.network} x {each.batch}")
    yield from (
        f"- {method} beside {peer or 'nobody'}, {', '.join(places)}: {reason}"
        for (method, peer, reason), places in reasons.items()
    )
    if not reasons:
        yield "Nothing."


def places(rows: Iterable[Row]) -> list[tuple[str, int]]:
    return list(dict.fromkeys((row.network, row.batch) for row in rows))


def short(value: float) -> str:
    return f"{value:.2f}" if value >= 0.095 else f"{value:.2g}"


if __name__ == "__main__":
    sys.exit(main())
