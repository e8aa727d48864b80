"""What a notebook shows of an answer, before it is written as HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from cnnviz.drawing.figure import Legend
    from cnnviz.drawing.montage import Pixels


@dataclass(frozen=True)
class Figure:
    """A picture with what it is."""

    head: str
    pixels: Pixels | None
    """(H, W, 3); None where it could not be drawn."""
    lines: Sequence[str] = ()
    """What is told below it."""
    legend: Legend | None = None
    """Its colour bar."""
    wide: bool = False
    """Whether it holds text of its own, and is unreadable when it is small."""


@dataclass(frozen=True)
class Figures:
    """Pictures in groups, such as those of one input; a group begins a row, or shares it with others."""

    groups: Sequence[Sequence[Figure]]
    of: int
    """How many groups there are in all."""
    what: str = "input"
    """What a group is of."""
    rest: str = ""
    """How the others are seen."""


@dataclass(frozen=True)
class Rows:
    """A table of text."""

    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Sequence[bool]
    """For each column whether it is text, which begins at the left."""
    of: int
    """How many rows there are in all."""
    rest: str = ""
    """How the others are seen."""
    code: bool = False
    """Whether the first column is code."""


Part: TypeAlias = Figures | Rows


@dataclass(frozen=True)
class Page:
    """An answer: its title, what is told of it, its pictures and tables."""

    title: str
    told: Sequence[str] = ()
    parts: Sequence[Part] = ()
    code: bool = True
    """Whether the title is code, as a recipe is."""
    picture: Callable[[], Pixels] | None = field(default=None)
    """Draws the answer as one picture, for places that show no HTML; None where it is none."""


def short(text: str, most: int = 160) -> str:
    """The text, or its beginning where it has more characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
