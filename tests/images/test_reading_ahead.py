"""Batches of pictures, read ahead by threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from cnnviz import Preprocessing
from cnnviz.images.batches import in_batches

PREPARE = Preprocessing((0.5,) * 3, (0.5,) * 3, resize=None, crop=None)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Ten files, each of one grey, of which the fourth can't be read."""
    paths = [tmp_path / f"{number}.png" for number in range(10)]
    for number, path in enumerate(paths):
        Image.fromarray(np.full((6, 5, 3), 20 * number, np.uint8)).save(path)
    paths[3].write_bytes(b"no picture")
    return paths


def test_batches_come_in_order_and_tell_what_cannot_be_read(pictures: list[Path]) -> None:
    missed: list[object] = []
    found = [*in_batches(enumerate(pictures), PREPARE, 4, lambda picture, error: missed.append(picture))]
    assert [tags for tags, _, _ in found] == [[0, 1, 2, 4], [5, 6, 7, 8], [9]]
    assert missed == [pictures[3]]
    for tags, batch, _ in found:
        assert batch.shape == (len(tags), 3, 6, 5)
        greys = torch.tensor([20.0 * tag / 255 * 2 - 1 for tag in tags])
        torch.testing.assert_close(batch[:, 0, 0, 0], greys)


def test_an_error_is_raised_where_nobody_is_told(pictures: list[Path]) -> None:
    reading = in_batches(enumerate(pictures), PREPARE, 2)
    assert next(reading)[0] == [0, 1]
    with pytest.raises((OSError, ValueError), match=r"3\.png"):
        next(reading)


def test_files_of_the_next_batch_are_read_in_other_threads_and_no_further(pictures: list[Path]) -> None:
    asked: list[int] = []
    readers: set[str] = set()

    class Watched(Preprocessing):
        def __call__(self, image: Image.Image) -> torch.Tensor:
            readers.add(threading.current_thread().name)
            return super().__call__(image)

    def named() -> Iterator[tuple[int, Path]]:
        for number, path in enumerate(pictures[4:] * 4):
            asked.append(number)
            yield number, path

    reading = in_batches(named(), Watched((0.5,) * 3, (0.5,) * 3, resize=None, crop=None), 3)
    next(reading)
    assert len(asked) <= 3 + 3 + 2, "a batch, the next, and the first pictures behind both"
    assert all(name.startswith("cnnviz-reader") for name in readers)
    reading.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cnnviz-reader")]


@pytest.mark.parametrize("readers", [1, 3])
def test_so_many_threads_read_as_are_asked_for(pictures: list[Path], readers: int) -> None:
    asked: list[int] = []
    meeting = threading.Barrier(readers)

    class Meeting(Preprocessing):
        def __call__(self, image: Image.Image) -> torch.Tensor:
            meeting.wait(timeout=20)  # nobody reads on before so many read at once
            return super().__call__(image)

    def named() -> Iterator[tuple[int, Path]]:
        for number, path in enumerate(pictures[4:] * 3):
            asked.append(number)
            yield number, path

    prepare = Meeting((0.5,) * 3, (0.5,) * 3, resize=None, crop=None)
    read = 0
    for tags, *_ in in_batches(named(), prepare, 1, readers=readers):
        read += len(tags)
        assert len(asked) <= read + readers + 2, "as many are read in advance as there are threads"
    assert read == 18


def test_open_pictures_are_read_one_after_the_other(tmp_path: Path) -> None:
    frames = [Image.new("L", (5, 6), 60 * number) for number in range(4)]
    frames[0].save(tmp_path / "frames.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "frames.gif") as several:
        read = in_batches(enumerate(ImageSequence.Iterator(several)), PREPARE, 3)
        found = torch.cat([batch[:, 0, 0, 0] for _, batch, _ in read])
    torch.testing.assert_close(found, torch.tensor([60.0 * number / 255 * 2 - 1 for number in range(4)]))
