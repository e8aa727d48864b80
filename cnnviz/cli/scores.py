"""Tables of scores: a row for each method, or for each picture and method; on the terminal and in files."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cnnviz.cli.errors import printable
from cnnviz.cli.outputs import check_folder
from cnnviz.images.writing import write

KINDS = (".csv", ".md", ".json")
ERROR = "_error"  # the standard error of the mean whose name it ends


@dataclass(frozen=True)
class Score:
    """The score of one map."""

    metrics: Mapping[str, float]
    blank: bool
    """Whether the map is zero everywhere."""


@dataclass(frozen=True)
class Scores:
    """The scores of all pictures."""

    methods: Sequence[str]
    metrics: Sequence[str]
    drop_blank: bool = False
    """Whether blank maps are left out of the means."""
    pictures: dict[Path, Mapping[str, Score]] = field(default_factory=dict)
    """By picture, and by method."""

    def rows(self) -> list[dict[str, Any]]:
        """For each method how many pictures count, how many maps were blank, and each metric's mean and its error."""
        rows = []
        for method in self.methods:
            scores = [by_method[method] for by_method in self.pictures.values()]
            counted = [score for score in scores if not (score.blank and self.drop_blank)]
            blank = sum(score.blank for score in scores)
            row: dict[str, Any] = {"method": method, "pictures": len(counted), "blank": blank}
            for metric in self.metrics:
                mean, error = _mean_and_error([score.metrics[metric] for score in counted])
                row |= {metric: mean, metric + ERROR: error}
            rows.append(row)
        return rows

    def rows_of_pictures(self) -> list[dict[str, Any]]:
        """For each picture and method the metrics, blank maps too."""
        return [
            {"file": str(path), "method": method, "blank": int(score.blank), **score.metrics}
            for path, scores in self.pictures.items()
            for method, score in scores.items()
        ]


def check_table(path: Path) -> None:
    """Raises ValueError or FileNotFoundError where no table could be written at the end of the work."""
    if path.suffix.lower() not in KINDS:
        raise ValueError(f"{path} has no suffix of a table; use {', '.join(KINDS)}")
    check_folder(path)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as the suffix says."""
    text = {".csv": _csv, ".md": markdown, ".json": _json}[path.suffix.lower()](rows)
    write(path, text.encode())


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows on stdout, as wide as the terminal; a file or a pipe takes any width."""
    lines = [{name: printable(cell) for name, cell in readable(row).items()} for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in lines[0]:
        side: Literal["left", "right"] = "left" if isinstance(rows[0][name], str) else "right"
        table.add_column(Text(printable(name)), justify=side, overflow="fold")
    for row in lines:
        table.add_row(*map(Text, row.values()))  # names are no markup
    Console(width=None if sys.stdout.isatty() else 1000).print(table)


def readable(row: Mapping[str, Any]) -> dict[str, str]:
    """A row as it is read: three digits, the error beside its mean, and nothing where there is no number."""
    cells: dict[str, str] = {}
    for name, value in row.items():
        written = f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)
        if name.endswith(ERROR):
            cells[name.removesuffix(ERROR)] += f" ± {written}" if written else ""
        else:
            cells[name] = written
    return cells


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table in Markdown."""
    if not rows:
        return ""
    cells = [readable(row) for row in rows]
    rule = ["---" if isinstance(rows[0][name], str) else "---:" for name in cells[0]]
    lines = [list(cells[0]), rule, *([cell.replace("|", "\\|") for cell in row.values()] for row in cells)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _json(rows: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(list(rows), indent=1) + "\n"


def _mean_and_error(values: Sequence[float]) -> tuple[float | None, float | None]:
    """The mean and its standard error; None where there are too few."""
    if not values:
        return None, None
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    spread = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(spread / len(values))
