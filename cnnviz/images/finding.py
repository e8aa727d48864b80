"""Which pictures and arrays paths and folders stand for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cnnviz.images.reading import SUFFIXES


def find_pictures(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Files in the order given; a folder stands for the pictures and .npy files right inside, sorted by name.

    Hidden files are left out of folders, and a file named twice is listed once.
    Raises FileNotFoundError for what is not there or a folder without pictures, ValueError for no paths.
    """
    files: dict[Path, None] = {}
    for path in map(Path, [paths] if isinstance(paths, (str, Path)) else paths):
        inside = sorted(_pictures_in(path)) if path.is_dir() else [path]
        if not inside:
            raise FileNotFoundError(
                f"folder '{path}' holds no pictures ({', '.join(SUFFIXES)}, .npy); folders inside it are not searched"
            )
        if not path.exists():
            raise FileNotFoundError(f"no file or folder '{path}'")
        files |= dict.fromkeys(inside)
    if not files:
        raise ValueError("no pictures given; name at least one file or folder")
    return list(files)


def _pictures_in(folder: Path) -> Iterable[Path]:
    for path in folder.iterdir():
        if path.suffix.lower() in (*SUFFIXES, ".npy") and not path.name.startswith(".") and path.is_file():
            yield path
