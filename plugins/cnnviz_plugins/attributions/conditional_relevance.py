"""Concept relevance propagation: the part of the score that goes through some channels of a layer, at the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from cnnviz import Expr, Layer, Rule, activation, attribution, gradient, lift, noted
from cnnviz.formulas import conditioned, uploaded
from cnnviz_plugins.attributions._completeness import with_completeness_gap
from cnnviz_plugins.attributions.projections import channel_numbers
from cnnviz_plugins.attributions.relevance import Attention, Bound, Gamma, Kept, Rules, Split, composite_of, of_input
from cnnviz_plugins.relevance.composites import rule_of


@attribution(renderer="grayscale")
def conditional_relevance(
    layer: Layer = None,
    channels: str | int | Sequence[int] | None = None,
    composite: Rules = "epsilon_plus",
    bias: Kept = "absorb",
    product: Split = "gate",
    epsilon: float = 1e-6,
    gamma: Gamma = 0.25,
    low: Bound = None,
    high: Bound = None,
    attention: Attention = "attn_lrp",
) -> Expr:
    """Each value's part of the score on its way through some channels of a layer (CRP; Achtibat et al., 2023).

    Values (N, C, *spatial) in units of the score (arXiv:2206.03208): the relevance of these ``channels`` of the
    ``layer``, carried on to the input by the same rules. ``channels`` are numbers, 5 or "5,9" or (5, 9); None takes the
    channel with the most relevance for each input, and tells it as the note ``channel`` (N,). Other settings are those
    of ``lrp``. The values of all channels sum to those of ``lrp`` where all that reaches the score goes through the
    layer. The note ``completeness_gap`` (N,) is the sum of the values minus the relevance of the channels: what biases
    before the layer took. Raises LookupError for a layer that does not exist, ValueError for a channel that it does not
    have, or for a layer that runs several times.
    """
    if bias not in ("absorb", "ignore"):
        raise ValueError(f"there is no bias={bias!r} of single channels; it is 'absorb' or 'ignore'")
    rule = rule_of(composite_of(composite, epsilon, gamma, low, high), bias, product, attention=attention)
    multipliers = gradient(layer, rule)
    relevance = activation(layer, spatial=None) * multipliers
    numbers = channel_numbers(channels)
    chosen = _most_relevant(relevance) if numbers is None else _checked(relevance, numbers)
    part = conditioned(of_input(_below(rule)), layer, _only(multipliers, chosen))
    values = with_completeness_gap(part, _total(_only(relevance, chosen)))
    return noted(values, "channel", chosen) if numbers is None else values


@cache
def _below(rule: Rule) -> Rule:
    """The same rule once more, so that the way from the score to the layer is not gone on to the input."""
    return replace(rule)


@lift
def _most_relevant(relevance: Tensor) -> Tensor:
    return relevance.reshape(*relevance.shape[:2], -1).sum(2).argmax(1)


@lift
def _checked(relevance: Tensor, numbers: tuple[int, ...]) -> Tensor:
    """The channels of each input, (N, count)."""
    count = relevance.shape[1]
    for number in numbers:
        if not 0 <= number < count:
            raise ValueError(f"there is no channel {number} in the layer; it has {count}, numbered 0 to {count - 1}")
    return uploaded(torch.tensor(numbers), relevance.device).expand(len(relevance), -1)


@lift
def _only(values: Tensor, channels: Tensor) -> Tensor:
    """The values with zeros in the place of all other channels."""
    kept = torch.zeros(values.shape[:2], dtype=torch.bool, device=values.device).scatter(
        1, channels.reshape(len(values), -1), True
    )
    return torch.where(kept.reshape(*kept.shape, *(1,) * (values.ndim - 2)), values, 0)


@lift
def _total(values: Tensor) -> Tensor:
    return values.flatten(1).double().sum(1)
