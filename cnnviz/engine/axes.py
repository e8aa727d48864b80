"""Where the axes of the model's input lie in every tensor of a pass.

A tensor's label has one entry for each dimension: segments that lie one behind the other, as a class token before the
patches. A segment is written in digits, the slowest first: 49 tokens of 7 x 7 places are the digits of height and
width. So reshaping, permuting, splitting into windows and folding into the batch only move digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from cnnviz.engine.nested import tensors
from cnnviz.engine.operations import Operation, canonical, in_place

BATCH, CHANNEL, PLACE, OWN, PART, MIXED = "batch", "channel", "place", "own", "part", "mixed"


class Axis(NamedTuple):
    """One axis of the input, or one that the model made."""

    kind: str
    """"batch" and "place" (a spatial axis) are the input's. "channel" is whatever a layer adds up or makes; "own" is a
    spatial axis that the model made, such as a spectrogram's frequency. "part" counts tensors that were stacked;
    "mixed" is a dimension of several segments that was merged with others."""
    number: int
    """Spatial axes are numbered as in the input, from 0; others as they come."""
    length: int
    """The number of positions, at the resolution that the tensor has."""
    chosen: int = -1
    """Of a "part" axis: which part descends from the input that is followed; -1 if several do."""
    shift: int = 0
    """By how many positions ``roll`` has moved it on."""
    flipped: bool = False
    partial: bool = False
    """True if only some of its positions are left."""
    padded: bool = False
    """True if it is longer than the grid, as windows need it."""


class Digit(NamedTuple):
    """A digit of a position on an axis: ``position // stride % size``."""

    axis: Axis | None
    """None where nothing is known, as along copies of one value."""
    stride: int
    size: int

    @property
    def whole(self) -> bool:
        """True if the digit is all of its axis, and no more."""
        known = self.axis is not None and not self.axis.partial and not self.axis.padded
        return known and self.stride == 1 and self.size == self.axis.length  # type: ignore[union-attr]  # known


Segment: TypeAlias = tuple[Digit, ...]
Dim: TypeAlias = tuple[Segment, ...]
Label: TypeAlias = tuple[Dim, ...]


def whole(axis: Axis) -> Dim:
    """A dimension that is this axis."""
    return ((Digit(axis, 1, axis.length),),)


def unknown(size: int) -> Dim:
    """A dimension of which nothing is known."""
    return ((Digit(None, 1, size),),)


def segment_size(segment: Segment) -> int:
    return math.prod(digit.size for digit in segment)


def dim_size(dim: Dim) -> int:
    return sum(map(segment_size, dim))


def axes_of(dim: Dim) -> Iterator[Axis]:
    """The known axes that have digits in a dimension."""
    return (digit.axis for segment in dim for digit in segment if digit.axis is not None)


def has_kind(dim: Dim, *kinds: str) -> bool:
    """True if a digit of an axis of these kinds is in it."""
    return any(axis.kind in kinds for axis in axes_of(dim))


def single(dim: Dim) -> Digit | None:
    """The only digit of a dimension, or None if it has several, digits of size 1 aside."""
    if len(dim) != 1:
        return None
    digits = [digit for digit in dim[0] if digit.size > 1] or list(dim[0][:1])
    return digits[0] if len(digits) == 1 else None


def unpadded(dim: Dim) -> Digit | None:
    """The only digit of a dimension, of an axis as it was before it was padded."""
    digit = single(dim)
    if digit is None or digit.axis is None or not digit.axis.padded:
        return digit
    return digit._replace(axis=digit.axis._replace(padded=False))


def coarser(label: Label) -> Label:
    """The label, with an axis of a grid of which only the slowest digit is left as an axis at that resolution."""
    digits = [digit for dim in label for segment in dim for digit in segment]
    grids = [digit.axis for digit in digits if digit.axis is not None and digit.axis.kind in (PLACE, OWN)]
    found = {
        digit: Digit(digit.axis._replace(length=digit.size), 1, digit.size)
        for digit in digits
        if digit.axis is not None and digit.stride > 1 and grids.count(digit.axis) == 1
        if digit.stride * digit.size == digit.axis.length and not digit.axis.partial and not digit.axis.shift
    }
    if not found:
        return label
    return tuple(tuple(tuple(found.get(digit, digit) for digit in segment) for segment in dim) for dim in label)


class Call(NamedTuple):
    """One operation of the pass, as a rule sees it."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    output: Tensor
    """The output, or one of several."""
    place: int
    """Which of several outputs it is."""

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by its place or name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    def numbers(self, place: int, name: str) -> tuple[int, ...]:
        """Whole numbers, given as one tuple or one after the other."""
        value = self.argument(place, name, ())
        if isinstance(value, int):
            return tuple(int(number) for number in self.args[place:]) or (value,)
        return tuple(map(int, value))


Rule: TypeAlias = Callable[["AxisFollower", Call], "Label | None"]


class AxisFollower(TorchFunctionMode):
    """Follows the axes of the model's inputs through the operations that are called inside of it.

    Args:
        rules: from an operation's plain name to where its output's axes lie. Of an operation without a rule nothing is
            known: its output is labelled None, which is never guessed.
    """

    def __init__(self, rules: Mapping[str, Rule]):
        super().__init__()
        self.rules = rules
        self.labels: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self.lost: dict[str, None] = {}
        """Operations at which axes were lost, in their order."""
        self.mixed: dict[int, Dim] = {}
        """Dimensions of several segments, by the number of the axis that stands for each."""
        self.cut: set[int] = set()
        """Channel axes that were cut into the queries, keys and values of an attention, by number."""
        self.compared: set[int] = set()
        """Channel axes of maps that an attention compares with themselves, by number."""
        self.shape: tuple[int, ...] = ()
        """Of the input that was followed first."""
        self._same: dict[int, int] = {}
        self._numbers = 0

    def follow(self, inputs: Tensor) -> None:
        """Begin at an input, (N, C, *spatial). Several inputs that are followed share their axes."""
        self.shape = self.shape or tuple(inputs.shape)
        self.labels[inputs] = self.begin(inputs.shape)

    def begin(self, shape: Sequence[int]) -> Label:
        """The label of an input of this shape, (N, C, *spatial)."""
        batch = [Axis(BATCH, 0, size) for size in shape[:1]]
        channels = [self.new(CHANNEL, size) for size in shape[1:2]]
        return tuple(map(whole, [*batch, *channels, *(Axis(PLACE, n, size) for n, size in enumerate(shape[2:]))]))

    def descends(self, tensor: Tensor) -> bool:
        """True if the tensor was computed from a followed one by operations that were seen."""
        return tensor in self.labels

    def of(self, tensor: Tensor) -> Label | None:
        """The label of a tensor; None if it descends from no input, or where its axes were lost."""
        label: Label | None = self.labels.get(tensor)  # type: ignore[no-untyped-call]  # torch has no types here
        return label

    def new(self, kind: str, length: int, chosen: int = -1) -> Axis:
        """An axis that is met for the first time."""
        self._numbers += 1
        return Axis(kind, self._numbers, length, chosen)

    def renewed(self, axis: Axis) -> Axis:
        """An axis of the same kind and length that is met for the first time."""
        return axis._replace(number=self.new(axis.kind, axis.length).number)

    def channel(self, size: int) -> Dim:
        """A dimension of channels that an operation made."""
        return whole(self.new(CHANNEL, size))

    def unite(self, one: Axis, other: Axis) -> None:
        """Two axes of channels are one and the same from now on, since they were added up."""
        first, second = self.number(one), self.number(other)
        if first != second:
            self._same[second] = first

    def number(self, axis: Axis) -> int:
        """The number of an axis of channels, equal for those that were added up."""
        number = axis.number
        while number in self._same:
            number = self._same[number]
        return number

    def label_of(self, value: Any) -> Label:
        """The label of an operand; nothing is known of one that descends from no input."""
        label = self.of(value)
        return tuple(map(unknown, value.shape)) if label is None else label

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func is Tensor.__iter__:
            parts = list(output)
            self.see(func, args, kwargs, parts)
            return iter(parts)
        self.see(func, args, kwargs, output)
        return output

    def see(self, func: Operation, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> None:
        """Label what an operation gave."""
        name = plain_name(func)
        if name in SHAPE_ALONE:
            return
        with torch._C.DisableTorchFunction():
            operands = list(tensors((args, kwargs)))
            followed = [operand for operand in operands if self.descends(operand)]
            if not followed:
                return
            if name == "setitem" or (name in _WRITES and in_place(func, kwargs)):
                self._written(name, operands)
                return
            operation = plain_name(canonical(func, args, kwargs))
            rule = self.rules.get(name) or self.rules.get(operation)
            known = any(self.of(operand) is not None for operand in followed)
            for place, tensor in enumerate(tensors(output)):
                label = None
                if rule is not None and (known or name in ROOTS):
                    label = self._labelled(rule, Call(args, kwargs, tensor, place))
                if label is None and known and tensor.is_floating_point():
                    self.lost[name] = None
                self.labels[tensor] = label
                if in_place(func, kwargs) and tensor._base is not None and not self.descends(tensor._base):
                    self.labels[tensor._base] = None

    def _labelled(self, rule: Rule, call: Call) -> Label | None:
        try:
            label = rule(self, call)
        except (IndexError, KeyError, TypeError, ValueError, AttributeError, RuntimeError):
            return None  # a form of the call that the rule does not know
        fits = label is not None and tuple(map(dim_size, label)) == tuple(call.output.shape)
        return coarser(label) if fits and label is not None else None

    def _written(self, name: str, operands: Sequence[Tensor]) -> None:
        """A tensor that is written into descends from what was written; where in it the axes lie is not known."""
        target, source = operands[0], operands[-1]
        if name == "copy" and target.shape == source.shape and target._base is None:
            self.labels[target] = self.of(source)
        for tensor in (target, target._base):
            if tensor is not None and not self.descends(tensor):
                self.labels[tensor] = None


def plain_name(func: Operation) -> str:
    """The name of an operation without what spells it as a method, in place, or reflected."""
    name = str(getattr(func, "__name__", ""))
    if name == "__get__":
        return str(getattr(func.__self__, "__name__", ""))  # type: ignore[attr-defined]  # a property's getter
    stripped = name.strip("_")
    if name.startswith(("__i", "__r")) and name.endswith("__") and stripped[1:] in _ARITHMETIC:
        return stripped if stripped == "rmatmul" else stripped[1:]
    return stripped


_ARITHMETIC = ("add", "sub", "mul", "div", "truediv", "floordiv", "pow", "matmul", "mod", "and", "or", "xor")
_WRITES = ("copy", "index_copy", "masked_scatter", "index_put", "scatter", "scatter_add", "index_add")
SHAPE_ALONE = (
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like"),
    *("new_zeros", "new_ones", "new_empty", "new_full", "new_tensor", "shape", "size", "stride", "dim", "numel"),
)
"""Operations that read nothing of a tensor but its shape."""
ROOTS = ("conv1d", "conv2d", "conv3d")
"""Operations that begin a grid anew where the axes of their input were lost."""
