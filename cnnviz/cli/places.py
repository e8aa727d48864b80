"""Where a command may write: nothing that it reads or that stands there is replaced. That is settled before work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from glob import escape
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from cnnviz.cli.method_names import file_part
from cnnviz.images.places import file_and_place
from cnnviz.images.writing import check_replaceable, mark_of

ONE_PAGE = 12  # pictures that fit in one page, whatever their sizes
LONGEST = 255  # bytes of a file's name


def settle(
    writes: Iterable[Path],
    reads: Iterable[Path],
    options: Mapping[str, Any],
    marks: Mapping[Path, Callable[[], str]] | None = None,
) -> set[Path]:
    """Check where a command will write; the places that are there already and are left out, with ``--skip-existing``.

    ``marks`` give the mark that a place's answer would have. Raises ValueError for two answers in one place and for a
    place that is read, FileExistsError for a place that is taken, PermissionError for one that can't be written.
    """
    writes = list(writes)
    seen: set[str] = set()
    for path in writes:
        key = os.path.normcase(path.resolve())
        if key in seen:
            raise ValueError(f"two answers would go to {path}; name different files")
        seen.add(key)
    read = {identity(file_and_place(path)[0]) for path in reads}
    for path in writes:
        if identity(path) in read:
            raise ValueError(f"{path} is read, and would be replaced; choose another name")
    for folder in {path.parent: None for path in writes}:
        check_writable(folder)
    there = [path for path in writes if path.exists() or path.is_symlink()]
    taken = next((path for path in there if path.is_dir()), None)
    if taken is not None:
        raise IsADirectoryError(f"{taken} is a folder, and an answer would go there; name another place")
    if options.get("skip_existing"):
        if options.get("overwrite"):
            raise ValueError("--overwrite replaces what is there and --skip-existing keeps it; say one of them")
        for path in there:
            if marks is not None and path in marks:
                _check_mark(path, marks[path])
        return set(there)
    if there and not options.get("overwrite"):
        more = f", and {len(there) - 1} more answers are too" if len(there) > 1 else ""
        keep = ", and --skip-existing keeps it" if "skip_existing" in options else ""
        raise FileExistsError(f"{there[0]} is there already{more}; --overwrite replaces it{keep}")
    for path in there:
        check_replaceable(path)
    return set()


def earlier_pages(path: Path, pictures: int) -> list[Path]:
    """Files that are there under names of pages, ``name-1.png`` and so on, where so many pictures may need pages.

    How many pages there will be is known after the work only; these are settled before it with the others.
    """
    if pictures <= ONE_PAGE:
        return []
    named = path.parent.glob(f"{escape(path.stem)}-*{escape(path.suffix)}")
    return sorted(found for found in named if found.stem.removeprefix(f"{path.stem}-").isdecimal())


def identity(path: Path) -> tuple[int, int] | str:
    """What tells a file from others, also behind links and in other spellings."""
    try:
        found = path.stat()
    except OSError:
        return os.path.normcase(path.resolve())
    return found.st_dev, found.st_ino


def check_writable(folder: Path) -> None:
    """Raises an OSError where a file can't be made in the folder, which itself may not be there yet."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(f"{there} is a file, and a folder is needed there; name another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"nothing can be written in the folder {there}; name another folder")


def own_folder(command: str, options: Mapping[str, Any]) -> Path:
    """The folder for answers where no place is named: a new one in the current folder.

    With ``--skip-existing`` or ``--overwrite`` it is the last one that is there.
    """
    name = f"cnnviz-{command}"
    there = list(takewhile(Path.exists, (Path(name if number == 1 else f"{name}-{number}") for number in count(1))))
    if there and (options.get("skip_existing") or options.get("overwrite")):
        return there[-1]
    return Path(f"{name}-{len(there) + 1}" if there else name)


def file_names(
    folder: Path, pictures: Sequence[Path], methods: Sequence[str], below: Mapping[Path, Path], suffix: str = ".png"
) -> dict[tuple[Path, str], Path]:
    """A file in the folder for each picture and method, no two alike.

    ``below`` gives the folder of a picture within the folder that was named, which is mirrored. Pictures of one name
    have their suffix in the names of the answers, or else their folder.
    """
    stems = {picture: below.get(picture, Path()) / picture.stem for picture in pictures}
    groups: dict[str, list[Path]] = {}
    for picture, stem in stems.items():
        groups.setdefault(os.path.normcase(stem), []).append(picture)
    for group in groups.values():
        if len(group) > 1:
            stems |= _told_apart({picture: stems[picture] for picture in group})
    names: dict[tuple[Path, str], Path] = {}
    taken: set[str] = set()
    for picture, stem in stems.items():
        for method in methods:
            ending = f"_{file_part(method)}".replace("/", "-").replace(":", "-") if method else ""
            path, number = folder / stem.parent / shortened(stem.name, ending + suffix), 2
            while os.path.normcase(path) in taken:
                path = folder / stem.parent / shortened(stem.name, f"{ending}-{number}{suffix}")
                number += 1
            taken.add(os.path.normcase(path))
            names[picture, method] = path
    return names


def shortened(stem: str, ending: str) -> str:
    """The name of a file, as long as file systems take; of a longer one digits that tell it from others are kept."""
    room = LONGEST - len(os.fsencode(ending))
    if len(os.fsencode(stem)) <= room:
        return stem + ending
    import hashlib

    digits = hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
    cut = os.fsencode(stem)[: room - 9].decode(errors="ignore")
    return f"{cut}-{digits}{ending}"


def _told_apart(stems: Mapping[Path, Path]) -> dict[Path, Path]:
    """Other stems for pictures of one stem, by their suffix or their folder, or both where one is not enough."""
    by_suffix = {picture: _with_suffix(stem, picture) for picture, stem in stems.items()}
    by_folder = {picture: _with_folder(stem, picture) for picture, stem in stems.items()}
    for named in (by_suffix, by_folder):
        if len(set(map(os.path.normcase, named.values()))) == len(stems):
            return named
    return {picture: _with_folder(stem, picture) for picture, stem in by_suffix.items()}


def _with_suffix(stem: Path, picture: Path) -> Path:
    return stem.with_name(f"{stem.name}-{picture.suffix.removeprefix('.').lower()}")


def _with_folder(stem: Path, picture: Path) -> Path:
    parent = picture.absolute().parent.name
    return stem.with_name(f"{parent}-{stem.name}" if parent else stem.name)


def _check_mark(path: Path, expected: Callable[[], str]) -> None:
    """Raises FileExistsError where an answer is of another picture or question than the one it would be kept for."""
    mark = mark_of(path)
    of, _, asked = mark.partition(" ")[2].partition(".") if mark else ("", "", "")
    if not of:
        return  # a mark of an earlier version, or none: it tells nothing
    source, _, question = expected().partition(".")
    if of != source:
        raise FileExistsError(f"{path} is the answer of another picture, or that has changed; --overwrite replaces it")
    if question and asked and asked != question:
        raise FileExistsError(f"{path} is the answer to another question, of other options; --overwrite replaces it")
