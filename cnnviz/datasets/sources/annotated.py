"""Labels and masks that lie beside the pictures: in the names of folders, in a table, in a folder of masks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cnnviz.datasets.items import Item, Opened, Source
from cnnviz.datasets.sources.by_path import ByPath, plain_path
from cnnviz.datasets.sources.tables import TABLES, columns_of, read_rows, unread_label
from cnnviz.images.places import not_there
from cnnviz.images.reading import SUFFIXES

Labels: TypeAlias = Literal["auto", "folder"] | str | None
"""Where labels come from: of the source itself, from the name of the first folder, from a table, or from nowhere."""
_MASKS = (".npy", *SUFFIXES)


@dataclass
class AnnotatedSource:
    """A source, with the labels and masks that were asked for."""

    source: Source
    labels: Labels = "auto"
    masks: str | None = None
    """The folder of masks, absolute."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What is told of the latest listing, such as what was left out."""

    @property
    def label_kind(self) -> str | None:
        """What the labels are: "given", names of folders that may be classes ("guessed") or are ("folder"), or None."""
        if self.labels in ("folder", None):
            return self.labels
        own: str | None = getattr(self.source, "label_kind", "given")
        return (own or "guessed") if self.labels == "auto" else "given"

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of a data set's own classes, by their numbers in it; None where the labels are none of these."""
        own: tuple[str, ...] | None = getattr(self.source, "classes", None)
        return own if self.labels == "auto" else None

    def items(self) -> Iterator[Item]:
        """All items. Raises ValueError for labels or masks of which none, or one for two items, fits."""
        notes: list[str] = []
        items = self.source.items()
        if self.masks is not None:
            items = self._masked(items, self.masks, notes)
        if self.labels not in ("auto", "folder", None):
            items = _labelled(items, Path(str(self.labels)), self._above, notes)
        elif self.label_kind in ("folder", "guessed") and getattr(self.source, "label_kind", None) != "guessed":
            items = self._by_folder(items)
        elif self.labels is None:
            items = (replace(item, label=None) for item in items)
        yield from items
        self.notes = (*getattr(self.source, "notes", ()), *notes)

    def open(self, item: Item) -> Opened:
        """The picture of an item, as the source gives it."""
        return self.source.open(item)

    def mask_file(self, item: Item) -> Path | None:
        """The file of the item's annotated evidence; None where it has none."""
        if item.mask is not None and self.masks is not None:
            return Path(self.masks, item.mask)
        return mask_file(self.source, item)

    def described(self) -> dict[str, Any]:
        """What the source is, and where its labels and masks are, for JSON."""
        return {**self.source.described(), "labels": self.labels, "masks": self.masks}

    @property
    def _above(self) -> tuple[str, ...]:
        """The folders that the items lie in."""
        root = getattr(self.source, "root", None)
        return () if root is None else Path(root).absolute().parts[1:]

    def _by_folder(self, items: Iterator[Item]) -> Iterator[Item]:
        within = False
        for item in items:
            folder, _, name = item.id.partition("/")
            within = within or bool(name)
            yield replace(item, label=folder if name else None)
        if self.labels == "folder" and not within:
            raise ValueError("labels are the names of folders, and no picture lies in one; give a table: path,label")

    def _masked(self, items: Iterator[Item], masks: str, notes: list[str]) -> Iterator[Item]:
        entries = _mask_entries(masks)
        found = ByPath(entries, "mask", "put it into folders named as theirs")
        count = missing = 0
        inside = self._masks_inside()
        for item in items:
            if inside is not None and item.id.startswith(inside):
                continue
            files = found.of(item.id, self._above, with_stem=True)
            if files is not None and len(files) > 1:
                raise ValueError(f"'{item.id}' has two masks, '{files[0]}' and '{files[1]}'; keep one of them")
            count, missing = count + 1, missing + (files is None)
            yield replace(item, mask=None if files is None else files[0])
        if count and missing == count:
            raise ValueError(
                f"none of {count} pictures has a mask in '{masks}'; a mask has the name of its picture, in folders "
                "named as its"
            )
        if missing:
            notes.append(f"{missing} of {count} pictures have no mask in '{masks}'")

    def _masks_inside(self) -> str | None:
        """How the ids of masks would begin that lie among the pictures."""
        root = getattr(self.source, "root", None)
        if root is None or self.masks is None or not Path(self.masks).is_relative_to(root):
            return None
        if Path(self.masks) == Path(root):
            raise ValueError(
                f"'{self.masks}' is both the pictures and their masks; keep masks in a folder of their own"
            )
        return Path(self.masks).relative_to(root).as_posix() + "/"


def annotated(source: Source, labels: Labels | Path, masks: str | Path | None) -> AnnotatedSource:
    """A source with other labels and masks. Raises FileNotFoundError or ValueError for what holds none."""
    if isinstance(labels, Path) or labels not in ("auto", "folder", None):
        table = Path(labels).absolute()
        if table.suffix.lower() not in TABLES:
            raise ValueError(f"labels={str(labels)!r} is none of 'auto', 'folder', None, or a table (.csv, .parquet)")
        if "label" not in columns_of(table):
            near = unread_label(table)
            hint = f"is it {near!r}? Call it label" if near is not None else "its lines are path,label"
            raise ValueError(f"table '{labels}' has no column 'label'; {hint}")
        labels = str(table)
    if masks is not None and not os.path.isdir(masks):
        if os.path.exists(masks):
            raise ValueError(f"masks='{masks}' is a file; masks are pictures or .npy in a folder")
        raise not_there(masks, "folder of masks")
    return AnnotatedSource(source, labels, None if masks is None else os.path.abspath(masks))


def mask_file(source: Source, item: Item) -> Path | None:
    """The file of an item's annotated evidence, as its source finds it; None where it has none."""
    find = getattr(source, "mask_file", None)
    if item.mask is None or find is None:
        return None if item.mask is None else Path(item.mask)
    file: Path | None = find(item)
    return file


def _labelled(items: Iterator[Item], table: Path, above: tuple[str, ...], notes: list[str]) -> Iterator[Item]:
    entries: dict[str, int | str | None] = {}
    for row in read_rows(table):
        entry = plain_path(row.path, table.parent).lstrip("/")
        if entries.setdefault(entry, row.label) != row.label:
            raise ValueError(f"table '{table}', line {row.line}: {row.path} has another class above; keep one of them")
    found = ByPath(entries, f"table '{table}':", "write as much of their paths as tells them apart")
    count = missing = 0
    for item in items:
        label = found.of(item.id, above)
        count, missing = count + 1, missing + (label is None)
        yield replace(item, label=label)
    if count and missing == count:
        raise ValueError(
            f"table '{table}' has a label for none of {count} pictures; it has one for '{next(iter(entries))}'"
        )
    if unused := found.unused():
        notes.append(f"table '{table}': {len(unused)} of {len(entries)} lines are of no picture, such as '{unused[0]}'")


def _mask_entries(folder: str) -> dict[str, list[str]]:
    """The files below a folder by their paths without the suffix."""
    entries: dict[str, list[str]] = {}
    waiting = [""]
    while waiting:
        above = waiting.pop()
        with os.scandir(os.path.join(folder, above)) as scanned:
            for entry in sorted(scanned, key=lambda entry: entry.name):
                stem, suffix = os.path.splitext(entry.name)
                if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
                    waiting.append(f"{above}{entry.name}/")
                elif suffix.lower() in _MASKS and not entry.name.startswith("."):
                    entries.setdefault(above + stem, []).append(above + entry.name)
    return entries
