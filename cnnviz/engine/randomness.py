"""Whether a model draws random numbers, so that two passes of one input differ."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
"""What a model may hold to draw numbers of its own."""


class Draws:
    """Notes the state of the global generators that a pass on a device may draw from."""

    def __init__(self, device: torch.device):
        self._device = device
        self._before = [*self._states()]

    def __bool__(self) -> bool:
        """True if one of them has moved."""
        return [*self._states()] != self._before

    def _states(self) -> Iterator[Any]:
        yield torch.default_generator.get_state().numpy().tobytes()
        yield random.getstate()
        of_numpy: Any = np.random.get_state()
        yield of_numpy[1].tobytes(), of_numpy[2:]
        if self._device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
            yield torch.cuda.get_rng_state(self._device).numpy().tobytes()
