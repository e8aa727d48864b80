"""Answers to one question about several batches, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.read_inputs import loaded_batches
from cnnviz.images.originals import Original


def explained_in_batches(explained: Callable[[Any, Any], Any], loader: DataLoader[Any], target: Any) -> Any:
    """What ``explained`` answers of the batches of a data loader and of their targets, put together.

    A list or array of targets has one for each input of all batches. Raises ValueError for a loader without batches,
    where these are of different sizes, and where there are more or fewer targets than inputs.
    """
    answers: list[Any] = []
    done = 0
    array = isinstance(target, Tensor | np.ndarray) and target.ndim == 1 and len(target) != 1  # of one, it is for all
    each = isinstance(target, list) or array
    for inputs in loaded_batches(loader):
        own = target[done : done + len(inputs)] if each else target
        done += len(inputs)
        if each and len(own) < len(inputs):
            raise ValueError(f"there are {len(target)} targets for {done} inputs or more; give one, or one for each")
        answers.append(explained(inputs, own))
    if answers and each and len(target) != done:
        raise ValueError(f"there are {len(target)} targets for {done} inputs; give one, or one for each")
    if not answers:
        raise ValueError("the data loader has no batches; give it at least one input")
    return _together(answers)


def _together(answers: Sequence[Any]) -> Any:
    first = answers[0]
    if isinstance(first, Explanation):
        return joined(answers)
    if isinstance(first, Mapping):
        return type(first)({name: _together([answer[name] for answer in answers]) for name in first})  # type: ignore[call-arg]  # a dict
    return type(first)([_together(parts) for parts in zip(*answers, strict=True)])


def joined(batches: Sequence[Explanation]) -> Explanation:
    """Answers to one question about several batches, as one. Raises ValueError for inputs of different sizes."""
    first = batches[0]
    if len(batches) == 1:
        return first
    if len({(batch.values.shape[1:], batch.inputs.shape[1:]) for batch in batches}) > 1:
        raise ValueError("the inputs have different sizes, and can't be answered for together; give them one size")
    several = [batch.objective for batch in batches if isinstance(batch.objective, tuple)]
    return replace(
        first,
        values=torch.cat([batch.values for batch in batches]),
        inputs=torch.cat([batch.inputs for batch in batches]),
        target=_all_of([batch.target for batch in batches]),
        score=torch.cat([batch.score for batch in batches]),
        objective=tuple(name for names in several for name in names) if several else first.objective,
        probability=_all_of([batch.probability for batch in batches]),
        boxes=_all_of([batch.boxes for batch in batches]),
        originals=_all_originals(batches),
        notes={name: torch.cat([batch.notes[name] for batch in batches]) for name in first.notes},
    )


def _all_originals(batches: Sequence[Explanation]) -> tuple[Original | None, ...] | None:
    if all(batch.originals is None for batch in batches):
        return None
    return tuple(each for batch in batches for each in batch.originals or (None,) * len(batch))


def _all_of(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known) if len(known) == len(parts) else None
