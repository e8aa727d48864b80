"""Where the axes of an input lie is followed exactly: a label tells, for each value, from which position it came."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.axes import BATCH, CHANNEL, PLACE, AxisFollower, Digit, Label, segment_size
from cnnviz.engine.axis_rules import RULES

SHAPE = (2, 3, 4, 6)


def positions(axis: int) -> Tensor:
    """A tensor of the input's shape that holds each value's position on one axis."""
    sizes = [1] * len(SHAPE)
    sizes[axis] = SHAPE[axis]
    return torch.arange(SHAPE[axis], dtype=torch.float64).reshape(sizes).expand(SHAPE).clone()


def number_of(digit: Digit) -> int | None:
    """Which dimension of the input a digit is of."""
    if digit.axis is None:
        return None
    if digit.axis.kind == PLACE:
        return 2 + digit.axis.number
    return {BATCH: 0, CHANNEL: 1}.get(digit.axis.kind)


def told(label: Label, shape: tuple[int, ...]) -> dict[tuple[int, ...], list[tuple[int, int, int, int]]]:
    """For every index of a tensor what its label says: (input dimension, stride, size, value of that digit)."""
    answer = {}
    for index in itertools.product(*map(range, shape)):
        digits = []
        for dim, place in zip(label, index, strict=True):
            for segment in dim:
                if place < segment_size(segment):
                    break
                place -= segment_size(segment)
            rest = place
            for digit in reversed(segment):
                value, rest = rest % digit.size, rest // digit.size
                axis = digit.axis
                number = number_of(digit)
                if axis is None or number is None or axis.partial:
                    continue
                if (axis.flipped or axis.shift) and not digit.whole:
                    continue  # the digits of positions that were moved
                if digit.whole:
                    value = axis.length - 1 - value if axis.flipped else value
                    value = (value - axis.shift) % axis.length
                coarse = SHAPE[number] // axis.length  # of the axis only the slowest digits are left
                digits.append((number, digit.stride * coarse, digit.size, value))
        answer[index] = digits
    return answer


def check(moves: Callable[[Tensor], Tensor], *, known: int | None = None) -> Label:
    """Compare a label with where the values really come from. ``known``: so many input dimensions are told of."""
    follower = AxisFollower(RULES)
    results = []
    for axis in range(len(SHAPE)):
        values = positions(axis)
        if axis == 0:
            follower.follow(values)
            with follower:
                results.append(moves(values))
        else:
            results.append(moves(values))
    label = follower.of(results[0])
    assert label is not None
    for index, digits in told(label, tuple(results[0].shape)).items():
        for number, stride, size, value in digits:
            position = int(results[number][index])
            assert position // stride % size == value, (index, label)
    if known is not None:
        first = told(label, tuple(results[0].shape))[(0,) * results[0].ndim]
        assert len({number for number, *_ in first}) == known
    return label


def windows(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 3, 3, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 6, c)


def back(x: Tensor) -> Tensor:
    return x.reshape(2, 2, 2, 2, 3, 3).permute(0, 1, 3, 2, 4, 5).reshape(2, 4, 6, 3)


def with_token(x: Tensor) -> Tensor:
    return torch.cat([torch.zeros(2, 1, 3, dtype=x.dtype), x.flatten(2).mT], 1)


EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "tokens": lambda x: x.flatten(2).transpose(1, 2),
    "and back": lambda x: x.flatten(2).transpose(1, 2).mT.view(2, 3, 4, 6),
    "channels last": lambda x: x.permute(0, 2, 3, 1),
    "movedim": lambda x: x.movedim(1, -1).movedim((0, 1), (1, 0)),
    "time first": lambda x: x.permute(2, 3, 0, 1).flatten(0, 1),
    "folded": lambda x: x.transpose(1, 2).flatten(0, 1),
    "windows": windows,
    "windows and back": lambda x: back(windows(x)),
    "rolled": lambda x: x.roll((1, -2), (2, 3)),
    "rolled back": lambda x: x.roll((1, -2), (2, 3)).roll((-1, 2), (2, 3)),
    "flipped": lambda x: x.flip(3),
    "tokens flipped": lambda x: x.flatten(2).flip(2),
    "a class token and tokens flipped": lambda x: with_token(x).flip(1)[:, :-1],
    "fliplr, flipud": lambda x: x.permute(2, 3, 0, 1).fliplr().flipud(),
    "a quarter": lambda x: x.rot90(1, (2, 3)),
    "three quarters": lambda x: torch.rot90(x, -1, (3, 2)).rot90(k=2, dims=(-2, 1)),
    "T": lambda x: x[0, 1].T,
    "chunk": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "unbind and stack": lambda x: torch.stack(list(x.unbind(0))),
    "as a list": lambda x: torch.stack(list(x)),
    "squeezed": lambda x: x.unsqueeze(2).unsqueeze(0).squeeze(0).squeeze(2),
    "expanded": lambda x: x[:, None].expand(2, 5, 3, 4, 6),
    "repeated": lambda x: x.repeat(2, 1, 1, 1),
    "new axes": lambda x: x[:, None, ..., None],
    "Tensor.unfold": lambda x: x.unfold(2, 2, 2).unfold(3, 3, 3),
    "added": lambda x: x + torch.zeros(3, 1, 1, dtype=x.dtype),
    "in place": lambda x: x.clone().relu_().mul_(1.0),
    "padded tokens": lambda x: F.pad(x.flatten(2), (2, 1))[..., 2:-1],
    "a class token and registers taken off": lambda x: with_token(x)[:, 1:],
    "the batch twice": lambda x: torch.cat([x, x])[2:],
}


@pytest.mark.parametrize("name", EXACT)
def test_where_every_value_came_from(name: str) -> None:
    check(EXACT[name], known={"T": 2, "chunk": 3, "three quarters": 3}.get(name, 4))


def test_random_moves() -> None:
    """Four hundred random sequences of moves; whatever a label tells is true, and most is told."""
    drawn = random.Random(0)

    def step(x: Tensor) -> tuple[str, Callable[[Tensor], Tensor]]:
        kind = drawn.choice(["permute", "merge", "split", "roll", "flip", "chunk", "cat", "slice", "squeeze"])
        dim = drawn.randrange(x.ndim)
        size = x.shape[dim]
        if kind == "permute":
            order = drawn.sample(range(x.ndim), x.ndim)
            return kind, lambda x: x.permute(order)
        if kind == "merge" and x.ndim > 1:
            first = drawn.randrange(x.ndim - 1)
            return kind, lambda x: x.flatten(first, first + 1)
        if kind == "split" and x.ndim < 6:
            factor = drawn.choice([n for n in range(1, size + 1) if size % n == 0])
            return kind, lambda x: x.unflatten(dim, (factor, size // factor))
        if kind == "roll":
            return kind, lambda x: x.roll(1, dim)
        if kind == "flip":
            return kind, lambda x: x.flip(dim)
        if kind == "chunk":
            return kind, lambda x: torch.cat(x.split(max(1, size // 2), dim), dim)
        if kind == "cat" and x.numel() < 2000:
            return kind, lambda x: torch.cat([x, x], dim)
        if kind == "slice" and size > 1:
            return kind, lambda x: x.narrow(dim, size // 2, size - size // 2)
        return "unsqueeze", lambda x: x.unsqueeze(dim)

    labelled = 0
    for _ in range(400):
        steps: list[Callable[[Tensor], Tensor]] = []
        x = positions(0)
        for _ in range(drawn.randrange(2, 7)):
            _, move = step(x)
            x = move(x)
            steps.append(move)

        def moves(x: Tensor, steps: list[Callable[[Tensor], Tensor]] = steps) -> Tensor:
            for each in steps:
                x = each(x)
            return x

        try:
            check(moves)
            labelled += 1
        except AssertionError as error:
            if "label is not None" not in str(error) and "is not None" not in str(error):
                raise
    assert labelled > 330
