"""The table of ``--targets``: a class for each picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cnnviz.tasks.labels import class_number, table_rows

Entry = tuple[str, ...]


def read_targets(table: Path, pictures: Sequence[Path], categories: tuple[str, ...] | None) -> dict[Path, int]:
    """The class of each of the pictures, which the table names by their paths, or by as much of these as it gives.

    Raises LookupError for a class that is not there and for pictures without a line; ValueError for a picture with two
    classes, and for a line that fits several pictures by less than their paths.
    """
    entries: dict[Entry, int] = {}
    for file, label, where in table_rows(table):
        entry, number = Path(file).parts, class_number(label, categories, where)
        if entries.setdefault(entry, number) != number:
            raise ValueError(f"{where}: {file} has another class above; keep one of the lines")
    found = {picture: _entry(picture, entries) for picture in pictures}
    missing = [picture for picture, entry in found.items() if entry is None]
    if missing:
        raise LookupError(
            f"'{missing[0]}' has no line in table '{table}', and so {len(missing)} of {len(pictures)} pictures "
            "have no target; add a line file,target for each"
        )
    users: dict[Entry, Path] = {}
    known = {picture: entry for picture, entry in found.items() if entry is not None}
    for picture, entry in known.items():
        if (other := users.setdefault(entry, picture)) != picture:
            raise ValueError(
                f"table '{table}': '{Path(*entry)}' is both '{other}' and '{picture}'; "
                "write as much of their paths as tells them apart"
            )
    return {picture: entries[entry] for picture, entry in known.items()}


def _entry(picture: Path, entries: dict[Entry, int]) -> Entry | None:
    """Of all that fit, the one that gives most of the path."""
    parts = picture.absolute().parts
    return next((parts[start:] for start in range(len(parts)) if parts[start:] in entries), None)
