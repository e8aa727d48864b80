"""What a batch run is over: items, and where they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Opened: TypeAlias = str | Path | Image.Image | NDArray[Any] | Tensor
"""A picture: a file, a PIL image, a uint8 array (H, W, 3), or an input (C, *spatial) as the network takes it."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture of a source."""

    id: str
    """Its name, unique in the source and the same wherever the data lies: a path below the source's folder, a key."""
    place: str | None = None
    """Where the source finds it; None: the id tells."""
    label: int | str | None = None
    """The true class, by number or name; None where it is not known."""
    mask: str | None = None
    """A file of the annotated evidence; None where there is none."""


@runtime_checkable
class Source(Protocol):
    """Where the items of a batch run come from. It is pickled, and used by worker processes on other machines too."""

    def items(self) -> Iterator[Item]:
        """All items, in the same order each time. Raises ValueError or OSError where there are none."""

    def open(self, item: Item) -> Opened:
        """The picture of an item; several threads call it. Raises OSError or ValueError for one that is damaged."""

    def described(self) -> dict[str, Any]:
        """The kind of source and where it is, for JSON. It is told, and does not belong to the run's identity."""
