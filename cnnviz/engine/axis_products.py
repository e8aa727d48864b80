"""How labels of axes change in products of tensors, attention among them."""

from __future__ import annotations

from torch import Tensor

from cnnviz.engine import axis_parts as parts
from cnnviz.engine.axes import BATCH, CHANNEL, OWN, PLACE, Axis, AxisFollower, Call, Dim, Label, axes_of, has_kind
from cnnviz.engine.nested import tensors


def linear(axes: AxisFollower, call: Call) -> Label | None:
    label = axes.label_of(call.argument(0, "input"))
    return (*label[:-1], axes.channel(call.output.shape[-1])) if call.output.ndim == len(label) else None


def matmul(axes: AxisFollower, call: Call) -> Label | None:
    first, second = call.args[0], call.argument(1, "other", call.kwargs.get("mat2"))
    return _product(axes, call, first, second)


def reflected_matmul(axes: AxisFollower, call: Call) -> Label | None:
    return _product(axes, call, call.args[1], call.args[0])


def product_with_sum(axes: AxisFollower, call: Call) -> Label | None:
    """``addmm`` and ``baddbmm``: what is added has the product's axes, or none."""
    return _product(
        axes,
        call,
        call.argument(1, "mat1", call.kwargs.get("batch1")),
        call.argument(2, "mat2", call.kwargs.get("batch2")),
    )


def _product(axes: AxisFollower, call: Call, first: Tensor, second: Tensor) -> Label | None:
    if first.ndim < 2 or second.ndim < 2:
        return None
    one, other = axes.label_of(first), axes.label_of(second)
    rows = one[-2] if axes.of(first) is not None else axes.channel(first.shape[-2])
    columns = other[-1] if axes.of(second) is not None else axes.channel(second.shape[-1])
    if axes.of(first) is not None and axes.of(second) is not None:
        if has_kind(one[-1], PLACE, OWN) and has_kind(other[-2], PLACE, OWN):
            # places are averaged by attention
            _cut(axes, [other])
            columns = _renewed(axes, columns)
        elif has_kind(rows, PLACE, OWN) and has_kind(columns, PLACE, OWN):
            _cut(axes, [one, other])
    batch = parts.spread(axes, [one[:-2], other[:-2]], call.output.ndim - 2, call.output.shape[:-2])
    return (*batch, rows, columns)


def attention(axes: AxisFollower, call: Call) -> Label | None:
    query, key, value = (call.argument(place, name) for place, name in enumerate(("query", "key", "value")))
    labels = [axes.label_of(each) for each in (query, key, value)]
    _cut(axes, labels)
    return (*labels[0][:-1], _renewed(axes, labels[2][-1]))


def _cut(axes: AxisFollower, operands: list[Label]) -> None:
    """Note the channels that were made to be queries, keys and values. A map that is all three by itself is none."""
    channels = [{axis for dim in label for axis in axes_of(dim) if axis.kind == CHANNEL} for label in operands]
    entire = all(all(digit.whole for dim in label for segment in dim for digit in segment if digit.axis in found)
                 for label, found in zip(operands, channels, strict=True))  # fmt: skip
    numbers = {axes.number(axis) for found in channels for axis in found}
    own = len(operands) > 1 or numbers <= axes.compared
    if entire and own and all(found == channels[0] for found in channels):
        axes.compared |= numbers
    else:
        axes.cut |= numbers


def _renewed(axes: AxisFollower, dim: Dim) -> Dim:
    """The same digits of axes of channels that are new: what attention gives is no query, key or value."""
    fresh: dict[Axis | None, Axis] = {axis: axes.renewed(axis) for axis in axes_of(dim) if axis.kind == CHANNEL}
    return tuple(tuple(digit._replace(axis=fresh.get(digit.axis, digit.axis)) for digit in segment) for segment in dim)


def multi_head(axes: AxisFollower, call: Call) -> Label | None:
    label = axes.label_of(call.argument(0, "query"))
    return (*label[:-1], axes.channel(call.output.shape[-1])) if call.place == 0 else None


def einsum(axes: AxisFollower, call: Call) -> Label | None:
    equation, *operands = call.args
    operands = list(tensors(operands))
    terms, arrow, result = equation.replace(" ", "").partition("->")
    if not arrow:
        return None
    spelled = list(zip(terms.split(","), operands, strict=True))
    left = [operand.ndim - len(name) + 3 if "..." in name else 0 for name, operand in spelled]
    dots = "0123456789"[: max(left)]  # the names of what is spelled "..."
    names = [name.replace("...", dots[max(left) - count :]) for (name, _), count in zip(spelled, left, strict=True)]
    result = result.replace("...", dots)
    dims: dict[str, Dim] = {}
    followed = [
        (name, axes.label_of(operand))
        for name, operand in zip(names, operands, strict=True)
        if axes.of(operand) is not None
    ]
    for name, label in followed:
        for letter, dim in zip(name, label, strict=True):
            if letter not in dims or (
                has_kind(dim, PLACE, OWN, BATCH) and not has_kind(dims[letter], PLACE, OWN, BATCH)
            ):
                dims[letter] = dim
    places = [
        {letter for letter, dim in zip(name, label, strict=True) if has_kind(dim, PLACE, OWN)}
        for name, label in followed
    ]
    if len(followed) == 2 and places[0] - places[1]:  # places of one operand are weighed or compared with the other's
        if any(letter not in result for letter in places[1]):
            _cut(axes, [followed[1][1]])
            dims = {letter: _renewed(axes, dim) for letter, dim in dims.items()}
        elif places[1] - places[0]:
            _cut(axes, [label for _, label in followed])
    sizes = zip(result, call.output.shape, strict=True)
    return tuple(dims[letter] if letter in dims else axes.channel(size) for letter, size in sizes)
