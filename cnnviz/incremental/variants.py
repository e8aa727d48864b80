"""One input and its variants, each with a box changed: scored by whole passes, and by a recorded one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine import batching
from cnnviz.engine.agreement import STUMBLES, alike
from cnnviz.engine.nested import mapped, tensors
from cnnviz.incremental.boxes import Boxes
from cnnviz.incremental.player import RegionPlayer, whole
from cnnviz.incremental.region_cache import PAYS, Around, Chunk
from cnnviz.incremental.regions import Recorded, Region, channels_last
from cnnviz.incremental.replay import ran
from cnnviz.incremental.tape import Recorder, expanded

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


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked about one input."""

    model: nn.Module
    inputs: Sequence[Tensor]
    read: Read
    watched: Sequence[str]
    before_softmax: bool


def recorded(question: Question) -> RecordedPass | None:
    """Its pass, in the order that is fastest if the model takes it; None where the model can't be watched."""
    first = question.inputs[0]
    for laid in (channels_last(first), first.contiguous()):
        try:
            return RecordedPass(question, laid)
        except STUMBLES as error:
            if batching.is_out_of_memory(error):
                raise
    return None


class RecordedPass:
    """One input's pass."""

    def __init__(self, question: Question, first: Tensor):
        self.inputs = [first, *question.inputs[1:]]
        self.device = first.device
        given = [each.clone() for each in self.inputs]  # the model may write into its input
        recorder = Recorder(question.model, given)
        recorder.begin(given[0])
        shown: dict[str, Tensor] = {}

        hooks = {name: recorder.shows(name, shown) for name in question.watched}
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


class Variants:
    """Of one input, and how they are scored."""

    def __init__(self, question: Question, begins: Tensor, ends: Tensor, inside: Inside):
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


class Replayed:
    """Variants of a recorded pass."""

    def __init__(self, variants: Variants, passed: RecordedPass):
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
