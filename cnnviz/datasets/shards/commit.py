"""Putting files in place, each once: whole, on the disk, and never over one that is there."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
from functools import cache
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
_TEMPORARY = re.compile(r"\.(?P<host>[0-9a-f]{12})-(?P<process>[0-9]+)-[0-9a-f]{8}\.tmp")
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class DiskFull(OSError):
    """The disk takes no more; the message says how much is needed and how much is free."""


def commit(path: Path, content: bytes) -> bool:
    """Put a whole file in place. False where one of that name is there already, which stays.

    The content is on the disk before the name is, so that a crash of the machine leaves no half-written file.
    Raises DiskFull, and OSError for a folder that can't be written; nothing is left then.
    """
    temporary = _written(path.parent, content)
    try:
        return _named(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it is in. Raises OSError, with the way out, where that can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _told(error, folder, 0) from error


def clean(folder: Path) -> int:
    """Remove temporary files that dead processes of this machine left; those of others may be in work. Their number."""
    removed = 0
    for path in folder.iterdir():
        named = _TEMPORARY.fullmatch(path.name)
        if named and named["host"] == _host() and not _is_alive(int(named["process"])):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def digest_of(content: bytes) -> str:
    """The SHA-256 of a content, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def temporary_in(folder: Path) -> Path:
    """A name for a file in work, which :func:`clean` removes once this process is dead."""
    return folder / f".{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _written(folder: Path, content: bytes) -> Path:
    temporary = temporary_in(folder)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _told(error, folder, len(content)) from error
        raise
    return temporary


def _told(error: OSError, folder: Path, size: int) -> OSError:
    """The error with the way out."""
    if error.errno in FULL:
        free = shutil.disk_usage(folder).free
        told: OSError = DiskFull(
            f"the disk of '{folder}' is full: the next file needs {size:,} bytes, and {free:,} are free; make room, "
            "and run the same again, which goes on where this ended"
        )
    else:
        told = type(error)(f"the folder '{folder}' can't be written: {error.strerror or error}; choose another place")
    told.errno = error.errno
    return told


def _named(temporary: Path, path: Path) -> bool:
    """Give the file its name, if no other has it: a link fails then, where renaming would replace."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise _told(error, path.parent, 0) from error
        # a file system without links; who comes between these two lines writes the same bytes
        if path.exists():
            return False
        os.replace(temporary, path)
    return True


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can do that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


@cache
def _host() -> str:
    """Digits of this machine as it runs now, and of the space of its process numbers: containers have their own."""
    told = [socket.gethostname()]
    for source in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            place = Path(source)
            told.append(os.readlink(place) if place.is_symlink() else place.read_text().strip())
        except OSError:
            continue
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True
