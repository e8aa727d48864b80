"""Inputs synthesized one after the other, under a bar, and the files they go to. An interruption keeps the finished."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from cnnviz.cli.errors import Interrupted, exit_status, print_line
from cnnviz.cli.failures import Failures
from cnnviz.cli.outputs import STDOUT, VALUES, Destination, open_in_viewer
from cnnviz.cli.places import settle, shortened
from cnnviz.cli.progress import progress
from cnnviz.drawing.input_images import draw_inputs
from cnnviz.drawing.montage import Cell, sheet
from cnnviz.feature_visualization.result import Synthesized
from cnnviz.images.writing import encoded


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


def settle_jobs(
    names: Sequence[str], place: Destination, options: Mapping[str, Any], reads: Sequence[Path], count: int = 1
) -> set[str]:
    """Settle where jobs of these names write, each ``count`` inputs; the names whose answers are there and stay."""
    if place.path == STDOUT:
        return set()
    single = not place.folder
    files = {name: _files(place.path if single else place.path / file_name(name), count) for name in names}
    if single:
        files = dict.fromkeys(names, _files(place.path, count if place.path.suffix == VALUES else 1))
    writes = {path: None for paths in files.values() for path in paths}
    earlier = [path for name in names for path in _snapshots(place.path / file_name(name))] if place.folder else []
    there = settle([*writes, *(path for path in earlier if path not in writes)], reads, options)
    return {name for name, paths in files.items() if there.issuperset(paths)}


def plain(name: str) -> str:
    """The name with a dash for all that is awkward in the name of a file."""
    return re.sub(r"[^\w.,-]+", "-", name)


def file_name(name: str) -> Path:
    """The file of a job, in the folder for all."""
    return Path(name).parent / shortened(Path(name).name, ".png")


def _snapshots(path: Path) -> list[Path]:
    """Snapshots that are there already; after which steps there will be some is not known before the work."""
    return sorted(path.parent.glob(f"{escape(path.stem)}_step*.png"))


def _files(path: Path, count: int) -> list[Path]:
    return [path] if count == 1 else [path.with_stem(f"{path.stem}-{number}") for number in range(count)]


def run_jobs(jobs: Sequence[Job], place: Destination, options: Mapping[str, Any]) -> int:
    """Do them, write the files, print a line for each. Returns the exit status."""
    results: list[tuple[Job, Synthesized]] = []
    interrupted = False
    failures = Failures(len(jobs))
    with progress("synthesizing", options["quiet"]) as step:
        for number, job in enumerate(jobs):

            def advance(done: int, total: int, number: int = number) -> None:
                step(number * total + done, len(jobs) * total)

            try:
                results.append((job, job.make(progress=advance)))
                interrupted = not results[-1][1].finished
                failures.settled()
            except KeyboardInterrupt:
                interrupted = True
            except Exception as error:
                failures(job.name, error)
            if interrupted:
                break
    failures.settled()
    if results:
        _write(results, place, options)
    if interrupted:
        raise Interrupted("what was finished is written" if results else "nothing was written")
    return exit_status(len(jobs), failures.count)


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
            path = place.path / file_name(job.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            report(result.save(path), summary)
            for step, inputs in result.snapshots.items():
                earlier = replace(result, inputs=inputs, history=result.history[:step], snapshots={})
                report(earlier.save(path.with_stem(f"{path.stem}_step{step}")), f"after {step} steps")
    elif place.path == STDOUT and alone and job.original is None:
        place.write(encoded(result.pictures()[0], ".png"))
    elif place.path.suffix.lower() == VALUES or (alone and job.original is None):
        report(result.save(place.path), summaries[0])
    else:
        place.write(encoded(sheet(_rows(results)), place.path.suffix or ".png"))
        report([place.path] if place.path != STDOUT else [], "; ".join(summaries))
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
