"""Passes that end at a layer and read what it gives as its map: tokens and channels-last outputs too."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.feature_extraction import FeatureExtractor, Seen
from cnnviz.engine.grid_reading import GridReading, NoGrid, reading_by_hand
from cnnviz.engine.layer_flow import reading_of_layer
from cnnviz.engine.layers import Layer, LayerAt


class LayerMaps:
    """Gives of a layer (N, C, *spatial), as formulas read it; what is no map, such as (N, F), stays as it is.

    Raises ValueError for a layer that is not laid out as it is said.
    """

    def __init__(self, network: nn.Module, layer: Layer):
        self.network, self.layer = network, layer
        self._extractor = FeatureExtractor(network, [layer], output=False, graph=False)
        self._readings: dict[torch.Size, GridReading | None] = {}

    def __call__(self, inputs: Tensor) -> Seen:
        """One pass of inputs (N, C, *spatial)."""
        seen, reading = self._seen(inputs)
        if reading is None:
            return seen
        return replace(seen, layers={self.layer: reading.read(seen.layer(self.layer), len(inputs))})

    def is_moved(self, inputs: Tensor) -> bool:
        """True if the layer lays its map out in another way, as tokens."""
        _, reading = self._seen(inputs)
        return reading is not None and not reading.channels_first

    def _seen(self, inputs: Tensor) -> tuple[Seen, GridReading | None]:
        """One pass, and how its output is read; None as it is."""
        seen, size = self._extractor(inputs), inputs.shape[1:]
        if size not in self._readings:
            self._readings[size] = self._found(inputs[:1], seen.layer(self.layer).shape, seen.names[self.layer])
        return seen, self._readings[size]

    def _found(self, one: Tensor, shape: torch.Size, name: str) -> GridReading | None:
        at = self.layer
        if not isinstance(at, LayerAt) or at.layout == "auto":
            return reading_of_layer(self.network, one, name)
        if at.layout == "raw":
            return None
        grid: Any = at.grid
        try:
            return reading_by_hand(shape, at.layout, grid, at.extra)
        except NoGrid as error:
            raise ValueError(f"layer {name!r} {error}") from None
