"""Random changes of inputs, in proportion to each input's range."""

from __future__ import annotations

import torch
from torch import Tensor

from cnnviz import Run


def input_range(inputs: Tensor) -> Tensor:
    """Each input's maximum minus its minimum, (N, 1, ...)."""
    flat = inputs.flatten(1)
    return (flat.amax(1) - flat.amin(1)).view(-1, *(1,) * (inputs.ndim - 1))


def gaussian_noise(run: Run, number: int, sigma: float) -> Tensor:
    """Draw ``number`` of Gaussian noise, ``sigma`` times each input's range, (N, C, *spatial).

    All inputs of a batch have the same draw, so that no score depends on its neighbours in the batch.
    """
    inputs = run.inputs
    generator = run.generator_of(number)
    draw = torch.randn(inputs.shape[1:], generator=generator, device=inputs.device, dtype=inputs.dtype)
    return sigma * input_range(inputs) * draw
