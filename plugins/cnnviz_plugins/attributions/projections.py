"""What of the input makes channels respond: chosen feature maps carried back to it, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cnnviz import Expr, Formula, Layer, Objective, Run, Seen, activation, attribution, lift, noted, procedure, toward

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
    """Feature maps projected back to the input, whatever the target (Zeiler & Fergus, 2014, arXiv:1311.2901).

    Each channel's map is carried back by ``of`` alone, begun as it is (``start="map"``) or with only its strongest unit
    (``"unit"``). Values (N, K * C, *spatial), C of each of K channels, in the units of the activation: unflatten(1,
    (K, -1)) parts them. The notes ``channel`` and ``activation`` (N, K) are the channels' numbers and how strong they
    are. ``channels`` are numbers, such as "5,9" or (5, 9); None takes the ``top`` strongest of each input, the
    strongest first, ``by`` their mean over space or their strongest unit (None: by what is begun with). ``layer`` None
    is the last layer with spatial extent.

    What is negative in a map is left out, as the rectifier after it would do. Where the windows of a max-pool overlap,
    what comes back to one place from several of them adds up, as gradients do. One forward pass and one backward for
    each channel; one more forward for each input of a batch whose channels differ. Raises ValueError for a channel
    there is not, LookupError where no rectifier is before the layer: the setting ``smooth`` of ``of`` is the way out
    for networks of other activations, ``of="gradient"`` for a layer before the first of them.
    """
    if start not in ("map", "unit"):
        raise ValueError(f"there is no start {start!r}; it is 'map', all of a channel, or 'unit', its strongest")
    if by not in (None, "mean", "max"):
        raise ValueError(f"there is no strength by {by!r}; it is 'mean' or 'max'")
    if top < 1:
        raise ValueError(f"top={top} shows nothing; use 1 or more")
    asked = _numbers(channels)
    strengths = _strengths(activation(layer, spatial=False), by or ("mean" if start == "map" else "max"))
    chosen = _chosen(strengths, asked, top)

    def projected(run: Run) -> Tensor:
        numbers = chosen(run).tolist()
        if all(each == numbers[0] for each in numbers):
            return _carried(run, of, layer, numbers[0], start)
        return torch.cat([_carried(_one(run, item), of, layer, each, start) for item, each in enumerate(numbers)])

    needs = (toward(of, _Begun(layer, 0, start)), chosen)
    return noted(noted(procedure(projected, needs), "channel", chosen), "activation", _picked(strengths, chosen))


@dataclass(frozen=True)
class _Begun(Objective):
    """Half the squares of what is positive in a channel, or of its strongest unit: its gradient there is just that."""

    layer: Layer
    index: int
    start: Start

    def __call__(self, seen: Seen, /) -> Tensor:
        shown = seen.layer(self.layer)
        units = shown[:, self.index].reshape(len(shown), -1)
        units = units * (units > 0)  # a ReLU would be met by rules, and hide that the network has none
        units = units if self.start == "map" else units.max(1, keepdim=True).values
        # squares of half precision overflow
        return units.to(torch.promote_types(units.dtype, torch.float32)).square().sum(1) / 2


def _carried(run: Run, of: Expr, layer: Layer, numbers: Sequence[int], start: Start) -> Tensor:
    return torch.cat([toward(of, _Begun(layer, number, start))(run) for number in numbers], 1)


def _one(run: Run, item: int) -> Run:
    """One input of a batch by itself."""
    part = slice(item, item + 1)
    others = [each[part] for each in run.others]
    return Run(run.model, run.inputs[part], others=others, options=run.options)


@lift
def _strengths(maps: Tensor, by: str) -> Tensor:
    """How strong every channel is, (N, C)."""
    units = maps.relu().reshape(*maps.shape[:2], -1)
    return units.mean(2) if by == "mean" else units.amax(2)


@lift
def _chosen(strengths: Tensor, asked: tuple[int, ...] | None, top: int) -> Tensor:
    """Numbers of channels, (N, K)."""
    items, count = strengths.shape
    if asked is None:
        return strengths.argsort(stable=True, dim=1, descending=True)[:, :top]
    for number in asked:
        if not 0 <= number < count:
            raise ValueError(f"there is no channel {number}; the layer has {count}, numbered 0 to {count - 1}")
    return torch.tensor(asked, device=strengths.device).expand(items, -1)


@lift
def _picked(strengths: Tensor, chosen: Tensor) -> Tensor:
    return strengths.gather(1, chosen)


def _numbers(channels: str | int | Sequence[int] | None) -> tuple[int, ...] | None:
    if channels is None:
        return None
    parts = channels.split(",") if isinstance(channels, str) else [channels] if isinstance(channels, int) else channels
    try:
        numbers = tuple(int(each) for each in parts)
    except ValueError:
        raise ValueError(f"channels are numbers with commas between, such as 5,9, not {channels!r}") from None
    if not numbers:
        raise ValueError("no channels are named; give at least one, or None for the strongest")
    return numbers
