"""Which pictures and arrays paths and folders stand for, and what of folders is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cnnviz.images.arrays import ARRAYS
from cnnviz.images.places import file_and_place, not_there
from cnnviz.images.reading import SUFFIXES
from cnnviz.images.writing import PICTURES, mark_of

READ = (*SUFFIXES, *ARRAYS)


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

    def left_out(self) -> str:
        """What was left out, in words; empty where that is nothing."""
        kinds = ", ".join(sorted(suffix or "no suffix" for suffix in self.other))
        parts = [
            _count(self.other.total(), "file of another kind", "files of other kinds") + f" ({kinds})",
            _count(self.broken, "broken link"),
            _count(self.folders, "folder"),
            _count(self.answers, "picture that cnnviz made", "pictures that cnnviz made"),
        ]
        counts = (self.other.total(), self.broken, self.folders, self.answers)
        return ", ".join(part for part, count in zip(parts, counts, strict=True) if count)


def look_into(folder: Path, recursive: bool = False) -> Found:
    """The pictures and arrays in a folder, sorted by name; with ``recursive`` also in the folders below.

    Hidden files and folders are left out, and so are pictures that cnnviz made.
    """
    found = Found()
    for path in _below(folder, recursive):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            found.folders += not recursive or path.is_symlink()
        elif not path.exists():
            found.broken += 1
        elif path.suffix.lower() not in READ or not path.is_file():
            found.other[path.suffix.lower()] += 1
        elif path.suffix.lower() in PICTURES and mark_of(path) is not None:
            found.answers += 1
        else:
            found.pictures.append(path)
    return found


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


def _below(folder: Path, recursive: bool) -> Iterator[Path]:
    """What is in a folder, sorted by name; links to folders are not followed, for they may lead round in a circle."""
    for path in sorted(folder.iterdir()):
        yield path
        if recursive and path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            yield from _below(path, recursive)


def _count(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"
