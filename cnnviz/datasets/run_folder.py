"""The folder of a batch run, open for reading: its plan, its items, and its shards, each read when it is needed."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cnnviz.datasets.items import Item, Source
from cnnviz.datasets.open_shard import OpenShard
from cnnviz.images.reading import one_line

FORMAT = 1
OPEN_SHARDS = 64
"""How many shards stay open: a view of the whole run would else keep a file open for each."""
Numbers: TypeAlias = NDArray[np.int64]
_SHARD = re.compile(r"(\d{6,})\.safetensors")
_ITEMS = re.compile(r"items-\d{4,}\.jsonl")


class NoAnswer(LookupError):
    """An item has no maps: its shard is not there yet, or it failed."""


@dataclass(frozen=True)
class Part:
    """The items of one file, in shards of their own."""

    file: str
    items: int
    digest: str
    first: int
    """The number of its first item in the run."""
    first_shard: int


class RunFolder:
    """What a batch run wrote.

    Raises FileNotFoundError for a folder without a run, ValueError for a ``batch.json`` that tells of none.
    """

    def __init__(self, out: str | Path, source: Source | None = None) -> None:
        self.out = Path(out)
        self.given = source
        self._about = _read_about(self.out)
        self.digest: str = self._about["digest"]
        self.size: int = self._about["size"]
        counts = [part["items"] for part in self._about["parts"]]
        firsts = [0, *accumulate(counts)]
        shards = [0, *accumulate(-(-count // self.size) for count in counts)]
        self.parts = [
            Part(part["file"], part["items"], part["digest"], first, shard)
            for part, first, shard in zip(self._about["parts"], firsts, shards, strict=False)
        ]
        self.items, self.shards = firsts[-1], shards[-1]
        self._firsts, self._first_shards = firsts[:-1], shards[:-1]
        self._open: OrderedDict[int, OpenShard] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return RunFolder, (self.out, self.given)  # files are opened again where it is unpickled

    @property
    def identity(self) -> dict[str, Any]:
        """All that determines the bytes of the run."""
        identity: dict[str, Any] = self._about["identity"]
        return identity

    @cached_property
    def categories(self) -> tuple[str, ...] | None:
        """Class names by index."""
        names = self._about.get("categories")
        if names is None:
            return None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{self.out / 'batch.json'} has categories that are not all text")
        return tuple(names)

    def place(self, number: int) -> tuple[int, int]:
        """The shard of an item, and the item's place in it."""
        part = self.parts[bisect_right(self._firsts, number) - 1]
        shard, slot = divmod(number - part.first, self.size)
        return part.first_shard + shard, slot

    def planned(self, shard: int) -> tuple[int, int]:
        """The number of a shard's first item, and how many it has."""
        part = self.parts[bisect_right(self._first_shards, shard) - 1]
        first = (shard - part.first_shard) * self.size
        return part.first + first, min(self.size, part.items - first)

    def by_shard(self, numbers: range | Numbers) -> Iterator[tuple[OpenShard | None, Numbers, Numbers]]:
        """The shards of these items, one after the other; None for one that is not there.

        With each the places of its items in it, and their places among ``numbers``, which may be in any order.
        """
        array = np.asarray(numbers, np.int64)
        parts = np.searchsorted(self._firsts, array, "right") - 1
        shards, slots = np.divmod(array - np.take(self._firsts, parts), self.size)
        shards += np.take(self._first_shards, parts)
        order = np.argsort(shards, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1) if len(order) else ():
            try:
                shard = self.shard(int(shards[places[0]]))
            except NoAnswer:
                yield None, slots[places], places
            else:
                yield shard, slots[places], places

    def is_missing(self, numbers: range | Numbers) -> NDArray[np.bool_]:
        """For each item whether its shard is not there; no shard is opened."""
        array = np.asarray(numbers, np.int64)
        parts = np.searchsorted(self._firsts, array, "right") - 1
        shards = (array - np.take(self._firsts, parts)) // self.size + np.take(self._first_shards, parts)
        return ~np.isin(shards, list(self.present()))

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods, as a shard tells; none without shards."""
        return tuple(self.metric_names)

    @cached_property
    def _metric_names(self) -> dict[str, tuple[str, ...]]:
        shard = self.shard(min(number for number in self.present() if number < self.shards))
        return {method: shard.told(method, "metrics") for method in shard.methods}

    @property
    def metric_names(self) -> dict[str, tuple[str, ...]]:
        """The names of each method's metrics, as a shard tells; none without shards."""
        return self._metric_names if self.present() & set(range(self.shards)) else {}

    def shard_path(self, shard: int) -> Path:
        """The file of a shard, whether it is there or not."""
        return self.out / "shards" / f"{shard:06d}.safetensors"

    def present(self) -> set[int]:
        """The numbers of the shards that are there now; also of those that are not planned."""
        folder = self.out / "shards"
        if not folder.is_dir():
            return set()
        found = (_SHARD.fullmatch(file.name) for file in folder.iterdir())
        return {int(each[1]) for each in found if each}

    def shard(self, shard: int) -> OpenShard:
        """A shard, open; its header was found to be of this run and place.

        Raises NoAnswer where it is not there, ValueError for one that is damaged or belongs elsewhere.
        """
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        opened = self.opened(shard)
        self._open[shard] = opened
        if len(self._open) > OPEN_SHARDS:
            self._open.popitem(last=False)
        return opened

    def opened(self, shard: int) -> OpenShard:
        """As :meth:`shard`, and not kept open here."""
        try:
            opened = OpenShard(self.shard_path(shard))
        except FileNotFoundError:
            raise NoAnswer(f"shard {shard} is not computed yet; run the same command again to go on") from None
        first, items = self.planned(shard)
        told = opened.about
        if told["run"] != self.digest:
            raise ValueError(f"{opened.path} is a shard of another run; take it away, and run the same command again")
        if (told["shard"], told["first"], told["items"]) != (shard, first, items):
            raise ValueError(
                f"{opened.path} is shard {told['shard']} of this run with {told['items']} items, under another's name; "
                "take it away, and run the same command again"
            )
        return opened

    def item(self, number: int) -> Item:
        """The item of that number. Raises ValueError for a damaged file of items."""
        part = bisect_right(self._firsts, number) - 1
        lines = self._lines[part]
        return lines.item(number - self.parts[part].first)

    @cached_property
    def _lines(self) -> list[ItemLines]:
        return [ItemLines(self.out / part.file, part.items) for part in self.parts]

    def row(self, number: int) -> tuple[OpenShard, int, dict[str, Any]]:
        """The shard of an item, its place there, and what is said of it.

        Raises NoAnswer where the shard is not there; ValueError where it is damaged, or has another item there.
        """
        shard, slot = self.place(number)
        opened = self.shard(shard)
        return opened, slot, self.checked_row(opened, slot, number)

    def checked_row(self, shard: OpenShard, slot: int, number: int) -> dict[str, Any]:
        """What a shard says of an item. Raises ValueError where it has another item there."""
        row, item = shard.row(slot), self.item(number)
        if row["id"] != item.id:
            raise ValueError(
                f"{shard.path} has {row['id']!r} where {item.id!r} is planned; take it away, and run the same command "
                "again"
            )
        return row

    @cached_property
    def source(self) -> Source:
        """Where pictures are read again. Raises ValueError where it can't be opened again."""
        if self.given is not None:
            return self.given
        from cnnviz.datasets.source_again import source_again

        return source_again(self._about.get("source"), self.out)


class ItemLines:
    """A file of items, one in a line; a line is read when it is needed."""

    def __init__(self, path: Path, items: int) -> None:
        self.path, self._items = path, items

    @cached_property
    def _file(self) -> mmap:
        try:
            with self.path.open("rb") as file:
                return mmap(file.fileno(), 0, access=ACCESS_READ)
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.path} is not there, and it tells which items the run is over") from None
        except ValueError:
            raise self._damaged("it is empty") from None

    @cached_property
    def _ends(self) -> Numbers:
        ends = np.flatnonzero(np.frombuffer(self._file, np.uint8) == ord("\n"))
        if len(ends) != self._items or ends[-1] != len(self._file) - 1:
            raise self._damaged(f"it has {len(ends)} items, and the run {self._items}")
        return ends

    def item(self, line: int) -> Item:
        """The item of that line. Raises ValueError for a file that is damaged, OSError for one that can't be read."""
        start = int(self._ends[line - 1]) + 1 if line else 0
        try:
            told = json.loads(self._file[start : int(self._ends[line])])
            kinds = {"id": str, "place": str, "label": int | str, "mask": str}
            if type(told["id"]) is not str or not all(isinstance(told[key], kinds[key]) for key in told):
                raise ValueError(f"line {line + 1} is {str(told)[:80]}")
            return Item(**told)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise self._damaged(f"line {line + 1} is no item") from error

    def _damaged(self, reason: str) -> ValueError:
        return ValueError(f"{self.path} is damaged: {reason}; put the file back, or begin in a new folder")


def _read_about(out: Path) -> dict[str, Any]:
    """What ``batch.json`` tells, checked."""
    path = out / "batch.json"
    if not path.is_file():
        raise FileNotFoundError(f"{out} holds no batch: there is no batch.json; give the folder that a batch run wrote")
    try:
        about = json.loads(path.read_bytes())
        _check(about)
    except KeyError as error:
        raise ValueError(f"{path} does not tell of a batch run: it has no {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} does not tell of a batch run: {one_line(error)}") from error
    if not about["parts"]:
        raise ValueError(f"{path} does not tell of a batch run: it has no items")
    return dict(about)


def _check(about: Any) -> None:
    if not isinstance(about, dict):
        raise ValueError("it is no object")
    form = about["format"]
    if type(form) is not int or form > FORMAT:
        raise ValueError(f"it has format {str(form)[:20]}, and this cnnviz reads {FORMAT}; update cnnviz")
    for name, kind in {"digest": str, "size": int, "identity": dict, "parts": list}.items():
        if type(about[name]) is not kind:
            raise ValueError(f"its {name} is {str(about[name])[:40]!r}")
    if about["size"] < 1:
        raise ValueError(f"its size is {about['size']}")
    for part in about["parts"]:
        if type(part["items"]) is not int or part["items"] < 1 or type(part["digest"]) is not str:
            raise ValueError(f"one of its parts is {str(part)[:80]}")
        if type(part["file"]) is not str or not _ITEMS.fullmatch(part["file"]):  # which leads out of the folder, else
            raise ValueError(f"its items are in {str(part['file'])[:80]!r}, which is no name of such a file")
