"""Which inputs of many excite a channel most, and where: a pass over them all that keeps only the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cnnviz.engine.feature_extraction import View
from cnnviz.engine.layers import Layer
from cnnviz.engine.validation import check_finite, check_inputs, check_model, unwrap
from cnnviz.models.loading import LoadedModel
from cnnviz.run.objectives import channel_units


@dataclass(frozen=True, eq=False)
class Excited:
    """An input and the unit of a channel that responds to it most."""

    number: int
    """Which of all inputs it is, counted from 0."""
    input: Tensor
    """(C, *spatial) as the model saw it."""
    at: tuple[int, ...]
    """The unit's place in the layer's output; () where it has no spatial extent."""
    strength: float
    """The unit's activation."""


def find_exciting(
    model: nn.Module | LoadedModel, batches: Iterable[Tensor], layer: Layer, channels: Sequence[int], count: int = 9
) -> dict[int, list[Excited]]:
    """The inputs whose strongest unit of a channel is strongest, for each channel the strongest first.

    ``batches`` of inputs (N, C, *spatial), each of any size, are read one after the other; at most ``count`` inputs of
    each channel are kept. Inputs that leave the channel at zero or below do not excite it, so there may be fewer.
    Passes end at the layer. Raises ValueError for a channel there is not, for no channels, or a count below one.
    """
    if count < 1 or not channels:
        raise ValueError(f"{count} inputs of {len(channels)} channels are asked for; ask for one or more of each")
    network = unwrap(model.module if isinstance(model, LoadedModel) else model)
    check_model(network)
    view = View(network, [layer], output=False, graph=False)
    best: dict[int, list[Excited]] = {channel: [] for channel in channels}
    met = 0
    for inputs in batches:
        check_inputs(network, (inputs,))
        seen = view(inputs.detach())
        size = seen.layer(layer).shape[2:]
        for channel, found in best.items():
            units = channel_units(seen, layer, channel)
            check_finite(units, f"channel {channel} of layer {layer!r}")
            strengths, places = units.max(1)
            for item, (strength, place) in enumerate(zip(strengths.tolist(), places, strict=True)):
                if strength > 0 and (len(found) < count or strength > found[-1].strength):
                    at = tuple(int(each) for each in torch.unravel_index(place, size))
                    found.append(Excited(met + item, inputs[item].detach().clone(), at, strength))
                    found.sort(key=lambda each: -each.strength)  # keeps the order of those that are alike
                    del found[count:]
        met += len(inputs)
    return best
