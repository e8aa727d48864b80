"""Values that are kept by as much of a picture's path as tells it from others: labels of a table, masks of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Generic, TypeVar

V = TypeVar("V")


class ByPath(Generic[V]):
    """Looks up the value of a picture; an entry that fits two pictures is refused."""

    def __init__(self, entries: Mapping[str, V], what: str, way_out: str):
        self.entries = entries
        self._what, self._way_out = what, way_out
        self._depths = sorted({entry.count("/") for entry in entries}, reverse=True)
        self._users: dict[str, str] = {}

    def of(self, id: str, above: Sequence[str] = (), with_stem: bool = False) -> V | None:
        """The value of the longest entry that the path of the picture ends with.

        ``above`` are the folders that the id lies in; ``with_stem``: entries may leave the suffix out.
        """
        for entry in self._candidates([*above, *id.split("/")], with_stem):
            if entry in self.entries:
                other = self._users.setdefault(entry, id)
                if other != id:
                    raise ValueError(f"{self._what} '{entry}' fits '{other}' and '{id}'; {self._way_out}")
                return self.entries[entry]
        return None

    def unused(self) -> list[str]:
        """The entries that no picture asked for."""
        return [entry for entry in self.entries if entry not in self._users]

    def _candidates(self, parts: Sequence[str], with_stem: bool) -> Iterator[str]:
        stem = os.path.splitext(parts[-1])[0]
        for depth in self._depths:
            if depth < len(parts):
                yield "/".join(parts[-1 - depth :])
                if with_stem and stem != parts[-1]:
                    yield "/".join([*parts[-1 - depth : -1], stem])


def plain_path(written: str, folder: str | Path) -> str:
    """A path as a table writes it, with "/" and without detours: as it is, or absolute where it leads upwards.

    ``folder`` is what it is relative to.
    """
    text = PureWindowsPath(written).as_posix() if "\\" in written else written
    if "/." in text or "//" in text or text.startswith(".") or text.endswith("/"):
        text = os.path.normpath(text)
    return os.path.normpath(os.path.join(folder, text)) if text.startswith("../") else text
