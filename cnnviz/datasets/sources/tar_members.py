"""The members of a tar, each with its place in the file. One that is damaged or cut short is told from a whole one."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cnnviz.images.places import check_file
from cnnviz.images.reading import one_line

_PACKED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


def members(path: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Each member, and the file, which may be read anywhere.

    Raises ValueError for a tar that is compressed, damaged or cut short, and for a file that is none.
    """
    check_file(path, "a tar")
    with path.open("rb") as file:
        head = file.read(6)
        unpack = next((program for mark, program in _PACKED.items() if head.startswith(mark)), None)
        if unpack is not None:
            raise ValueError(
                f"tar '{path}' is compressed, and a picture in it can't be reached without all before it; unpack it "
                f"once: {unpack} '{path}'"
            )
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # they would all be kept
                    yield member, file
                end = tar.offset
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            raise ValueError(f"tar '{path}' is damaged or cut short: {one_line(error)}") from error
        _check_end(file, end, path)


def _check_end(file: IO[bytes], end: int, path: Path) -> None:
    """What follows the last member is blocks of zeros alone; tarfile takes anything for the end."""
    size = os.fstat(file.fileno()).st_size
    if end >= size:
        raise ValueError(f"tar '{path}' is damaged or cut short: it ends at byte {size} without the mark of its end")
    file.seek(end)
    if any(file.read(tarfile.BLOCKSIZE)):
        raise ValueError(f"tar '{path}' is damaged or cut short: at byte {end} no member begins")
    while block := file.read(2**20):
        if any(block):
            raise ValueError(f"tar '{path}' goes on behind its end at byte {end}; are several tars in one file?")
