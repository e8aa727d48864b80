"""What was measured, as it is kept: rows in a JSON file, with the machine, the versions and the commands of them."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cnnviz.images.files import write as write_whole

HOME = Path(__file__).parent / "results"
PACKAGES = ("cnnviz", "torch", "torchvision", "captum", "grad-cam", "torchcam", "zennit", "numpy")


@dataclass(frozen=True)
class Row:
    """One method beside one peer, on one network and batch."""

    method: str
    peer: str
    """Empty where nobody else has the method."""
    network: str
    trained: bool
    batch: int
    size: int
    forward: list[float]
    """Seconds of each run of one forward pass in inference mode."""
    ours: list[float]
    theirs: list[float]
    """In the same rounds; empty without a peer."""
    ours_peak: int | None = None
    """Bytes that a run needs at most, beyond what was there."""
    theirs_peak: int | None = None
    cosine: float | None = None
    """Between the two maps: the batch's lowest. None where they are not compared."""
    difference: float | None = None
    """The largest between the two maps, relative to the peer's peak."""
    remark: str = ""

    @property
    def what(self) -> tuple[str, str, str, int]:
        return self.method, self.peer, self.network, self.batch


@dataclass(frozen=True)
class LeftOut:
    """What is not measured, and why."""

    method: str
    peer: str
    network: str
    batch: int
    reason: str

    @property
    def what(self) -> tuple[str, str, str, int]:
        return self.method, self.peer, self.network, self.batch


@dataclass(frozen=True)
class Point:
    """One method where one thing grows and all else stays."""

    grows: str
    value: int
    method: str
    network: str
    seconds: list[float]
    peak: int | None

    @property
    def what(self) -> tuple[str, int, str, str]:
        return self.grows, self.value, self.method, self.network


@dataclass
class Records:
    """All that one file holds."""

    about: dict[str, Any]
    commands: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def add(self, found: Row | LeftOut | Point) -> None:
        """A measurement takes the place of an earlier one of the same."""
        if isinstance(found, Point):
            self.points = [each for each in self.points if each.what != found.what] + [found]
            return
        self.rows = [each for each in self.rows if each.what != found.what]
        self.left_out = [each for each in self.left_out if each.what != found.what]
        if isinstance(found, Row):
            self.rows.append(found)
        else:
            self.left_out.append(found)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(asdict(self), indent=1) + "\n").encode())


def read(path: Path) -> Records:
    """What a file holds. Raises FileNotFoundError or ValueError, which say how to make one."""
    made = "make it with python -m benchmarks.speed or benchmarks.growth"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; {made}")
    try:
        kept = json.loads(path.read_text())
        kinds = {"rows": Row, "left_out": LeftOut, "points": Point}
        lists = {name: [_checked(kind, each) for each in kept[name]] for name, kind in kinds.items()}
        return Records(dict(kept["about"]), [str(each) for each in kept["commands"]], **lists)
    except (ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"{path} can't be read as results ({what}); {made}") from error


def _checked(kind: type[Any], kept: dict[str, Any]) -> Any:
    found = kind(**kept)
    for each in fields(kind):
        value = getattr(found, each.name)
        if str(each.type) == "list[float]" and not (isinstance(value, list) and all(v > 0 for v in value)):
            raise ValueError(f"{each.name} is {value!r}, not a list of times")
    return found


def begun(path: Path, device: str, threads: int, command: str, add: bool) -> Records:
    """An empty file, or what is there. Raises ValueError for what was measured elsewhere or with other versions."""
    here = about(device, threads)
    if not add or not path.exists():
        return Records(here, [command])
    records = read(path)
    other = [name for name, value in here.items() if name != "date" and records.about.get(name) != value]
    if other:
        raise ValueError(
            f"{path} was measured with other {', '.join(other)}; leave --add out, or give another file with --out"
        )
    records.about["date"] = here["date"]
    records.commands = list(dict.fromkeys([*records.commands, command]))
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
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }
    return facts | ({"cuda": torch.version.cuda} if device.startswith("cuda") else {})


def processor() -> str:
    """The processor's name, and the widest vectors it calculates with."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{(named or [platform.processor() or platform.machine()])[0]}, {torch.backends.cpu.get_cpu_capability()}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# What is read off them


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Of the medians: how long ours takes where theirs takes one."""
    return statistics.median(ours) / statistics.median(theirs)


def spread(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest ratio of any round."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return min(ratios), max(ratios)


def geometric_mean(values: Iterable[float]) -> float:
    return statistics.geometric_mean(values)
