"""Class names from files: lines of text, JSON, CSV and YAML, as data sets and other programs write them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cnnviz.images.places import check_file
from cnnviz.images.reading import one_line

LARGEST = 16_000_000
"""Bytes of a file of names."""
NUMBER = ("index", "class_index", "id", "class_id", "idx", "number")
NAME = ("name", "class", "class_name", "label", "category")
_KEYS = ("names", "categories", "classes", "class_names", "labels", "id2label", "idx_to_class", "class_to_idx")
_NUMBERED = re.compile(r"\s*['\"]?([0-9]{1,9})['\"]?\s*[:\t]\s*(.+)")
_WORDNET = re.compile(r"n[0-9]{8}\s+(.+)")
_WAY_OUT = "write one name per line, in the order of the outputs"


def class_names(given: str | Path | Sequence[str]) -> tuple[str, ...]:
    """The names that are given, or those in the file that is."""
    return read_class_names(given) if isinstance(given, str | Path) else tuple(map(str, given))


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """The class names in a file, in the order of the outputs.

    ``.json`` and ``.yaml`` hold a list of names, a mapping from numbers to names or from names to numbers, or that
    under ``names``, ``categories``, ``classes`` or ``id2label``; of ``imagenet_class_index.json`` the names are taken.
    ``.csv`` has a column ``name``, and one ``index`` unless the rows are in order. Any other file has a name in each
    line, alone or as in ``0: tench``.

    Raises FileNotFoundError for what is not there, ValueError for what holds no names, or not one for each number.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file '{path}' of categories; write one name per line")
    check_file(path, "a file of categories")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"categories '{path}' are larger than {LARGEST:,} bytes; {_WAY_OUT}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as reason:
        raise ValueError(f"categories '{path}' are not text in UTF-8") from reason
    if not text.strip():
        raise ValueError(f"categories '{path}' are empty; {_WAY_OUT}")
    readers: dict[str, Callable[[str, Path], tuple[str, ...]]] = {
        ".json": _of_json,
        ".yaml": _of_yaml,
        ".yml": _of_yaml,
        ".csv": _of_table,
    }
    return readers.get(path.suffix.lower(), _of_lines)(text, path)


def _of_lines(text: str, path: Path) -> tuple[str, ...]:
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if "" in lines:
        raise ValueError(f"categories '{path}', line {lines.index('') + 1} is blank; {_WAY_OUT}")
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if not all(numbered):
        wordnet = [_WORDNET.fullmatch(line) for line in lines]  # as synset_words.txt has them
        return tuple(match[1] for match in wordnet if match) if all(wordnet) else tuple(lines)
    return _in_order([(int(match[1]), match[2].strip().strip("'\"")) for match in numbered if match], path)


def _of_json(text: str, path: Path) -> tuple[str, ...]:
    try:
        return _of_value(json.loads(text), path)
    except (json.JSONDecodeError, RecursionError) as reason:
        raise ValueError(f"categories '{path}' are not JSON: {one_line(reason)}") from None


def _of_yaml(text: str, path: Path) -> tuple[str, ...]:
    if find_spec("yaml") is None:
        raise ModuleNotFoundError(
            f"categories '{path}' are YAML, which needs PyYAML: pip install 'cnnviz[yaml]'; or {_WAY_OUT}"
        )
    yaml = import_module("yaml")
    try:
        return _of_value(yaml.safe_load(text), path)  # which makes plain values and runs nothing
    except (yaml.YAMLError, RecursionError) as reason:
        raise ValueError(f"categories '{path}' are not plain YAML: {one_line(reason)}") from None


def _of_table(text: str, path: Path) -> tuple[str, ...]:
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines())]
    except csv.Error as reason:
        raise ValueError(f"categories '{path}' are not comma-separated: {reason}") from None
    lines = [(line, row) for line, row in enumerate(rows, 1) if any(row)]
    head = [cell.lower() for cell in lines[0][1]]
    name, number = _column(head, NAME), _column(head, NUMBER)
    if name is not None or number is not None:
        lines = lines[1:]
    elif len(head) == 2:  # 0,tench or tench,0
        number = 0 if head[0].isdecimal() else 1
    elif len(head) > 2:
        raise ValueError(f"categories '{path}' have {len(head)} columns; its first line names one of them 'name'")
    if name is None:
        name = next((place for place in range(len(head)) if place != number), 0)
    pairs = []
    for order, (line, row) in enumerate(lines):
        if len(row) <= max(name, number or 0) or not row[name]:
            raise ValueError(f"categories '{path}', line {line}: it has no name")
        written = str(order) if number is None else row[number]
        if not re.fullmatch(r"[0-9]{1,9}", written):
            raise ValueError(f"categories '{path}', line {line}: {written!r} is no number of a class")
        pairs.append((int(written), row[name]))
    return _in_order(pairs, path)


def _column(head: Sequence[str], names: Sequence[str]) -> int | None:
    return next((head.index(name) for name in names if name in head), None)


def _of_value(value: Any, path: Path) -> tuple[str, ...]:
    """The names in what JSON or YAML gave."""
    if isinstance(value, Mapping):
        inner = next((value[key] for key in _KEYS if isinstance(value.get(key), Mapping | list)), None)
        if inner is not None:
            return _of_value(inner, path)
        pairs = list(map(_pair, value.items()))
        if pairs and all(pairs):
            return _in_order([pair for pair in pairs if pair], path)
    elif isinstance(value, list):
        names = [str(each) if type(each) is int else _name(each) for each in value]
        if names and all(names):
            return tuple(str(name) for name in names)
    raise ValueError(
        f"categories '{path}' hold no names; they are a list of texts, or a mapping from numbers to names, alone or "
        "under 'names' (in YAML write 'yes' and 'no' in quotes)"
    )


def _pair(item: tuple[Any, Any]) -> tuple[int, str] | None:
    """Number and name of an item of a mapping, in either order."""
    key, value = item
    if (name := _name(value)) and re.fullmatch(r"[0-9]{1,9}", str(key)):
        return int(key), name
    if type(value) is int and value >= 0 and isinstance(key, str):
        return value, key
    return None


def _name(value: Any) -> str | None:
    """A name: of itself, or the second of a WordNet number and a name."""
    if isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value):
        value = value[1]
    return value.strip() or None if isinstance(value, str) else None


def _in_order(pairs: Sequence[tuple[int, str]], path: Path) -> tuple[str, ...]:
    names: dict[int, str] = {}
    for number, name in pairs:
        if number in names:
            raise ValueError(f"categories '{path}' name class {number} twice: {names[number]!r} and {name!r}")
        names[number] = name
    missing = next((number for number in range(len(names)) if number not in names), None)
    if missing is not None:
        raise ValueError(
            f"categories '{path}' have {len(names)} names, and none for class {missing}; classes are numbered from 0, "
            "one after the other"
        )
    return tuple(names[number] for number in range(len(names)))
