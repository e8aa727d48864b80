"""Tables of scores: a row for each method, or for each picture and method; on the terminal and in files."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from cnnviz.cli.errors import printable
from cnnviz.cli.outputs import check_folder
from cnnviz.explanations.tables import Table, readable, row_of_means
from cnnviz.images.writing import write

KINDS = (".csv", ".md", ".json")


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

    def rows(self) -> Table:
        """For each method how many pictures count, how many maps were blank, and each metric's mean and its error."""
        table = Table()
        for method in self.methods:
            scores = [by_method[method] for by_method in self.pictures.values()]
            values, blank = [score.metrics for score in scores], [score.blank for score in scores]
            table.append(row_of_means(method, self.metrics, values, blank, self.drop_blank))
        return table

    def rows_of_pictures(self) -> Table:
        """For each picture and method the metrics, blank maps too."""
        return Table(
            {"file": str(path), "method": method, "blank": int(score.blank), **score.metrics}
            for path, scores in self.pictures.items()
            for method, score in scores.items()
        )


def check_table(path: Path) -> None:
    """Raises ValueError or FileNotFoundError where no table could be written at the end of the work."""
    if path.suffix.lower() not in KINDS:
        raise ValueError(f"{path} has no suffix of a table; use {', '.join(KINDS)}")
    check_folder(path)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as the suffix says."""
    table = Table(map(dict, rows))
    text = {".csv": table.csv, ".md": table.markdown, ".json": table.json}[path.suffix.lower()]()
    write(path, text.encode())


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows on stdout, as wide as the terminal; a file or a pipe takes any width."""
    lines = [{name: printable(cell) for name, cell in readable(row).items()} for row in rows]
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in lines[0]:
        side: Literal["left", "right"] = "left" if isinstance(rows[0][name], str) else "right"
        table.add_column(Text(printable(name)), justify=side, overflow="fold")
    for row in lines:
        table.add_row(*map(Text, row.values()))  # names are no markup
    Console(width=None if sys.stdout.isatty() else 1000).print(table)
