"""The folder of a batch run, open for reading: its plan, its items, and its shards, each read when it is needed."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cnnviz.datasets.items import Item, Source
from cnnviz.datasets.plan import SHARDS, Part, read_plan
from cnnviz.datasets.shards.open_shard import OpenShard
from cnnviz.datasets.sources.source_again import source_again

RECENT = 64
"""How many shards stay open: a walk through the whole run would else keep every file open."""
Numbers: TypeAlias = NDArray[np.int64]
_SHARD = re.compile(r"(\d{6,})\.safetensors")
_KINDS: dict[str, Any] = {"id": str, "place": str, "label": int | str, "mask": str}


class NoAnswer(LookupError):
    """An item has no maps: its shard is not there yet, or it failed."""


class RunFolder:
    """What a batch run wrote.

    Raises FileNotFoundError for a folder without a run, ValueError for a plan that is damaged.
    """

    def __init__(self, out: str | Path, source: Source | None = None) -> None:
        self.out, self.given = Path(out), source
        self.plan = read_plan(self.out)
        counts = [part.items for part in self.plan.parts]
        shards = [len(part.starts) for part in self.plan.parts]
        self._firsts = [0, *accumulate(counts)]
        """The numbers of the parts' first items."""
        self._first_shards = [0, *accumulate(shards)]
        self._opened = lru_cache(RECENT)(self.opened)
        self._lines = lru_cache(RECENT)(self._lines_of)

    def __reduce__(self) -> tuple[Any, ...]:
        return RunFolder, (self.out, self.given)  # files are opened again where it is unpickled

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods."""
        return tuple(self.plan.identity.get("methods", {}))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics, which were asked of each method."""
        return tuple(self.plan.identity.get("metrics", {}))

    @property
    def reduced(self) -> bool:
        """Whether less of maps is kept than methods gave."""
        storage = self.plan.identity.get("storage", {})
        return storage.get("channels", "all") != "all" or storage.get("size") is not None

    def place(self, number: int) -> tuple[int, int]:
        """The shard of an item, and the item's place in it."""
        part = bisect_right(self._firsts, number) - 1
        shard, slot = divmod(number - self._firsts[part], self.plan.shard_size)
        return self._first_shards[part] + shard, slot

    def places(self, numbers: range | Numbers) -> tuple[Numbers, Numbers]:
        """The shards of items, and the items' places in them."""
        array = np.asarray(numbers, np.int64)
        parts = np.searchsorted(self._firsts, array, "right") - 1
        shards, slots = np.divmod(array - np.take(self._firsts, parts), self.plan.shard_size)
        return shards + np.take(self._first_shards, parts), slots

    def present(self) -> set[int]:
        """The numbers of the shards that are there now; also of those that are not planned."""
        folder = self.out / SHARDS
        if not folder.is_dir():
            return set()
        found = (_SHARD.fullmatch(file.name) for file in folder.iterdir())
        return {int(each[1]) for each in found if each}

    def is_missing(self, numbers: range | Numbers) -> NDArray[np.bool_]:
        """For each item whether its shard is not there; no shard is opened."""
        return ~np.isin(self.places(numbers)[0], list(self.present()))

    def shard(self, shard: int) -> OpenShard:
        """A shard, open; its header was found to be of this run and place.

        Raises NoAnswer where it is not there, ValueError for one that is damaged or belongs elsewhere.
        """
        return self._opened(shard)

    def opened(self, shard: int) -> OpenShard:
        """As :meth:`shard`, and not kept open here."""
        try:
            opened = OpenShard(self.plan.shard_path(shard))
        except FileNotFoundError:
            raise NoAnswer("it is not computed yet; the same run again goes on") from None
        told, items = opened.about, self.plan.size_of(shard)
        way_out = "take it away, and run the same again"
        if told["run"] != self.plan.digest:
            raise ValueError(f"{opened.path} is a shard of another run; {way_out}")
        if (told["shard"], told["first"], told["items"]) != (shard, self.plan.first_of(shard), items):
            raise ValueError(f"{opened.path} is shard {told['shard']}, of {told['items']} items; {way_out}")
        return opened

    def by_shard(self, numbers: range | Numbers) -> Iterator[tuple[OpenShard | None, Numbers, Numbers]]:
        """The shards of these items, one after the other; None for one that is not there.

        With each the places of its items in it, and their places among ``numbers``, which may be in any order.
        """
        shards, slots = self.places(numbers)
        order = np.argsort(shards, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1) if len(order) else ():
            try:
                shard = self.shard(int(shards[places[0]]))
            except NoAnswer:
                yield None, slots[places], places
            else:
                yield shard, slots[places], places

    def item(self, number: int) -> Item:
        """The item of that number. Raises ValueError for a damaged file of items, OSError for one that is gone."""
        shard, slot = self.place(number)
        try:
            told = json.loads(self._lines(shard)[slot])
            if type(told["id"]) is not str or not all(isinstance(told[key], _KINDS[key]) for key in told):
                raise ValueError(f"it has {str(told)[:80]}")
            return Item(**told)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise self._damaged(self._part_of(shard)) from error

    def _lines_of(self, shard: int) -> list[str]:
        """The lines of a shard's items."""
        part = self._part_of(shard)
        number = shard - self._first_shards[self.plan.parts.index(part)]
        start, stop = part.starts[number], ([*part.starts, None])[number + 1]
        with (self.out / part.file).open("rb") as file:
            file.seek(start)
            lines = file.read(-1 if stop is None else stop - start).decode().split("\n")
        if len(lines) != self.plan.size_of(shard) + 1 or lines[-1]:
            raise ValueError(f"it has {len(lines) - 1} lines for the items of shard {shard}")
        return lines[:-1]

    def _part_of(self, shard: int) -> Part:
        return self.plan.parts[bisect_right(self._first_shards, shard) - 1]

    def _damaged(self, part: Part) -> ValueError:
        path = self.out / part.file
        return ValueError(f"the file of items '{path}' is damaged; put it back as it was, or begin in a new folder")

    def row(self, number: int) -> tuple[OpenShard, int, dict[str, Any]]:
        """The shard of an item, its place there, and what is said of it.

        Raises NoAnswer where the shard is not there; ValueError where it is damaged, or has another item there.
        """
        shard, slot = self.place(number)
        opened = self.shard(shard)
        return opened, slot, self.checked(opened, slot, number)[1]

    def checked(self, shard: OpenShard, slot: int, number: int) -> tuple[Item, dict[str, Any]]:
        """An item, and what its shard says of it. Raises ValueError where the shard has another item there."""
        row, item = shard.row(slot), self.item(number)
        if row["id"] != item.id:
            raise ValueError(
                f"{shard.path} has {row['id']!r} where {item.id!r} is planned; take it away, and run the same again"
            )
        return item, row

    @cached_property
    def source(self) -> Source:
        """Where pictures are read again. Raises ValueError where it can't be opened again."""
        return source_again(self.plan) if self.given is None else self.given
