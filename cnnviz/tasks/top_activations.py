"""Top activations: which inputs of many activate a channel most, and where. One pass over them keeps only the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.feature_extraction import FeatureExtractor
from cnnviz.engine.layers import Layer
from cnnviz.engine.loans import borrows
from cnnviz.engine.validation import check_finite, check_model, unwrap
from cnnviz.explanations.inputs import called_with
from cnnviz.explanations.read_inputs import read_inputs
from cnnviz.images.in_notebooks import InNotebooks
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.models.loading import LoadedModel
from cnnviz.run.objectives import channel_units


@dataclass(frozen=True, eq=False, repr=False)
class TopActivation:
    """An input, and the unit of a channel with the largest activation for it."""

    number: int
    """The number of the input, counted from 0."""
    input: Tensor
    """(C, *spatial), as it was given to the model."""
    at: tuple[int, ...]
    """The unit's place in the layer's output, (*spatial); () where that has no spatial extent."""
    activation: float
    """The unit's activation, above 0."""

    def __repr__(self) -> str:
        return f"<input {self.number} at {self.at}: {self.activation:.3g}>"


class TopActivations(InNotebooks, dict[int, list[TopActivation]]):
    """What :func:`cnnviz.top_activations` gives: for each channel the inputs, the most active first."""

    preprocessing: Preprocessing | None = None
    """Turns the inputs back into pictures."""


@borrows
def top_activations(
    model: nn.Module | LoadedModel,
    batches: Iterable[Any],
    layer: Layer,
    channels: Sequence[int],
    count: int = 9,
    *,
    preprocessing: Preprocessing | Any = None,
) -> TopActivations:
    """For each channel the inputs in which one of its units is most active, the most active first.

    The top image patches of Zeiler & Fergus (2014, arXiv:1311.2901, figure 2). ``batches`` are read one after the
    other. Each is what :func:`cnnviz.explain` takes as inputs: (N, C, *spatial) of any size, or pictures where the
    ``preprocessing`` is known. At most ``count`` inputs of each channel are kept. Inputs that leave the channel at zero
    or below are left out, so there may be fewer. Passes end at the layer. Raises ValueError for a channel there is not,
    for no channels, or a count below one.
    """
    if count < 1 or not channels:
        raise ValueError(f"{count} inputs of {len(channels)} channels are asked for; ask for one or more of each")
    if isinstance(model, LoadedModel):
        preprocessing, model = preprocessing or model.preprocessing, model.module
    preprocessing = None if preprocessing is None else Preprocessing.of(preprocessing)
    if isinstance(batches, Tensor | str | Path):
        batches = [batches]  # one batch
    network = unwrap(model)
    check_model(network)
    extractor = FeatureExtractor(network, [layer], output=False, graph=False)
    best = TopActivations((channel, []) for channel in channels)
    best.preprocessing = preprocessing
    passed = 0
    for batch in batches:
        inputs = called_with(network, read_inputs(network, batch, preprocessing)[0])[0].first
        seen = extractor(inputs.detach())
        size = seen.layer(layer).shape[2:]
        for channel, top in best.items():
            units = channel_units(seen, layer, channel)
            check_finite(units, f"channel {channel} of layer {layer!r}")
            maxima, places = units.max(1)
            for item, (activation, place) in enumerate(zip(maxima.tolist(), places, strict=True)):
                if activation > 0 and (len(top) < count or activation > top[-1].activation):
                    at = tuple(int(index) for index in torch.unravel_index(place, size))
                    top.append(TopActivation(passed + item, inputs[item].detach().clone(), at, activation))
                    top.sort(key=lambda entry: -entry.activation)  # keeps the order of equal ones
                    del top[count:]
        passed += len(inputs)
    return best
