"""Projections: feature maps of single channels carried back to the input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Literal

import torch
from torch import Tensor

from cnnviz import Expr, Formula, Layer, Run, activation, attribution, lift, noted, procedure, toward
from cnnviz.objectives import Objective, Seen

Start = Literal["map", "unit"]


@attribution(renderer="by_channel")
def projections(
    layer: Layer = None,
    channels: str | int | Sequence[int] | None = None,
    top: int = 12,
    start: Start = "map",
    by: Literal["mean", "max"] | None = None,
    of: Formula = "deconvnet",
) -> Expr:
    """Feature maps of single channels projected back to the input (Zeiler & Fergus, 2014, arXiv:1311.2901).

    Values (N, K * C, *spatial), C of each of K channels, in units of the activation, whatever the target;
    ``unflatten(1, (K, -1))`` separates them. The notes ``channel`` and ``activation`` (N, K) are the channels' numbers
    and strengths. Each channel is carried back alone, by the attribution ``of``: its whole map (``start="map"``) or
    only its strongest unit (``"unit"``). ``channels`` are numbers, such as "5,9" or (5, 9); None takes the ``top``
    strongest of each input, the strongest first. Strength is the channel's mean or maximum over space (``by``; None:
    the mean for maps, the maximum for units). ``layer`` None is the last layer with spatial extent.

    Negative values of a map are left out, as by a ReLU behind it. Where windows of a max-pool overlap, what they return
    to one place adds up, as gradients do. One forward pass and one backward for each channel; one more forward for each
    input of a batch whose channels differ. Raises ValueError for an unknown ``start`` or ``by``, ``top`` below 1, and
    for a channel that does not exist; LookupError if no rectifier is before the layer: use the setting ``smooth`` of
    ``of`` for networks with other activations, ``of="gradient"`` for a layer before the first of them.
    """
    if start not in ("map", "unit"):
        raise ValueError(f"there is no start {start!r}; it is 'map', all of a channel, or 'unit', its strongest")
    if by not in (None, "mean", "max"):
        raise ValueError(f"there is no strength by {by!r}; it is 'mean' or 'max'")
    if top < 1:
        raise ValueError(f"top={top} shows nothing; use 1 or more")
    strengths = _strengths(activation(layer, spatial=False), by or ("mean" if start == "map" else "max"))
    selected = _selected(strengths, channel_numbers(channels), top)

    def projected(run: Run) -> Tensor:
        numbers = selected(run).tolist()
        place: Layer = layer
        if place is None:  # the automatic layer of the score, and not that of a channel
            place = run.layer_name(place)
        if all(row == numbers[0] for row in numbers):
            return _carried(run, of, place, numbers[0], start)
        first = _HalfSquares(place, 0, start)  # the output may be no scores of classes
        return torch.cat(
            [_carried(_single(run, item, first), of, place, row, start) for item, row in enumerate(numbers)]
        )

    needs = (toward(of, _HalfSquares(layer, 0, start)), selected)
    values = noted(procedure(projected, needs), "channel", selected)
    return noted(values, "activation", _strengths_of(strengths, selected))


@dataclass(frozen=True)
class _HalfSquares(Objective):
    """Half the squares of a channel's positive part, or of its strongest unit's: the gradient there is that part."""

    layer: Layer
    index: int
    start: Start

    def __call__(self, seen: Seen, /) -> Tensor:
        maps = seen.layer(self.layer)
        units = maps[:, self.index].reshape(len(maps), -1)
        units = (units + units.abs()) / 2  # rules would act on a ReLU, and hide that the network has none
        units = units if self.start == "map" else units.max(1, keepdim=True).values
        # squares of half precision overflow
        return units.to(torch.promote_types(units.dtype, torch.float32)).square().sum(1) / 2


def _carried(run: Run, of: Expr, layer: Layer, numbers: Sequence[int], start: Start) -> Tensor:
    return torch.cat([toward(of, _HalfSquares(layer, number, start))(run) for number in numbers], 1)


def _single(run: Run, item: int, target: Objective) -> Run:
    """One input of a batch by itself."""
    return Run(run.model, run.model_inputs.rows(slice(item, item + 1)), target, options=run.options)


@lift
def _strengths(maps: Tensor, by: str) -> Tensor:
    """The strength of every channel, (N, C)."""
    units = maps.relu().reshape(*maps.shape[:2], -1)
    return units.mean(2) if by == "mean" else units.amax(2)


@lift
def _selected(strengths: Tensor, numbers: tuple[int, ...] | None, top: int) -> Tensor:
    """Numbers of channels, (N, K)."""
    items, count = strengths.shape
    if numbers is None:
        return strengths.argsort(stable=True, dim=1, descending=True)[:, :top]
    for number in numbers:
        if not 0 <= number < count:
            raise ValueError(f"there is no channel {number}; the layer has {count}, numbered 0 to {count - 1}")
    return torch.tensor(numbers, device=strengths.device).expand(items, -1)


@lift
def _strengths_of(strengths: Tensor, numbers: Tensor) -> Tensor:
    return strengths.gather(1, numbers)


def channel_numbers(channels: str | int | Sequence[int] | None) -> tuple[int, ...] | None:
    """The channels of a setting, such as "5,9". Raises ValueError for others, and for none of them."""
    if channels is None:
        return None
    try:
        if isinstance(channels, str):
            numbers = tuple(map(int, channels.split(",")))
        else:
            numbers = tuple(map(index, channels if isinstance(channels, Iterable) else [channels]))
    except (TypeError, ValueError):
        raise ValueError(f"channels are numbers with commas between, such as 5,9, not {channels!r}") from None
    if not numbers:
        raise ValueError("no channels are named; give at least one, or None for the strongest")
    return numbers
