"""What a run will cost: measured on a few of its items, before anything is written."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from cnnviz.datasets.items import Item, Source
from cnnviz.datasets.question import BatchQuestion
from cnnviz.datasets.shards.item_answers import Answering
from cnnviz.datasets.shards.item_reading import read_ahead
from cnnviz.images.limits import pixel_limit

ROW = 220
"""Bytes of an item beside its maps: its row and its numbers."""


@dataclass(frozen=True)
class Estimate:
    """Time and space of a run, from the items that were measured."""

    items: int
    """How many the source has."""
    measured: int
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


def estimated(
    question: BatchQuestion, source: Source, classes: Mapping[int | str, int], readers: int, batches: int = 3
) -> Estimate:
    """Read and explain a first batch, which settles the question, and then so many more, which are timed.

    Nothing is written. Raises ValueError where none of the items can be explained.
    """
    listed = source.items()
    first = list(itertools.islice(listed, question.fixed.batch * (batches + 1)))
    rest = sum(1 for _ in listed)
    size = question.fixed.batch
    cut = [first[start : start + size] for start in range(0, len(first), size)]
    warm = cut[:1] if len(cut) > 1 else []
    timed: list[list[Item]] = cut[1:] or cut
    threads = torch.get_num_threads()
    answering = Answering(replace(question, prepared={}), classes)
    answers = []
    try:
        torch.set_num_threads(question.fixed.threads)
        with pixel_limit(question.limit):
            for batch in read_ahead(warm, source, question.model.preprocessing, bool(question.metrics), readers):
                answering(batch)
            started = time.perf_counter()
            for batch in read_ahead(timed, source, question.model.preprocessing, bool(question.metrics), readers):
                answers += answering(batch)
            seconds = time.perf_counter() - started
    finally:
        torch.set_num_threads(threads)
    good = [answer for answer in answers if not answer.error]
    if not good:
        raise ValueError(f"none of the first {len(answers)} items could be explained: {answers[0].error}")
    kept = [question.storage(each.values) for each in (good[0].explanations[name] for name in question.methods)]
    width = 2 if question.storage.kept == "float16" else 4
    weight = sum(each.numel() * width for each in kept) + ROW
    return Estimate(len(first) + rest, len(answers), len(answers) - len(good), seconds / len(answers), weight)
