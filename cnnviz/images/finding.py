"""Which pictures and arrays paths and folders stand for, and what of folders is left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from cnnviz.images.arrays import ARRAYS
from cnnviz.images.places import file_and_place, not_there
from cnnviz.images.reading import SUFFIXES
from cnnviz.images.writing import PICTURES, is_answer

READ = (*SUFFIXES, *ARRAYS)
_BLOCK = 256  # files that a thread looks into
_LOOKERS = 8  # threads


@dataclass
class Found:
    """The pictures of a folder, and what else is in it."""

    pictures: list[Path] = field(default_factory=list)
    other: Counter[str] = field(default_factory=Counter)
    """How many files of other suffixes there are."""
    broken: int = 0
    """How many symbolic links lead nowhere."""
    folders: int = 0
    """How many folders inside were not searched."""
    answers: int = 0
    """How many pictures cnnviz made; an answer is no question."""
    runs: int = 0
    """How many folders of batch runs there are, whose files are answers."""

    def left_out(self) -> str:
        """What was left out, in words; empty where that is nothing."""
        kinds = ", ".join(sorted(suffix or "no suffix" for suffix in self.other))
        parts = [
            _count(self.other.total(), "file of another kind", "files of other kinds") + f" ({kinds})",
            _count(self.broken, "broken link"),
            _count(self.folders, "folder"),
            _count(self.answers, "picture that cnnviz made", "pictures that cnnviz made"),
            _count(self.runs, "folder of a batch run", "folders of batch runs"),
        ]
        counts = (self.other.total(), self.broken, self.folders, self.answers, self.runs)
        return ", ".join(part for part, count in zip(parts, counts, strict=True) if count)


def look_into(folder: Path, recursive: bool = False) -> Found:
    """The pictures and arrays in a folder, sorted by name; with ``recursive`` also in the folders below.

    Hidden files and folders are left out, and so are pictures that cnnviz made.
    """
    found = Found()
    found.pictures.extend(folder / path for path in walk(folder, recursive, found))
    return found


def walk(folder: str | Path, recursive: bool, found: Found) -> Iterator[str]:
    """The paths of pictures and arrays below a folder, with "/", sorted by their parts; see :func:`look_into`.

    ``found`` counts what is left out. Links to folders are not followed, for they may lead round in a circle. A folder
    is read when its turn comes, and a file costs one look at its beginning.
    """
    waiting = [iter(_entries(str(folder), found, top=True))]
    above = [""]
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
            above.pop()
        elif entry.is_dir():
            if recursive and not entry.is_symlink():
                waiting.append(iter(_entries(entry.path, found)))
                above.append(f"{above[-1]}{entry.name}/")
            else:
                found.folders += 1
        else:
            yield above[-1] + entry.name


def find_pictures(paths: str | Path | Iterable[str | Path], recursive: bool = False) -> list[Path]:
    """Files in the order given; a folder stands for what :func:`look_into` finds in it.

    A file named twice is listed once. Raises FileNotFoundError for what is not there or a folder without pictures,
    ValueError for no paths.
    """
    files: dict[Path, None] = {}
    for path in map(Path, [paths] if isinstance(paths, (str, Path)) else paths):
        files |= dict.fromkeys(look_up(path, recursive)[0])
    if not files:
        raise ValueError("no pictures given; name at least one file or folder")
    return list(files)


def look_up(path: Path, recursive: bool = False) -> tuple[Sequence[Path], str]:
    """The files that a path stands for, and in words what of a folder was left out.

    Raises FileNotFoundError for what is not there, and for a folder without pictures.
    """
    if not path.is_dir():
        if not file_and_place(path)[0].exists():
            raise not_there(path, "file or folder")
        return [path], ""
    found = look_into(path, recursive)
    left_out = found.left_out()
    if not found.pictures:
        more = f"; left out: {left_out}" if left_out else ""
        deeper = "" if recursive else "; folders inside it are not searched"
        raise FileNotFoundError(f"folder '{path}' holds no pictures ({', '.join(READ)}){deeper}{more}")
    return found.pictures, left_out


def _entries(folder: str, found: Found, top: bool = False) -> list[os.DirEntry[str]]:
    """The folders, and the files that are pictures or arrays and no answers, sorted by name."""
    with os.scandir(folder) as scanned:
        entries = sorted((entry for entry in scanned if not entry.name.startswith(".")), key=lambda entry: entry.name)
    if not top and {"batch.json", "shards"} <= {entry.name for entry in entries}:
        found.runs += 1
        return []
    kept = [entry for entry in entries if entry.is_dir() or _is_read(entry, found)]
    marked = _answers([entry.path for entry in kept if _suffix(entry) in PICTURES and not entry.is_dir()])
    found.answers += len(marked)
    return [entry for entry in kept if entry.path not in marked]


def _is_read(entry: os.DirEntry[str], found: Found) -> bool:
    if entry.is_symlink() and not os.path.exists(entry.path):
        found.broken += 1
    elif _suffix(entry) in READ and entry.is_file():
        return True
    else:
        found.other[_suffix(entry)] += 1
    return False


def _suffix(entry: os.DirEntry[str]) -> str:
    return os.path.splitext(entry.name)[1].lower()


def _answers(paths: Sequence[str]) -> set[str]:
    """Those that cnnviz made. On a network drive each look takes a while, so many wait at once."""
    blocks = [paths[start : start + _BLOCK] for start in range(0, len(paths), _BLOCK)]
    if len(blocks) < 2:
        return set(filter(is_answer, paths))
    with ThreadPoolExecutor(_LOOKERS, "cnnviz-finder") as pool:
        return set().union(*pool.map(lambda block: set(filter(is_answer, block)), blocks))


def _count(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"
