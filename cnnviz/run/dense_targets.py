"""Targets of dense outputs: a class over a region of the places that a segmentation network scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.feature_extraction import Seen
from cnnviz.run.output_targets import Class, OutputTarget, dense_output, known_class
from cnnviz.run.plain_pass import PlainPass


@dataclass(frozen=True, eq=False, repr=False)
class region(OutputTarget):
    """A class of a dense output (N, K, *spatial), over a region of its places.

    Args:
        cls: the class, by number or name.
        where: "predicted", the places for which the plain pass predicts the class; "border", those of them next to
            places of other classes; a mask (*spatial) or (N, *spatial), of the output's size or the input's; or one
            place of the input, (x, y).
        read: the "mean" over the region, or the "sum".
        of: "logit", the scores as they are; "probability", by a softmax over classes, or a sigmoid of a single one,
            unless the scores are probabilities; or "margin", the score minus the highest other one.

    The region is found in the plain pass and stays the same for all variants. A single class is predicted where its
    score is above zero, or its probability above a half.
    """

    cls: Class
    where: Any = "predicted"
    read: Literal["mean", "sum"] = "mean"
    of: Literal["logit", "probability", "margin"] = "logit"

    def __post_init__(self) -> None:
        for name, known in (("read", ("mean", "sum")), ("of", ("logit", "probability", "margin"))):
            choice = getattr(self, name)
            if choice not in known:
                raise ValueError(f"a region has no {name} {choice!r}; it is {' or '.join(map(repr, known))}")
        if isinstance(self.where, str) and self.where not in ("predicted", "border"):
            raise ValueError(
                f"there is no region {self.where!r}; it is 'predicted', 'border', a mask, or a place (x, y)"
            )

    def find(self, plain: PlainPass) -> tuple[Tensor, Tensor]:
        """The region, (N, *spatial) bool, and the class, (N,)."""
        scores = dense_output(plain.seen.output)
        number = known_class(self.cls, plain, scores.shape[1])
        mask = self._mask(scores, number, plain.seen.inputs)
        empty = (~mask.flatten(1).any(1)).nonzero().flatten().tolist()
        if empty:
            what = "predicted nowhere" if isinstance(self.where, str) else "asked for at no place"
            raise ValueError(f"class {self.cls!r} is {what} in input {empty[0]}; give where=a mask, or a place (x, y)")
        return mask, torch.full((len(scores),), number, device=scores.device)

    def scores(self, seen: Seen, reference: tuple[Tensor, Tensor]) -> Tensor:
        """The class over the region, (N,)."""
        mask, numbers = (tensor.to(seen.inputs.device) for tensor in reference)
        values = self._values(dense_output(seen.output), int(numbers[0]))
        total = values.where(mask, 0).flatten(1).sum(1)
        return total if self.read == "sum" else total / mask.flatten(1).sum(1)

    def _values(self, scores: Tensor, number: int) -> Tensor:
        own = scores[:, number]
        if self.of == "logit":
            return own
        if self.of == "probability":
            if are_probabilities(scores):
                return own
            return own.sigmoid() if scores.shape[1] == 1 else scores.softmax(1)[:, number]
        if scores.shape[1] == 1:
            return own
        others = torch.cat([scores[:, :number], scores[:, number + 1 :]], 1)
        return own - others.amax(1)

    def _mask(self, scores: Tensor, number: int, inputs: Tensor) -> Tensor:
        if isinstance(self.where, str):
            if scores.shape[1] == 1:
                predicted = scores[:, 0] > (0.5 if are_probabilities(scores) else 0)
            else:
                predicted = scores.argmax(1) == number
            return predicted if self.where == "predicted" else border(predicted)
        if hasattr(self.where, "shape"):
            return _fitted(torch.as_tensor(self.where).to(scores.device), scores, inputs)
        return _place(tuple(self.where), scores, inputs)


def are_probabilities(scores: Tensor) -> bool:
    """True if scores (N, K, *spatial) lie within 0 and 1 and, of several classes, add up to one at each place."""
    values = scores.detach().double()
    if bool(((values < 0) | (values > 1)).any()):
        return False
    return scores.shape[1] == 1 or bool(((values.sum(1) - 1).abs() < 1e-4).all())


def border(mask: Tensor) -> Tensor:
    """The places of a mask (N, *spatial) that have a neighbour outside of it, across a side."""
    inner = mask.clone()
    for dim in range(1, mask.ndim):
        length = mask.shape[dim]
        if length > 1:
            inner.narrow(dim, 0, length - 1).logical_and_(mask.narrow(dim, 1, length - 1))
            inner.narrow(dim, 1, length - 1).logical_and_(mask.narrow(dim, 0, length - 1))
    return mask & ~inner


def _fitted(mask: Tensor, scores: Tensor, inputs: Tensor) -> Tensor:
    """A mask as bool of the output's size, (N, *spatial); one of the input's size is read at the nearest places."""
    rank = scores.ndim - 2
    mask = (mask if mask.ndim == rank + 1 else mask[None]).bool()
    sizes = tuple(scores.shape[2:]), tuple(inputs.shape[2:])
    if mask.ndim != rank + 1 or tuple(mask.shape[1:]) not in sizes or len(mask) not in (1, len(scores)):
        raise ValueError(
            f"the region's mask is {tuple(mask.shape)}; it is of the output's size {sizes[0]} or the "
            f"input's {sizes[1]}, one for all inputs or one for each"
        )
    if tuple(mask.shape[1:]) != sizes[0]:
        mask = F.interpolate(mask[:, None].float(), size=sizes[0], mode="nearest-exact")[:, 0] > 0
    return mask.expand(len(scores), *sizes[0]).clone()


def _place(place: Sequence[float], scores: Tensor, inputs: Tensor) -> Tensor:
    """One place of the input, (x, y), as a mask of the output's size."""
    sizes, grid = tuple(inputs.shape[2:]), tuple(scores.shape[2:])
    at = tuple(reversed(place))
    if len(at) != len(grid) or not all(0 <= position < size for position, size in zip(at, sizes, strict=False)):
        raise ValueError(f"there is no place {tuple(place)} in an input of {sizes}; give (x, y), as in pictures")
    mask = torch.ones((len(scores), *grid), dtype=torch.bool, device=scores.device)
    for dim, (position, size, count) in enumerate(zip(at, sizes, grid, strict=True), 1):
        along = torch.arange(count, device=mask.device) == int(position * count / size)
        mask &= along.view(-1, *(1,) * (mask.ndim - 1 - dim))
    return mask
