"""Batches of inputs from any number of pictures; one batch is in memory, and of files the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cnnviz.images.originals import Original, opened
from cnnviz.images.preprocessing import Preprocessing

Picture: TypeAlias = str | Path | Image.Image | NDArray[Any] | Tensor
"""A file, a PIL image, a uint8 array of one, or an input (C, *spatial) as the network takes it."""
Read: TypeAlias = tuple[Tensor, Original | None]
"""An input (C, *spatial), and the picture it was made of."""
T = TypeVar("T")
READERS = 4  # threads that decode, if not said otherwise; Pillow and torch let others run meanwhile


def in_batches(
    pictures: Iterable[tuple[T, Picture]],
    preprocessing: Preprocessing | None,
    most: int,
    unreadable: Callable[[Picture, Exception], None] | None = None,
    like: Tensor | None = None,
    readers: int = READERS,
) -> Iterator[tuple[list[T], Tensor, tuple[Original | None, ...]]]:
    """Batches of inputs (N, C, *spatial) of one spatial size, N at most ``most``, each with the tags of its pictures.

    The originals of the inputs come last. Inputs have the device and type of ``like``; None leaves them as they are.
    So many threads read the next pictures while a batch is worked on: as many pictures as a batch has, or one for each
    thread. A picture that cannot be read is left out, and
    ``unreadable`` is called with it and its error. Raises OSError or ValueError instead where that is None; TypeError
    for pictures without a preprocessing.
    """
    tags: list[T] = []
    inputs: list[Tensor] = []
    originals: list[Original | None] = []
    for tag, picture, read in _read_ahead(pictures, partial(_prepared, preprocessing=preprocessing), most, readers):
        try:
            tensor, original = read()
        except (OSError, ValueError) as error:
            if unreadable is None:
                raise
            unreadable(picture, error)
            continue
        if inputs and (len(inputs) == most or inputs[0].shape != tensor.shape):
            yield tags, _stacked(inputs, like), tuple(originals)
            tags, inputs, originals = [], [], []
        tags.append(tag)
        inputs.append(tensor)
        originals.append(original)
    if inputs:
        yield tags, _stacked(inputs, like), tuple(originals)


def _read_ahead(
    pictures: Iterable[tuple[T, Picture]], read: Callable[[Picture], Read], most: int, readers: int
) -> Iterator[tuple[T, Picture, Callable[[], Read]]]:
    """Tags and pictures in their order, each with what waits for it to be read.

    As many are read in advance as ``most`` says, or one for each thread.
    """
    waiting: deque[tuple[T, Picture, Callable[[], Read]]] = deque()
    threads = ThreadPoolExecutor(readers, "cnnviz-reader")
    try:
        for tag, picture in pictures:
            # of a tensor nothing is left to read, and the next one would take memory; a picture that is open may be
            # asked for twice, which Pillow can't do in two threads
            there = not isinstance(picture, str | Path)
            result = partial(read, picture) if there else threads.submit(read, picture).result
            waiting.append((tag, picture, result))
            while waiting and (there or len(waiting) > max(most, readers)):
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        threads.shutdown(cancel_futures=True)


def _stacked(inputs: list[Tensor], like: Tensor | None) -> Tensor:
    batch = torch.stack(inputs)
    return batch if like is None else batch.to(like.device, like.dtype)


def _prepared(picture: Picture, preprocessing: Preprocessing | None) -> Read:
    if isinstance(picture, Tensor):
        return picture, None
    if preprocessing is None:
        raise TypeError(f"a picture is a {type(picture).__name__}; without a preprocessing only tensors are taken")
    return opened(picture, preprocessing)
