"""The attentions of one pass, found by what is computed and not by the names of modules.

An attention is a softmax of a product of queries and keys, whose output is multiplied with values. Operations that do
all of it at once are written out beforehand, so that the softmax exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import or_
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from cnnviz.engine.axes import (
    BATCH,
    OWN,
    PART,
    PLACE,
    SHAPE_ALONE,
    Axis,
    AxisFollower,
    Digit,
    Dim,
    Label,
    axes_of,
    dim_size,
    has_kind,
    plain_name,
    unknown,
    whole,
)
from cnnviz.engine.axis_rules import RULES
from cnnviz.engine.deferred import assumed
from cnnviz.engine.grid_reading import GridReading, NoGrid, reading_by_hand, reading_of
from cnnviz.engine.nested import mapped, tensors
from cnnviz.engine.operations import Operation, canonical

_PRODUCTS = ("matmul", "rmatmul", "mm", "bmm", "baddbmm", "einsum")
_MOVES = (
    *("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "swapaxes"),
    *("swapdims", "movedim", "moveaxis", "mT", "T", "expand"),
)
_KEEPS = (*_MOVES, "to", "type_as", "float", "double", "half", "bfloat16", "dropout", "clone", "contiguous")
"""Operations that keep every share as it is, and move it at most."""


AnyGrid: TypeAlias = tuple[Sequence[int] | None, int] | None
"""The grid of tokens as it is said by hand, its sizes (None: a square) and how many extra tokens lie before it."""


class NoSelfAttention(ValueError):
    """An attention is not one of a picture's tokens to themselves; the message says why."""


@dataclass(frozen=True)
class _Product:
    """What a softmax may be of."""

    marks: tuple[int, ...]
    """By operand, a bit for each attention that it was computed from."""
    descends: bool
    """True if all operands are computed from the input."""
    label: Label | None
    """Where the axes of the input lie in it; None where they were lost in an operand."""

    @property
    def compares_places(self) -> bool:
        """True if each of its values is of two places."""
        return sum(has_kind(dim, PLACE, OWN) for dim in self.label or ()) > 1


@dataclass(eq=False)
class Attention:
    """One attention: which share of every value each query takes."""

    shares: Tensor
    """The output of the softmax, with its graph; over the keys the shares add up to 1."""
    keys: int
    """The dimension of the keys."""
    label: Label | None
    """Where the axes of the input lie in it; None where queries or keys can't be followed."""
    lost: str
    """The operation at which axes were lost last, if any were."""
    product: _Product
    used: bool = False
    """True if its output was multiplied with values that are computed from the input."""
    unfit: str = ""
    """Why the shares are not those of one picture's tokens, where that is known."""

    @property
    def behind(self) -> int:
        """A bit for each attention that it was computed from."""
        return _united(self.product.marks)

    def squared(self, values: Tensor, items: int) -> Tensor:
        """Values laid out as the shares are, as (N, heads, queries, keys).

        Raises NoSelfAttention where they can't be.
        """
        self._check()
        values, dims = values.movedim(self.keys, -1), self._others()
        rows = [number for number, dim in enumerate(dims) if has_kind(dim, PLACE, OWN)]
        values = values.movedim(rows[0], -2) if len(rows) == 1 else values
        queries, keys = values.shape[-2:]
        if queries != keys:
            raise NoSelfAttention(
                f"has {queries} queries and {keys} keys, as a cross-attention, one that pools, and one with bias_k or "
                "add_zero_attn"
            )
        if self.label is None:  # of one item by itself
            if values.ndim > 3 and len(values) > 1:
                raise NoSelfAttention(f"has shares laid out as {tuple(values.shape)}, which are not (1, heads, T, T)")
            return values.reshape(items, -1, queries, keys)
        compares = has_kind(self.label[self.keys], PLACE, OWN)
        if compares and len(rows) > 1:
            raise NoSelfAttention("is one within windows, whose tokens are not those of the whole picture")
        if not rows and not compares:
            raise NoSelfAttention("compares channels and not places")
        if not rows or not compares:
            raise NoSelfAttention("is one between places and something else, as a cross-attention")
        rest = [dim for number, dim in enumerate(dims) if number != rows[0]]
        digits = [digit for dim in rest for digit in (dim if len(dim) == 1 else unknown(dim_size(dim)))[0]]
        batch = [number for number, digit in enumerate(digits) if digit.axis is not None and digit.axis.kind == BATCH]
        beside = any(len(dim) > 1 and has_kind(dim, BATCH) for dim in rest)
        beside = beside or any(axis.kind == PART and axis.chosen >= 0 for dim in rest for axis in axes_of(dim))
        if beside or len(batch) > 1 or (not batch and items > 1):
            raise NoSelfAttention("mixes the items of the batch, or has those of another input beside them")
        values = values.reshape(*(digit.size for digit in digits), queries, keys)
        return (values.movedim(batch[0], 0) if batch else values).reshape(items, -1, queries, keys)

    def grid(self, items: int, rank: int, axes: AxisFollower, by_hand: AnyGrid) -> GridReading:
        """How its tokens, (N, T, 1), are read as (N, 1, *grid). Raises NoSelfAttention where they can't be."""
        count = self.shares.shape[self.keys]
        try:
            if by_hand is not None:
                return reading_by_hand((items, count, 1), "tokens", *by_hand)
            if self.label is None:
                raise NoGrid(f"can't be followed through {self.lost or 'what the model does unseen'}")
            batch, channel = whole(Axis(BATCH, 0, items)), ((Digit(None, 1, 1),),)
            queries = next(dim for dim in self._others() if has_kind(dim, PLACE, OWN))
            readings = [reading_of((batch, dim, channel), rank, items, axes)
                        for dim in (self.label[self.keys], queries)]  # fmt: skip
        except NoGrid as reason:
            raise NoSelfAttention(f"{reason}; say where its tokens lie with grid=(height, width) and extra=") from None
        if readings[0] != readings[1]:
            raise NoSelfAttention("has queries at other places than its keys, as a cross-attention")
        return readings[0]

    def _check(self) -> None:
        if not self.used:
            raise NoSelfAttention("is not multiplied with values by a product of matrices")
        if self.unfit:
            raise NoSelfAttention(self.unfit)
        if not self.product.descends:
            raise NoSelfAttention("has queries or keys that are not computed from the input, as a cross-attention")
        if len(set(self.product.marks)) > 1:
            raise NoSelfAttention("has queries and keys of two branches, as a cross-attention")

    def _others(self) -> list[Dim]:
        """The dimensions but that of the keys, as far as they are known."""
        label = self.label or ()
        return [dim for number, dim in enumerate(label) if number != self.keys % len(label)]


class AttentionWatch:
    """Finds the attentions among the operations of a pass, in the order in which they are called.

    Args:
        inputs: the input that is explained, (N, C, *spatial).
    """

    def __init__(self, inputs: Tensor):
        self.axes = AxisFollower(RULES)
        self.axes.follow(inputs)
        self.found: list[Attention] = []
        self._channels = set(axes_of(self.axes.label_of(inputs)[1])) if inputs.ndim > 1 else set()
        """The input's own axis behind the batch."""
        self._products: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._shares: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._marks: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def see(self, func: Operation, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> None:
        """Look at one operation and what it gave."""
        self.axes.see(func, args, kwargs, output)
        name = plain_name(func)
        if name in SHAPE_ALONE:
            return
        operands, results = list(tensors((args, kwargs))), list(tensors(output))
        mark = _united(self._mark(operand) for operand in operands)
        if name in _PRODUCTS:
            factors = operands[1:] if name == "baddbmm" else operands
            mark |= self._multiplied(name, factors, results, partial(_adds_up, func, args, kwargs))
        elif canonical(func, args, kwargs) is F.softmax and operands and operands[0] in self._products:
            self._weighed(operands[0], results[0], args, kwargs)
        else:
            zeros = name == "masked_fill" and (args[2] if len(args) > 2 else kwargs.get("value")) == 0
            self._passed_on(name, operands, results, zeros)
        for tensor in (*results, *(operands[:1] if name == "setitem" else ())) if mark else ():
            self._marks[tensor] = mark | self._mark(tensor)

    def _multiplied(
        self, name: str, factors: Sequence[Tensor], results: Sequence[Tensor], adds_up: Callable[[Tensor], bool]
    ) -> int:
        """What a product of these is: of queries and keys, or of shares and values. Gives the bits of the shares.

        ``adds_up`` tells whether sums over one of them are one.
        """
        shares = {factor: self._shares[factor] for factor in factors if factor in self._shares}
        followed = [factor for factor in factors if self.axes.descends(factor)]
        if len(followed) == 1 < len(factors) and (shares or followed[0] in self._products):
            self._passed_on(name, factors, results, False)  # those of several heads, mixed by constants
        elif shares:
            for factor, (attention, unfit) in shares.items():
                if any(self._mark(other) & self._bit(attention) for other in followed):
                    unfit = unfit or "is used again by a later block"
                if not unfit and not adds_up(factor):
                    unfit = "does not add up to 1 over the values that it weighs"
                attention.used, attention.unfit = True, attention.unfit or unfit
        elif followed and len(factors) > 1:
            known = all(self.axes.of(factor) is not None for factor in followed)
            marks, descends = tuple(map(self._mark, factors)), len(followed) == len(factors)
            for tensor in results:
                self._products[tensor] = _Product(marks, descends, self.axes.of(tensor) if known else None)
        return _united(self._bit(attention) for attention, _ in shares.values())

    def _weighed(self, scores: Tensor, shares: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        dim = (0 if scores.ndim in (1, 3) else 1) if dim is None else dim  # as torch chooses it
        product = self._products[scores]
        label = product.label
        if label is not None:
            sides = [label[dim], *(each for number, each in enumerate(label) if number != dim % len(label))]
            followed = [has_kind(side, PLACE, OWN) for side in sides]
            unseen = [dim_size(side) > 1 and not any(True for _ in axes_of(side)) for side in sides]
            lacking = (not followed[0] and unseen[0]) or (not any(followed[1:]) and any(unseen[1:]))
            label = None if lacking else label
        frames = any(axis in self._channels for side in label or () for axis in axes_of(side))
        unfit = "is one within each frame or channel of the input by itself" if frames else ""
        self.found.append(Attention(shares, dim, label, next(reversed(self.axes.lost), ""), product, unfit=unfit))
        self._shares[shares] = self.found[-1], ""

    def _passed_on(self, name: str, operands: Sequence[Tensor], results: Sequence[Tensor], zeros: bool) -> None:
        """Scores and shares go on through operations that make them no tokens again.

        ``zeros``: some values become 0, as the shares of a query that may read nothing.
        """
        followed = [operand for operand in operands if operand.is_floating_point() and self.axes.descends(operand)]
        scores = [operand for operand in followed if operand in self._products]
        shares = [self._shares[operand] for operand in followed if operand in self._shares]
        product = self._products[scores[0]] if scores else None
        # scaled, masked, mixed with those of other heads, or biased by the input; sums of tokens are no scores
        if product is not None and (len(scores) == len(followed) or product.compares_places):
            for tensor in results:
                stays = name not in (*_MOVES, "getitem") and tensor.shape == scores[0].shape
                label = product.label if stays else self.axes.of(tensor)
                self._products[tensor] = replace(product, label=label if product.label else None)
        if shares and len(shares) == len(followed):
            attention, unfit = shares[0]
            kept = name in _KEEPS
            if zeros and attention.shares is followed[0]:
                attention.shares, kept = results[0], True
            for tensor in results:
                self._shares[tensor] = attention, unfit or ("" if kept else f"is changed by {name} behind its softmax")

    def _bit(self, attention: Attention) -> int:
        return 1 << self.found.index(attention)

    def _mark(self, tensor: Tensor) -> int:
        return self._marks.get(tensor, 0)  # type: ignore[no-any-return,no-untyped-call]  # torch has no types here


def _united(marks: Iterable[int]) -> int:
    return reduce(or_, marks, 0)


def _adds_up(func: Operation, args: Any, kwargs: Any, shares: Tensor) -> bool:
    """True if a product of shares with ones has the same value everywhere, or zero, where a query reads nothing."""
    ones = lambda tensor: tensor if tensor is shares else torch.ones_like(tensor)  # noqa: E731
    with torch.no_grad(), torch._C.DisableTorchFunction():
        sums = func(*mapped(ones, list(args)), **mapped(ones, dict(kwargs)))
        largest = sums.abs().max()
        return assumed(((sums - largest).abs() < 0.01 * largest).logical_or(sums == 0).all())
