"""Tables of pictures: text with separators, or Parquet, with a column of paths, and maybe of labels and masks."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cnnviz.images.finding import READ
from cnnviz.images.places import not_there
from cnnviz.images.reading import one_line
from cnnviz.tasks.labels import FILE, LABEL

MASK = ("mask", "mask_path", "mask_file", "segmentation")
_NAMES = {"path": ("path", *FILE), "label": LABEL, "mask": MASK}
_SEPARATORS = {".csv": ",;\t", ".tsv": "\t,;"}
TABLES = (*_SEPARATORS, ".parquet")
LISTS = (".txt", ".lst")
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True, slots=True)
class Row:
    """A picture of a table."""

    path: str
    label: int | str | None = None
    mask: str | None = None
    line: int = 0
    """Where it stands: the line of the text, or the row of a Parquet file, counted from 1."""


def columns_of(table: Path) -> Mapping[str, int]:
    """Which of "path", "label" and "mask" a table has, and in which of its columns.

    Raises ValueError for what is no table, or has no paths; FileNotFoundError for what is not there.
    """
    if table.suffix.lower() in LISTS:
        return {"path": 0}
    head, named = _head_of(table)
    return _columns(head, table) if named else dict(zip(("path", "label"), range(len(head)), strict=False))


def unread_label(table: Path) -> str | None:
    """The name of a column that may be meant for labels, in a table in which none is called so."""
    head, named = ([], False) if table.suffix.lower() in LISTS else _head_of(table)
    lowered = [cell.strip().lower() for cell in head]
    if not named or any(name in lowered for name in LABEL):
        return None
    near = [match for name in ("label", "class") for match in difflib.get_close_matches(name, lowered, 1, 0.75)]
    return head[lowered.index(near[0])] if near else None


def read_rows(table: Path) -> Iterator[Row]:
    """The rows of a table, or the lines of a list. An empty cell is no label, and no mask.

    Raises ValueError for a row without a path, with its line, and for what is no table; FileNotFoundError for what is
    not there.
    """
    kind = table.suffix.lower()
    number = 0
    for row in (_lines if kind in LISTS else _of_parquet if kind == ".parquet" else _of_text)(table):
        if not row.path:
            place = "row" if kind == ".parquet" else "line"
            raise ValueError(f"table '{table}', {place} {row.line}: it names no picture")
        number += 1
        yield row
    if not number:
        raise ValueError(f"table '{table}' has no rows; write a line for each picture, such as cat.jpg,tabby")


def _lines(table: Path) -> Iterator[Row]:
    with _text(table) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield Row(line.strip(), line=number)


def _of_text(table: Path) -> Iterator[Row]:
    with _text(table) as file:
        separator, head, named = _head(_first_line(file), table)
        places = _columns(head, table) if named else {"path": 0, "label": 1}
        file.seek(0)
        reader = csv.reader(file, delimiter=separator)
        if named:
            next(reader)
        while True:
            line = reader.line_num + 1
            cells = next(reader, None)
            if cells is None:
                return
            if any(map(str.strip, cells)):
                found = {name: cells[place].strip() for name, place in places.items() if place < len(cells)}
                yield Row(found.get("path", ""), found.get("label") or None, found.get("mask") or None, line)


def _head_of(table: Path) -> tuple[Sequence[str], bool]:
    """The first line of a table, or the columns of Parquet, and whether these are names."""
    if table.suffix.lower() == ".parquet":
        with _parquet(table) as file:
            return list(file.schema_arrow.names), True
    with _text(table) as file:
        return _head(_first_line(file), table)[1:]


def _head(first: str, table: Path) -> tuple[str, Sequence[str], bool]:
    """What separates cells, those of the first line, and whether they are names; two columns need none."""
    separators = _SEPARATORS[table.suffix.lower()]
    heads = {separator: next(csv.reader([first], delimiter=separator), []) for separator in separators}
    for separator, head in heads.items():
        if any(cell.strip().lower() in _NAMES["path"] for cell in head):
            return separator, head, True
    separator = next((each for each in separators if len(heads[each]) > 1), separators[0])
    cells = heads[separator]
    suffix = os.path.splitext(cells[0].partition("#")[0])[1].lower() if cells else ""
    return separator, cells, not (len(cells) <= 2 and suffix in READ)


def _columns(head: Sequence[str], table: Path) -> Mapping[str, int]:
    lowered = [cell.strip().lower() for cell in head]
    found = {}
    for column, names in _NAMES.items():
        places = [lowered.index(name) for name in names if name in lowered]
        if places:
            found[column] = places[0]
    if "path" not in found:
        near = difflib.get_close_matches("path", lowered, 1, 0.6) or difflib.get_close_matches("file", lowered, 1, 0.6)
        hint = f"; is it {near[0]!r}? Call it path" if near else ""
        named = ", ".join(head) if len(head) <= 20 else f"{', '.join(head[:20])}, ..."
        raise ValueError(f"table '{table}' has no column 'path'; its first line names {named or 'nothing'}{hint}")
    return found


@contextmanager
def _text(table: Path) -> Iterator[Any]:
    """An open text. What is wrong with it is told in one line."""
    try:
        with table.open("rb") as file:
            encoding = _MARKS.get(file.read(2), "utf-8-sig")
        with table.open(newline="", encoding=encoding) as text:
            yield text
    except FileNotFoundError:
        raise not_there(table, "table") from None
    except UnicodeError as error:
        raise ValueError(f"table '{table}' is no text in UTF-8; save it in that encoding: {one_line(error)}") from None
    except csv.Error as error:
        raise ValueError(f"table '{table}' can't be read: {error}") from None


def _first_line(file: Any) -> str:
    return str(file.readline()).rstrip("\r\n")


def _of_parquet(table: Path) -> Iterator[Row]:
    with _parquet(table) as file:
        names = file.schema_arrow.names
        columns = {column: names[place] for column, place in _columns(names, table).items()}
        number = 0
        for batch in file.iter_batches(columns=list(dict.fromkeys(columns.values()))):
            cells = {column: batch.column(name).to_pylist() for column, name in columns.items()}
            for row in range(batch.num_rows):
                number += 1
                found = {column: values[row] for column, values in cells.items()}
                path, mask = (_path(found.get(column), table, number) for column in ("path", "mask"))
                yield Row(path, _label(found.get("label"), table, number), mask or None, number)


def _path(cell: Any, table: Path, number: int) -> str:
    if cell is not None and not isinstance(cell, str):
        raise ValueError(
            f"table '{table}', row {number}: a {type(cell).__name__} is no path; save the pictures as files or in tars"
        )
    return (cell or "").strip()


def _label(cell: Any, table: Path, number: int) -> int | str | None:
    if isinstance(cell, float):  # of whole numbers beside empty cells
        cell = None if cell != cell else int(cell) if cell.is_integer() else cell
    if isinstance(cell, str):
        return cell.strip() or None
    if cell is not None and not isinstance(cell, int):
        raise ValueError(f"table '{table}', row {number}: {cell!r:.40} is no label; give a class by number or name")
    return None if cell is None else int(cell)


@contextmanager
def _parquet(table: Path) -> Iterator[Any]:
    if not table.exists():
        raise not_there(table, "table")
    if find_spec("pyarrow") is None:
        raise ModuleNotFoundError(
            f"table '{table}' is Parquet, which needs pyarrow: pip install 'cnnviz[batch]'; or save it as .csv"
        )
    failures = import_module("pyarrow").ArrowException
    try:
        with import_module("pyarrow.parquet").ParquetFile(table) as file:
            yield file
    except failures as error:
        raise ValueError(f"table '{table}' is no Parquet that can be read: {one_line(error)}") from None
