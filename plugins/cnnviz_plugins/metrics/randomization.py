"""Whether a map depends on what the network has learned: maps of a copy whose weights are made random, beside its own.

The copy is private; the model that was given is only read.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from cnnviz import Explanation, Sign, Trial, evidence, metric
from cnnviz_plugins.metrics._map_similarity import SIMILARITIES, alike
from cnnviz_plugins.metrics._ranking import Scored


@metric
def randomization(
    order: Literal["cascading", "independent"] = "cascading",
    similarity: Literal["spearman", "ssim", "hog"] = "spearman",
    stops: int | None = 8,
    share: float = 1.0,
    sign: Sign = "auto",
) -> Scored:
    """How alike the map stays when weights are made random (Adebayo et al., 2018, arXiv:1810.03292).

    1 for a map that ignores them, about 0 for one that depends on them: the mean similarity to the maps of a private
    copy whose layers are random from the output down to one layer (``"cascading"``), or in that layer alone
    (``"independent"``). There are ``stops`` such layers, evenly spread over the ``share`` of layers next to the output,
    the last of them where that ends: 1 makes only that one map, None one for each layer with weights. Random are
    weights as He et al. (2015, arXiv:1502.01852) draw them; biases are 0, normalizations as before training.
    ``similarity``: "spearman", of the evidence's ranks; "ssim"; or "hog", the correlation of histograms of oriented
    gradients, of images. A blank map is like another blank one, and like no other.
    """
    if order not in ("cascading", "independent"):
        raise ValueError(f"there is no order={order!r}; use 'cascading' or 'independent'")
    if similarity not in SIMILARITIES:
        raise ValueError(f"there is no similarity={similarity!r}; use {', '.join(SIMILARITIES)}")
    if stops is not None and stops < 1:
        raise ValueError(f"stops={stops} leaves no layer to stop at; use 1 or more, or None for all")

    if not 0 < share <= 1:
        raise ValueError(f"share={share:g} is no share of the layers; use more than 0, and up to 1")

    def score(trial: Trial) -> Tensor:
        run, own = trial.run, evidence(trial.explanation, sign)
        model = _copied(run.model)
        names = run.execution_order()
        if not names:
            raise ValueError(f"{type(run.model).__name__} has no weights to make random; there is nothing to test")
        names = names[::-1][: max(1, round(share * len(names)))]
        count = len(names) if stops is None else min(stops, len(names))
        ends = [round((number + 1) * len(names) / count) for number in range(count)]
        total = torch.zeros(len(own), dtype=torch.float64, device=own.device)
        done = 0
        for end in ends:
            if order == "independent":
                model, done = _copied(run.model), end - 1
            for place in range(done, end):
                forget(model.get_submodule(names[place]), run.generator_of(place))
            done = end
            maps = evidence(_with(trial, trial.again(model=model)), sign)
            both = zip(own, maps, strict=True)
            total += torch.tensor([alike(similarity, *each) for each in both], device=own.device, dtype=torch.float64)
        return total / count

    return score


def _with(trial: Trial, values: Tensor) -> Explanation:
    return replace(trial.explanation, values=values)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # a model may hold anything
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{type(model).__name__} can't be copied, and only a copy's weights may be made random: {reason}"
        ) from error


def forget(module: nn.Module, generator: torch.Generator) -> None:
    """Give a layer weights as they are before training."""
    if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm):
        module.reset_parameters()  # draws nothing
        return
    with torch.no_grad():
        for weight in module.parameters(recurse=False):
            if weight.ndim < 2:
                weight.zero_()
                continue
            incoming = weight.numel() // len(weight)
            drawn = torch.randn(weight.shape, generator=generator, device=weight.device, dtype=torch.float32)
            weight.copy_(drawn * math.sqrt(2 / incoming))
