"""Which number is explained, and how it is read from what a pass gives: a value that is handed down.

A function or an objective may know each input's place in the batch: it reads whole batches only, one at a time. Where a
pass holds a part of the batch, its rows are put at their place in the batch's own pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cnnviz.engine.feature_extraction import Seen
from cnnviz.engine.layers import Layer
from cnnviz.engine.nested import mapped, tensors
from cnnviz.run.objectives import Objective
from cnnviz.run.options import RunOptions
from cnnviz.run.score_transform import as_probabilities
from cnnviz.run.targets import check_classes, class_scores, read_score

AnyTarget = Tensor | Objective | Callable[[Any], Tensor] | Sequence[Callable[[Any], Tensor]] | None
"""Classes (N,), an objective, a function of the output, a function for each input; None: the predicted classes."""


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

    @property
    def is_function(self) -> bool:
        """True for a function of the output, or one for each input."""
        return self.target is not None and not isinstance(self.target, Tensor | Objective)

    @property
    def reads_batches(self) -> bool:
        """True for a function or an objective, which is called with results of the whole batch."""
        return isinstance(self.target, Objective) or callable(self.target)

    @property
    def layers(self) -> frozenset[Layer]:
        """Layers that the number is read from."""
        return self.target.layers if isinstance(self.target, Objective) else frozenset()

    def of(self, part: slice, batch: Any) -> Question:
        """About a part of the batch; ``batch`` is what :meth:`reads` gives of the batch's own pass."""
        target = self.target[part] if isinstance(self.target, Tensor | list | tuple) else self.target
        return replace(self, target=target, part=part, batch=batch)

    def reads(self, output: Any, inputs: Callable[[], Tensor], layers: Mapping[Layer, Tensor]) -> Any:
        """What the target reads of a pass: the output, or of an objective all that it may look at."""
        if not isinstance(self.target, Objective):
            return output if self.is_function else None
        return {"inputs": inputs(), "output": output if self.target.reads_output else None, "layers": dict(layers)}

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
            scores = as_probabilities(class_scores(output, count), self.options.probabilities)
            if not isinstance(target, Tensor):
                target = scores.detach().argmax(1)
            elif self.part is not None and len(target) == 1:
                target = target.expand(count)
            target = target.to(scores.device)
            check_classes(target, count, scores.shape[1], self.options.categories)
            return scores.gather(1, target[:, None])[:, 0]

    def _by_function(self, value: Any, count: int) -> Tensor:
        target: Any = self.target
        rows = self.items if self.part is None else len(range(*self.part.indices(self.items)))
        if isinstance(target, list | tuple):
            parts = [_rows(value, slice(row, row + 1), count) for row in range(count)]
            return torch.cat([read_score(target[row % rows], part, 1) for row, part in enumerate(parts)])
        if not splits_by_rows(value, count):
            return self._score(value, count)
        batches = (_rows(value, slice(start, start + rows), count) for start in range(0, count, rows))
        return torch.cat([self._of_batch(batch, rows) for batch in batches])

    def _of_batch(self, value: Any, rows: int) -> Tensor:
        if self.part is None or rows == self.items:
            return self._score(value, rows)
        return self._score(_with_rows(self.batch, value, self.part), self.items)[self.part]

    def _score(self, value: Any, count: int) -> Tensor:
        target: Any = self.target
        return read_score(target, Seen(**value) if isinstance(target, Objective) else value, count)


def splits_by_rows(output: Any, count: int) -> bool:
    """True if the results of ``count`` inputs can be told apart: tensors (count, ...), or a list of so many results."""
    rows = [tensor.shape[:1] == (count,) for tensor in tensors(output)]
    return (bool(rows) and all(rows)) or _is_list_of(output, count)


def with_neighbours(values: Any, kept: Tensor) -> Any:
    """The results with the rows (N, ...) that are not ``kept`` (N,) exchanged for those of a neighbour."""

    def exchanged(value: Any) -> Any:
        if _is_list_of(value, len(kept)):
            return type(value)(value[row if keep else row - 1] for row, keep in enumerate(kept.tolist()))
        return mapped(lambda tensor: exchanged_rows(tensor) if tensor.shape[:1] == kept.shape else tensor, value)

    def exchanged_rows(tensor: Tensor) -> Tensor:
        other = tensor.roll(1, 0)
        return tensor.where(kept.to(tensor.device).view(-1, *(1,) * (tensor.ndim - 1)), other)

    return tuple(map(exchanged, values))


def _rows(output: Any, part: slice, count: int) -> Any:
    if range(*part.indices(count)) == range(count):
        return output
    return output[part] if _is_list_of(output, count) else mapped(lambda tensor: tensor[part], output)


def _with_rows(batch: Any, rows: Any, part: slice) -> Any:
    """The batch's output with some of its rows exchanged."""
    if type(batch) in (list, tuple) and not all(isinstance(item, Tensor) for item in batch):
        exchanged = list(batch)
        exchanged[part] = list(rows)
        return type(batch)(exchanged)
    replacements = iter(list(tensors(rows)))

    def exchange(tensor: Tensor) -> Tensor:
        exchanged = tensor.detach().clone()
        exchanged[part] = next(replacements).to(tensor.dtype)
        return exchanged

    return mapped(exchange, batch)


def _is_list_of(output: Any, count: int) -> bool:
    """True for one result for each input, as detectors give them."""
    results = type(output) in (list, tuple) and len(output) == count
    return results and not all(isinstance(result, Tensor) for result in output)
