"""Files, and what is chosen in one: a frame, a page, an item or a named array."""

from __future__ import annotations

import re
import stat
from pathlib import Path

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)


def file_and_place(path: str | Path) -> tuple[Path, str | None]:
    """``scan.tif#3`` is page 3 of ``scan.tif``, counted from 0, unless a file has that very name.

    Arrays have items (``batch.npy#3``) or names (``arrays.npz#input``). Without a place that is None.
    """
    path = Path(path)
    name, mark, place = path.name.rpartition("#")
    if mark and name and place and not path.exists() and path.with_name(name).is_file():
        return path.with_name(name), place
    return path, None


def numbered(place: str | None, path: Path, what: str) -> int | None:
    """The place as a number. Raises ValueError for one that is none."""
    if place is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", place):
        raise ValueError(f"'{path}#{place}' names no {what}; they are numbered from 0, as in '{path.name}#0'")
    return int(place)


def is_url(path: str | Path) -> bool:
    """True for what names a place on the net."""
    return _URL.match(str(path)) is not None


def not_there(path: str | Path, what: str = "file") -> FileNotFoundError:
    """The error for a path that is not there; a URL is told apart."""
    text = str(path)
    if url := _URL.match(text):  # a Path has lost one of the slashes
        address = f"{url[1]}://{text[url.end() :]}"
        return FileNotFoundError(
            f"'{address}' is a URL, and URLs are not fetched; download it first, and give the file"
        )
    return FileNotFoundError(f"no {what} '{path}'")


def check_file(path: Path, what: str = "a picture") -> None:
    """Raises OSError or ValueError for a path that is no ordinary file; a pipe or device could be read for ever."""
    if not path.exists():
        raise not_there(path)
    if path.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder, not {what}; name a file in it")
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"'{path}' is not an ordinary file")
