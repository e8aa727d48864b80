"""What a batch run holds, read again or drawn as pictures: by the command that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from cnnviz.cli.batch_run import BatchCommand
from cnnviz.cli.errors import PARTLY, print_failure, print_line
from cnnviz.cli.method_options import converted
from cnnviz.datasets.stored.batch_view import Batch, open_batch
from cnnviz.images.originals import At
from cnnviz.registry.registry import renderers


@dataclass(frozen=True)
class Drawing:
    """How the maps of a run are drawn."""

    folder: Path | None
    """Where the pictures go; None: nothing is drawn."""
    render: str | None
    at: At
    overwrite: bool

    def check(self, context: typer.Context) -> None:
        """Raises ValueError for an option that says how to draw, where nothing is drawn."""
        for name in ("render", "at", "overwrite") if self.folder is None else ():
            source = context.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                raise ValueError(
                    f"--{name} says how --export draws, and nothing is drawn; give --export FOLDER, or leave it out"
                )


def look(command: BatchCommand, verify: bool, drawing: Drawing, told: Mapping[str, Any]) -> int:
    """Read a run again, or draw its maps. Returns the exit status.

    Pictures are read from the source, if one is named. ``told`` are its settings.
    """
    batch = open_batch(command.folder, command.source(told) if len(command.words) > 1 else None)
    quiet = command.command.options["quiet"]
    if verify and not _is_whole(batch, quiet):
        return PARTLY
    if drawing.folder is not None:
        renderer = None if drawing.render is None else renderers[drawing.render]
        configured = renderer if renderer is None else renderer(**converted(renderer, command.command.settings))
        batch.answered.export(drawing.folder, configured, drawing.at, overwrite=drawing.overwrite)
        if not quiet:
            print_line(f"{drawing.folder}: {len(batch.answered):,} items")
    return 0


def _is_whole(batch: Batch, quiet: bool) -> bool:
    """Tell what is damaged or missing."""
    faults = batch.verify()
    for fault in faults:
        print_failure(fault)
    missing = len(batch.missing)
    if not faults and not quiet:
        print_line(f"{batch.out}: {len(batch) - missing:,} of {len(batch):,} items are there and whole")
    return not faults and not missing
