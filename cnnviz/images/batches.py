"""Batches of inputs from any number of pictures; one batch is in memory, and of files the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
from PIL import Image
from torch import Tensor

from cnnviz.images.files import read_input
from cnnviz.images.preprocessing import Preprocessing

Picture: TypeAlias = str | Path | Image.Image | Tensor
"""A file, a PIL image, or an input (C, *spatial) as the network takes it."""
T = TypeVar("T")
READERS = 4  # threads that decode; Pillow and torch let others run meanwhile


def in_batches(
    pictures: Iterable[tuple[T, Picture]],
    preprocessing: Preprocessing | None,
    most: int,
    unreadable: Callable[[Picture, Exception], None] | None = None,
    like: Tensor | None = None,
) -> Iterator[tuple[list[T], Tensor]]:
    """Batches of inputs (N, C, *spatial) of one spatial size, N at most ``most``, each with the tags of its pictures.

    They have the device and the type of ``like``; None leaves them as they are.
    Threads read the next pictures while a batch is worked on. A picture that cannot be read is left out, and
    ``unreadable`` is called with it and its error. Raises OSError or ValueError instead where that is None; TypeError
    for pictures without a preprocessing.
    """
    tags: list[T] = []
    inputs: list[Tensor] = []
    for tag, picture, read in _read_ahead(pictures, partial(_prepared, preprocessing=preprocessing), most):
        try:
            tensor = read()
        except (OSError, ValueError) as error:
            if unreadable is None:
                raise
            unreadable(picture, error)
            continue
        if inputs and (len(inputs) == most or inputs[0].shape != tensor.shape):
            yield tags, _stacked(inputs, like)
            tags, inputs = [], []
        tags.append(tag)
        inputs.append(tensor)
    if inputs:
        yield tags, _stacked(inputs, like)


def _read_ahead(
    pictures: Iterable[tuple[T, Picture]], read: Callable[[Picture], Tensor], most: int
) -> Iterator[tuple[T, Picture, Callable[[], Tensor]]]:
    """Tags and pictures in their order, each with what waits for it to be read; ``most`` are read in advance."""
    waiting: deque[tuple[T, Picture, Callable[[], Tensor]]] = deque()
    threads = ThreadPoolExecutor(READERS, "cnnviz-reader")
    try:
        for tag, picture in pictures:
            # of a tensor nothing is left to read, and the next one would take memory; a picture that is open may be
            # asked for twice, which Pillow can't do in two threads
            there = not isinstance(picture, str | Path)
            result = partial(read, picture) if there else threads.submit(read, picture).result
            waiting.append((tag, picture, result))
            while waiting and (there or len(waiting) > most):
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        threads.shutdown(cancel_futures=True)


def _stacked(inputs: list[Tensor], like: Tensor | None) -> Tensor:
    batch = torch.stack(inputs)
    return batch if like is None else batch.to(like.device, like.dtype)


def _prepared(picture: Picture, preprocessing: Preprocessing | None) -> Tensor:
    if isinstance(picture, Tensor):
        return picture
    if preprocessing is None:
        raise TypeError(f"a picture is a {type(picture).__name__}; without a preprocessing only tensors are taken")
    return read_input(picture, preprocessing) if isinstance(picture, str | Path) else preprocessing(picture)
