"""Figures of one method, a number for each picture, and their means."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Subject:
    """One method in one part, on one network."""

    part: str
    network: str
    method: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.part, self.network, self.method


@dataclass(frozen=True)
class LeftOut(Subject):
    """What is not measured, and why."""

    reason: str


@dataclass(frozen=True)
class Row(Subject):
    """The figures of a subject."""

    written: str
    """The method with the settings that are not its own defaults."""
    size: int
    """Pixels on a side of the pictures."""
    seconds: float
    figures: dict[str, list[float]]
    """By name a number for each picture."""
    remark: str = ""

    @property
    def pictures(self) -> int:
        """The number of pictures that were measured."""
        return len(next(iter(self.figures.values())))

    def check(self) -> None:
        if not all(math.isfinite(number) for numbers in self.figures.values() for number in numbers):
            raise ValueError(f"{self.method} has figures that are no numbers")


class Records(Protocol):
    """What was measured, and what was not."""

    rows: list[Row]
    left_out: list[LeftOut]


@dataclass
class Measured:
    """Rows that no file holds yet."""

    rows: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, result: Row | LeftOut) -> None:
        if isinstance(result, Row):
            self.rows.append(result)
        else:
            self.left_out.append(result)


def values(records: Records, method: str, figure: str, network: str | None = None) -> list[float]:
    """A figure of a method, a number for each picture, of one network or of all."""
    rows = [row for row in records.rows if row.method == method and network in (None, row.network)]
    return [number for row in rows for number in row.figures.get(figure, [])]


def mean(numbers: Sequence[float]) -> float | None:
    return statistics.fmean(numbers) if numbers else None


def mean_of_networks(records: Records, method: str, figure: str) -> float | None:
    """The mean of the networks' means, since not all have as many pictures."""
    names = dict.fromkeys(row.network for row in records.rows if row.method == method and figure in row.figures)
    means = [mean(values(records, method, figure, name)) for name in names]
    return mean([number for number in means if number is not None])


def error_of_mean(numbers: Sequence[float]) -> float:
    """The standard error; infinite where one number alone tells nothing of it."""
    return statistics.stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else math.inf
