"""Occlusion: the drop of the score when a window of the input is replaced, for every position of the window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from cnnviz import Expr, Run, attribution, procedure
from cnnviz.formulas import Baseline, baseline_input

WINDOWS_PER_SIDE = 7  # of the default size: 32 pixels of 224


@attribution
def occlusion(
    window: int | str | Sequence[int] | None = None,
    stride: int | str | Sequence[int] | None = None,
    baseline: Baseline = 0.0,
) -> Expr:
    """Drop of the score when a sliding window is replaced by the baseline (Zeiler & Fergus, 2014, arXiv:1311.2901).

    Values (N, 1, *spatial), or (N, C, *spatial) for a window of channels, in units of the score: at each place the mean
    over the windows that cover it. ``window`` is a length in pixels, or one for each dimension such as 16,32; with one
    more, the first is of channels. None is a seventh of each side. It moves by ``stride`` (None: half the window); the
    last one is cut off at the border. Over inputs (N, F) it moves along the features, and values are (N, F). Raises
    ValueError for windows larger than the input, for strides larger than the window, which would leave places out, and
    for another number of lengths.
    """
    start = baseline_input(baseline)

    def computed(run: Run) -> Tensor:
        size = run.model_inputs.size or run.inputs.shape[1:]
        of_features = run.inputs.ndim == 2
        lengths = _lengths("window", window, len(size)) or [max(1, round(side / WINDOWS_PER_SIDE)) for side in size]
        strides = _lengths("stride", stride, len(size)) or [max(1, length // 2) for length in lengths]
        strides = [1] * (len(lengths) - len(strides)) + strides
        if len(strides) != len(lengths):
            raise ValueError(f"there are {len(strides)} strides for windows of {len(lengths)} dimensions; give as many")
        sides = run.inputs.shape[-len(lengths) :]
        begins = [_begins(*axis) for axis in zip(sides, lengths, strides, strict=True)]
        corners = list(product(*begins))
        replacement = start(run)

        first = torch.tensor(corners, device="cpu")
        last = torch.minimum(first + torch.tensor(lengths, device="cpu"), torch.tensor(sides, device="cpu"))
        boxes = torch.stack([first, last], 2)[:, -len(size) :]  # (windows, dimensions, 2)

        def inside(number: int, item: int) -> Tensor:
            covered = [slice(begin, begin + length) for begin, length in zip(corners[number], lengths, strict=True)]
            if len(lengths) == len(size):
                return replacement[item][(slice(None), *covered)]
            content = run.inputs[item][(slice(None), *covered[1:])].clone()
            content[covered[0]] = replacement[item][tuple(covered)]
            return content

        def draw(start: int, stop: int) -> Tensor:
            variants = run.inputs.expand(stop - start, *run.inputs.shape).clone()
            for variant, (begin,) in zip(variants, corners[start:stop], strict=True):
                variant[:, begin : begin + lengths[0]] = replacement[:, begin : begin + lengths[0]]
            return variants

        scores = run.scores_of(len(corners), draw) if of_features else run.scores_of_boxes(boxes, inside)
        covers = [_covers(*axis, run.inputs) for axis in zip(sides, lengths, begins, strict=True)]
        drops = (run.score - scores).to(covers[0].dtype).T.reshape(len(run.inputs), *map(len, begins))
        with torch.autocast(run.inputs.device.type, enabled=False):
            for cover in covers:  # each step turns the first axis of windows into one of places, and puts it last
                drops = torch.tensordot(drops, cover / cover.sum(1, keepdim=True), dims=([1], [1]))
        return drops if of_features or len(lengths) > len(size) else drops[:, None]

    return procedure(computed, variants=True)


def _lengths(name: str, lengths: int | str | Sequence[int] | None, rank: int) -> list[int]:
    """One length for each spatial dimension, after one of channels if it is given; empty for None."""
    if lengths is None:
        return []
    parts = lengths.split(",") if isinstance(lengths, str) else [lengths] if isinstance(lengths, int) else lengths
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        raise ValueError(f"{name} is a length or several, such as 16,32, not {lengths!r}") from None
    numbers = numbers * rank if len(numbers) == 1 else numbers
    if len(numbers) not in (rank, rank + 1) or min(numbers) < 1:
        raise ValueError(f"{name}={lengths} does not fit {rank} dimensions; give 1 or more pixels for each")
    return numbers


def _begins(side: int, length: int, stride: int) -> range:
    """Where windows begin along one axis."""
    if length > side:
        raise ValueError(f"a window of {length} does not fit a side of {side}; make it smaller")
    if stride > length and length < side:
        raise ValueError(f"a stride of {stride} passes over places with a window of {length}; make it smaller")
    return range(0, (math.ceil((side - length) / stride) + 1) * stride, stride)


def _covers(side: int, length: int, begins: range, like: Tensor) -> Tensor:
    """1 where a place lies in a window, 0 elsewhere, (side, windows)."""
    places = torch.arange(side, device=like.device)[:, None]
    firsts = begins.start + begins.step * torch.arange(len(begins), device=like.device)
    return ((places >= firsts) & (places < firsts + length)).to(torch.promote_types(like.dtype, torch.float32))
