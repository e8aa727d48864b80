"""Class activation maps without gradients: a channel's weight is the score with that channel alone, or without it.

Maps are (N, 1, *spatial) at the layer's own size. Channels that are constant (Score-CAM) or zero (Ablation-CAM) share
one score.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from cnnviz import Expr, Layer, Run, activation, attribution, procedure
from cnnviz.formulas import reads_at_once
from cnnviz.images import resize
from cnnviz_plugins.attributions._layer_settings import of_layers
from cnnviz_plugins.attributions._normalization import min_max


@attribution
@of_layers
def score_cam(
    layer: Layer = None,
    score: Literal["logit", "probability"] = "logit",
    channel_softmax: bool = True,
    norm_before: bool = False,
    align_corners: bool = False,
    channels: int | None = None,
    relu: bool = False,
) -> Expr:
    """Channels weighted by the score of the input masked with each of them (Wang et al., 2020, arXiv:1910.01279).

    Map (N, 1, *spatial) at the layer's size, in units of the activation. Each channel, interpolated to the input's size
    and normalized to 0..1, multiplies the input; the weights are a softmax over the channels' scores
    (``channel_softmax``), or the scores themselves. ``score`` is the class's "probability" or its "logit", the score as
    it is. ``norm_before`` normalizes before interpolation, ``align_corners`` is the interpolation's. The defaults are
    the paper's; pytorch-grad-cam has align_corners, torchcam norm_before, the authors' program score="probability"
    without channel_softmax. ``channels`` is the number of channels to use, those with the largest range; ``relu`` keeps
    the positive part of the map. One forward pass for each channel. Raises ValueError for an unknown ``score``, or
    ``channels`` below 1.
    """
    _check_channels(channels)
    if score not in ("probability", "logit"):
        raise ValueError(f"there is no score {score!r}; it is 'probability' or 'logit'")

    def weights_of(run: Run) -> Tensor:
        size, maps = run.model_inputs.size, run.activation(layer)
        if not size:
            raise ValueError(f"the input is {tuple(run.inputs.shape)}, without spatial extent: a map can't mask it")
        order, place = _order(maps.flatten(2).amax(2) - maps.flatten(2).amin(2), channels)
        run.layers.check_over_input()
        items = torch.arange(len(maps), device=maps.device)[:, None]

        def draw(start: int, stop: int) -> Tensor:
            # one channel for each item of a batch: interpolation of several at once depends on their number by rounding
            masks = maps[items, order[:, start:stop]].transpose(0, 1).flatten(0, 1)[:, None]
            masks = min_max(masks) if norm_before else masks
            masks = resize(masks, size, "corners" if align_corners else "linear")
            masks = masks if norm_before else min_max(masks)
            return masks.view(-1, len(maps), *masks.shape[1:]) * run.inputs  # (K, N, C, *spatial)

        question = run.as_probability() if score == "probability" else run
        scores = question.scores_of(order.shape[1], draw).T
        weights = scores.gather(1, place.clamp(min=0)).where(place >= 0, -torch.inf if channel_softmax else 0.0)
        return weights.softmax(1) if channel_softmax else weights

    return _weighted_sum(layer, weights_of, relu)


@attribution
@of_layers
def ablation_cam(layer: Layer = None, channels: int | None = None, relu: bool = False) -> Expr:
    """Channels weighted by the score drop without them (Desai & Ramaswamy, 2020, doi:10.1109/WACV45572.2020.9093360).

    Map (N, 1, *spatial) at the layer's size, in units of the activation; a weight is the drop divided by the score's
    magnitude, so that the map is negative where a channel speaks against the target, also if the score itself is
    negative. A channel is ablated by setting it to zero, which is meaningful for layers with a ReLU behind them. Only
    what follows the layer is computed again. ``channels`` is the number of channels to use, those with the largest
    magnitudes; ``relu`` keeps the positive part of the map. Raises ValueError for ``channels`` below 1.
    """
    _check_channels(channels)

    def weights_of(run: Run) -> Tensor:
        maps = run.activation(layer)
        order, place = _order(maps.flatten(2).abs().amax(2), channels)

        def change(start: int, stop: int, item: int) -> Tensor:
            changed = maps[item].expand(stop - start, *maps.shape[1:]).clone()
            changed[torch.arange(stop - start, device=maps.device), order[item, start:stop]] = 0
            return changed

        scores = run.scores_from(layer, order.shape[1], change).T
        drops = run.score[:, None] - scores
        magnitude = run.score.abs()[:, None]
        return (drops / magnitude.where(magnitude > 0, 1)).gather(1, place.clamp(min=0)).where(place >= 0, 0)

    return _weighted_sum(layer, weights_of, relu)


def _order(importance: Tensor, channels: int | None) -> tuple[Tensor, Tensor]:
    """Channels to score, the most important first, (N, K), and the place of each channel in that order, (N, C).

    Channels of importance 0 share one place. Channels that are not scored have place -1. While values are not read, all
    channels are scored: how many are alive would have to be waited for.
    """
    alive = (importance > 0).sum(1, keepdim=True)
    count = min(importance.shape[1], int(alive.max()) + 1) if reads_at_once() else importance.shape[1]
    count = min(count, channels or count)
    order = importance.argsort(stable=True, dim=1, descending=True)
    place = torch.minimum(order.argsort(1), alive)
    return order[:, :count], place.where(place < count, -1)


def _weighted_sum(layer: Layer, weights_of: Callable[[Run], Tensor], relu: bool) -> Expr:
    def weighted(run: Run) -> Tensor:
        maps = run.activation(layer)
        return torch.einsum("nc,nc...->n...", weights_of(run).to(maps), maps)[:, None]

    cam = procedure(weighted, needs=(activation(layer),), variants=True)
    return cam.relu() if relu else cam


def _check_channels(channels: int | None) -> None:
    if channels is not None and channels < 1:
        raise ValueError(f"channels={channels} asks about nothing; say 1 or more, or none for all of them")
