"""Files that are put in place once, whole, and never over another."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path

import pytest

from cnnviz.datasets.shards import commit as committing
from cnnviz.datasets.shards.commit import DiskFull, clean, commit


def test_the_first_file_of_a_name_stays(tmp_path: Path) -> None:
    assert commit(tmp_path / "a", b"first")
    assert not commit(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_content_is_on_the_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    sync, link = os.fsync, os.link

    def fsync(descriptor: int) -> None:
        seen.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", lambda old, new: (seen.append("link"), link(old, new)))
    commit(tmp_path / "a", b"content")
    assert seen[0].endswith(".tmp")
    assert seen[1:] == ["link", tmp_path.name]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("place", ["fsync", "link"])
def test_a_full_disk_leaves_nothing_and_says_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, place: str
) -> None:
    def full(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, place, full)
    with pytest.raises(DiskFull, match=r"is full: the next file needs .* bytes, and [\d,]+ are free; make room"):
        commit(tmp_path / "a", b"x" * 1000)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match=r"can't be written: Read-only file system; choose another place"):
        commit(tmp_path / "a", b"x")


def test_a_file_system_without_links_takes_a_name_once_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", refuse)
    assert commit(tmp_path / "a", b"first")
    assert not commit(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_only_files_of_dead_processes_of_this_machine_are_removed(tmp_path: Path) -> None:
    ended = multiprocessing.get_context("fork").Process(target=int)
    ended.start()
    ended.join()
    host = committing._host()
    dead = tmp_path / f".{host}-{ended.pid}-0123abcd.tmp"
    alive = tmp_path / f".{host}-{os.getpid()}-0123abcd.tmp"
    other = tmp_path / f".{'0' * 12}-{ended.pid}-0123abcd.tmp"
    answer = tmp_path / "000001.safetensors"
    for path in (dead, alive, other, answer):
        path.write_bytes(b"")
    assert clean(tmp_path) == 1
    assert sorted(tmp_path.iterdir()) == sorted([alive, other, answer])
