"""Random changes of inputs, in proportion to each input's range."""

from __future__ import annotations

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
    draw = run.draws(number).normal(run.inputs.shape[1:], run.inputs.dtype)
    return sigma * input_range(run.inputs) * draw
