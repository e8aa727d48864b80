"""Top channels: which channels of a layer have most of a score, by relevance propagation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from cnnviz.engine.layers import Layer
from cnnviz.engine.loans import borrows
from cnnviz.explanations.explain import explain
from cnnviz.images.in_notebooks import InNotebooks
from cnnviz.models.loading import LoadedModel
from cnnviz.run.targets import Target


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
    if count < 1:
        raise ValueError(f"{count} channels are asked for; ask for one or more")
    relevance = explain(model, inputs, "layer_relevance", target=target, layer=layer, **settings).values
    sums = relevance.reshape(*relevance.shape[:2], -1).double().sum(2)
    whole = sums.abs().sum(1).tolist()
    found = TopChannels()
    for values, total in zip(sums.cpu(), whole, strict=True):
        order = values.argsort(descending=True, stable=True)[:count].tolist()
        found.append([TopChannel(n, float(values[n]), float(values[n]) / total if total else 0.0) for n in order])
    return found
