"""Pictures in files: those of a folder, of a list of paths, and of a table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from cnnviz.datasets.items import Item
from cnnviz.datasets.sources.by_path import plain_path
from cnnviz.datasets.sources.tables import Row, columns_of, read_rows, unread_label
from cnnviz.datasets.sources.unique import Unique
from cnnviz.images.finding import READ, Found, walk
from cnnviz.images.places import file_and_place, is_url, not_there

TRIED = 100  # rows of which one at least is a file


class Listing(Protocol):
    """What names the files of a source. It is pickled."""

    @property
    def label_kind(self) -> str | None:
        """ "given" where it has labels."""

    def rows(self, root: str, notes: list[str]) -> Iterator[Row]:
        """Each file by its path below the root. ``notes`` gets what is told of it."""

    def described(self) -> dict[str, Any]:
        """The kind of source and what it is made again from, for JSON."""


@dataclass
class FileSource:
    """Pictures in files below a folder, the root. Ids are paths relative to it."""

    root: str
    listing: Listing
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What is told of the latest listing, such as what was left out."""

    @property
    def label_kind(self) -> str | None:
        """ "given" where the items have labels."""
        return self.listing.label_kind

    def items(self) -> Iterator[Item]:
        """All items. Raises FileNotFoundError where there are none."""
        notes: list[str] = []
        for row in self.listing.rows(self.root, notes):
            yield Item(row.path, label=row.label, mask=row.mask)
        self.notes = tuple(notes)

    def open(self, item: Item) -> Path:
        """The file of an item."""
        return Path(self.root, item.place or item.id)

    def mask_file(self, item: Item) -> Path | None:
        """The file of the item's annotated evidence; None where it has none."""
        return None if item.mask is None else Path(self.root, item.mask)

    def described(self) -> dict[str, Any]:
        """The kind of source and its root, for JSON."""
        return {**self.listing.described(), "root": self.root}


@dataclass(frozen=True)
class FolderListing:
    """The pictures in a folder, sorted by the parts of their paths."""

    recursive: bool = True
    label_kind: str | None = None

    def rows(self, root: str, notes: list[str]) -> Iterator[Row]:
        """Each picture; see :func:`cnnviz.images.finding.walk` for what is left out."""
        found, unnamed, count = Found(), 0, 0
        if not os.path.isdir(root):
            raise not_there(root, "folder")
        for path in walk(root, self.recursive, found):
            if path.isascii() or _is_text(path):
                count += 1
                yield Row(path, line=count)
            else:
                unnamed += 1
        named_badly = f"{unnamed} whose names are no UTF-8" if unnamed else ""
        left_out = ", ".join(filter(None, [found.left_out(), named_badly]))
        if not count:
            more = f"; left out: {left_out}" if left_out else ""
            deeper = "" if self.recursive else "; folders inside it are not searched"
            tars = f"; name its tars: '{root}/*.tar'" if found.other[".tar"] else ""
            raise FileNotFoundError(f"folder '{root}' holds no pictures ({', '.join(READ)}){deeper}{more}{tars}")
        if left_out:
            notes.append(f"{root}: left out {left_out}")

    def described(self) -> dict[str, Any]:
        """What it is made again from."""
        return {"kind": "folder", "recursive": self.recursive}


@dataclass(frozen=True)
class PathListing:
    """Files that are named one by one, in that order."""

    paths: tuple[str, ...]
    """Absolute; or none, where items of another listing are opened."""
    label_kind: str | None = None

    def rows(self, root: str, notes: list[str]) -> Iterator[Row]:
        """Each file. Raises ValueError for one that is named twice, FileNotFoundError where none is there."""
        rows = (Row(path, line=number) for number, path in enumerate(self.paths))
        return _below(rows, root, root, "the list", "places")

    def described(self) -> dict[str, Any]:
        """The kind alone: an item can be opened again, and the list is in the run."""
        return {"kind": "paths"}


@dataclass(frozen=True)
class TableListing:
    """The rows of a table, in their order."""

    table: str
    folder: str
    """What relative paths are relative to."""
    label_kind: str | None = None

    def rows(self, root: str, notes: list[str]) -> Iterator[Row]:
        """Each row. Raises ValueError for a file that is named twice, FileNotFoundError where none is there."""
        unread = unread_label(Path(self.table))
        if unread is not None:
            notes.append(f"table '{self.table}': its column '{unread}' is not read; labels are in a column 'label'")
        return _below(read_rows(Path(self.table)), self.folder, root, f"table '{self.table}'", "lines")

    def described(self) -> dict[str, Any]:
        """What it is made again from."""
        return {"kind": "table", "table": self.table, "folder": self.folder, "label_kind": self.label_kind}


def folder_source(folder: str | Path, recursive: bool = True) -> FileSource:
    """The pictures in a folder. Raises ValueError for a folder that holds the answers of a batch run."""
    root = os.path.abspath(folder)
    if os.path.isfile(os.path.join(root, "batch.json")) and os.path.isdir(os.path.join(root, "shards")):
        raise ValueError(f"folder '{folder}' holds the answers of a batch run; name the folder of the pictures")
    return FileSource(root, FolderListing(recursive))


def path_source(paths: Sequence[str | Path], root: str | Path | None = None) -> FileSource:
    """Files that are named one by one, by paths relative to ``root``; ids are relative to it too, or else to the folder
    common to all.

    A folder stands for the pictures in it. Raises FileNotFoundError for a folder without pictures, and for a URL.
    """
    files: list[str] = []
    for path in paths:
        if is_url(path):
            raise not_there(path)
        absolute = os.path.abspath(os.path.join(root or "", path))
        inside = FolderListing().rows(absolute, []) if os.path.isdir(absolute) else None
        files += [absolute] if inside is None else [f"{absolute}/{row.path}" for row in inside]
    if not files:
        raise ValueError("no pictures given; name at least one file or folder")
    common = os.path.abspath(root) if root is not None else common_folder(files)
    return FileSource(common or os.getcwd(), PathListing(tuple(files)))


def table_source(table: str | Path, root: str | Path | None = None) -> FileSource:
    """The pictures that a table or list names, by paths relative to ``root``, or else to the table's folder.

    Absolute paths may lie anywhere. Then ids are relative to the folder common to all, if no ``root`` is given.
    """
    table = Path(table).absolute()
    folder = os.path.abspath(table.parent if root is None else root)
    label_kind = "given" if "label" in columns_of(table) else None
    common = folder if root is not None else _root_of(table, folder)
    return FileSource(common, TableListing(str(table), folder, label_kind))


def common_folder(files: Iterable[str]) -> str | None:
    """The deepest folder in which all files lie; None for no files."""
    common: str | None = None
    for file in files:
        if common is None or not file.startswith(os.path.join(common, "")):
            parent = os.path.dirname(file)
            common = parent if common is None else os.path.commonpath([common, parent])
    return common


def _root_of(table: Path, folder: str) -> str:
    """The table's folder, if its files lie there; or the folder in which all of them lie."""
    within, inside = os.path.join(folder, ""), False

    def outside() -> Iterator[str]:
        nonlocal inside
        for row in read_rows(table):
            path = _absolute(row.path, folder)
            if path.startswith(within):
                inside = True
            else:
                yield path

    common = common_folder(outside())
    return folder if common is None else os.path.commonpath([common, folder]) if inside else common


def _below(rows: Iterator[Row], folder: str, root: str, where: str, places: str) -> Iterator[Row]:
    """Rows whose paths are relative to the root, each once."""
    unique = Unique(places)
    plain = folder == root
    rows = iter(rows)
    first = list(islice(rows, TRIED))
    for row in first:
        _check_no_url(row, where, places)
    files = [_absolute(row.path, folder) for row in first]
    if files and not any(file_and_place(file)[0].exists() for file in files):
        words = first[0].path.rsplit(None, 1)
        if len(words) > 1 and os.path.exists(_absolute(words[0], folder)):
            raise ValueError(
                f"{where}: '{first[0].path}' is more than a path; write a .csv with the columns path,label"
            )
        raise FileNotFoundError(
            f"{where}: none of the first {len(files)} files is there, such as '{files[0]}'; say which folder the paths "
            "are relative to, as root, or --root"
        )
    for row in chain(first, rows):
        _check_no_url(row, where, places)
        path, mask = row.path, row.mask
        if not plain or not _is_plain(path):
            path = _relative(path, folder, root)
        if mask is not None and (not plain or not _is_plain(mask)):
            mask = _relative(mask, folder, root)
        yield Row(unique.add(path, row.line), row.label, mask, row.line)


def _check_no_url(row: Row, where: str, places: str) -> None:
    if ":" in row.path and is_url(row.path):
        raise FileNotFoundError(f"{where}, {places[:-1]} {row.line}: {not_there(row.path)}")


def _is_plain(path: str) -> bool:
    return not path.startswith(("/", ".")) and not any(part in path for part in ("/.", "//", "\\", ":"))


def _absolute(path: str, folder: str) -> str:
    return os.path.normpath(os.path.join(folder, plain_path(path, folder)))


def _relative(path: str, folder: str, root: str) -> str:
    absolute, within = _absolute(path, folder), os.path.join(root, "")
    inside = absolute.startswith(within)
    return Path(absolute[len(within) :] if inside else os.path.relpath(absolute, root)).as_posix()


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
