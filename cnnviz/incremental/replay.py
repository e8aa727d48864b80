"""Variants of one input, scored by replaying its recorded pass from where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from cnnviz.engine.agreement import agrees
from cnnviz.engine.layers import InputPlace
from cnnviz.incremental.boxes import Boxes
from cnnviz.incremental.player import Player
from cnnviz.incremental.recorded_pass import RecordedPass
from cnnviz.incremental.region_cache import PAYS, Chunk
from cnnviz.incremental.regions import Recorded, Region
from cnnviz.incremental.whole_passes import WholePasses


@dataclass(frozen=True, eq=False)
class Group:
    """Variants that are computed together."""

    numbers: Tensor
    boxes: Boxes | None
    plan: dict[Any, Any] = field(default_factory=dict)


class Replay:
    """Variants of a recorded pass, computed from where they differ."""

    def __init__(self, record: RecordedPass, whole: WholePasses):
        self.record, self.whole, self.change = record, whole, whole.change
        self.change_bytes = 0
        """Bytes of one variant's change, which is held too."""
        self.by_whole_passes: set[int] = set()
        """Variants that were computed by whole passes."""
        self._recorded = Recorded(record.output) if self.change.boxes is not None else None

    def scores(self, group: Group, part: slice) -> tuple[Tensor, Player]:
        """Scores of these variants, (K,), and their player. Raises Departed if the model calls other operations."""
        numbers = group.numbers[part].tolist()
        changed = self._changed(group, part, numbers)
        inputs = self.whole.inputs(len(numbers), changed)
        player = Player(Chunk(self.record.cache, group.plan, part), self.record.ops, len(numbers), inputs.tensors)
        if isinstance(self.change.site, InputPlace):
            player.begin(changed)
        scores = self.whole.passed(inputs, changed, player, lambda: self.whole.drawn_inputs(numbers))
        self.record.cache.norms.update(player.learned)
        return scores, player

    def _changed(self, group: Group, part: slice, numbers: Sequence[int]) -> Tensor:
        boxes, recorded = group.boxes, self._recorded
        if boxes is None or recorded is None:
            changed = self.change.drawn(numbers, self.record.output)
            self.change_bytes = changed[0].numel() * changed.element_size()
            return changed
        inside = recorded.cut(boxes.at[part], boxes.sides)
        begins = (boxes.begins - boxes.at)[part].tolist()
        for held, begin, values in zip(inside, begins, self.change.values(numbers), strict=True):
            spans = (slice(first, first + side) for first, side in zip(begin, values.shape[1:], strict=True))
            held[(slice(None), *spans)] = values
        region = Region.of(recorded, boxes, part, inside)
        if boxes.share > PAYS:
            region.dissolve()
        return region

    def whole_passes(self, numbers: Sequence[int]) -> Tensor:
        """Scores of whole passes, corrected so that they compare with replayed ones."""
        self.by_whole_passes.update(numbers)
        return self.whole.scores(numbers) + (self.record.score - self.whole.unchanged)

    def agrees(self, number: int, score: Tensor) -> bool | None:
        """True if replaying this variant changes the score as a whole pass does; None if rounding hides it."""
        before, after = self.record.score, self.whole.unchanged
        plain = self.whole.verified(number)
        return agrees(score - before, plain - after, score=after, noise=(before - after).abs())
