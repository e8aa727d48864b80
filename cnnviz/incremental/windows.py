"""Scores of an input with a box of it changed, at the price of what the box can reach.

Every operation of one pass is recorded once. For each variant the model runs again on regions, which know what changed
inside a box and take the rest from the record: convolutions, pools, pointwise operations, sums and concatenations
compute that box alone; from where it covers most of a map, and at operations that no rule is known for, full maps are
computed. The input, one variant, and the one that changes the score most are also computed the plain way; where what
changes is not the same, all are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine import batching
from cnnviz.engine.agreement import STUMBLES
from cnnviz.incremental.boxes import Boxes, grouped
from cnnviz.incremental.variants import Group, Inside, Question, Read, RecordedPass, Replayed, Variants, recorded


class Windows:
    """Variants of one input after the other, of which each changes ``boxes``, (W, rank, 2): begins and ends.

    Raises ValueError for boxes that are empty or not inside of the input.
    """

    def __init__(self, model: nn.Module, boxes: Tensor, size: Sequence[int], asked_memory: int | None = None):
        boxes, self.size = boxes.cpu(), tuple(size)
        begins, ends = boxes.unbind(-1)
        if boxes.shape[1:] != (len(self.size), 2) or bool((begins < 0).any() | (ends <= begins).any()):
            raise ValueError(
                f"boxes are {tuple(boxes.shape)}; give (count, {len(self.size)}, 2), from where up to where"
            )
        if bool((ends > torch.tensor(self.size, device="cpu")).any()):
            raise ValueError(f"a box ends at {ends.amax(0).tolist()}, outside of an input of {list(self.size)}")
        self.model = model
        self.begins, self.ends = begins, ends
        self.asked_memory = asked_memory
        self.trusted: bool | None = None
        """Whether computing regions gives what the plain way gives; None while no variant has told."""
        self.elements = 0
        """How many values operations have computed for variants; without what the judge compared."""
        self._groups: list[Group] = []
        self._path: list[Any] | None = None
        self._largest = 1

    def scores(
        self,
        inputs: Sequence[Tensor],
        inside: Inside,
        read: Read,
        watched: Sequence[str] = (),
        before_softmax: bool = False,
        score: Tensor | None = None,
        coarse: bool = False,
    ) -> Tensor:
        """Of all variants of one item, (W,). ``inputs`` are the model's, each for one item.

        ``score`` is the item's as it is known: what rounding does to the recorded pass is taken off what is computed
        from it, so that differences to that score are exact. If it is ``coarse``, found in less precision than
        variants are, the same is done to whole passes.
        """
        question = Question(self.model, [each.detach() for each in inputs], read, watched, before_softmax)
        variants = Variants(question, self.begins, self.ends, inside)
        passed = recorded(question)
        found = None
        if passed is not None and passed.repeatable and not passed.forks:
            found = self._by_regions(variants, passed)
        if passed is None or found is None:
            found = self._plainly(variants, passed)
            return found + (score - variants.unchanged) if coarse and score is not None else found
        return found if score is None else found + (score - passed.score)

    def _plainly(self, variants: Variants, passed: RecordedPass | None) -> Tensor:
        if passed is None or passed.forks:  # where it goes depends on values: variants must not decide for each other
            alone = [variants.plain(torch.tensor([number], device="cpu")) for number in range(len(self.begins))]
            return torch.cat(alone)
        every = Group(torch.arange(len(self.begins), device="cpu"), Boxes(self.begins, self.ends, self.size))
        at_once = batching.passed_at_once(passed.device, self.asked_memory, passed.largest)
        return self._chunked([every], at_once, lambda group, part: variants.plain(group.numbers[part]))

    def _by_regions(self, variants: Variants, passed: RecordedPass) -> Tensor | None:
        """None where that is not what the plain way gives, or can't be told to be."""
        if self._path != passed.path:
            self._path, self.trusted = passed.path, None
            self._groups = [*self._grouped(passed.stride)]
        replayed = Replayed(variants, passed)
        if self.trusted is None and not self._rehearsed(replayed):
            self.trusted = False
        if self.trusted is False:
            return None
        at_once = batching.passed_at_once(passed.device, self.asked_memory, self._largest)
        found = self._chunked(self._groups, at_once, lambda group, part: self._played(replayed, group, part))
        if self.trusted is None:
            number = (found - passed.score).abs().argmax().view(1).cpu()
            if int(number) not in replayed.departed:
                self.trusted = replayed.alike(found[number.to(found.device)], variants.plain(number))
        return found if self.trusted else None

    def _grouped(self, stride: int) -> Iterator[Group]:
        for numbers in grouped(self.begins, self.ends, self.size, stride):
            yield Group(numbers, Boxes(self.begins[numbers], self.ends[numbers], self.size))

    def _rehearsed(self, replayed: Replayed) -> bool:
        """Whether nothing speaks against it so far.

        Two variants are played, so that what is expanded along a wrong dimension shows; the second is compared, for the
        first lies in a corner.
        """
        first, last = self._groups[0], self._groups[-1]
        numbers = torch.stack([first.numbers[0], last.numbers[len(last.numbers) // 2]])
        plain = replayed.variants.plain(numbers[1:])
        group = Group(numbers, Boxes(self.begins[numbers], self.ends[numbers], self.size))
        try:
            replayed.played(group, slice(0, 2))  # where it is learned what is normed
            found, player = replayed.played(group, slice(0, 2))
        except STUMBLES as error:
            if batching.is_out_of_memory(error):
                raise
            return False
        self._largest = max(1, player.largest // 2)
        return replayed.alike(found[1:], plain) is not False

    def _played(self, replayed: Replayed, group: Group, part: slice) -> Tensor:
        try:
            found, player = replayed.played(group, part)
        except STUMBLES as error:
            if batching.is_out_of_memory(error):
                raise
            return replayed.plain(group.numbers[part])
        self.elements += player.elements
        return found

    def _chunked(self, groups: Sequence[Group], at_once: int, of: Callable[[Group, slice], Tensor]) -> Tensor:
        scores: list[Tensor] = []
        for group in groups:

            def step(start: int, stop: int, group: Group = group) -> None:
                scores.append(of(group, slice(start, stop)))

            batching.in_chunks(len(group.numbers), step, at_once)
        order = torch.cat([group.numbers for group in groups])
        found = torch.cat(scores)
        return torch.empty_like(found).index_copy_(0, order.to(found.device), found)
