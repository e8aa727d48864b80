"""How labels of axes change where an operation cuts, joins, spreads or repeats values."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from cnnviz.engine.axes import (
    BATCH,
    MIXED,
    OWN,
    PART,
    PLACE,
    Axis,
    AxisFollower,
    Call,
    Digit,
    Dim,
    Label,
    Segment,
    axes_of,
    dim_size,
    has_kind,
    segment_size,
    single,
    unknown,
    unpadded,
    whole,
)


def sliced(dim: Dim, begin: int, size: int, step: int = 1) -> Dim:
    """A dimension of which every ``step``-th position from ``begin`` on is kept, ``size`` in all."""
    if step == 1 and size == dim_size(dim):
        return dim
    if step == 1 and len(dim) > 1:
        kept: list[Segment] = []
        start = 0
        for segment in dim:
            stop = start + segment_size(segment)
            first, last = max(begin, start), min(begin + size, stop)
            if first < last:
                kept += sliced((segment,), first - start, last - first)
            start = stop
        return tuple(kept)
    digit = unpadded(dim)
    if digit is not None and digit.axis is not None and digit.axis.kind in (PLACE, OWN) and digit.whole:
        # most of the grid, or a coarser one; a half or a quarter of a picture is no map of it
        if 2 * size * step > digit.size and not digit.axis.shift:
            return whole(digit.axis._replace(length=size))
        return unknown(size)
    if step == 1 and len(dim) == 1 and dim[0]:
        first_digit, *rest = [each for each in dim[0] if each.size > 1] or dim[0]
        inner = math.prod(each.size for each in rest)
        if begin % inner == 0 and size % inner == 0:
            left = size // inner
            if first_digit.axis is not None and first_digit.axis.kind == PART and first_digit.axis.chosen >= 0:
                at = first_digit.axis.chosen * first_digit.stride - begin // inner
                if left == 1 and first_digit.whole:
                    return (tuple(rest) or (Digit(None, 1, 1),),) if at == 0 else unknown(size)
                return unknown(size)
            axis = first_digit.axis and first_digit.axis._replace(partial=True)
            piece = [Digit(axis, first_digit.stride, left)] if left > 1 else []
            return ((*piece, *rest) or (Digit(None, 1, 1),),)
    return unknown(size)


def narrow(axes: AxisFollower, call: Call) -> Label | None:
    label = list(axes.label_of(call.args[0]))
    number, begin = call.argument(1, "dim"), call.argument(2, "start")
    number %= len(label)
    label[number] = sliced(label[number], int(begin) % dim_size(label[number]), call.output.shape[number])
    return tuple(label)


def select(axes: AxisFollower, call: Call) -> Label | None:
    label = list(axes.label_of(call.args[0]))
    number, index = call.argument(1, "dim") % len(label), int(call.argument(2, "index"))
    return _selected(label, number, index)


def _selected(label: list[Dim], number: int, index: int) -> Label | None:
    dim = label.pop(number)
    left = sliced(dim, index % dim_size(dim), 1)
    part = [axis for axis in axes_of(dim) if axis.kind == PART and axis.chosen >= 0]
    if part and left == unknown(1) and single(dim) is not None and index % dim_size(dim) != part[0].chosen:
        return None  # a part that descends from another input
    return tuple(label)


def unbind(axes: AxisFollower, call: Call) -> Label | None:
    label = list(axes.label_of(call.args[0]))
    return _selected(label, call.argument(1, "dim", 0) % len(label), call.place)


def iterated(axes: AxisFollower, call: Call) -> Label | None:
    return _selected(list(axes.label_of(call.args[0])), 0, call.place)


def split(axes: AxisFollower, call: Call) -> Label | None:
    """``split``, ``chunk`` and ``tensor_split``: the parts lie one behind the other, and all but the last are told."""
    label = list(axes.label_of(call.args[0]))
    number = call.argument(2, "dim", 0) % len(label)
    size, total = call.output.shape[number], dim_size(label[number])
    sections = call.argument(1, "split_size_or_sections", call.argument(1, "split_size", call.kwargs.get("chunks")))
    if isinstance(sections, list | tuple):
        begin = sum(map(int, sections[: call.place]))
    else:
        begin = total - size if size * call.place > total - size else size * call.place
    label[number] = sliced(label[number], begin, size)
    return tuple(label)


def getitem(axes: AxisFollower, call: Call) -> Label | None:
    index = call.args[1]
    index = index if isinstance(index, tuple) else (index,)
    if sum(isinstance(part, Tensor | list) for part in index) > 1:
        return None
    named = sum(part is not None and part is not Ellipsis for part in index)
    old = list(axes.label_of(call.args[0]))
    label: list[Dim] = []
    parts = list(index)
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    for part in parts:
        if part is None:
            label.append(unknown(1))
        elif part is Ellipsis:
            for _ in range(len(call.args[0].shape) - named):
                label.append(old.pop(0))
        elif isinstance(part, slice):
            dim = old.pop(0)
            places = range(*part.indices(dim_size(dim)))
            label.append(sliced(dim, places.start, len(places), places.step))
        elif isinstance(part, Tensor | list):
            if isinstance(part, list) or (part.ndim == 1 and not part.is_floating_point()):
                label.append(unknown(call.output.shape[len(label)]))
                old.pop(0)
            elif part.ndim == 0:
                return None  # whose place is a value
            else:
                return None
        else:
            rest = _selected(old[:1], 0, int(part))
            if rest is None:
                return None
            old.pop(0)
    return tuple(label)


def gathered(axes: AxisFollower, call: Call) -> Label | None:
    """One dimension in another order, or some of it: which, is a value."""
    label = list(axes.label_of(call.args[0]))
    number = call.argument(1, "dim", -1)
    label[number] = unknown(call.output.shape[number])
    return tuple(label)


def joined(axes: AxisFollower, call: Call) -> Label | None:
    """Parts one behind the other."""
    parts = list(call.argument(0, "tensors"))
    parts = [part for part in parts if part.numel() or part.ndim == call.output.ndim]
    number = call.argument(1, "dim", 0) % call.output.ndim
    labels = [axes.label_of(part) for part in parts]
    merged = list(spread(axes, [label[:number] + label[number + 1 :] for label in labels], call.output.ndim - 1))
    segments: list[Segment] = []
    for segment in (segment for label in labels for segment in label[number]):
        if segments and _nothing_known(segments[-1]) and _nothing_known(segment):
            segments[-1] = unknown(segment_size(segments[-1]) + segment_size(segment))[0]
        else:
            segments.append(segment)
    merged.insert(number, tuple(segments))
    return tuple(merged)


def _nothing_known(segment: Segment) -> bool:
    return all(digit.axis is None for digit in segment)


def stacked(axes: AxisFollower, call: Call) -> Label | None:
    parts = list(call.argument(0, "tensors"))
    followed = [number for number, part in enumerate(parts) if axes.of(part) is not None]
    merged = list(spread(axes, [axes.label_of(parts[number]) for number in followed], call.output.ndim - 1))
    chosen = followed[0] if len(followed) == 1 and len(parts) > 1 else -1
    number = call.argument(1, "dim", 0) % call.output.ndim
    each_item = len(followed) == len(parts) == axes.shape[0] and not any(has_kind(dim, BATCH) for dim in merged)
    # a batch that was taken apart, one item after the other, is put together again
    axis = Axis(BATCH, 0, len(parts)) if each_item else axes.new(PART, len(parts), chosen)
    merged.insert(number, whole(axis))
    return tuple(merged)


def expand(axes: AxisFollower, call: Call) -> Label | None:
    label = axes.label_of(call.args[0])
    return tuple(spread(axes, [label], call.output.ndim, call.output.shape))


def repeat(axes: AxisFollower, call: Call) -> Label | None:
    label = axes.label_of(call.args[0])
    missing = call.output.ndim - len(label)
    dims = [*map(unknown, [1] * missing), *label]
    repeated: list[Dim] = []
    for dim, size in zip(dims, call.output.shape, strict=True):
        times = size // dim_size(dim)
        if times == 1:
            repeated.append(dim)
        else:
            repeated.append(((Digit(None, 1, times), *dim[0]),) if len(dim) == 1 else unknown(size))
    return tuple(repeated)


def spread(
    axes: AxisFollower, labels: Sequence[Label], rank: int, shape: Sequence[int] = (), *, unite: bool = False
) -> list[Dim]:
    """The label of operands that are broadcast against each other.

    Axes of the input prevail over channels, and the first operand's over later ones. Two different axes of the input
    against each other leave nothing known. ``unite``: the operands are added up, so their channels are the same.
    """
    result: list[Dim] = [unknown(size) for size in shape] or [unknown(1)] * rank
    for label in labels:
        for dim, number in zip(label[::-1], range(rank - 1, -1, -1), strict=False):
            result[number] = _stronger(axes, result[number], dim, unite)
    return result


def _stronger(axes: AxisFollower, one: Dim, other: Dim, unite: bool) -> Dim:
    if dim_size(one) != dim_size(other):
        return one if dim_size(one) > 1 else other
    if one == other:
        return one
    places = [has_kind(dim, PLACE, OWN, BATCH, PART, MIXED) for dim in (one, other)]
    if all(places):
        return one if _within(other, one) else other if _within(one, other) else unknown(dim_size(one))
    if any(places):
        return one if places[0] else other
    if not any(True for _ in axes_of(one)):
        return other
    first, second = single(one), single(other)
    if unite and first and second and first.whole and second.whole and first.axis and second.axis:
        axes.unite(first.axis, second.axis)  # both of channels
    return one


def _within(other: Dim, one: Dim) -> bool:
    """True if all that is known of ``other`` is known of ``one`` too."""
    return set(axes_of(other)) <= set(axes_of(one))
