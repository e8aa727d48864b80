"""What holds for the items of every source: there are some, and each has an id of its own."""

from __future__ import annotations

from collections.abc import Iterator

from cnnviz.datasets.items import Item, Source


class Unique:
    """Refuses an id that was there before."""

    def __init__(self, place: str):
        self._place = place
        self._seen: dict[str, int] = {}

    def add(self, id: str, number: int) -> str:
        """The id of what stands at that number. Raises ValueError for one that stands at another number too."""
        first = self._seen.setdefault(id, number)
        if first != number:
            raise ValueError(f"'{id}' is there twice, in {self._place} {first} and {number}; keep one of them")
        return id


def checked_items(source: Source) -> Iterator[Item]:
    """The items of any source. Raises ValueError where there are none, or two have one id; TypeError for no items."""
    unique = Unique("items")
    count = 0
    for count, item in enumerate(source.items(), 1):
        if not isinstance(item, Item) or not isinstance(item.id, str) or not item.id:
            raise TypeError(f"item {count - 1} of the source is {item!r:.60}; a source gives Items, whose id is a text")
        unique.add(item.id, count - 1)
        yield item
    if not count:
        raise ValueError("the source has no items, so there is nothing to explain")
