"""What rules report of their calls, laid over the input: each value where the axes of the input put it; sums stay."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from cnnviz.engine.bias_terms import BiasTerm, Placed
from cnnviz.engine.call_site import Reported
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.images.resampling import spread

BIASES = "biases"
"""The name under which rules report what biases took, and under which that of all other operations is found."""


def all_reported(
    reported: Iterable[Reported] | None, terms: Sequence[BiasTerm], grads: Sequence[Tensor | None], shape: Sequence[int]
) -> dict[str, Tensor] | None:
    """By name what was reported: of inputs (N, C, *spatial), of outputs (N, 1, *spatial). None if inputs are mixed.

    Args:
        reported: by the rule; None where inputs were passed one by one, so that nothing is reported of all.
        terms: biases of operations without a rule.
        grads: of the summed score, where each term is added.
        shape: of the input, (N, C, *spatial).
    """
    if reported is None:
        return None
    shares = [
        Reported(BIASES, term.contribution(grad), term.place)
        for term, grad in zip(terms, grads, strict=True)
        if grad is not None
    ]
    found: dict[str, Tensor] = {}
    for each in [*reported, *shares]:
        if each.place is not None and not each.place.is_split(shape[0]):
            return None
        values = each.values if each.place is None else _placed(each.place, each.values, [shape[0], 1, *shape[2:]])
        found[each.name] = found[each.name] + values if each.name in found else values
    return found


def joined(items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What was reported of each input, as of all; one of which a name was not reported has zeros."""
    like = {name: values for reported in items for name, values in reported.items()}
    return {name: torch.cat([reported.get(name, torch.zeros_like(like[name])) for reported in items]) for name in like}


def _placed(place: Placed, values: Tensor, shape: Sequence[int]) -> Tensor:
    """Values of a call at the input's places, (N, C, *spatial); evenly where they have no place."""
    total = place.rows(values, shape[0]).sum(1)
    found = place.on_grid(values, shape[0], len(shape) - 2)
    placed = values.new_zeros(shape) if found is None else spread(found.sum(1, keepdim=True), shape[2:])
    rest = total - placed.reshape(shape[0], -1).sum(1)
    even: Tensor = placed + rest.reshape(-1, *(1,) * (len(shape) - 1)) / math.prod(shape[1:])
    return even


def bounds(preprocessing: Preprocessing | None, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Black and white in the model's units, each (1, C, ...). Raises ValueError without a preprocessing."""
    if preprocessing is None or inputs.ndim < 3:
        raise ValueError(
            "z_box needs the lowest and highest values that the input can have, and without a preprocessing nobody "
            "knows them; give low and high, or explain(..., preprocessing=...)"
        )
    shape = (1, -1) + (1,) * (inputs.ndim - 2)
    mean, std = (inputs.new_tensor(value).view(shape) for value in (preprocessing.mean, preprocessing.std))
    return -mean / std, (1 - mean) / std
