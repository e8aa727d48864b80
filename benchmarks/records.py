"""Measurements in a JSON file: rows of any one kind, with the machine, the versions and the commands that made them."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch

from cnnviz.images.writing import write

HOME = Path(__file__).parent / "results"
DOCS = Path(__file__).parent.parent / "docs"
PACKAGES = ("cnnviz", "torch", "torchvision", "captum", "grad-cam", "torchcam", "zennit", "numpy")


class RecordsError(ValueError):
    """A file of results can't be used; says why, and what to do."""


class Result(Protocol):
    """A dataclass that is kept as one entry of a JSON list."""

    @property
    def key(self) -> tuple[object, ...]:
        """What was measured; a new result takes the place of an earlier one with the same key."""


class Checked(Result, Protocol):
    """A row of measured numbers."""

    def check(self) -> None:
        """Raises ValueError for numbers that can't have been measured."""


R = TypeVar("R", bound=Checked)
L = TypeVar("L", bound=Result)


@dataclass(frozen=True)
class Format(Generic[R, L]):
    """The entries of one kind of file."""

    row: type[R]
    left_out: type[L]
    """What is not measured, and why."""
    command: str
    """Makes the file."""
    same_machine: bool = True
    """Whether rows can be compared only if one machine measured all of them with the same versions, as times."""


@dataclass
class Records(Generic[R, L]):
    """The content of one file."""

    format: Format[R, L]
    about: dict[str, Any]
    commands: list[str]
    rows: list[R] = field(default_factory=list)
    left_out: list[L] = field(default_factory=list)

    def add(self, result: R | L) -> None:
        """A measurement takes the place of an earlier one of the same."""
        self.rows = [row for row in self.rows if row.key != result.key]
        self.left_out = [entry for entry in self.left_out if entry.key != result.key]
        if isinstance(result, self.format.row):
            self.rows.append(result)
        elif isinstance(result, self.format.left_out):
            self.left_out.append(result)

    def write(self, path: Path) -> None:
        lists = {"rows": [vars(row) for row in self.rows], "left_out": [vars(entry) for entry in self.left_out]}
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"about": self.about, "commands": self.commands, **lists}
        write(path, (json.dumps(content, indent=1) + "\n").encode())

    def where(self) -> str:
        """Device, versions, date and commands, in one sentence without its end; for what was added later, one more."""
        parts = [(self.about, self.commands), *((later, later["commands"]) for later in self.about.get("added", ()))]
        return ". Added on ".join(self._told(about, commands) for about, commands in parts)

    @staticmethod
    def _told(about: Mapping[str, Any], commands: Sequence[str]) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
        device = about["processor"] if about["device"] == "CPU" else f"{about['device']}, CUDA {about['cuda']}"
        commands = "; ".join(f"`{command}`" for command in commands)
        return (
            f"{device}, {about['cores']} cores, {about['threads']} threads, {about['system']}, "
            f"Python {about['python']}; {versions}; {about['date']}: {commands}"
        )

    def collect(self, results: Iterable[R | L], path: Path | None, line: Callable[[R | L], str]) -> list[R | L]:
        """Add results as they are finished, write the file and print a line each time; returns the results.

        What Ctrl-C interrupts keeps the finished ones, and says so. Without a path nothing is written.
        """
        began, collected = time.perf_counter(), []
        try:
            for result in results:
                self.add(result)
                if path is not None:
                    self.write(path)
                collected.append(result)
                print(line(result), flush=True)
        except KeyboardInterrupt:
            print(f"interrupted; {len(self.rows)} rows are in {path}", file=sys.stderr)
            raise
        seconds = time.perf_counter() - began
        print(f"{len(self.rows)} rows, {len(self.left_out)} left out, in {path or 'no file'}; {seconds:.0f} s")
        return collected


def read(path: Path, format: Format[R, L]) -> Records[R, L]:
    """The records in a file. Raises RecordsError where there is none, or a broken one."""
    made = f"make it with {format.command}"
    if not path.is_file():
        raise RecordsError(f"{path} is not there; {made}")
    try:
        content = json.loads(path.read_text())
        rows = [format.row(**entry) for entry in content["rows"]]
        for row in rows:
            row.check()
        left_out = [format.left_out(**entry) for entry in content["left_out"]]
        commands = [str(command) for command in content["commands"]]
        return Records(format, dict(content["about"]), commands, rows, left_out)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RecordsError(f"{path} can't be read as results ({reason}); {made}") from error


def begun(path: Path, format: Format[R, L], about: dict[str, Any], command: str, add: bool) -> Records[R, L]:
    """Records without rows, or with those of the file if ``add``.

    Raises RecordsError where the file can't be read, or its rows can't be compared with new ones.
    """
    if not add or not path.exists():
        return Records(format, about, [command])
    records = read(path, format)
    differing = [name for name, value in about.items() if name != "date" and records.about.get(name) != value]
    if differing and format.same_machine:
        raise RecordsError(
            f"{path} was measured with other {', '.join(differing)}; leave --add out, or give another file with --out"
        )
    if differing:
        added = records.about.setdefault("added", [])
        facts = {name: value for later in added[-1:] for name, value in later.items() if name != "commands"}
        if facts != about:
            added.append({**about, "commands": []})
        added[-1]["commands"].append(command)
        return records
    records.about, records.commands = about, list(dict.fromkeys([*records.commands, command]))
    return records


def about(device: str, threads: int) -> dict[str, Any]:
    """Where, when and with what it is measured."""
    facts: dict[str, Any] = {
        "date": date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: number for name in PACKAGES if (number := _version(name))},
    }
    return facts | ({"cuda": torch.version.cuda} if device.startswith("cuda") else {})


def processor() -> str:
    """The processor's name, and the widest vectors it calculates with."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.processor() or platform.machine()])[0]}, {torch.backends.cpu.get_cpu_capability()}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
