"""What a command line asks of each picture. Nothing here loads torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Question:
    """Which targets are explained: those named, one for each picture, or the most probable classes."""

    targets: Sequence[str] = ()
    """As typed; none: the predicted class."""
    table: Path | None = None
    """A class for each picture."""
    top: int | None = None
    """So many classes, the most probable first."""

    def __post_init__(self) -> None:
        """Raises ValueError for more than one of them."""
        if self.targets and self.top is not None:
            raise ValueError("--target names what is explained and --top-classes chooses classes; say one of them")
        if self.table is not None and (self.targets or self.top is not None):
            other = "--target" if self.targets else "--top-classes"
            raise ValueError(f"--targets has a class for each picture, and {other} says another; say one of them")
