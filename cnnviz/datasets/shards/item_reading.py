"""From items to inputs of the network, read ahead by threads."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cnnviz.datasets.items import Item, Opened, Source
from cnnviz.datasets.sources.annotated import mask_file
from cnnviz.images.annotations import mask_as_seen, mask_in_file
from cnnviz.images.geometry import Box
from cnnviz.images.originals import opened
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.images.reading import one_line

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
MEMORY = "memory ran out"
"""How the error of an item begins that may have an answer where more is free."""


@dataclass(frozen=True, eq=False)
class ReadItem:
    """An item as the network takes it; or why it can't be read."""

    item: Item
    input: Tensor | None = None
    """(C, *spatial)."""
    error: str | None = None
    sha256: str | None = None
    """Of the file, or of the values of what has no file."""
    size: tuple[int, int] = (0, 0)
    """Height and width of the original picture; 0 for what is no picture."""
    box: Box = (0.0, 0.0, 0.0, 0.0)
    """Where the input lies in it."""
    mask: Tensor | None = None
    """Bool (*spatial), the annotated evidence as the network sees it."""


def read_ahead(
    batches: Sequence[Sequence[Item | ReadItem]],
    source: Source,
    preprocessing: Preprocessing | None,
    masks: bool,
    readers: int,
) -> Iterator[list[ReadItem]]:
    """Batches of items that were read, in their order; while one is worked on, the next one is read.

    What is no item any more, but is told to have failed, stays as it is.
    """

    def read(waiting: Sequence[Future[ReadItem] | ReadItem]) -> list[ReadItem]:
        done = [each if isinstance(each, ReadItem) else each.result() for each in waiting]
        # several are read at once; one for which there was no memory is read again, after the others of its batch
        return [
            _read(each.item, source, preprocessing, masks)
            if isinstance(asked, Future) and (each.error or "").startswith(MEMORY)
            else each
            for each, asked in zip(done, waiting, strict=True)
        ]

    threads = ThreadPoolExecutor(readers, "cnnviz-reader")
    waiting: deque[list[Future[ReadItem] | ReadItem]] = deque()
    try:
        for batch in batches:
            waiting.append(
                [
                    each if isinstance(each, ReadItem) else threads.submit(_read, each, source, preprocessing, masks)
                    for each in batch
                ]
            )
            if len(waiting) > 2:
                yield read(waiting.popleft())
        while waiting:
            yield read(waiting.popleft())
    finally:
        threads.shutdown(cancel_futures=True)


def _read(item: Item, source: Source, preprocessing: Preprocessing | None, masks: bool) -> ReadItem:
    picture: Opened | None = None
    try:
        picture = source.open(item)
        if isinstance(picture, Tensor):
            tensor = picture.detach()
            if tensor.ndim < 1 or not tensor.is_floating_point():
                raise ValueError(f"it is {tensor.dtype} {tuple(tensor.shape)}, not floating point (C, *spatial)")
            if not bool(tensor.isfinite().all()):
                raise ValueError("it has values that are NaN or infinite")
            sha256 = sha256_of(tensor)
            return ReadItem(item, tensor, sha256=sha256, mask=_mask(item, source, preprocessing) if masks else None)
        if preprocessing is None:
            raise ValueError(f"it is a {type(picture).__name__}, and without a preprocessing only tensors are taken")
        tensor, original = opened(picture, preprocessing)
        if not bool(tensor.isfinite().all()):
            raise ValueError("it has values that are NaN or infinite")
        mask = _mask(item, source, preprocessing) if masks else None
        if original is None:  # an array in a file
            sha256 = sha256_of(tensor)
            return ReadItem(item, tensor, sha256=sha256, mask=mask)
        sha256 = original.sha256 or ""
        if original.pixels is not None:
            sha256 = sha256_of(original.pixels)
        return ReadItem(item, tensor, None, sha256, original.size, original.box, mask)
    except BaseException as error:  # what a damaged file raises in a library may be anything; no Ctrl-C comes here
        if is_out_of_memory(error):
            return ReadItem(item, error=f"{MEMORY} when it was read")
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        told = one_line(error)
        # where the data lies is not the same on all machines
        if isinstance(picture, str | Path):
            told = told.replace(str(picture), item.id)
        if masks and (file := mask_file(source, item)) is not None:
            told = told.replace(str(file), str(item.mask))
        return ReadItem(item, error=f"{kind}{told}")


def _mask(item: Item, source: Source, preprocessing: Preprocessing | None) -> Tensor | None:
    file = mask_file(source, item)
    if file is None:
        return None
    inside = mask_in_file(file)
    if preprocessing is None:
        return torch.from_numpy(inside)
    return mask_as_seen(inside, preprocessing)


def sha256_of(tensor: Tensor) -> str:
    """The SHA-256 of a tensor's values."""
    return hashlib.sha256(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was too small, on whatever device; torch has no error of its own for a CPU."""
    text = str(error).lower()
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or (isinstance(error, RuntimeError) and any(each in text for each in OUT_OF_MEMORY))
