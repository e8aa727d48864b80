"""Tables of what was found: rows of plain values, as text, in Markdown, CSV or JSON, or as pandas' DataFrame."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from cnnviz.images.in_notebooks import InNotebooks

ERROR = "_error"
"""Ends the name of a column with the standard errors of the means in the column before it."""


class Table(InNotebooks, list[dict[str, Any]]):
    """Rows, each a dict by the names of the columns; prints as a table."""

    def __str__(self) -> str:
        """As text, each column as wide as its longest cell."""
        if not self:
            return "(no rows)"
        cells = [list(readable(self[0])), *(list(readable(row).values()) for row in self)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
        left = [isinstance(self[0][name], str) for name in cells[0]]
        lines = [
            "  ".join(
                cell.ljust(width) if to_left else cell.rjust(width)
                for cell, width, to_left in zip(line, widths, left, strict=True)
            ).rstrip()
            for line in cells
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def markdown(self) -> str:
        """A table in Markdown."""
        if not self:
            return ""
        cells = [readable(row) for row in self]
        rule = ["---" if isinstance(self[0][name], str) else "---:" for name in cells[0]]
        lines = [list(cells[0]), rule, *([cell.replace("|", "\\|") for cell in row.values()] for row in cells)]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def csv(self) -> str:
        """Comma-separated values, with a line of names first."""
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(self[0]) if self else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self)
        return stream.getvalue()

    def json(self) -> str:
        """A list of objects."""
        return json.dumps(list(self), indent=1) + "\n"

    def to_dataframe(self) -> Any:
        """As pandas' DataFrame. Raises ImportError where pandas is not installed."""
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise ImportError("a DataFrame needs the package pandas; pip install pandas, or use table()") from error
        return pandas.DataFrame(list(self))


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


def row_of_means(
    method: str,
    metrics: Sequence[str],
    scores: Sequence[Mapping[str, float]],
    blank: Sequence[bool],
    drop_blank: bool = False,
) -> dict[str, Any]:
    """How many inputs count, how many maps were blank, and each metric's mean and its standard error.

    ``scores`` has for each input the metrics by name. With ``drop_blank`` blank maps are left out of the means.
    """
    counted = [each for each, nothing in zip(scores, blank, strict=True) if not (nothing and drop_blank)]
    row: dict[str, Any] = {"method": method, "pictures": len(counted), "blank": sum(blank)}
    for metric in metrics:
        mean, error = _mean_and_error([each[metric] for each in counted])
        row |= {metric: mean, metric + ERROR: error}
    return row


def _mean_and_error(values: Sequence[float]) -> tuple[float | None, float | None]:
    """The mean and its standard error; None where there are too few."""
    if not values:
        return None, None
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    spread = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(spread / len(values))
