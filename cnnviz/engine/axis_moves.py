"""How labels of axes change where an operation only puts values into other places."""

from __future__ import annotations

from collections.abc import Sequence

from cnnviz.engine.axes import (
    MIXED,
    OWN,
    PLACE,
    AxisFollower,
    Call,
    Digit,
    Dim,
    Label,
    Segment,
    dim_size,
    segment_size,
    single,
    unknown,
    whole,
)


def reshape(axes: AxisFollower, call: Call) -> Label | None:
    """Any regrouping of neighbouring dimensions, in row-major order."""
    return regrouped(axes, axes.label_of(call.args[0]), call.output.shape)


def regrouped(axes: AxisFollower, label: Label, shape: Sequence[int]) -> Label | None:
    """The label at another shape; None where a digit would be cut unevenly, and where there are no values at all."""
    if 0 in shape:
        return None
    waiting = [digit for dim in label for digit in _digits(axes, dim)]
    dims: list[Dim] = []
    for number, size in enumerate(shape):
        taken: list[Digit] = []
        need = size
        while need > 1 or not taken:
            if not waiting or (need == 1 and waiting[0].size > 1):
                break
            digit = waiting.pop(0)
            if need % digit.size == 0:
                need //= digit.size
            elif digit.size % need == 0:
                rest = digit.size // need
                waiting.insert(0, Digit(digit.axis, digit.stride, rest))
                digit, need = Digit(digit.axis, digit.stride * rest, need), 1
            else:
                return None
            taken.append(digit)
        if need > 1:
            return None
        if number == len(shape) - 1:
            taken += waiting  # of size 1 now
        dims.append(_dim(axes, taken))
    return tuple(dims)


def _digits(axes: AxisFollower, dim: Dim) -> Segment:
    """A dimension as digits; of several segments as one digit that stands for all."""
    if len(dim) == 1:
        return dim[0]
    axis = axes.new(MIXED, dim_size(dim))
    axes.mixed[axis.number] = dim
    return (Digit(axis, 1, axis.length),)


def _dim(axes: AxisFollower, digits: Sequence[Digit]) -> Dim:
    """A dimension of these digits: neighbouring digits of one axis become one again."""
    merged: list[Digit] = []
    for digit in digits:
        last = merged[-1] if merged else None
        if (
            last is not None
            and last.axis == digit.axis
            and (digit.axis is None or last.stride == digit.stride * digit.size)
        ):
            merged[-1] = Digit(digit.axis, digit.stride, last.size * digit.size)
        else:
            merged.append(digit)
    merged = [digit for digit in merged if digit.size > 1 or digit.axis is not None] or [Digit(None, 1, 1)]
    only = [digit for digit in merged if digit.size > 1]
    if len(only) == 1 and only[0].axis is not None and only[0].axis.kind == MIXED and only[0].whole:
        return axes.mixed[only[0].axis.number]
    return (tuple(merged),)


def squeeze(axes: AxisFollower, call: Call) -> Label | None:
    source = call.args[0]
    kept = axes.label_of(source)
    numbers = call.numbers(1, "dim") if len(call.args) > 1 or "dim" in call.kwargs else tuple(range(source.ndim))
    gone = {number % source.ndim for number in numbers if source.shape[number] == 1}
    return tuple(dim for number, dim in enumerate(kept) if number not in gone)


def unsqueeze(axes: AxisFollower, call: Call) -> Label | None:
    label = list(axes.label_of(call.args[0]))
    label.insert(call.argument(1, "dim") % call.output.ndim, unknown(1))
    return tuple(label)


def permute(axes: AxisFollower, call: Call) -> Label | None:
    label = axes.label_of(call.args[0])
    return tuple(label[number] for number in call.numbers(1, "dims"))


def transpose(axes: AxisFollower, call: Call) -> Label | None:
    label = list(axes.label_of(call.args[0]))
    one, other = call.argument(1, "dim0", call.kwargs.get("axis0")), call.argument(2, "dim1", call.kwargs.get("axis1"))
    label[one], label[other] = label[other], label[one]
    return tuple(label)


def movedim(axes: AxisFollower, call: Call) -> Label | None:
    label = axes.label_of(call.args[0])
    source, goal = call.argument(1, "source"), call.argument(2, "destination")
    sources = [number % len(label) for number in ([source] if isinstance(source, int) else source)]
    goals = [number % len(label) for number in ([goal] if isinstance(goal, int) else goal)]
    rest = iter([number for number in range(len(label)) if number not in sources])
    placed = dict(zip(goals, sources, strict=True))
    return tuple(label[placed[number] if number in placed else next(rest)] for number in range(len(label)))


def turned(axes: AxisFollower, call: Call) -> Label | None:
    """``T``, ``mT``, ``t()``: the last two dimensions exchanged; ``T`` of more reverses them all."""
    label = axes.label_of(call.args[0])
    if (
        len(label) > 2
        and call.output.shape == call.args[0].shape[::-1]
        and call.output.shape[:-2] != call.args[0].shape[:-2]
    ):
        return label[::-1]
    return label if len(label) < 2 else (*label[:-2], label[-1], label[-2])


def reversed_dims(axes: AxisFollower, call: Call) -> Label | None:
    return axes.label_of(call.args[0])[::-1]


def flip(axes: AxisFollower, call: Call) -> Label | None:
    label = list(axes.label_of(call.args[0]))
    for number in call.numbers(1, "dims"):
        label[number] = _flipped(label[number])
    return tuple(label)


def fliplr(axes: AxisFollower, call: Call) -> Label | None:
    label = axes.label_of(call.args[0])
    return (label[0], _flipped(label[1]), *label[2:])


def flipud(axes: AxisFollower, call: Call) -> Label | None:
    label = axes.label_of(call.args[0])
    return (_flipped(label[0]), *label[1:])


def rot90(axes: AxisFollower, call: Call) -> Label | None:
    """A turn by one or several quarters: two dimensions are exchanged, one of them runs backwards."""
    label = list(axes.label_of(call.args[0]))
    one, other = call.argument(2, "dims", (0, 1))
    for _ in range(int(call.argument(1, "k", 1)) % 4):
        label[one], label[other] = _flipped(label[other]), label[one]
    return tuple(label)


def _flipped(dim: Dim) -> Dim:
    """A dimension that runs backwards, as does each axis of a grid in it: tokens of a grid, and what stands beside."""
    return tuple(_backwards(segment) for segment in dim[::-1])


def _backwards(segment: Segment) -> Segment:
    turned: list[Digit] = []
    for digit in segment:
        if digit.axis is not None and (not digit.whole or digit.axis.kind not in (PLACE, OWN)):
            return unknown(segment_size(segment))[0]
        axis = digit.axis and digit.axis._replace(flipped=not digit.axis.flipped)
        turned.append(Digit(axis, digit.stride, digit.size))
    return tuple(turned)


def roll(axes: AxisFollower, call: Call) -> Label | None:
    label = list(axes.label_of(call.args[0]))
    shifts, numbers = call.argument(1, "shifts"), call.argument(2, "dims")
    pairs = [(shifts, numbers)] if isinstance(shifts, int) else list(zip(shifts, numbers, strict=True))
    for shift, number in pairs:
        digit = single(label[number])
        if digit is None or digit.axis is None or not digit.whole or digit.axis.kind not in (PLACE, OWN):
            label[number] = unknown(dim_size(label[number]))
        else:
            axis = digit.axis
            moved = axis.shift - shift if axis.flipped else axis.shift + shift
            label[number] = whole(axis._replace(shift=moved % axis.length))
    return tuple(label)
