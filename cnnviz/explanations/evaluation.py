"""Scores of several explanations, by method and metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cnnviz.explanations.tables import Table, row_of_means
from cnnviz.images.in_notebooks import InNotebooks


class Evaluation(InNotebooks, dict[str, dict[str, Tensor]]):
    """What :func:`cnnviz.evaluate` gives for several explanations: for each method the metrics by name, each (N,)."""

    blank: Mapping[str, Tensor]
    """For each method which of the maps are zero everywhere, (N,) bool."""

    def __init__(self, scores: Mapping[str, dict[str, Tensor]], blank: Mapping[str, Tensor]):
        super().__init__(scores)
        self.blank = blank

    def table(self, drop_blank: bool = False) -> Table:
        """A row for each method: how many pictures count, how many maps are blank, each metric's mean and its error.

        The standard error of a mean is in the column ``<metric>_error``; of one picture it is None. ``drop_blank``
        leaves blank maps out of the means.
        """
        return Table(
            row_of_means(method, list(scores), _by_input(scores), self.blank[method].tolist(), drop_blank)
            for method, scores in self.items()
        )

    def each(self) -> Table:
        """A row for each input and method, with the metrics."""
        rows: list[dict[str, Any]] = [
            {"input": number, "method": method, "blank": int(self.blank[method][number]), **values}
            for method, scores in self.items()
            for number, values in enumerate(_by_input(scores))
        ]
        return Table(sorted(rows, key=lambda row: row["input"]))  # a stable order keeps that of the methods

    def to_dataframe(self) -> Any:
        """The table as pandas' DataFrame. Raises ImportError where pandas is not installed."""
        return self.table().to_dataframe()

    def __repr__(self) -> str:
        return str(self.table())


def _by_input(scores: Mapping[str, Tensor]) -> list[dict[str, float]]:
    values = {metric: each.tolist() for metric, each in scores.items()}
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
