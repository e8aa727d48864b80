"""WebDataset tars: pictures and their labels by keys, reached by their places in the files.

A key is the path of a member up to the first dot of its name. All tars are looked through once; then an item says in
which tar its picture begins where, so that whoever opens it needs no index.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from PIL import Image

from cnnviz.datasets.items import Item
from cnnviz.datasets.sources.tar_members import members
from cnnviz.images.places import not_there
from cnnviz.images.reading import SUFFIXES, read_content
from cnnviz.tasks.labels import LABEL

_PLACE = re.compile(r"(.+)@([0-9]+)\+([0-9]+)(\..+)")
_LARGEST = 2**20  # bytes of a label
_LABELS = (".cls", ".json", ".txt")  # the first that is there


@dataclass
class _Sample:
    """The members of one key."""

    pictures: list[tuple[str, int, int]] = field(default_factory=list)
    """Suffix, first byte and size."""
    labels: dict[str, bytes] = field(default_factory=dict)


@dataclass
class TarSource:
    """The pictures in tars. Ids are their keys, which begin with the tar's name where several tars have one key."""

    root: str
    tars: tuple[str, ...]
    """Paths below the root, with "/"."""
    label_kind: str = field(default="given", compare=False)
    """"guessed" where labels are texts, which may be captions; known once the items are listed."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What is told of the latest listing, such as what was left out."""

    def items(self) -> Iterator[Item]:
        """All items, tar by tar in the order of their first members.

        Raises ValueError for a tar that is damaged or compressed, and for a key of several pictures.
        """
        other: Counter[str] = Counter()
        kinds: set[str] = set()
        found: list[tuple[str, str, str, int | str | None]] = []
        for tar in self.tars:
            for key, sample in _samples(Path(self.root, tar), other).items():
                if not sample.pictures:
                    continue
                suffix, start, size = _picture(sample, key, tar, other)
                kind, label = _label(sample)
                kinds |= {kind} if label is not None else set()
                found.append((tar, key, f"{tar}@{start}+{size}{suffix}", label))
        if not found:
            listed = f"; they hold {', '.join(sorted(other))}" if other else ""
            raise ValueError(f"the tars hold no pictures ({', '.join(SUFFIXES)}){listed}: '{self.tars[0]}'")
        self.label_kind = "guessed" if kinds == {".txt"} else "given"
        notes = [f"left out {other.total()} members of the tars ({', '.join(sorted(other))})"] if other else []
        twice = _twice(found)
        if twice is not None:
            notes.append(f"the key '{twice}' is in several tars, so ids begin with the name of the tar")
        for tar, key, place, label in found:
            yield Item(key if twice is None else f"{tar.removesuffix('.tar')}/{key}", place, label)
        self.notes = tuple(notes)

    def open(self, item: Item) -> Image.Image:
        """The picture of an item. Raises ValueError for one that is damaged, and for a tar that has changed."""
        match = _PLACE.fullmatch(item.place or "")
        if match is None:
            raise ValueError(f"'{item.id}' has no place in a tar; list the items of the tars again")
        # errors have no folder: they are the same on all machines
        tar, name = match[1], item.id + match[4]
        start, size = int(match[2]), int(match[3])
        try:
            with Path(self.root, tar).open("rb", buffering=0) as file:
                content = _read(file, start - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE + size)
        except FileNotFoundError:
            raise not_there(tar, "tar") from None
        if len(content) < tarfile.BLOCKSIZE + size or not _is_header(content, name, size):
            raise ValueError(f"tar '{tar}' has changed since it was listed: '{name}' is not in its place")
        return read_content(content[tarfile.BLOCKSIZE :], name)

    def described(self) -> dict[str, Any]:
        """The kind of source and the tars, for JSON."""
        return {"kind": "tars", "root": self.root, "tars": list(self.tars)}


def tar_source(tars: Sequence[str | Path]) -> TarSource:
    """The pictures in tars, in that order. Raises FileNotFoundError for those that are not there."""
    paths = [os.path.abspath(tar) for tar in tars]
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(paths)} tars are not there, such as '{missing[0]}'")
    twice = next((path for path, count in Counter(paths).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"tar '{twice}' is named twice; name it once")
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    return TarSource(root, tuple(Path(os.path.relpath(path, root)).as_posix() for path in paths))


def _samples(tar: Path, other: Counter[str]) -> dict[str, _Sample]:
    found: dict[str, _Sample] = {}
    for member, file in members(tar):
        name = os.path.normpath(member.name)
        folder, _, base = name.rpartition("/")
        stem, dot, rest = base.partition(".")
        suffix = (dot + rest).lower()
        if member.isdir() or base.startswith("."):
            continue
        if not member.isfile() or member.sparse is not None:
            other["links, and files with holes"] += 1
            continue
        if not name.isascii() and "\\" in name.encode(errors="backslashreplace").decode():
            other["names that are no UTF-8"] += 1
            continue
        sample = found.setdefault(f"{folder}/{stem}" if folder else stem, _Sample())
        if os.path.splitext(suffix)[1] in SUFFIXES or suffix in SUFFIXES:
            sample.pictures.append((dot + rest, member.offset_data, member.size))
        elif suffix in _LABELS and member.size <= _LARGEST:
            file.seek(member.offset_data)
            sample.labels[suffix] = file.read(member.size)
        else:
            other[suffix or "no suffix"] += 1
    return found


def _picture(sample: _Sample, key: str, tar: str, other: Counter[str]) -> tuple[str, int, int]:
    """The picture of a key: its only one, or the only one whose name has no further dot, beside a ``.seg.png``."""
    plain = [each for each in sample.pictures if each[0].count(".") == 1]
    kept = plain if len(plain) == 1 else sample.pictures
    if len(kept) > 1:
        raise ValueError(
            f"tar '{tar}': '{key}{kept[0][0]}' and '{key}{kept[1][0]}' are two pictures of the key '{key}', which ends "
            "at the first dot; rename them, or give the pictures as files"
        )
    for suffix, _, _ in sample.pictures:
        if suffix != kept[0][0]:
            other[suffix] += 1
    return kept[0]


def _label(sample: _Sample) -> tuple[str, int | str | None]:
    for kind in _LABELS:
        if kind in sample.labels:
            text = sample.labels[kind].decode("utf-8", "replace").strip()
            label = _of_json(text) if kind == ".json" else text or None
            if label is not None:
                return ".cls" if str(label).isdecimal() else kind, label
    return "", None


def _of_json(text: str) -> int | str | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        value = next((value[name] for name in (*LABEL, "cls") if name in value), None)
    return value if type(value) in (int, str) else None


def _twice(found: Sequence[tuple[str, str, str, Any]]) -> str | None:
    """A key that is in several tars."""
    keys: set[str] = set()
    for _, key, _, _ in found:
        if key in keys:
            return key
        keys.add(key)
    return None


def _read(file: IO[bytes], start: int, size: int) -> bytes:
    """So many bytes, or as many as there are; each caller has a file of its own."""
    file.seek(start)
    parts: list[bytes] = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _is_header(content: bytes, name: str, size: int) -> bool:
    """True where a member of that size begins, and of that name or the end of it."""
    try:
        info = tarfile.TarInfo.frombuf(content[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    stored = os.path.normpath(info.name)
    cut = not name.isascii() or len(name) >= tarfile.LENGTH_NAME  # such names stand in a block of their own
    return info.size == size and (cut or name == stored or name.endswith(f"/{stored}"))
