"""Which number is explained, and how it is read from what a pass gives: a value that is handed down.

A function or an objective may know each input's place in the batch: it reads whole batches only, one at a time. Where a
pass holds a part of the batch, its rows are put at their place in the batch's own pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.deferred import assumed
from cnnviz.engine.feature_extraction import Seen
from cnnviz.engine.layers import Layer
from cnnviz.engine.model_facts import facts_of
from cnnviz.engine.model_inputs import ModelInputs
from cnnviz.engine.nested import is_result_of_each, mapped, tensors
from cnnviz.run.objectives import Objective, class_score
from cnnviz.run.options import RunOptions
from cnnviz.run.plain_pass import PlainPass
from cnnviz.run.score_transform import as_probabilities, both_sides, ends_in_sigmoid
from cnnviz.run.targets import check_classes, class_scores, read_score

AnyTarget = (
    Tensor | Objective | Callable[[Any], Tensor] | Sequence[Callable[[Any], Tensor]] | Sequence[Objective] | None
)
"""Classes (N,), an objective, a function of the output, one of either for each input; None: the predicted classes."""


@dataclass(frozen=True, eq=False)
class Question:
    """The number that is explained, for one batch of ``items`` inputs or some of it."""

    target: AnyTarget
    options: RunOptions
    items: int
    part: slice | None = None
    """The inputs of the batch that it is about; None: all."""
    batch: Any = None
    """What the target reads of the whole batch's own pass, where the question is about a part of it."""
    settled: bool = False
    """True if what the plain pass decides is found: predicted classes, and what targets refer to."""
    sigmoid: bool = False
    """True if the model's only score is what a sigmoid gave."""

    @property
    def is_function(self) -> bool:
        """True for a function of the output, or one for each input, also if these are objectives."""
        return self.target is not None and not isinstance(self.target, Tensor | Objective)

    @property
    def reads_batches(self) -> bool:
        """True for a function or an objective, which is called with results of the whole batch."""
        return isinstance(self.target, Objective) or callable(self.target)

    @property
    def layers(self) -> frozenset[Layer]:
        """Layers that the number is read from."""
        return frozenset[Layer]().union(*(objective.layers for objective in self.objectives))

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The objective, or one for each input; none for other targets."""
        each = self.target if isinstance(self.target, list | tuple) else (self.target,)
        return tuple(target for target in each if isinstance(target, Objective))

    def settle(self, plain: PlainPass) -> Question:
        """With what the pass of the inputs as they are decides: objectives find what they refer to."""
        target: Any = self.target
        if isinstance(target, Objective):
            target = target.bound(plain)
        elif self.objectives:
            count, seen = len(plain.seen.inputs), vars(plain.seen)
            rows = [Seen(**_rows(seen, slice(row, row + 1), count)) for row in range(count)]
            bound = [part.bound(replace(plain, seen=row)) for part, row in zip(self.objectives, rows, strict=True)]
            target = tuple(map(_as_objective, bound))
        return replace(self, target=target, settled=True)

    def knowing_the_head(self, model: nn.Module, inputs: ModelInputs, output: Any) -> Question:
        """The question with whether a sigmoid gave the model's only score, which is known after the pass."""
        if self.is_function or self.objectives:
            return self
        scores = class_scores(output, len(inputs[0])).detach()
        if scores.shape[1] > 1 or self.options.before or _are_logits(model, scores):
            return replace(self, sigmoid=False) if self.sigmoid else self
        return replace(self, sigmoid=ends_in_sigmoid(model, inputs))

    def predicted(self, output: Any, count: int) -> Tensor:
        """The class with the highest score, (N,); of a single score 0, or -1 for what speaks against it.

        An output (N,) without a dimension for classes is a value, such as a similarity. It is explained as it is.
        """
        columns = self._scores(output, count).detach().argmax(1)
        if not self._one_sided(output, count):
            return columns
        return columns * 0 if output.ndim == 1 else columns.where(columns == 0, -1)

    def ranked(self, output: Any, count: int, most: int) -> Tensor:
        """The classes with the highest scores, (N, most), the highest first. Raises ValueError for fewer classes."""
        scores = self._scores(output, count).detach()
        classes = 1 if self._one_sided(output, count) else scores.shape[1]
        if most > classes:
            raise ValueError(f"the top {most} classes are asked for, and the model has {classes}; ask for fewer")
        if classes == 1:
            return self.predicted(output, count)[:, None]
        return scores.argsort(dim=1, descending=True, stable=True)[:, :most]

    def of(self, part: slice, batch: Any) -> Question:
        """About a part of the batch; ``batch`` is what :meth:`reads` gives of the batch's own pass."""
        target = self.target[part] if isinstance(self.target, Tensor | list | tuple) else self.target
        if self.part is not None:  # a part of that part, for which the same batch is known
            within = range(self.items)[self.part][part]
            return replace(self, target=target, part=slice(within.start, within.stop))
        return replace(self, target=target, part=part, batch=batch)

    def reads(self, output: Any, inputs: Callable[[], Tensor], layers: Mapping[Layer, Tensor]) -> Any:
        """What the target reads of a pass: the output, or of an objective all that it may look at."""
        if not self.objectives:
            return output if self.is_function else None
        reads_output = any(objective.reads_output for objective in self.objectives)
        return {"inputs": inputs(), "output": output if reads_output else None, "layers": dict(layers)}

    def repeated(self, copies: int) -> Question:
        """About so many variants of the batch, one whole batch after the other."""
        return replace(self, target=self.target.repeat(copies)) if isinstance(self.target, Tensor) else self

    def read(
        self,
        output: Any,
        count: int,
        inputs: Callable[[], Tensor],
        layers: Mapping[Layer, Tensor],
    ) -> Tensor:
        """The scores of ``count`` inputs, (count,), with their graph.

        Args:
            output: what the model returned for them.
            count: how many rows it has.
            inputs: draws what the model saw, (count, C, *spatial).
            layers: the layers of :attr:`layers`.

        Raises:
            TypeError, ValueError: for outputs that the target can't be read from, or classes that are not there.
        """
        with torch.inference_mode(False), torch.set_grad_enabled(True):
            target = self.target
            if self.is_function or isinstance(target, Objective):
                return self._by_function(self.reads(output, inputs, layers), count)
            scores = self._scores(output, count)
            if not isinstance(target, Tensor):
                target = self.predicted(output, count)
            elif self.part is not None and len(target) == 1:
                target = target.expand(count)
            target = target if target.device == scores.device else target.to(scores.device)
            if self._one_sided(output, count):
                check_classes(target.where(target != -1, 0), count, 1, self.options.categories)
            else:
                check_classes(target, count, scores.shape[1], self.options.categories)
            return scores.gather(1, target[:, None] % scores.shape[1])[:, 0]

    def _scores(self, output: Any, count: int) -> Tensor:
        """The scores of all classes; of a single one, for it and against it."""
        transform, names = self.options.probabilities, self.options.categories
        scores = as_probabilities(class_scores(output, count), transform)
        if scores.shape[1] > 1:
            return scores
        return both_sides(scores, names, self.sigmoid or transform == "sigmoid")

    def _one_sided(self, output: Any, count: int) -> bool:
        """True if the model has one score, and no names for both that it can say."""
        names = self.options.categories
        return class_scores(output, count).shape[1] == 1 and (names is None or len(names) != 2)

    def _by_function(self, value: Any, count: int) -> Tensor:
        target: Any = self.target
        rows = self.items if self.part is None else len(range(*self.part.indices(self.items)))
        if isinstance(target, list | tuple):
            parts = [_rows(value, slice(row, row + 1), count) for row in range(count)]
            return torch.cat([_read_score(target[row % rows], part, 1) for row, part in enumerate(parts)])
        if not splits_by_rows(value, count):
            return self._score(value, count)
        batches = (_rows(value, slice(start, start + rows), count) for start in range(0, count, rows))
        return torch.cat([self._of_batch(batch, rows) for batch in batches])

    def _of_batch(self, value: Any, rows: int) -> Tensor:
        if self.part is None or rows == self.items:
            return self._score(value, rows)
        return self._score(_with_rows(self.batch, value, self.part, self.items), self.items)[self.part]

    def _score(self, value: Any, count: int) -> Tensor:
        return _read_score(self.target, value, count)


def _are_logits(model: nn.Module, scores: Tensor) -> bool:
    """True if scores lie outside of 0 and 1; what was found for this model before is the best guess."""
    facts = facts_of(model)
    facts["logit"] = assumed(((scores < 0) | (scores > 1)).any(), facts.get("logit", True))
    return bool(facts["logit"])


def splits_by_rows(output: Any, count: int) -> bool:
    """True if the results of ``count`` inputs can be told apart: tensors (count, ...), or a list of so many results."""
    if _is_read(output):
        return all(splits_by_rows(value, count) for value in output.values() if any(True for _ in tensors(value)))
    rows = [tensor.shape[:1] == (count,) for tensor in tensors(output)]
    return (bool(rows) and all(rows)) or is_result_of_each(output, count)


def with_neighbours(values: Any, kept: Tensor) -> Any:
    """The results with the rows (N, ...) that are not ``kept`` (N,) exchanged for those of a neighbour."""

    def exchanged(value: Any) -> Any:
        if is_result_of_each(value, len(kept)):
            return type(value)(value[row if keep else row - 1] for row, keep in enumerate(kept.tolist()))
        return mapped(lambda tensor: exchanged_rows(tensor) if tensor.shape[:1] == kept.shape else tensor, value)

    def exchanged_rows(tensor: Tensor) -> Tensor:
        other = tensor.roll(1, 0)
        return tensor.where(kept.to(tensor.device).view(-1, *(1,) * (tensor.ndim - 1)), other)

    return tuple(map(exchanged, values))


def _read_score(target: Any, value: Any, count: int) -> Tensor:
    return read_score(target, Seen(**value) if isinstance(target, Objective) else value, count)


def _as_objective(bound: Objective | Tensor) -> Objective:
    return class_score(int(bound)) if isinstance(bound, Tensor) else bound


def _rows(output: Any, part: slice, count: int) -> Any:
    if range(*part.indices(count)) == range(count):
        return output
    if is_result_of_each(output, count):
        return output[part]
    if _is_read(output):
        return {name: _rows(value, part, count) for name, value in output.items()}
    return mapped(lambda tensor: tensor[part], output)


def _with_rows(batch: Any, rows: Any, part: slice, items: int) -> Any:
    """The output of a batch of so many inputs with some of its rows exchanged."""
    if _is_read(batch):
        return {name: _with_rows(value, rows[name], part, items) for name, value in batch.items()}
    if is_result_of_each(batch, items):
        exchanged = list(batch)
        exchanged[part] = list(rows)
        return type(batch)(exchanged)
    replacements = iter(list(tensors(rows)))

    def exchange(tensor: Tensor) -> Tensor:
        exchanged = tensor.detach().clone()
        exchanged[part] = next(replacements).to(tensor.dtype)
        return exchanged

    return mapped(exchange, batch)


def _is_read(value: Any) -> bool:
    """True for what an objective reads of a pass."""
    return isinstance(value, dict) and value.keys() == {"inputs", "output", "layers"}
