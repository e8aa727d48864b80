"""Inputs made one after the other, under a bar, and the files they go to. An interruption keeps what there is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnviz.cli.errors import INTERRUPTED, say
from cnnviz.cli.outputs import VALUES, Destination
from cnnviz.cli.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

    from cnnviz.drawing.montage import Cell
    from cnnviz.feature_visualization.result import Synthesized


@dataclass(frozen=True)
class Job:
    """One call of ``synthesize``, what it is called in a sheet and in a file's name."""

    make: Callable[..., Synthesized]
    title: str
    name: str
    row: str = ""
    """Of the sheet: jobs of one name are in one row."""
    given: Tensor | None = None
    """What the row begins with, (1, C, *spatial)."""


def made(jobs: Sequence[Job], place: Destination, options: Mapping[str, Any]) -> int:
    """Do them, write the files, tell of each. Returns the exit status."""
    found: list[tuple[Job, Synthesized]] = []
    interrupted = False
    with progress("synthesizing", options["quiet"]) as bar:
        for number, job in enumerate(jobs):

            def advance(done: int, of: int, number: int = number) -> None:
                bar(number * of + done, len(jobs) * of)

            try:
                found.append((job, job.make(progress=advance)))
            except KeyboardInterrupt:
                interrupted = True
            if interrupted or not found[-1][1].finished:
                interrupted = True
                break
    if found:
        _write(found, place, options)
    return INTERRUPTED if interrupted else 0


def _write(found: Sequence[tuple[Job, Synthesized]], place: Destination, options: Mapping[str, Any]) -> None:
    from cnnviz.drawing.montage import sheet
    from cnnviz.images.files import encoded, write

    written: list[Path] = []
    says = [f"{answer.recipe} {answer.outcome()}" for _, answer in found]
    job, answer = found[0]
    alone = len(found) == len(answer) == 1 and not answer.snapshots
    if place.folder:
        place.path.mkdir(parents=True, exist_ok=True)
        for (job, answer), what in zip(found, says, strict=True):
            name = re.sub(r"[^\w.,-]+", "-", job.name)
            written += _told(answer.save(place.path / f"{name}.png"), what, options)
            for step, inputs in answer.snapshots.items():
                then = replace(answer, inputs=inputs, history=answer.history[:step], snapshots={})
                written += _told(then.save(place.path / f"{name}_step{step}.png"), f"after {step} steps", options)
    elif place.path.suffix.lower() == VALUES or (alone and job.given is None):
        written += _told(answer.save(place.path), says[0], options)
    else:
        write(place.path, encoded(sheet(_lines(found)), place.path.suffix))
        written += _told([place.path], "; ".join(says), options)
    if options["show"]:
        from PIL import Image

        for path in written:
            with Image.open(path) as picture:
                picture.show()


def _told(paths: Sequence[Path], what: str, options: Mapping[str, Any]) -> Sequence[Path]:
    for path in paths:
        if not options["quiet"]:
            say(f"{path}: {what}")
    return paths


def _lines(found: Sequence[tuple[Job, Synthesized]]) -> list[list[Cell]]:
    """The rows of the sheet; cells that belong to no row lie nearly in a square."""
    from cnnviz.drawing.input_images import draw_inputs

    rows: dict[str, list[Cell]] = {}
    for job, answer in found:
        if job.given is not None and job.row not in rows:
            rows[job.row] = [([job.row], draw_inputs(job.given, answer.preprocessing)[0])]
        before = {step: inputs for step, inputs in answer.snapshots.items() if step < len(answer.history)}
        way = [(step, draw_inputs(inputs, answer.preprocessing)) for step, inputs in before.items()]
        for item, picture in enumerate(answer.pictures()):
            last = [job.title, *(f"{name} {note[item]:.3f}" for name, note in answer.notes.items())]
            last += [] if answer.finished else ["interrupted"]
            row = f"{job.title} {item}" if way else job.row
            rows.setdefault(row, []).extend(([f"{step} steps"], pictures[item]) for step, pictures in way)
            rows[row].append((last, picture))
    if list(rows) != [""]:
        return list(rows.values())
    (cells,) = rows.values()
    across = -(-len(cells) // max(1, round(len(cells) ** 0.5)))
    return [cells[start : start + across] for start in range(0, len(cells), across)]
