"""The rows of speed and growth: seconds and bytes of one method, and what is read off them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.records import Format


@dataclass(frozen=True)
class Comparison:
    """One method beside one peer, on one network and batch."""

    method: str
    peer: str
    """Empty where nobody else has the method."""
    network: str
    batch: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.method, self.peer, self.network, self.batch


@dataclass(frozen=True)
class LeftOut(Comparison):
    """What is not measured, and why."""

    reason: str


@dataclass(frozen=True)
class Row(Comparison):
    """What a comparison gave."""

    trained: bool
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

    def check(self) -> None:
        for name in ("forward", "ours", "theirs"):
            check_times(name, getattr(self, name))


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
    def key(self) -> tuple[str, int, str, str]:
        return self.grows, self.value, self.method, self.network

    def check(self) -> None:
        check_times("seconds", self.seconds)


@dataclass(frozen=True)
class Rate:
    """How fast one method explains batches of one size, beside how fast the network passes them."""

    method: str
    how: str
    """Plain, prepared, or the precision of the passes."""
    network: str
    batch: int
    size: int
    seconds: list[float]
    forward: list[float]
    launches: int
    synchronizations: int | None
    """None on a CPU, for which Python always waits."""

    @property
    def key(self) -> tuple[str, str, str, int]:
        return f"{self.method}, {self.how}", "", self.network, self.batch

    @property
    def share(self) -> float:
        """Of the forward pass's rate."""
        return median_ratio(self.forward, self.seconds)

    def check(self) -> None:
        check_times("seconds", self.seconds)
        check_times("forward", self.forward)


@dataclass(frozen=True)
class Earlier:
    """A figure of an earlier version, as it was written down."""

    table: str
    what: str
    beside: str
    figure: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.table, self.what, self.beside

    def check(self) -> None:
        if not all(isinstance(text, str) and text for text in vars(self).values()):
            raise ValueError(f"{self} has an empty part")


SPEED = Format(Row, LeftOut, "python -m benchmarks.speed")
GROWTH = Format(Point, LeftOut, "python -m benchmarks.speed.growth")
RATES = Format(Rate, LeftOut, "python -m benchmarks.speed.rates")
EARLIER = Format(Earlier, LeftOut, "figures that were written down", same_machine=False)


def check_times(name: str, times: object) -> None:
    """Raises ValueError for what is no list of seconds."""
    if not (isinstance(times, list) and all(seconds > 0 for seconds in times)):
        raise ValueError(f"{name} is {times!r}, not a list of times")


def rate_of(seconds: Sequence[float], batch: int) -> float:
    """Pictures in a second, of the median."""
    return batch / statistics.median(seconds)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How long ours takes where theirs takes one, of the medians."""
    return statistics.median(ours) / statistics.median(theirs)


def spread(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest ratio of any round."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return min(ratios), max(ratios)
