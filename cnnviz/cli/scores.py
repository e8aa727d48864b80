"""What was measured: a row for each method, or for each picture and method; on the terminal and in files."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = (".csv", ".md", ".json")
ERROR = "_error"  # the standard error of the mean whose name it ends


@dataclass(frozen=True)
class Score:
    """Of one map: the metrics by name, and whether it is zero everywhere."""

    found: Mapping[str, float]
    blank: bool


@dataclass(frozen=True)
class Scores:
    """All that was measured."""

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
            every = [scores[method] for scores in self.pictures.values()]
            kept = [score for score in every if not (score.blank and self.drop_blank)]
            row: dict[str, Any] = {"method": method, "pictures": len(kept), "blank": sum(each.blank for each in every)}
            for metric in self.metrics:
                mean, error = _mean_and_error([score.found[metric] for score in kept])
                row |= {metric: mean, metric + ERROR: error}
            rows.append(row)
        return rows

    def rows_of_pictures(self) -> list[dict[str, Any]]:
        """For each picture and method the metrics, blank maps too."""
        return [
            {"file": str(path), "method": method, "blank": int(score.blank), **score.found}
            for path, scores in self.pictures.items()
            for method, score in scores.items()
        ]


def check_table(path: Path) -> None:
    """Raises ValueError or FileNotFoundError where no table could be written at the end of the work."""
    if path.suffix.lower() not in KINDS:
        raise ValueError(f"{path} has no suffix of a table; use {', '.join(KINDS)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist; make it first")


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as the suffix says."""
    from cnnviz.images.files import write

    text = {".csv": _csv, ".md": markdown, ".json": _json}[path.suffix.lower()](rows)
    write(path, text.encode())


def say_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows on stdout, as wide as the terminal; a file or a pipe takes any width."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = [readable(row) for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in shown[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right", overflow="fold")
    for row in shown:
        table.add_row(*map(Text, row.values()))  # names are no markup
    Console(width=None if sys.stdout.isatty() else 1000).print(table)


def readable(row: Mapping[str, Any]) -> dict[str, str]:
    """A row as it is read: three digits, the error beside its mean, and nothing where there is no number."""
    shown: dict[str, str] = {}
    for name, value in row.items():
        written = f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)
        if name.endswith(ERROR):
            shown[name.removesuffix(ERROR)] += f" ± {written}" if written else ""
        else:
            shown[name] = written
    return shown


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table in Markdown."""
    if not rows:
        return ""
    shown = [readable(row) for row in rows]
    rule = ["---" if isinstance(rows[0][name], str) else "---:" for name in shown[0]]
    lines = [list(shown[0]), rule, *([cell.replace("|", "\\|") for cell in row.values()] for row in shown)]
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
    spread = math.fsum((each - mean) ** 2 for each in values) / (len(values) - 1)
    return mean, math.sqrt(spread / len(values))
