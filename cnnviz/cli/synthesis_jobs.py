"""Inputs synthesized one after the other, under a bar, and the files they go to. An interruption keeps the finished."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from cnnviz.cli.errors import INTERRUPTED, print_line
from cnnviz.cli.outputs import VALUES, Destination, open_in_viewer
from cnnviz.cli.progress import progress
from cnnviz.drawing.input_images import draw_inputs
from cnnviz.drawing.montage import Cell, sheet
from cnnviz.feature_visualization.result import Synthesized
from cnnviz.images.writing import encoded, write


@dataclass(frozen=True)
class Job:
    """One call of ``synthesize``, what it is called in a sheet and in a file's name."""

    make: Callable[..., Synthesized]
    title: str
    name: str
    row: str = ""
    """Of the sheet: jobs of one name are in one row."""
    original: Tensor | None = None
    """What the row begins with, (1, C, *spatial)."""


def run_jobs(jobs: Sequence[Job], place: Destination, options: Mapping[str, Any]) -> int:
    """Do them, write the files, print a line for each. Returns the exit status."""
    results: list[tuple[Job, Synthesized]] = []
    interrupted = False
    with progress("synthesizing", options["quiet"]) as step:
        for number, job in enumerate(jobs):

            def advance(done: int, total: int, number: int = number) -> None:
                step(number * total + done, len(jobs) * total)

            try:
                results.append((job, job.make(progress=advance)))
                interrupted = not results[-1][1].finished
            except KeyboardInterrupt:
                interrupted = True
            if interrupted:
                break
    if results:
        _write(results, place, options)
    return INTERRUPTED if interrupted else 0


def _write(results: Sequence[tuple[Job, Synthesized]], place: Destination, options: Mapping[str, Any]) -> None:
    written: list[Path] = []

    def report(paths: Sequence[Path], text: str) -> None:
        written.extend(paths)
        for path in () if options["quiet"] else paths:
            print_line(f"{path}: {text}")

    summaries = [f"{result.recipe} {result.outcome()}" for _, result in results]
    job, result = results[0]
    alone = len(results) == len(result) == 1 and not result.snapshots
    if place.folder:
        place.path.mkdir(parents=True, exist_ok=True)
        for (job, result), summary in zip(results, summaries, strict=True):
            name = re.sub(r"[^\w.,-]+", "-", job.name)
            report(result.save(place.path / f"{name}.png"), summary)
            for step, inputs in result.snapshots.items():
                earlier = replace(result, inputs=inputs, history=result.history[:step], snapshots={})
                report(earlier.save(place.path / f"{name}_step{step}.png"), f"after {step} steps")
    elif place.path.suffix.lower() == VALUES or (alone and job.original is None):
        report(result.save(place.path), summaries[0])
    else:
        write(place.path, encoded(sheet(_rows(results)), place.path.suffix))
        report([place.path], "; ".join(summaries))
    if options["show"]:
        open_in_viewer(written)


def _rows(results: Sequence[tuple[Job, Synthesized]]) -> list[list[Cell]]:
    """The rows of the sheet; cells that belong to no row lie nearly in a square."""
    rows: dict[str, list[Cell]] = {}
    for job, result in results:
        if job.original is not None and job.row not in rows:
            rows[job.row] = [([job.row], draw_inputs(job.original, result.preprocessing)[0])]
        snapshots = [
            (step, draw_inputs(inputs, result.preprocessing))
            for step, inputs in result.snapshots.items()
            if step < len(result.history)
        ]
        for item, picture in enumerate(result.pictures()):
            caption = [job.title, *(f"{name} {note[item]:.3f}" for name, note in result.notes.items())]
            caption += [] if result.finished else ["interrupted"]
            row = rows.setdefault(f"{job.title} {item}" if snapshots else job.row, [])
            row += [([f"{step} steps"], pictures[item]) for step, pictures in snapshots]
            row.append((caption, picture))
    if list(rows) != [""]:
        return list(rows.values())
    (cells,) = rows.values()
    columns = -(-len(cells) // max(1, round(len(cells) ** 0.5)))
    return [cells[start : start + columns] for start in range(0, len(cells), columns)]
