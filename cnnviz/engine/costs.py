"""What work takes on a kind of device: seconds of counted operations and bytes.

Regions compute less than whole passes do, in more and slower steps. Which of both is faster depends on the network, the
number of variants and the device; ``python -m benchmarks.costs`` measures the constants.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Work:
    """Counted work; a whole pass of several inputs together hands out its operations once."""

    operations: int = 0
    """Operations of whole passes."""
    bytes: int = 0
    """Of the outputs of whole passes, all inputs together."""
    region_operations: int = 0
    """Operations that are recorded, or replayed on regions."""
    region_bytes: int = 0
    """Of the values that replays compute, all variants together."""

    def __add__(self, other: Work) -> Work:
        return Work(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: int) -> Work:
        return Work(*(times * one for one in astuple(self)))


@dataclass(frozen=True)
class Costs:
    """Seconds for one of what ``Work`` counts, in the same order."""

    launch: float
    byte: float
    region_launch: float
    region_byte: float

    def seconds(self, work: Work) -> float:
        """How long the work is expected to take."""
        return float(sum(each * count for each, count in zip(astuple(self), astuple(work), strict=True)))
