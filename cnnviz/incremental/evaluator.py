"""Scores of variants, computed only where the change reaches, and verified against whole passes.

Every operation of one pass is recorded once. The variants then run through the model together, and each call that does
not descend from the change is answered from the record. Where a change has a box, operations with a rule compute
regions around it; from where that covers most of a map, and elsewhere, they compute full maps.

Verification: one variant of the middle and the one that moves the score most are also computed by whole passes. Where
these differ, where no change is larger than rounding, or where the pass has side effects, whole passes answer for all.
A variant that sends the model another way is a whole pass of its own. Where whole passes of all inputs together take
less time, regions are left after the rehearsal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cnnviz.engine import batching
from cnnviz.engine.agreement import Departed, special_or_plain
from cnnviz.engine.deferred import reads_at_once, uploaded
from cnnviz.engine.device_policy import CPU, DevicePolicy
from cnnviz.incremental.boxes import grouped
from cnnviz.incremental.change import Change, Query
from cnnviz.incremental.choice import Choice
from cnnviz.incremental.recorded_pass import RecordedPass, recorded
from cnnviz.incremental.replay import Group, Replay
from cnnviz.incremental.whole_passes import WholePasses

MOST_TRIED = 8
"""How many variants are passed together to find out whether they change each other's scores."""


class Evaluator:
    """Scores of the variants of one input after the other.

    Args:
        policy: of the device, which says how many variants are replayed at once.
        choice: tells whether regions are faster than whole passes of all inputs; None: regions always.
    """

    def __init__(self, policy: DevicePolicy = CPU, choice: Choice | None = None):
        self.policy, self.choice = policy, choice
        self.pays = True
        """False if whole passes of all inputs are expected to be faster."""
        self.trusted: bool | None = None
        """True if incremental scores agree with those of whole passes; None if not known yet."""
        self.operations = 0
        """How many operations were computed for the last chunk."""
        self.elements = 0
        """How many values operations have computed for variants, without those for verification."""
        self.ops = 0
        """How many operations the recorded pass has."""
        self.forks = False
        """True if Python read changed values in the last recorded pass."""
        self.at_once = 1
        """How many variants were replayed together."""
        self._path: list[Any] | None = None
        self._groups: list[Group] = []
        self._largest = 1
        self._bytes = 0

    def scores(self, query: Query, change: Change, score: Tensor | None = None) -> Tensor:
        """The scores of all variants, (count,); by whole passes where the pass can't be replayed.

        Args:
            query: of one input.
            change: the variants.
            score: the input's as it is known, (1,). The result is corrected by how much the recorded pass differs from
                it, so that differences to that score are exact up to the rounding of variants. None: no correction.
        """
        whole = self._begin(query, change)
        scores = self._by_replay(whole, score)
        if scores is not None:
            return scores
        scores = whole.scores(range(change.count))
        return scores if score is None or not change.coarse else scores + (score - whole.unchanged)

    def replayed_scores(self, query: Query, change: Change, score: Tensor | None = None) -> Tensor | None:
        """The same; None where the pass can't be replayed."""
        return self._by_replay(self._begin(query, change), score)

    def _begin(self, query: Query, change: Change) -> WholePasses:
        record = None if change.alone else recorded(query, change)
        self.forks = record is not None and record.forks
        return WholePasses(query, change, record)

    def _by_replay(self, whole: WholePasses, score: Tensor | None) -> Tensor | None:
        record = whole.record
        if record is None or not record.repeatable or (record.forks and whole.change.boxes is not None):
            return None
        scores = self._incremental(record, Replay(record, whole))
        return scores if score is None or scores is None else scores + (score - record.score)

    def _incremental(self, record: RecordedPass, replay: Replay) -> Tensor | None:
        """The incremental scores; None if they do not agree with whole passes, or can't be verified."""
        if self._path != record.path:
            self._path, self.trusted, self.ops = record.path, None, len(record.ops)
            self._groups = [*_groups(replay.change, record.stride)]
        rehearsed = self._rehearse(replay) if self.trusted is None else self.trusted
        if rehearsed is False:
            self.trusted = False
            return None
        self.at_once = self._fitting(record, replay.whole.query)
        if self.choice is not None and self.trusted is None:
            chunks = sum(-(-len(group.numbers) // self.at_once) for group in self._groups)
            self.pays = self.choice.pays(self.ops, chunks, self._bytes)
            if not self.pays:
                return None
        scores = self._chunked(self._groups, self.at_once, partial(self._replayed, replay))
        if self.trusted is None:
            replayed = [number for number in range(replay.change.count) if number not in replay.by_whole_passes]
            if not replayed:  # whole passes have answered
                self.trusted = rehearsed
                return scores
            number = _strongest(scores - record.score, replayed)
            self.trusted = replay.agrees(number, scores[number])
        return scores if self.trusted else None

    def _fitting(self, record: RecordedPass, query: Query) -> int:
        """How many variants are replayed together."""
        if record.forks or record.apart is False:
            return 1
        fitting = self.policy.items_replayed(self._largest)
        return fitting if record.apart or fitting == 1 or query.apart(min(fitting, MOST_TRIED)) else 1

    def _rehearse(self, replay: Replay) -> bool | None:
        """True if replayed scores agree with whole passes, False if not, None if the score does not change.

        Two variants are replayed together, so that what is expanded along a wrong dimension shows. The second is
        compared, for the first may lie in a corner.
        """
        first, last = self._groups[0].numbers, self._groups[-1].numbers
        numbers = torch.stack([first[0], last[len(last) // 2]])
        numbers = numbers[1:] if replay.record.forks else numbers
        boxes = replay.change.boxes
        group = Group(numbers, None if boxes is None else boxes.at_numbers(numbers))

        def compared() -> bool | None:
            try:
                scores, player = replay.scores(group, slice(0, len(numbers)))
                if player.learned:
                    scores, player = replay.scores(group, slice(0, len(numbers)))
            except Departed:
                return None if replay.record.forks else False  # another variant may not depart
            self._largest = max(1, replay.change_bytes, player.largest // len(numbers))
            self._bytes = player.bytes // len(numbers)
            return replay.agrees(int(numbers[-1]), scores[-1])

        agreed, _ = special_or_plain(compared, lambda: False)
        return agreed

    def _replayed(self, replay: Replay, group: Group, part: slice) -> Tensor:
        def fast() -> Tensor | None:
            try:
                scores, player = replay.scores(group, part)
            except Departed:
                return None
            self.operations = player.operations
            self.elements += player.elements
            return scores

        def whole() -> Tensor:
            return replay.whole_passes(group.numbers[part].tolist())

        scores, _ = special_or_plain(fast, whole)
        return whole() if scores is None else scores

    def _chunked(self, groups: Sequence[Group], at_once: int, scores_of: Callable[[Group, slice], Tensor]) -> Tensor:
        parts: list[Tensor] = []
        for group in groups:

            def step(start: int, stop: int, group: Group = group) -> None:
                parts.append(scores_of(group, slice(start, stop)))

            batching.in_chunks(len(group.numbers), step, at_once)
        order, scores = torch.cat([group.numbers for group in groups]), torch.cat(parts)
        return torch.empty_like(scores).index_copy_(0, uploaded(order, scores.device), scores)


def _strongest(changes: Tensor, numbers: Sequence[int]) -> int:
    """Which of these variants changes the score most; while values are not read, one that is known to the host."""
    if not reads_at_once():
        return numbers[len(numbers) // 4]
    return numbers[int(changes[torch.tensor(numbers, device=changes.device)].abs().argmax())]


def _groups(change: Change, stride: int) -> Iterator[Group]:
    if change.boxes is None:
        yield Group(torch.arange(change.count, device="cpu"), None)
        return
    for numbers in grouped(change.boxes.begins, change.boxes.ends, change.boxes.size, stride):
        yield Group(numbers, change.boxes.at_numbers(numbers))
