"""The files that a command's paths stand for: files, folders, standard input."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import typer

from cnnviz.cli.errors import FAILED, exit_status, print_failure, reason
from cnnviz.images.finding import look_up

STDIN = ("-", "/dev/stdin")
LARGEST = 512 * 2**20  # bytes that are taken from standard input


@dataclass(frozen=True)
class PictureFiles:
    """The files that a command's paths stand for."""

    paths: Sequence[Path]
    absent: Mapping[str, str]
    """Those of the command's paths that are not there, each with the reason."""
    below: Mapping[Path, Path] = field(default_factory=dict)
    """The folder of a picture within the folder that was named."""

    def status(self, failed: int) -> int:
        """The exit status if so many of the files failed."""
        return exit_status(len(self.paths) + len(self.absent), failed + len(self.absent))


def picture_files(paths: Sequence[str], options: Mapping[str, Any]) -> PictureFiles:
    """The files that paths and folders stand for. Several paths may lack some: each is reported and counted.

    What is left out of folders is told. Raises OSError or ValueError for a single path that is not there, and ends the
    command where none of several is.
    """
    files: dict[Path, Path] = {}
    absent: dict[str, str] = {}
    if not paths:
        raise ValueError("no pictures given; name at least one file or folder")
    for text in paths:
        try:
            if not text.strip():
                raise ValueError("a name is empty; name a file or folder (of a shell's variable that is not set?)")
            if text in STDIN:
                found: Sequence[Path] = [_from_stdin()]
                left_out = ""
            else:
                found, left_out = look_up(Path(text), options.get("recursive", False))
        except (OSError, ValueError) as error:
            if len(paths) == 1:
                raise
            print_failure(reason(error))
            absent[text] = reason(error)
            continue
        if left_out and not options.get("quiet"):
            deeper = "; -r searches folders" if "folder" in left_out and "recursive" in options else ""
            print_failure(f"{text}: left out {left_out}{deeper}")
        for path in found:
            files.setdefault(path, path.parent.relative_to(text) if Path(text).is_dir() else Path())
    if not files:
        raise typer.Exit(FAILED)
    return PictureFiles(list(files), absent, files)


def is_file(name: object) -> bool:
    """True for the name of a file that is there; a name may be too long to be one, or have a zero in it."""
    try:
        return isinstance(name, str | os.PathLike) and Path(name).is_file()
    except (OSError, ValueError):
        return False


def _from_stdin() -> Path:
    """A file with what comes on standard input, for as long as the process lives."""
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError("- is standard input, and nothing is sent there; send a picture: cnnviz ... - < photo.jpg")
    content = sys.stdin.buffer.read(LARGEST + 1)
    if not content:
        raise ValueError("- is standard input, and nothing came from there; send a picture: cnnviz ... - < photo.jpg")
    if len(content) > LARGEST:
        raise ValueError(f"more than {LARGEST // 2**20} MiB came on standard input; name a file")
    folder = mkdtemp(prefix="cnnviz-")
    atexit.register(rmtree, folder, ignore_errors=True)
    path = Path(folder) / ("stdin.npy" if content.startswith(b"\x93NUMPY") else "stdin")
    path.write_bytes(content)
    return path
