"""What a run will cost: measured on a few of its items, before anything is written."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cnnviz.datasets.items import Item, Source
from cnnviz.datasets.question import BatchQuestion
from cnnviz.datasets.shards.item_answers import Answering, ItemAnswer
from cnnviz.datasets.shards.item_reading import ReadItem, read_ahead
from cnnviz.engine.meter import metered
from cnnviz.images.limits import pixel_limit

PATIENCE = 20.0
"""Seconds that a batch may take."""
ROW = 220
"""Bytes of an item beside its maps: its row and its numbers."""


@dataclass(frozen=True)
class Estimate:
    """Time and space of a run, from the items that were measured."""

    items: int
    """How many the source has."""
    measured: int
    """0 where a batch took so long that it was not finished; time and space are told from a part of it then."""
    failed: int
    """How many of those that were measured could not be read or explained."""
    seconds: float
    """For one item in one worker, reading and explaining; a worker reads ahead while it explains."""
    bytes: float
    """Of one item's maps and numbers."""

    def hours(self, workers: int) -> float:
        """Of the whole run by so many workers that don't hinder each other."""
        return self.items * self.seconds / workers / 3600

    def rate(self, workers: int) -> float:
        """Items per second of so many workers."""
        return workers / self.seconds if self.seconds else float("inf")

    @property
    def total_bytes(self) -> float:
        """Of the whole run."""
        return self.items * self.bytes


class _LongEnough(BaseException):
    """A batch takes so long that the rest of it is told from what is done. It is no error of an item."""


def estimated(
    question: BatchQuestion, source: Source, classes: Mapping[int | str, int], readers: int, batches: int = 3
) -> Estimate:
    """Read and explain a first batch, which settles the question, and then so many more, which are timed.

    A batch that takes longer than :data:`PATIENCE` seconds is not finished: the time is told from the passes made, and
    maps count as large as the input. Nothing is written. Raises ValueError where none of the items can be explained.
    """
    listed = source.items()
    size = question.fixed.batch
    first = list(itertools.islice(listed, size * (batches + 1)))
    rest = sum(1 for _ in listed)
    cut = [first[start : start + size] for start in range(0, len(first), size)]
    warm, timed = (cut[:1], cut[1:]) if len(cut) > 1 else ([], cut)
    threads = torch.get_num_threads()
    answering = Answering(replace(question, prepared={}), classes)
    count, total = 0, len(first) + rest

    def read(several: list[list[Item]]) -> Iterator[list[ReadItem]]:
        return read_ahead(several, source, question.model.preprocessing, bool(question.metrics), readers)

    answers: list[ItemAnswer] = []
    watch = _Watch()
    shape: tuple[int, ...] = ()
    try:
        torch.set_num_threads(question.fixed.threads)
        with pixel_limit(question.limit), metered(watch):
            for batch in read(warm):
                shape, count = _shape(batch), len(batch)
                watch.begin()
                answering(batch)
            started = time.perf_counter()
            for batch in read(timed):
                shape, count = _shape(batch), len(batch)
                watch.begin()
                answers += answering(batch)
            seconds = (time.perf_counter() - started) / len(answers)
    except _LongEnough:
        kept = [question.storage(torch.zeros((1, *shape))) for _ in question.methods]
        return Estimate(total, 0, 0, watch.whole() / count, _bytes(question, kept))
    finally:
        torch.set_num_threads(threads)
    good = [answer for answer in answers if not answer.error]
    if not good:
        raise ValueError(f"none of the first {len(answers)} items could be explained: {answers[0].error}")
    if all(answer.unmeasured for answer in good):
        raise ValueError(f"none of the first {len(answers)} items could be measured: {good[0].unmeasured}")
    kept = [question.storage(good[0].explanations[name].values) for name in question.methods]
    return Estimate(total, len(answers), len(answers) - len(good), seconds, _bytes(question, kept))


class _Watch:
    """Hears how many passes of a batch are made, and stops it where they take long."""

    def begin(self) -> None:
        """Another batch."""
        self.started, self.share = time.perf_counter(), 0.0
        self.seconds = 0.0

    def __call__(self, done: int, total: int) -> None:
        self.seconds = time.perf_counter() - self.started
        self.share = done / total if total else 0.0
        if self.seconds > PATIENCE and 0 < self.share < 0.5:
            raise _LongEnough

    def whole(self) -> float:
        """Seconds of the whole batch."""
        return self.seconds / self.share


def _shape(batch: Sequence[ReadItem]) -> tuple[int, ...]:
    return next((tuple(each.input.shape) for each in batch if each.input is not None), ())


def _bytes(question: BatchQuestion, maps: Sequence[Tensor]) -> float:
    width = 2 if question.storage.kept == "float16" else 4
    return sum(each.numel() * width for each in maps) + ROW
