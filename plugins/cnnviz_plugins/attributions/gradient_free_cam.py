"""Class activation maps without gradients: each channel's weight is what the score becomes with it, or without it.

Maps are (N, 1, *spatial) at the layer's own size. Channels that are the same everywhere are not asked about twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz import Expr, Layer, Run, activation, attribution, procedure

MODES = ("linear", "bilinear", "trilinear")


@attribution
def score_cam(
    layer: Layer = None,
    score: Literal["logit", "probability"] = "logit",
    channel_softmax: bool = True,
    norm_before: bool = False,
    align_corners: bool = False,
    channels: int | None = None,
    relu: bool = False,
) -> Expr:
    """Channels weighted by the score of the input seen through them (Wang et al., 2020, arXiv:1910.01279).

    Each channel, enlarged and brought to 0..1, masks the input; a softmax over the channels' scores gives the weights
    (``channel_softmax``), or the scores are the weights. ``score`` is the class's probability or the score as it is.
    ``norm_before`` brings to 0..1 before enlarging, ``align_corners`` is how it is enlarged. The paper's are the
    defaults; pytorch-grad-cam has align_corners, torchcam norm_before, the authors' program score="probability"
    without channel_softmax. ``channels`` asks only about so many, those that vary most, and leaves out the others. One
    forward pass for each channel.
    """
    _check_channels(channels)
    if score not in ("probability", "logit"):
        raise ValueError(f"there is no score {score!r}; it is 'probability' or 'logit'")

    def weighed(run: Run) -> Tensor:
        maps = run.activation(layer)
        flat = maps.flatten(2)
        low, reach = flat.amin(2), flat.amax(2) - flat.amin(2)
        order, place = _order(reach, channels)
        items = torch.arange(len(maps), device=maps.device)[:, None]

        def draw(start: int, stop: int) -> Tensor:
            some = order[:, start:stop]
            chosen = maps[items, some]
            chosen = _scaled(chosen, low[items, some], reach[items, some]) if norm_before else chosen
            mode = MODES[maps.ndim - 3]
            larger = F.interpolate(chosen, run.inputs.shape[2:], mode=mode, align_corners=align_corners)
            if not norm_before:
                ends = larger.flatten(2)
                larger = _scaled(larger, ends.amin(2), ends.amax(2) - ends.amin(2))
            return larger.transpose(0, 1).unsqueeze(2) * run.inputs  # (K, N, C, *spatial)

        asked = run.as_probability() if score == "probability" else run
        scores = asked.scores_of(order.shape[1], draw).T
        weights = scores.gather(1, place.clamp(min=0)).where(place >= 0, -torch.inf if channel_softmax else 0.0)
        return weights.softmax(1) if channel_softmax else weights

    return _combined(layer, weighed, relu)


@attribution
def ablation_cam(layer: Layer = None, channels: int | None = None, relu: bool = False) -> Expr:
    """Channels weighted by the share of the score that is lost without them (Desai & Ramaswamy, WACV 2020).

    A channel is taken away by making it zero, which says something where zero is what a ReLU leaves of nothing. Only
    what follows the layer is computed again. Signed: what is negative speaks against the target, also where the score
    itself is negative. ``channels`` asks only about so many, those with the largest values, and leaves out the others.
    """
    _check_channels(channels)

    def weighed(run: Run) -> Tensor:
        maps = run.activation(layer)
        order, place = _order(maps.flatten(2).abs().amax(2), channels)

        def change(start: int, stop: int, item: int) -> Tensor:
            changed = maps[item].expand(stop - start, *maps.shape[1:]).clone()
            changed[torch.arange(stop - start, device=maps.device), order[item, start:stop]] = 0
            return changed

        scores = run.scores_from(layer, order.shape[1], change).T
        lost = run.score[:, None] - scores
        reach = run.score.abs()[:, None]
        return (lost / reach.where(reach > 0, 1)).gather(1, place.clamp(min=0)).where(place >= 0, 0)

    return _combined(layer, weighed, relu)


def _order(importance: Tensor, channels: int | None) -> tuple[Tensor, Tensor]:
    """Which channels are asked about (N, K), the most important first, and at which place each of all is (N, C).

    Channels of no importance share one place. -1 are those that are not asked about.
    """
    alive = (importance > 0).sum(1, keepdim=True)
    count = min(importance.shape[1], int(alive.max()) + 1)
    order = importance.argsort(stable=True, dim=1, descending=True)
    place = torch.minimum(order.argsort(1), alive)
    asked = min(count, channels or count)
    return order[:, :asked], place.where(place < asked, -1)


def _scaled(maps: Tensor, low: Tensor, reach: Tensor) -> Tensor:
    """Each channel from 0 to 1; zero where it is the same everywhere."""
    low, reach = (each.view(*each.shape, *(1,) * (maps.ndim - 2)) for each in (low, reach))
    return (maps - low) / reach.where(reach > 0, 1)


def _combined(layer: Layer, weighed: Callable[[Run], Tensor], relu: bool) -> Expr:
    def combined(run: Run) -> Tensor:
        return torch.einsum("nc,nc...->n...", weighed(run).to(run.activation(layer)), run.activation(layer))[:, None]

    found = procedure(combined, needs=(activation(layer),))
    return found.relu() if relu else found


def _check_channels(channels: int | None) -> None:
    if channels is not None and channels < 1:
        raise ValueError(f"channels={channels} asks about nothing; say 1 or more, or none for all of them")
