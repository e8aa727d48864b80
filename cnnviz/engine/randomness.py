"""Whether a model draws random numbers, so that two passes of one input differ."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn


class Draws:
    """Notes the state of all generators that a pass may draw from: the global ones, and those that the model holds."""

    def __init__(self, model: nn.Module, device: torch.device):
        self._model, self._device = model, device
        self._before = [*self._states()]

    def __bool__(self) -> bool:
        """True if one of them has moved."""
        return [*self._states()] != self._before

    def _states(self) -> Iterator[Any]:
        yield torch.default_generator.get_state().numpy().tobytes()
        yield random.getstate()
        of_numpy: Any = np.random.get_state()
        yield of_numpy[1].tobytes(), of_numpy[2:]
        if self._device.type == "cuda":
            yield torch.cuda.get_rng_state(self._device).numpy().tobytes()
        for part in self._model.modules():
            if type(part).__module__.startswith("torch.nn."):
                continue  # torch's own draw from the global ones
            for value in vars(part).values():
                if isinstance(value, torch.Generator):
                    yield value.get_state().cpu().numpy().tobytes()
                elif isinstance(value, np.random.Generator):
                    yield value.bit_generator.state
                elif isinstance(value, random.Random):
                    yield value.getstate()
