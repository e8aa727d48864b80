"""Labels of pictures: a picture's class is the name of its folder, or is listed in a table.

A class is given by number, or by a name that the network knows; folders may write spaces as underscores.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from cnnviz.images.finding import find_pictures
from cnnviz.models.class_names import class_names
from cnnviz.run.targets import class_index, classes_named

FILE = ("file", "filename", "file_name", "path", "filepath", "file_path", "picture", "image", "image_path", "img")
LABEL = ("label", "class", "class_name", "class_index", "class_id", "category", "target")


def labelled_pictures(
    folder: str | Path, table: str | Path | None = None, categories: Sequence[str] | None = None
) -> list[tuple[Path, int]]:
    """The pictures of a folder, each with the number of its class.

    Without a ``table`` each folder inside is a class, by its name, and holds the pictures of it. A table is a CSV file
    with the columns ``file`` (inside the folder) and ``label``; its first line names them, unless there are just two.
    Raises LookupError for a class that ``categories`` do not have, ValueError for what is no such table or folder,
    FileNotFoundError for what is not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder '{folder}'")
    names = class_names(categories) if categories is not None else None
    if table is not None:
        return [(folder / file, class_number(label, names, where)) for file, label, where in table_rows(Path(table))]
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    pictures: list[tuple[Path, int]] = []
    for class_folder in inside:
        number = class_number(class_folder.name, names, f"folder '{class_folder}'")
        try:
            pictures += [(picture, number) for picture in find_pictures(class_folder)]
        except FileNotFoundError:
            continue  # a class of which there is no picture
    if not pictures:
        raise ValueError(f"folder '{folder}' has no folders of pictures, one for each class; or give a table of labels")
    return pictures


def table_rows(table: Path) -> list[tuple[str, str, str]]:
    """Each file with its label, and its place in the table for error texts."""
    try:
        lines = list(csv.reader(table.read_text(encoding="utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"table '{table}' is not comma-separated text in UTF-8: {error}") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"no table '{table}'; write a line such as cat.jpg,tabby for each picture") from None
    head = [cell.strip().lower() for cell in lines[0]] if lines else []
    named = any(name in head for name in FILE)
    if not named and len(head) == 2 and head[1] in LABEL and not Path(head[0]).suffix:
        raise ValueError(f"table '{table}' has no column 'file'; its first line names {', '.join(head)}")
    file, label = (_column(head, names, table) for names in (FILE, LABEL)) if named else (0, 1)
    rows = []
    for number, cells in enumerate(lines[named:], 1 + named):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) <= max(file, label) or not cells[file].strip() or not cells[label].strip():
            raise ValueError(f"table '{table}', line {number}: it needs a file and a label, such as cat.jpg,tabby")
        rows.append((cells[file].strip(), cells[label].strip(), f"table '{table}', line {number}"))
    if not rows:
        raise ValueError(f"table '{table}' has no rows; write a line such as cat.jpg,tabby for each picture")
    return rows


def _column(head: Sequence[str], names: Sequence[str], table: Path) -> int:
    for name in names:
        if name in head:
            return head.index(name)
    raise ValueError(f"table '{table}' has no column {names[0]!r}; its first line names {', '.join(head)}")


def class_number(label: str, categories: tuple[str, ...] | None, where: str) -> int:
    spaced = label.replace("_", " ")
    as_spaced = categories is not None and not classes_named(label, categories) and classes_named(spaced, categories)
    try:
        number = class_index(spaced if as_spaced else label, categories)
    except LookupError as error:
        raise LookupError(f"{where}: {error}") from None
    if categories is not None and not 0 <= number < len(categories):
        raise LookupError(f"{where}: there is no class {number}; there are {len(categories)}, numbered from 0")
    return number
