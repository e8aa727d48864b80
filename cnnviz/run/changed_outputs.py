"""What a layer gives where its map is changed: variants of the map, laid out as the layer lays out its output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from cnnviz.engine.grid_reading import GridReading
from cnnviz.engine.layers import Site
from cnnviz.run.passes import Passes

Change = Callable[[int, int, int], Tensor]
"""From ``start``, ``stop`` and an item to these variants of its map, (stop - start, C, *spatial)."""


def changed_outputs(
    passes: Passes, site: Site, reading: GridReading | None, change: Change
) -> Callable[[Sequence[int], int], Tensor]:
    """From numbers of variants and an item to what the layer's call gives then.

    ``reading`` says where in the output the map lies; what else is there stays. None: the map is the output.
    """
    if reading is None or reading.channels_first:
        return lambda numbers, item: _maps(change, numbers, item)
    batch_first = reading.batch_first

    @cache
    def given(item: int) -> Tensor:
        part = slice(item, item + 1)
        return passes.activation(site)[part] if batch_first else passes.of(part).activation(site)

    def outputs(numbers: Sequence[int], item: int) -> Tensor:
        maps, output = _maps(change, numbers, item), given(item)
        return reading.write(output.expand(len(maps), *output.shape[1:]) if batch_first else output, maps)

    return outputs


def _maps(change: Change, numbers: Sequence[int], item: int) -> Tensor:
    if list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return change(numbers[0], numbers[-1] + 1, item)
    return torch.cat([change(number, number + 1, item) for number in numbers])
