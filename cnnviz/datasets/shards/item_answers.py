"""The answers for the items of a shard, batch by batch; an item that fails costs its own row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from cnnviz.datasets.question import PREDICTED, BatchQuestion, TrueClass
from cnnviz.datasets.shards.item_reading import MEMORY, ReadItem, is_out_of_memory
from cnnviz.engine.deferred import uploaded
from cnnviz.explanations.evaluate import evaluate
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.reading import one_line


@dataclass(frozen=True, eq=False)
class ItemAnswer:
    """What was found for one item, or why nothing was."""

    explanations: Mapping[str, Explanation] = field(default_factory=dict)
    """By method; of one input each, on the CPU."""
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    """By method what is kept of its map, (C, *spatial)."""
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By method and metric; NaN where it can't be measured."""
    error: str | None = None
    unmeasured: str | None = None
    """Which metrics could not be measured, each with the reason."""


@dataclass(eq=False)
class Answering:
    """Asks a question about one batch after the other, and remembers how much fits into memory."""

    question: BatchQuestion
    classes: Mapping[int | str, int]
    """The class of each label, where true classes are explained."""
    most: int | None = None
    """How many inputs pass together since memory ran out; None while it did not."""

    def __post_init__(self) -> None:
        self._whole = self.question

    @property
    def is_halved(self) -> bool:
        """True if memory ran out, and batches or chunks are smaller than planned."""
        return self.most is not None

    def __call__(self, batch: Sequence[ReadItem]) -> list[ItemAnswer]:
        """The answers of a batch. An item that could not be read keeps its place in it, filled with zeros."""
        failed = [self._refusal(each) for each in batch]
        good = [each.input for each, error in zip(batch, failed, strict=True) if each.input is not None and not error]
        if not good:
            return [ItemAnswer(error=error) for error in failed]
        if len({each.shape for each in good}) > 1:
            return [
                ItemAnswer(error=error) if error else self._alone(each)
                for each, error in zip(batch, failed, strict=True)
            ]
        zeros = torch.zeros_like(good[0])
        inputs = torch.stack(
            [zeros if error or each.input is None else each.input for each, error in zip(batch, failed, strict=True)]
        )
        return self._answers(batch, inputs, failed)

    def _refusal(self, each: ReadItem) -> str | None:
        """Why an item is not asked about."""
        if each.error is not None:
            return each.error
        if isinstance(self.question.target, TrueClass) and each.item.label is None:
            return "it has no label, and true classes are explained"
        return None

    def _alone(self, each: ReadItem) -> ItemAnswer:
        return self._answers([each], each.input[None], [None])[0]  # type: ignore[index]  # it was read

    def _answers(self, batch: Sequence[ReadItem], inputs: Tensor, failed: Sequence[str | None]) -> list[ItemAnswer]:
        """The answers of inputs (N, C, *spatial), those of failed items left out."""
        most = len(batch) if self.most is None else min(self.most, len(batch))
        if most < len(batch):
            parts = [slice(first, first + most) for first in range(0, len(batch), most)]
            return [answer for part in parts for answer in self._answers(batch[part], inputs[part], failed[part])]
        try:
            return self._together(batch, inputs, failed)
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                if not self._use_less(len(batch)):
                    least = self.question.fixed.memory
                    self.question = self._whole
                    return [ItemAnswer(error=failed[0] or f"{MEMORY}, also for it alone in chunks of {least} bytes")]
                return self._answers(batch, inputs, failed)
            if len(batch) == 1:
                return [ItemAnswer(error=failed[0] or _told(error))]
            return [
                ItemAnswer(error=why) if why else self._answers([each], inputs[item : item + 1], [None])[0]
                for item, (each, why) in enumerate(zip(batch, failed, strict=True))
            ]

    def _together(self, batch: Sequence[ReadItem], inputs: Tensor, failed: Sequence[str | None]) -> list[ItemAnswer]:
        classes = [0 if each.item.label is None else self.classes.get(each.item.label, 0) for each in batch]
        weight = next(self.question.model.module.parameters(), None)
        if weight is not None:
            inputs = uploaded(inputs.to(weight.dtype), weight.device)
        explanations = self.question.explained(inputs, torch.tensor(classes, dtype=torch.int64))
        metrics, reasons = self._metrics(batch, explanations, failed)
        own = {name: _on_cpu(each) for name, each in explanations.items()}
        answers = []
        for item, why in enumerate(failed):
            if why:
                answers.append(ItemAnswer(error=why))
                continue
            found = {name: {key: float(each[item]) for key, each in by.items()} for name, by in metrics.items()}
            answer = self._kept({name: each[item] for name, each in own.items()}, found)
            answers.append(replace(answer, unmeasured="; ".join(dict.fromkeys(reasons[item])) or None))
        return answers

    def _kept(self, explanations: Mapping[str, Explanation], metrics: Mapping[str, Mapping[str, float]]) -> ItemAnswer:
        """The answer for an item with what is kept of its maps; an error where these are no numbers any more."""
        kept = {name: self.question.storage(explanations[name].values)[0] for name in self.question.methods}
        lost = next((name for name, values in kept.items() if not bool(values.isfinite().all())), None)
        if lost is not None:
            return ItemAnswer(error=f"what is kept of the map of {lost} is infinite in {kept[lost].dtype}")
        return ItemAnswer(explanations, kept, metrics)

    def _metrics(
        self, batch: Sequence[ReadItem], explanations: Mapping[str, Explanation], failed: Sequence[str | None]
    ) -> tuple[dict[str, dict[str, Tensor]], list[list[str]]]:
        """For each method and metric a number for each input, (N,); NaN where it could not be measured.

        And for each input the reasons, ``road: ...``.
        """
        found: dict[str, dict[str, Tensor]] = {}
        reasons: list[list[str]] = [[] for _ in batch]
        for name, explanation in explanations.items() if self.question.metrics else ():
            if name == PREDICTED:
                continue
            found[name] = {}
            for key, metric in self.question.metrics.items():
                found[name][key], why = self._measured(batch, explanation, metric, failed)
                for item, reason in why.items():
                    reasons[item].append(f"{key}: {reason}")
        return found, reasons

    def _measured(
        self, batch: Sequence[ReadItem], explanation: Explanation, metric: Any, failed: Sequence[str | None]
    ) -> tuple[Tensor, dict[int, str]]:
        """A number for each input, (N,), and by item why there is none."""
        target = self.question.target
        asked: dict[str, Any] = {"model": self.question.model, "target": target if callable(target) else None}
        masks = [each.mask for each in batch]
        known = [mask for mask in masks if mask is not None]
        if not any(failed) and len(known) in (0, len(batch)):
            try:
                scores: Tensor = evaluate(explanation, metric, masks=torch.stack(known) if known else None, **asked)
                return scores.detach().cpu().double(), {}
            except Exception as error:
                if is_out_of_memory(error):
                    raise
        values = torch.full((len(batch),), float("nan"), dtype=torch.float64)
        reasons: dict[int, str] = {}
        for item, why in enumerate(failed):
            mask = masks[item]
            if not why:
                try:
                    one = evaluate(explanation[item], metric, masks=None if mask is None else mask[None], **asked)
                except Exception as error:
                    if is_out_of_memory(error):
                        raise
                    reasons[item] = _told(error)
                    continue
                values[item] = float(one[0])
        return values, reasons

    def _use_less(self, batch: int) -> bool:
        """Go on with half of the batch; of a single input, with chunks of half the size. False where that is no use."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.question.prepared.clear()
        if batch > 1:
            self.most = batch // 2
            return True
        self.most = 1
        fixed = self.question.fixed
        if fixed.memory < 2**20:
            return False
        self.question = replace(self.question, fixed=replace(fixed, memory=fixed.memory // 2), prepared={})
        return True


def _on_cpu(explanation: Explanation) -> Explanation:
    """Without its inputs, which are read again when somebody asks for them, and without what computed it."""

    def cpu(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().cpu()

    return replace(
        explanation,
        values=explanation.values.detach().cpu(),
        inputs=torch.empty_like(explanation.inputs, device="meta"),
        target=cpu(explanation.target),
        score=explanation.score.detach().cpu(),
        probability=cpu(explanation.probability),
        boxes=cpu(explanation.boxes),
        notes={name: note.detach().cpu() for name, note in explanation.notes.items()},
        attribution=None,
    )


def _told(error: BaseException) -> str:
    kind = "" if isinstance(error, ValueError | TypeError | LookupError) else f"{type(error).__name__}: "
    return f"{kind}{one_line(error)}"
