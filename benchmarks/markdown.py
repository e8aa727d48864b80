"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

MARKS = {"l": "---", "r": "--:", "c": ":-:"}


def table(alignment: str, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table; alignment: l, r or c for each column."""
    yield f"| {' | '.join(titles)} |"
    yield f"|{'|'.join(MARKS[letter] for letter in alignment)}|"
    yield from (f"| {' | '.join(cells)} |" for cells in rows)


def grouped(pairs: Iterable[tuple[K, str]]) -> dict[K, str]:
    """The texts of each key, one behind the other, keys in the order in which they come."""
    groups: dict[K, list[str]] = {}
    for key, text in pairs:
        groups.setdefault(key, []).append(text)
    return {key: ", ".join(texts) for key, texts in groups.items()}
