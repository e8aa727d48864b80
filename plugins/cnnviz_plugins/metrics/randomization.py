"""Parameter randomization: the similarity of a map to the maps of a copy of the model with random weights.

The copy is private; the given model is only read.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from cnnviz import Metric, Trial, metric
from cnnviz.explanations import SIMILARITIES, Sign, evidence, map_similarity
from cnnviz.feature_visualization import RandomNumbers
from cnnviz_plugins.metrics._settings import check_choice


@metric
def randomization(
    order: Literal["cascading", "independent"] = "cascading",
    similarity: Literal["spearman", "ssim", "hog"] = "spearman",
    stops: int | None = 8,
    share: float = 1.0,
    sign: Sign = "auto",
) -> Metric:
    """Mean similarity of the map to maps of the model with random weights (Adebayo et al., 2018, arXiv:1810.03292).

    One number for each input, (N,), -1 to 1: about 0 for a map that depends on the weights, 1 for one that ignores
    them. Random are all layers from the output down to one layer ("cascading"), or that layer alone ("independent").
    There are ``stops`` such layers, evenly spread over the ``share`` of layers next to the output and ending with its
    last; 1 makes only that one map, None one for each layer with weights. Weights are drawn as by He et al. (2015,
    arXiv:1502.01852); biases are 0, normalizations as before training. A ReLU that the scores end in is left out of the
    copy: random scores are negative as often as not, and nothing would pass it. ``similarity`` is "spearman", the
    correlation of ranks, "ssim", or "hog", the correlation of histograms of oriented gradients, of images; it is 1 for
    two blank maps, 0 if only one is blank. Raises ValueError for an unknown ``order`` or ``similarity``, ``stops``
    below 1, a ``share`` outside of 0..1, and for a model that can't be copied or has no weights.
    """
    check_choice("order", order, "cascading", "independent")
    if similarity not in SIMILARITIES:
        raise ValueError(f"there is no similarity={similarity!r}; use {', '.join(SIMILARITIES)}")
    if stops is not None and stops < 1:
        raise ValueError(f"stops={stops} leaves no layer to stop at; use 1 or more, or None for all")

    if not 0 < share <= 1:
        raise ValueError(f"share={share:g} is no share of the layers; use more than 0, and up to 1")

    def score(trial: Trial) -> Tensor:
        run, maps = trial.run, evidence(trial.explanation, sign)
        names = run.layers.execution_order()
        if not names:
            raise ValueError(f"{type(run.model).__name__} has no weights to make random; there is nothing to test")
        ends = run.layers.last_rectifiers()
        model = _copied(run.model, ends)
        names = names[::-1][: max(1, round(share * len(names)))]
        count = len(names) if stops is None else min(stops, len(names))
        total = torch.zeros(len(maps), dtype=torch.float64, device=maps.device)
        done = 0
        for stop in range(1, count + 1):
            end = round(stop * len(names) / count)
            if order == "independent":
                model, done = _copied(run.model, ends), end - 1
            for place in range(done, end):
                randomize(model.get_submodule(names[place]), run.draws(place))
            done = end
            others = evidence(replace(trial.explanation, values=trial.again(model=model)), sign)
            pairs = zip(maps, others, strict=True)
            total += total.new_tensor([map_similarity(similarity, *pair) for pair in pairs])
        return total / count

    return score


def _copied(model: nn.Module, ends: Sequence[str]) -> nn.Module:
    """A copy in which the modules ``ends`` hand on what they are given."""
    try:
        other = copy.deepcopy(model)
    except Exception as error:  # a model may hold anything
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{type(model).__name__} can't be copied, and only a copy's weights may be made random: {reason}"
        ) from error
    for name in ends:
        place, _, attribute = name.rpartition(".")
        setattr(other.get_submodule(place), attribute, nn.Identity())
    return other


def randomize(module: nn.Module, draws: RandomNumbers) -> None:
    """Give a layer the weights that it might have before training."""
    if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm):
        module.reset_parameters()  # draws nothing
        return
    with torch.no_grad():
        for weight in module.parameters(recurse=False):
            if weight.ndim < 2:
                weight.zero_()
                continue
            fan_in = weight.numel() // len(weight)
            weight.copy_(draws.normal(weight.shape) * math.sqrt(2 / fan_in))
