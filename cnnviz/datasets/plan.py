"""The plan of a batch run: which items there are, how they are cut into shards, and whose answers these are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cnnviz.datasets.items import Item
from cnnviz.datasets.question import differences
from cnnviz.datasets.shards.commit import commit, digest_of, make_folder
from cnnviz.datasets.shards.shard_file import compact
from cnnviz.datasets.workers.fingerprint import fingerprint

PLAN, SHARDS, KIND, FORMAT = "batch.json", "shards", "cnnviz batch", 1


@dataclass(frozen=True)
class Part:
    """Items that were planned together: at first, or when the source had grown."""

    file: str
    items: int
    sha256: str
    starts: tuple[int, ...]
    """Where the lines of each shard start in the file, in bytes."""


@dataclass(frozen=True)
class BatchPlan:
    """What is written once, and read by everybody: by workers, by a run that goes on, by who reads the answers."""

    folder: Path
    identity: Mapping[str, Any]
    digest: str
    """The SHA-256 of the identity and of the shards' size; every shard has it in its header."""
    shard_size: int
    parts: tuple[Part, ...]
    source: Mapping[str, Any]
    """What the source told of itself."""
    categories: tuple[str, ...] | None = None
    """Class names by index; the identity has their fingerprint."""

    def __len__(self) -> int:
        return sum(part.items for part in self.parts)

    @property
    def shards(self) -> int:
        """How many there are."""
        return sum(len(part.starts) for part in self.parts)

    def items_of(self, shard: int) -> list[Item]:
        """The items of a shard, in their order."""
        part, number, _ = self._place(shard)
        with (self.folder / part.file).open("rb") as file:
            file.seek(part.starts[number])
            count = min(self.shard_size, part.items - number * self.shard_size)
            return [_item(file.readline(), part.file) for _ in range(count)]

    def first_of(self, shard: int) -> int:
        """The number of a shard's first item, over all parts."""
        _, number, before = self._place(shard)
        return before + number * self.shard_size

    def size_of(self, shard: int) -> int:
        """How many items a shard has."""
        part, number, _ = self._place(shard)
        return min(self.shard_size, part.items - number * self.shard_size)

    def shard_path(self, shard: int) -> Path:
        """The file that a shard is committed as."""
        return self.folder / SHARDS / f"{shard:06d}.safetensors"

    def items(self) -> Iterator[Item]:
        """All items, read line by line."""
        for part in self.parts:
            with (self.folder / part.file).open("rb") as file:
                for line in file:
                    yield _item(line, part.file)

    def committed(self) -> list[int]:
        """The shards that are there, by number; others have to be computed."""
        try:
            names = {path.name for path in (self.folder / SHARDS).iterdir()}
        except FileNotFoundError:
            return []
        return [shard for shard in range(self.shards) if self.shard_path(shard).name in names]

    def _place(self, shard: int) -> tuple[Part, int, int]:
        """The part that a shard is of, its number there, and how many items earlier parts have."""
        before = 0
        number = shard
        for part in self.parts:
            if 0 <= number < len(part.starts):
                return part, number, before
            number -= len(part.starts)
            before += part.items
        raise IndexError(f"there is no shard {shard}; the run has {self.shards}")


def is_batch(folder: str | Path) -> bool:
    """Whether a folder is that of a batch run."""
    return (Path(folder) / PLAN).is_file()


def read_plan(folder: Path) -> BatchPlan:
    """The plan of a run. Raises FileNotFoundError where there is none, ValueError for a file that is damaged."""
    path = folder / PLAN
    if not path.is_file():
        raise FileNotFoundError(f"'{folder}' holds no batch run: it has no {PLAN}")
    try:
        told = json.loads(path.read_bytes())
        if told["kind"] != KIND:
            raise ValueError("it is of another kind")
        if told["format"] > FORMAT:
            raise ValueError(f"a later version of cnnviz wrote it, in format {told['format']}; update cnnviz")
        parts = [_part_told(each) for each in told["parts"]]
        while (more := _added_file(folder, len(parts))).is_file():
            parts.append(_part_told(json.loads(more.read_bytes())))
        names = told.get("categories")
        categories = None if names is None else tuple(names)
        plan = BatchPlan(
            folder, told["identity"], told["digest"], told["shard_size"], tuple(parts), told["source"], categories
        )
        _check(plan)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(f"'{path}' is no plan of a batch run: {reason}") from error
    return plan


def make_plan(
    folder: Path,
    identity: Mapping[str, Any],
    shard_size: int,
    items: Iterable[Item],
    source: Mapping[str, Any],
    categories: tuple[str, ...] | None = None,
) -> tuple[BatchPlan, bool]:
    """Write the plan of a new run; where another process was first, read its plan, and say True.

    Raises ValueError for no items, or two of one id, OSError for a folder that can't be written.
    """
    lines, part = _part(items, shard_size, set())
    make_folder(folder / SHARDS)
    commit(folder / part.file, lines)
    plan = BatchPlan(folder, identity, digest(identity, shard_size), shard_size, (part,), source, categories)
    mine = commit(folder / PLAN, _written(plan))
    return read_plan(folder), not mine


def digest(identity: Mapping[str, Any], shard_size: int) -> str:
    """The SHA-256 by which the shards of a run are known."""
    return digest_of(compact([identity, shard_size]).encode())


def check_identity(plan: BatchPlan, identity: Mapping[str, Any], shard_size: int) -> None:
    """Raises ValueError, with what differs, where the folder holds answers to another question."""
    there, now = {**plan.identity, "shard_size": plan.shard_size}, {**identity, "shard_size": shard_size}
    differing = differences(there, json.loads(compact(now)))
    if differing:
        more = f", and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise ValueError(
            f"'{plan.folder}' holds another run: {', '.join(differing[:4])}{more}; ask as that run did, or choose "
            "another folder"
        )


def check_items(plan: BatchPlan, items: Iterable[Item], add: bool) -> list[Item]:
    """The items that the plan does not have; these are refused unless they are to be added.

    Raises ValueError for items that are gone, or have another label or mask.
    """
    known = {item.id: (item.label, item.mask) for item in plan.items()}
    new: list[Item] = []
    changed: list[str] = []
    for item in items:
        if item.id not in known:
            new.append(item)
        elif known.pop(item.id) != (item.label, item.mask):
            changed.append(item.id)
    if changed:
        raise ValueError(
            f"{_some(changed)} in '{plan.folder}' had another label or mask when the run was planned; "
            "give the same, or choose another folder"
        )
    if known:
        raise ValueError(
            f"{_some([*known])} of the run in '{plan.folder}' is not in the source any more; "
            "put it back, or choose another folder"
        )
    if new and not add:
        raise ValueError(
            f"{_some([item.id for item in new])} of the source is not in the run in '{plan.folder}'; "
            "add=True (--add) takes in what is new"
        )
    return new


def added(plan: BatchPlan, items: Sequence[Item]) -> BatchPlan:
    """The plan with one more part; shards that are there stay as they are.

    Where another process added a part meanwhile, the plan has that one, and the items may still be missing.
    """
    known = {item.id for item in plan.items()}
    lines, part = _part(items, plan.shard_size, known)
    commit(plan.folder / part.file, lines)
    commit(_added_file(plan.folder, len(plan.parts)), json.dumps(asdict(part), indent=1).encode())
    return read_plan(plan.folder)


def _added_file(folder: Path, number: int) -> Path:
    """What tells of a part that was added: a file of its own, for two processes may add at once."""
    return folder / f"part-{number:04d}.json"


def _part_told(told: Mapping[str, Any]) -> Part:
    return Part(told["file"], told["items"], told["sha256"], tuple(told["starts"]))


def _part(items: Iterable[Item], size: int, known: set[str]) -> tuple[bytes, Part]:
    """The lines of items and what is told of them."""
    lines: list[bytes] = []
    starts: list[int] = []
    place = 0
    for number, item in enumerate(items):
        if item.id in known:
            raise ValueError(f"two items have the name {item.id!r}; names of a run's items are its rows, one for each")
        known.add(item.id)
        if number % size == 0:
            starts.append(place)
        line = compact({key: value for key, value in asdict(item).items() if value is not None}).encode() + b"\n"
        place += len(line)
        lines.append(line)
    if not lines:
        raise ValueError("the source has no items; name a folder with pictures, a list, or a table")
    content = b"".join(lines)
    sha256 = hashlib.sha256(content).hexdigest()
    return content, Part(f"items-{sha256[:16]}.jsonl", len(lines), sha256, tuple(starts))


def _written(plan: BatchPlan) -> bytes:
    told = {
        "kind": KIND,
        "format": FORMAT,
        "identity": plan.identity,
        "digest": plan.digest,
        "shard_size": plan.shard_size,
        "parts": [asdict(part) for part in plan.parts],
        "source": plan.source,
        "categories": plan.categories,
    }
    return json.dumps(told, indent=1, allow_nan=False).encode()


def _check(plan: BatchPlan) -> None:
    if not isinstance(plan.identity, dict) or digest(plan.identity, plan.shard_size) != plan.digest:
        raise ValueError("its digest is not that of its content")
    if plan.categories is not None and plan.identity.get("categories") != fingerprint(plan.categories)[:16]:
        raise ValueError("its class names are not those of the run")
    if not plan.parts:
        raise ValueError("it has no items")
    for part in plan.parts:
        if "/" in part.file or "\\" in part.file or not part.file.startswith("items-"):
            raise ValueError(f"{part.file!r} is no name of a file of items")
        fitting = part.items > 0 and len(part.starts) == -(-part.items // plan.shard_size)
        if not fitting or list(part.starts) != sorted({0, *part.starts}):
            raise ValueError(f"{part.items} items are not what {len(part.starts)} shards hold")


def _item(line: bytes, file: str) -> Item:
    try:
        return Item(**json.loads(line))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the file of items '{file}' is damaged: {' '.join(str(error).split())}") from error


def _some(names: Sequence[str]) -> str:
    """``'a.jpg' and 3 other items``."""
    more = len(names) - 1
    return repr(names[0]) + ("" if not more else f" and {more} other item{'s' if more > 1 else ''}")
