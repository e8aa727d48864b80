"""What the sanity benchmark measured, as it is kept: a number for each picture, in a JSON file."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.records import HOME, about
from cnnviz.images.files import write as write_whole

FILE = HOME / "sanity.json"
MADE = "make it with python -m benchmarks.sanity"


@dataclass(frozen=True)
class Row:
    """One method in one part, on one network."""

    part: str
    network: str
    method: str
    written: str
    """The method with the settings that are not its own defaults."""
    size: int
    """Pixels on a side of the pictures."""
    seconds: float
    figures: dict[str, list[float]]
    """By name a number for each picture."""
    remark: str = ""

    @property
    def what(self) -> tuple[str, str, str]:
        return self.part, self.network, self.method


@dataclass(frozen=True)
class LeftOut:
    """What is not measured, and why."""

    part: str
    network: str
    method: str
    reason: str

    @property
    def what(self) -> tuple[str, str, str]:
        return self.part, self.network, self.method


@dataclass
class Records:
    """All that one file holds."""

    about: dict[str, Any]
    commands: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, found: Row | LeftOut) -> None:
        """A measurement takes the place of an earlier one of the same."""
        self.rows = [each for each in self.rows if each.what != found.what]
        self.left_out = [each for each in self.left_out if each.what != found.what]
        if isinstance(found, Row):
            self.rows.append(found)
        else:
            self.left_out.append(found)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(asdict(self), indent=1) + "\n").encode())

    def values(self, method: str, figure: str, network: str | None = None) -> list[float]:
        """A figure of a method, a number for each picture, of one network or of all."""
        return [
            value
            for row in self.rows
            if row.method == method and network in (None, row.network)
            for value in row.figures.get(figure, [])
        ]


def read(path: Path) -> Records:
    """What a file holds. Raises FileNotFoundError or ValueError, which say how to make one."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; {MADE}")
    try:
        kept = json.loads(path.read_text())
        rows = [Row(**each) for each in kept["rows"]]
        for row in rows:
            if not all(math.isfinite(value) for each in row.figures.values() for value in each):
                raise ValueError(f"{row.method} has figures that are no numbers")
        left_out = [LeftOut(**each) for each in kept["left_out"]]
        return Records(dict(kept["about"]), [str(each) for each in kept["commands"]], rows, left_out)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{path} can't be read as results ({what}); {MADE}") from error


def begun(path: Path, device: str, threads: int, command: str, add: bool) -> Records:
    """An empty file, or what is there."""
    here = about(device, threads)
    if not add or not path.exists():
        return Records(here, [command])
    records = read(path)  # figures do not depend on the machine as times do: what is there may be of another
    return Records(here, list(dict.fromkeys([*records.commands, command])), records.rows, records.left_out)


def mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def error_of_mean(values: list[float]) -> float:
    """The standard error; infinite where one number alone tells nothing of it."""
    if len(values) < 2:
        return math.inf
    middle = math.fsum(values) / len(values)
    spread = math.fsum((each - middle) ** 2 for each in values) / (len(values) - 1)
    return math.sqrt(spread / len(values))
