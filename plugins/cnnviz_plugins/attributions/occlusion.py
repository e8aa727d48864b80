"""What the score loses when parts of the input are taken away, one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cnnviz import Baseline, Expr, Run, attribution, baseline_input, procedure
from cnnviz_plugins.attributions._superpixels import cut

SHARE = 7  # windows side by side, where nobody says how large they are: 32 pixels of 224


@attribution
def occlusion(
    window: int | str | Sequence[int] | None = None,
    stride: int | str | Sequence[int] | None = None,
    baseline: Baseline = 0.0,
) -> Expr:
    """What the score loses when a window is covered, wherever the window goes (Zeiler & Fergus, 2014, arXiv:1311.2901).

    ``window`` is a length in pixels, or one for each dimension such as 16,32; with one more, the first is of channels.
    None is a seventh of each side. It moves by ``stride`` (None: half the window); the last one is cut off at the
    border. Values (N, 1, *spatial), or (N, C, *spatial) for a window of channels: at each place the mean over the
    windows that cover it, in units of the score. Raises ValueError for windows larger than the input, or strides larger
    than the window, which would leave places out.
    """
    start = baseline_input(baseline)

    def computed(run: Run) -> Tensor:
        size = run.inputs.shape[2:]
        if not size:
            raise ValueError(f"the input is {tuple(run.inputs.shape)}, without spatial extent: no window can move")
        lengths = _lengths("window", window, len(size)) or [max(1, round(length / SHARE)) for length in size]
        strides = _lengths("stride", stride, len(size)) or [max(1, length // 2) for length in lengths]
        strides = [1] * (len(lengths) - len(strides)) + strides
        if len(strides) != len(lengths):
            raise ValueError(f"there are {len(strides)} strides for windows of {len(lengths)} dimensions; give as many")
        sides = run.inputs.shape[-len(lengths) :]
        places = [_places(*each) for each in zip(sides, lengths, strides, strict=True)]
        covering = [_covering(*each, run.inputs) for each in zip(sides, lengths, places, strict=True)]
        count = math.prod(len(each) for each in places)
        replacement = start(run)

        boxes = torch.tensor([_box(_window(number, places, lengths), size) for number in range(count)], device="cpu")

        def inside(number: int, item: int) -> Tensor:
            covered = _window(number, places, lengths)
            hidden = replacement[item]
            if len(lengths) == len(size):
                return hidden[(slice(None), *covered)]
            held = run.inputs[item][(slice(None), *covered[1:])].clone()
            held[covered[0]] = hidden[covered]
            return held

        scores = run.scores_of_boxes(boxes, inside)
        lost = (run.score - scores).to(covering[0].dtype).T.reshape(len(run.inputs), *map(len, places))
        with torch.autocast(run.inputs.device.type, enabled=False):
            for each in covering:  # each turns the foremost number of windows into a place, and puts it behind
                lost = torch.tensordot(lost, each / each.sum(1, keepdim=True), dims=([1], [1]))
        return lost if len(lengths) > len(size) else lost[:, None]

    return procedure(computed)


@attribution
def feature_ablation(segments: str | Tensor = "auto", pieces: int = 50, baseline: Baseline = 0.0) -> Expr:
    """What the score loses without each piece of the input (captum; Kokhlikyan et al., 2020, arXiv:2009.07896).

    ``segments`` is a tensor of whole numbers, (*spatial) or (1 or N, 1 or C, *spatial), whose equal numbers are one
    piece; or how to find about so many ``pieces``: slic or quickshift for superpixels, equal for equal parts, auto
    for slic on images and equal parts on others (quickshift finds its own number). Values (N, 1, *spatial), or
    (N, C, *spatial) for segments that differ between channels, in units of the score.
    """

    def computed(run: Run) -> Tensor:
        found = cut(run, segments, pieces)
        replacement = found.replacement(run, baseline)

        def draw(begin: int, end: int) -> Tensor:
            numbers = torch.arange(found.most, device=run.inputs.device)
            kept = numbers != numbers[begin:end, None]  # (K, M)
            return found.without(run.inputs, kept[:, None].expand(-1, len(run.inputs), -1), replacement)

        return found.spread((run.score - run.scores_of(found.most, draw)).T)

    return procedure(computed)


def _lengths(name: str, asked: int | str | Sequence[int] | None, rank: int) -> list[int]:
    """One length for each dimension, perhaps with channels before; nothing where nothing is asked for."""
    if asked is None:
        return []
    try:
        found = [int(each) for each in asked.split(",")] if isinstance(asked, str) else asked
    except ValueError:
        raise ValueError(f"{name} is a length or several, such as 16,32, not {asked!r}") from None
    lengths = [found] * rank if isinstance(found, int) else list(found)
    lengths = lengths * rank if len(lengths) == 1 else lengths
    if len(lengths) not in (rank, rank + 1) or min(lengths) < 1:
        raise ValueError(f"{name}={asked} does not fit {rank} dimensions; give 1 or more pixels for each")
    return lengths


def _places(side: int, length: int, stride: int) -> range:
    """Where windows begin."""
    if length > side:
        raise ValueError(f"a window of {length} does not fit a side of {side}; make it smaller")
    if stride > length and length < side:
        raise ValueError(f"a stride of {stride} passes over places with a window of {length}; make it smaller")
    return range(0, (math.ceil((side - length) / stride) + 1) * stride, stride)


def _covering(side: int, length: int, places: range, like: Tensor) -> Tensor:
    """Which window covers which place, (side, windows)."""
    at = torch.arange(side, device=like.device)[:, None]
    begins = torch.tensor(places, device=like.device)
    return ((at >= begins) & (at < begins + length)).to(torch.promote_types(like.dtype, torch.float32))


def _box(window: Sequence[slice], size: Sequence[int]) -> list[list[int]]:
    """Where it begins and ends in space, at the border of the input at the latest."""
    spans = zip(window[-len(size) :], size, strict=True)
    return [[each.start, min(each.stop, side)] for each, side in spans]


def _window(number: int, places: Sequence[range], lengths: Sequence[int]) -> tuple[slice, ...]:
    """The window of that number, the last dimension's counted first."""
    found = []
    for each, length in zip(reversed(places), reversed(lengths), strict=True):
        number, place = divmod(number, len(each))
        found.append(slice(each[place], each[place] + length))
    return tuple(reversed(found))
