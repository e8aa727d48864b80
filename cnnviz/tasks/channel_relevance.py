"""Top channels: which channels of a layer have most of a score, by relevance propagation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import signature
from operator import index
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.layers import Layer
from cnnviz.engine.loans import borrows
from cnnviz.explanations.explain import explain
from cnnviz.formulas.terms import procedure
from cnnviz.images.in_notebooks import InNotebooks
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.registry import Method, attributions
from cnnviz.run.resolve_target import check_single
from cnnviz.run.run import Run
from cnnviz.run.targets import Target

ALL = 2**31  # channels


@dataclass(frozen=True)
class TopChannel:
    """A channel, and its part of the score."""

    channel: int
    """The channel's number in the layer."""
    relevance: float
    """Its relevance summed over space, in units of the score."""
    share: float
    """Its relevance divided by the sum of the magnitudes of all channels' relevance, -1 to 1."""

    def __repr__(self) -> str:
        return f"<channel {self.channel}: {self.relevance:.3g}, {self.share:.1%}>"


class TopChannels(InNotebooks, list[list[TopChannel]]):
    """What :func:`cnnviz.tasks.top_channels` gives: for each input its channels, the most relevant first."""

    layer: str = ""
    """The name of the layer that has them."""


@borrows
def top_channels(
    model: nn.Module | LoadedModel,
    inputs: Any,
    layer: Layer = None,
    count: int = 5,
    *,
    target: Target = None,
    **settings: Any,
) -> TopChannels:
    """For each input the channels of a layer with the largest relevance for the target, the largest first.

    The most relevant concepts of Achtibat et al. (2023, arXiv:2206.03208). ``inputs`` and ``target`` are those of
    :func:`cnnviz.explain`; ``settings`` are those of the method ``layer_relevance``, such as ``composite``, and options
    of ``explain``, such as ``preprocessing``. Channels that speak against the target come last. Raises ValueError for a
    count below one; there are no more channels than the layer has.
    """
    (count,) = whole_numbers("count", [count])
    if count < 1:
        raise ValueError(f"{count} channels are asked for; ask for one or more")
    check_single(target)
    own, options = separated(attributions["layer_relevance"], settings)
    found = TopChannels()

    def named(run: Run) -> Tensor:
        found.layer = run.layer_name(layer)
        return torch.ones_like(run.inputs)

    methods = [attributions["layer_relevance"](layer=layer, **own), procedure(named)]
    values = next(iter(explain(model, inputs, methods, target=target, **options).values())).values
    sums = values.reshape(*values.shape[:2], -1).double().sum(2)
    whole = sums.abs().sum(1).tolist()
    for one, total in zip(sums.cpu(), whole, strict=True):
        order = one.argsort(descending=True, stable=True)[:count].tolist()
        found.append([TopChannel(n, float(one[n]), float(one[n]) / total if total else 0.0) for n in order])
    return found


def separated(method: Method[Any], settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the method, and those that are options of ``explain``; the method refuses what is neither."""
    options = signature(explain).parameters.keys() - method.settings.keys()
    own = {name: value for name, value in settings.items() if name not in options}
    return own, {name: value for name, value in settings.items() if name in options}


def of_layer_relevance(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings of ``conditional_relevance`` that say how the layer gets its relevance."""
    known = attributions["layer_relevance"].settings
    return {name: value for name, value in settings.items() if name in known}


def whole_numbers(name: str, given: Iterable[Any]) -> list[int]:
    """The numbers. Raises ValueError for what is no list of whole numbers."""
    try:
        numbers = list(given)
        if not isinstance(given, str) and not any(isinstance(number, bool) for number in numbers):
            return [index(number) for number in numbers]
    except TypeError:
        pass
    raise ValueError(f"{name}: give whole numbers, not {given!r}")
