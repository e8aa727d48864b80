"""Answers that one file can hold: maps of one method are of one kind, and have the same notes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from torch import Tensor

from cnnviz.datasets.shards.item_answers import ItemAnswer

Kinds: TypeAlias = dict[str, tuple[int, str]]
"""The number of dimensions and the dtype of each tensor, by its name."""


def alike(answers: Sequence[ItemAnswer], methods: Sequence[str]) -> list[ItemAnswer]:
    """The answers; an item whose maps or notes are of another kind than the first item's has an error instead."""
    first: Kinds | None = None
    kept: list[ItemAnswer] = []
    for answer in answers:
        if answer.error is None:
            kinds = {name: (tensor.ndim, str(tensor.dtype)) for name, tensor in _tensors(answer, methods)}
            first = first or kinds
            if kinds != first:
                answer = ItemAnswer(error=_difference(first, kinds))
        kept.append(answer)
    return kept


def _tensors(answer: ItemAnswer, methods: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    for name in methods:
        yield f"the map of {name}", answer.kept[name]
        for note, values in answer.explanations[name].notes.items():
            yield f"what {name} notes as {note}", values[0]


def _difference(first: Kinds, kinds: Kinds) -> str:
    """What two answers differ in, as the error of the second."""
    name = next(name for name in (*first, *kinds) if first.get(name) != kinds.get(name))
    ours, theirs = kinds.get(name), first.get(name)
    if ours is None or theirs is None:
        return f"{name} is {'not there' if ours is None else 'only there'}, other than of the items before it"
    return f"{name} is {ours[1]} in {ours[0]} dimensions; of the items before it, {theirs[1]} in {theirs[0]}"
