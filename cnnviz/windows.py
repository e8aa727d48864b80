"""Scores of an input with a box of it changed, at the price of what the box can reach.

Every operation of one pass is recorded once. For each variant the model runs again on regions, which know what changed
inside a box and take the rest from the record: convolutions, pools, pointwise operations, sums and concatenations
compute that box alone; from where it covers most of a map, and at operations that no rule is known for, full maps are
computed. The input, one variant, and the one that changes the score most are also computed the plain way; where what
changes is not the same, all are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz import memory
from cnnviz.boxes import Boxes, grouped
from cnnviz.covering import RegionPlayer, whole
from cnnviz.judging import STUMBLES, alike
from cnnviz.recording import Recorder, expanded, mapped, tensors
from cnnviz.regions import Recorded, Region, channels_last
from cnnviz.replay import ran
from cnnviz.surroundings import PAYS, Around, Chunk

Read = Callable[[Any, dict[str, Tensor], int, Callable[[], Tensor]], Tensor]
"""From the model's output, watched layers, how many variants there are, and what draws them, to their scores, (K,)."""
Inside = Callable[[int], Tensor]
"""From a variant's number to what its box holds, (C, *sides)."""


@dataclass(frozen=True, eq=False)
class Group:
    """Variants that are computed alike."""

    numbers: Tensor
    boxes: Boxes
    plan: dict[Any, Any] = field(default_factory=dict)


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
        question = _Question(self.model, [each.detach() for each in inputs], read, watched, before_softmax)
        variants = _Variants(question, self.begins, self.ends, inside)
        passed = _recorded(question)
        found = None
        if passed is not None and passed.repeatable and not passed.forks:
            found = self._by_regions(variants, passed)
        if passed is None or found is None:
            found = self._plainly(variants, passed)
            return found + (score - variants.unchanged) if coarse and score is not None else found
        return found if score is None else found + (score - passed.score)

    def _plainly(self, variants: _Variants, passed: _Recorded | None) -> Tensor:
        if passed is None or passed.forks:  # where it goes depends on values: variants must not decide for each other
            alone = [variants.plain(torch.tensor([number], device="cpu")) for number in range(len(self.begins))]
            return torch.cat(alone)
        every = Group(torch.arange(len(self.begins), device="cpu"), Boxes(self.begins, self.ends, self.size))
        at_once = memory.passed_at_once(passed.device, self.asked_memory, passed.largest)
        return self._chunked([every], at_once, lambda group, part: variants.plain(group.numbers[part]))

    def _by_regions(self, variants: _Variants, passed: _Recorded) -> Tensor | None:
        """None where that is not what the plain way gives, or can't be told to be."""
        if self._path != passed.path:
            self._path, self.trusted = passed.path, None
            self._groups = [*self._grouped(passed.stride)]
        replayed = _Replayed(variants, passed)
        if self.trusted is None and not self._rehearsed(replayed):
            self.trusted = False
        if self.trusted is False:
            return None
        at_once = memory.passed_at_once(passed.device, self.asked_memory, self._largest)
        found = self._chunked(self._groups, at_once, lambda group, part: self._played(replayed, group, part))
        if self.trusted is None:
            number = (found - passed.score).abs().argmax().view(1).cpu()
            if int(number) not in replayed.departed:
                self.trusted = replayed.alike(found[number.to(found.device)], variants.plain(number))
        return found if self.trusted else None

    def _grouped(self, stride: int) -> Iterator[Group]:
        for numbers in grouped(self.begins, self.ends, self.size, stride):
            yield Group(numbers, Boxes(self.begins[numbers], self.ends[numbers], self.size))

    def _rehearsed(self, replayed: _Replayed) -> bool:
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
            if memory.is_out_of_memory(error):
                raise
            return False
        self._largest = max(1, player.largest // 2)
        return replayed.alike(found[1:], plain) is not False

    def _played(self, replayed: _Replayed, group: Group, part: slice) -> Tensor:
        try:
            found, player = replayed.played(group, part)
        except STUMBLES as error:
            if memory.is_out_of_memory(error):
                raise
            return replayed.plain(group.numbers[part])
        self.elements += player.elements
        return found

    def _chunked(self, groups: Sequence[Group], at_once: int, of: Callable[[Group, slice], Tensor]) -> Tensor:
        scores: list[Tensor] = []
        for group in groups:

            def step(start: int, stop: int, group: Group = group) -> None:
                scores.append(of(group, slice(start, stop)))

            memory.in_chunks(len(group.numbers), step, at_once)
        order = torch.cat([group.numbers for group in groups])
        found = torch.cat(scores)
        return torch.empty_like(found).index_copy_(0, order.to(found.device), found)


@dataclass(frozen=True, eq=False)
class _Question:
    """What is asked about one input."""

    model: nn.Module
    inputs: Sequence[Tensor]
    read: Read
    watched: Sequence[str]
    before_softmax: bool


def _recorded(question: _Question) -> _Recorded | None:
    """Its pass, in the order that is fastest if the model takes it; None where the model can't be watched."""
    first = question.inputs[0]
    for laid in (channels_last(first), first.contiguous()):
        try:
            return _Recorded(question, laid)
        except STUMBLES as error:
            if memory.is_out_of_memory(error):
                raise
    return None


class _Recorded:
    """One input's pass."""

    def __init__(self, question: _Question, first: Tensor):
        self.inputs = [first, *question.inputs[1:]]
        self.device = first.device
        given = [each.clone() for each in self.inputs]  # the model may write into its input
        recorder = Recorder(question.model, given)
        recorder.begin(given[0])
        shown: dict[str, Tensor] = {}

        def show(name: str) -> Callable[..., None]:
            def keep(module: nn.Module, args: Any, output: Any) -> None:
                recorder.need(output)
                with torch._C.DisableTorchFunction():
                    shown[name] = output.clone()

            return keep

        hooks = {name: show(name) for name in question.watched}
        output = ran(question.model, given, hooks, recorder, question.before_softmax)
        recorder.finish()
        self.score = question.read(output, shown, 1, lambda: self.inputs[0]).detach()
        """Of the input itself."""
        del output, given  # what is held now, the model holds
        recorder.forget()
        self.repeatable = recorder.repeatable
        self.calls = recorder.calls
        self.forks = recorder.forks
        self.largest = recorder.largest
        self.around = Around({call: number for number, call in enumerate(self.calls)})
        self.path = [(call.operation, [each.shape for each in tensors(call.result)]) for call in self.calls]

    @property
    def stride(self) -> int:
        """By how much the input is reduced where it is still a map."""
        size, found = self.inputs[0].shape[2:], 1
        for call in self.calls:
            for each in tensors(call.result) if call.carries else ():
                if each.ndim == len(size) + 2 and min(each.shape[2:]) > 1:
                    found = max(found, *(round(a / b) for a, b in zip(size, each.shape[2:], strict=True)))
        return found


class _Variants:
    """Of one input, and how they are scored."""

    def __init__(self, question: _Question, begins: Tensor, ends: Tensor, inside: Inside):
        self.question = question
        self.begins, self.ends, self.inside = begins, ends, inside

    @cached_property
    def unchanged(self) -> Tensor:
        """The score of the input itself, found as ``plain`` finds those of variants."""
        return self.scored(None, self.given(self.question.inputs[0].clone()), None)

    def drawn(self, numbers: Tensor | None) -> Tensor:
        """The variants themselves, (K, C, *spatial); the input itself without numbers."""
        if numbers is None:
            return self.question.inputs[0]
        found = expanded(self.question.inputs[0], len(numbers)).clone(memory_format=torch.contiguous_format)
        for variant, number in zip(found, numbers.tolist(), strict=True):
            spans = zip(self.begins[number].tolist(), self.ends[number].tolist(), strict=True)
            variant[(slice(None), *(slice(begin, end) for begin, end in spans))] = self.inside(number)
        return found

    def plain(self, numbers: Tensor) -> Tensor:
        return self.scored(numbers, self.given(self.drawn(numbers)), None)

    def given(self, variants: Tensor) -> list[Tensor]:
        """All inputs of the model, of which it may write each."""
        return [variants, *(expanded(each, len(variants)).clone() for each in self.question.inputs[1:])]

    def scored(self, numbers: Tensor | None, given: Sequence[Tensor], player: RegionPlayer | None) -> Tensor:
        shown: dict[str, Tensor] = {}

        def show(name: str) -> Callable[..., None]:
            def keep(module: nn.Module, args: Any, output: Any) -> None:
                with torch._C.DisableTorchFunction():
                    shown[name] = whole(output).clone()

            return keep

        asked, count = self.question, len(given[0])
        hooks = {name: show(name) for name in asked.watched}
        output = ran(asked.model, given, hooks, player, asked.before_softmax)
        if player is not None:
            output = mapped(whole, output)
        return asked.read(output, shown, count, lambda: self.drawn(numbers)).detach()


class _Replayed:
    """Variants of a recorded pass."""

    def __init__(self, variants: _Variants, passed: _Recorded):
        self.variants, self.passed = variants, passed
        self.recorded = Recorded(passed.inputs[0])
        self.departed: set[int] = set()
        """Variants that were computed the plain way."""

    def played(self, group: Group, part: slice) -> tuple[Tensor, RegionPlayer]:
        passed = self.passed
        chunk = Chunk(passed.around, group.plan, part)
        numbers, boxes = group.numbers[part], group.boxes
        inside = self.recorded.cut(boxes.at[part], boxes.sides)
        begins = (boxes.begins - boxes.at)[part].tolist()
        for each, begin, number in zip(inside, begins, numbers.tolist(), strict=True):
            held = self.variants.inside(number)
            spans = (slice(first, first + side) for first, side in zip(begin, held.shape[1:], strict=True))
            each[(slice(None), *spans)] = held
        region = Region.of(self.recorded, boxes, part, inside)
        if boxes.share > PAYS:
            region.dissolve()
        given = self.variants.given(region)
        player = RegionPlayer(chunk, passed.calls, len(numbers), given)
        player.begin(region)
        found = self.variants.scored(numbers, given, player)
        passed.around.norms.update(player.learned)
        return found, player

    def plain(self, numbers: Tensor) -> Tensor:
        """Scores as ``played`` would give them."""
        self.departed.update(numbers.tolist())
        return self.variants.plain(numbers) + (self.passed.score - self.variants.unchanged)

    def alike(self, found: Tensor, plain: Tensor) -> bool | None:
        """Whether what was played changes the score as what was computed the plain way does."""
        before, after = self.passed.score, self.variants.unchanged
        return alike(found - before, plain - after, after, (before - after).abs())
