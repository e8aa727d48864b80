"""Scores of an input with a box of it changed, at the price of what the box can reach.

Every operation of one pass is recorded once. For each variant the model runs again on regions, which know what changed
inside a box and take the rest from the record: convolutions, pools, pointwise operations, sums and concatenations
compute that box alone; from where it covers most of a map, and at operations that no rule is known for, full maps are
computed. Two variants are also computed the plain way; where they differ, all are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz import memory
from cnnviz.boxes import Boxes, grouped
from cnnviz.covering import RegionPlayer, whole
from cnnviz.recording import Departed, Recorder, expanded, mapped, tensors
from cnnviz.regions import Recorded, Region, channels_last
from cnnviz.replay import STUMBLES, TOLERANCE, ran
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
        if bool((ends > torch.tensor(self.size)).any()):
            raise ValueError(f"a box ends at {ends.amax(0).tolist()}, outside of an input of {list(self.size)}")
        self.model = model
        self.begins, self.ends = begins, ends
        self.asked_memory = asked_memory
        self.trusted: bool | None = None
        """Whether computing regions gives what the plain way gives; None before the first input."""
        self.elements = 0
        """How many values operations have computed for variants; without what the judge compared."""
        self._groups: list[Group] = []
        self._path: list[Any] = []

    def scores(
        self,
        inputs: Sequence[Tensor],
        inside: Inside,
        read: Read,
        watched: Sequence[str] = (),
        before_softmax: bool = False,
        score: Tensor | None = None,
    ) -> Tensor:
        """Of all variants of one item, (W,). ``inputs`` are the model's, each for one item.

        ``score`` is the item's as it is known: what rounding does to the recorded pass is taken off what is computed
        from it, so that differences to that score are exact.
        """
        passed = _Recorded(self.model, inputs, read, watched, before_softmax)
        variants = _Variants(passed, read, self.begins, self.ends, inside)
        if passed.forks:  # where the model goes depends on values: variants must not decide for each other
            alone = [variants.plain(torch.tensor([number])) for number in range(len(self.begins))]
            return torch.cat(alone)
        if self.trusted is None or self._path != passed.path:
            self._path = passed.path
            self._groups = [*self._grouped(passed.stride)]
            self.trusted = False
            if passed.repeatable:
                self._judge(variants)
        if not self.trusted:
            everything = Group(torch.arange(len(self.begins)), Boxes(self.begins, self.ends, self.size))
            at_once = memory.passed_at_once(passed.device, self.asked_memory, passed.largest)
            return self._chunked([everything], at_once, lambda group, part: variants.plain(group.numbers[part]))
        at_once = memory.passed_at_once(passed.device, self.asked_memory, self._largest)
        found = self._chunked(self._groups, at_once, lambda group, part: self._played(variants, group, part))
        return found if score is None else found + (score - passed.score)

    def _grouped(self, stride: int) -> Iterator[Group]:
        for numbers in grouped(self.begins, self.ends, self.size, stride):
            yield Group(numbers, Boxes(self.begins[numbers], self.ends[numbers], self.size))

    def _judge(self, variants: _Variants) -> None:
        """By two variants, so that what is expanded along a wrong dimension shows."""
        first, last = self._groups[0], self._groups[-1]
        numbers = torch.stack([first.numbers[0], last.numbers[len(last.numbers) // 2]])
        plain = variants.plain(numbers)
        group = Group(numbers, Boxes(self.begins[numbers], self.ends[numbers], self.size))
        try:
            variants.played(group, slice(0, 2))  # where it is learned what is normed
            found, player = variants.played(group, slice(0, 2))
        except STUMBLES as error:
            if memory.is_out_of_memory(error):
                raise
            self.trusted = False
            return
        reach = plain.abs().max().clamp(min=torch.finfo(plain.dtype).tiny)
        self.trusted = bool(((found - plain).abs() <= _tolerance(plain) * reach).all())
        self._largest = max(1, player.largest // 2)

    def _played(self, variants: _Variants, group: Group, part: slice) -> Tensor:
        try:
            found, player = variants.played(group, part)
        except Departed:
            return variants.plain(group.numbers[part])
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


class _Recorded:
    """One input's pass."""

    def __init__(
        self, model: nn.Module, inputs: Sequence[Tensor], read: Read, watched: Sequence[str], before_softmax: bool
    ):
        self.model = model
        self.inputs = [channels_last(inputs[0].detach()), *(each.detach() for each in inputs[1:])]
        self.watched = watched
        self.before_softmax = before_softmax
        self.device = inputs[0].device
        given = [each.clone() for each in self.inputs]  # the model may write into its input
        recorder = Recorder(model, given)
        recorder.begin(given[0])
        shown: dict[str, Tensor] = {}

        def show(name: str) -> Callable[..., None]:
            def keep(module: nn.Module, args: Any, output: Any) -> None:
                recorder.need(output)
                with torch._C.DisableTorchFunction():
                    shown[name] = output.clone()

            return keep

        output = ran(model, given, {name: show(name) for name in watched}, recorder, before_softmax)
        recorder.finish()
        self.score = read(output, shown, 1, lambda: self.inputs[0]).detach()
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

    def __init__(self, passed: _Recorded, read: Read, begins: Tensor, ends: Tensor, inside: Inside):
        self.passed, self.read = passed, read
        self.begins, self.ends, self.inside = begins, ends, inside
        self.recorded = Recorded(passed.inputs[0])

    def drawn(self, numbers: Tensor) -> Tensor:
        """The variants themselves, (K, C, *spatial)."""
        found = expanded(self.passed.inputs[0], len(numbers)).clone(memory_format=torch.contiguous_format)
        for variant, number in zip(found, numbers.tolist(), strict=True):
            variant[self._place(number)] = self.inside(number)
        return found

    def plain(self, numbers: Tensor) -> Tensor:
        return self._scored(numbers, self._given(self.drawn(numbers)), None)

    def played(self, group: Group, part: slice) -> tuple[Tensor, RegionPlayer]:
        chunk = Chunk(self.passed.around, group.plan, part)
        numbers, boxes = group.numbers[part], group.boxes
        inside = self.recorded.cut(boxes.at[part], boxes.sides)
        begins = (boxes.begins - boxes.at)[part].tolist()
        for each, begin, number in zip(inside, begins, numbers.tolist(), strict=True):
            held = self.inside(number)
            spans = (slice(first, first + side) for first, side in zip(begin, held.shape[1:], strict=True))
            each[(slice(None), *spans)] = held
        region = Region.of(self.recorded, boxes, part, inside)
        if boxes.share > PAYS:
            region.dissolve()
        given = self._given(region)
        player = RegionPlayer(chunk, self.passed.calls, len(numbers), given)
        player.begin(region)
        return self._scored(numbers, given, player), player

    def _given(self, variants: Tensor) -> list[Tensor]:
        """All inputs of the model, of which it may write each."""
        return [variants, *(expanded(each, len(variants)).clone() for each in self.passed.inputs[1:])]

    def _scored(self, numbers: Tensor, given: Sequence[Tensor], player: RegionPlayer | None) -> Tensor:
        shown: dict[str, Tensor] = {}

        def show(name: str) -> Callable[..., None]:
            def keep(module: nn.Module, args: Any, output: Any) -> None:
                with torch._C.DisableTorchFunction():
                    shown[name] = whole(output).clone()

            return keep

        passed = self.passed
        hooks = {name: show(name) for name in passed.watched}
        output = ran(passed.model, given, hooks, player, passed.before_softmax)
        if player is not None:
            passed.around.norms.update(player.learned)
        return self.read(mapped(whole, output), shown, len(numbers), lambda: self.drawn(numbers)).detach()

    def _place(self, number: int) -> tuple[slice, ...]:
        spans = zip(self.begins[number].tolist(), self.ends[number].tolist(), strict=True)
        return (slice(None), *(slice(begin, end) for begin, end in spans))


def _tolerance(scores: Tensor) -> float:
    """What rounding may do to them. On CUDA convolutions of float32 round to ten bits, unless they are told not to."""
    coarse = scores.is_cuda and scores.dtype == torch.float32 and torch.backends.cudnn.allow_tf32
    return max(TOLERANCE, 2.0**-8 if coarse else 16 * torch.finfo(scores.dtype).eps)
