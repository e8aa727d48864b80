"""Transformation robustness: random transformations before each step, against noise (Olah et al., 2017).

A transformation is a callable ``(inputs (N, C, *spatial), draws) -> inputs`` that draws for every input by itself.
What is shifted or turned out of the frame is lost, so padding comes first, and a crop of the middle last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.draws import RandomNumbers as RandomNumbers  # public here, beside what is handed them

Transformation: TypeAlias = Callable[[Tensor, RandomNumbers], Tensor]

PAD, JITTER, LAST_JITTER = 12 / 128, 8 / 128, 4 / 128  # of the shortest side; Lucid's pixels at 128
SCALES = (0.9, 0.95, 1.0, 1.05, 1.1)
DEGREES = 10.0


def robustness(size: Sequence[int]) -> Transformation:
    """The transformations of Olah et al. (2017) for a spatial size: pad, jitter, scale, rotate, jitter, crop.

    They take and give inputs (N, C, *spatial). Signals are not rotated.
    """
    shortest = min(size)
    pad, jitter, last = (math.ceil(share * shortest) for share in (PAD, JITTER, LAST_JITTER))
    turned = [rotated(DEGREES)] if len(size) > 1 else []
    return composed(padded(pad), jittered(jitter), scaled(SCALES), *turned, jittered(last), middle(size))


def composed(*transformations: Transformation) -> Transformation:
    """Several transformations of inputs (N, C, *spatial), one after the other."""

    def transform(inputs: Tensor, draws: RandomNumbers) -> Tensor:
        for transformation in transformations:
            inputs = transformation(inputs, draws)
        return inputs

    return transform


def padded(width: int, value: float = 0.0) -> Transformation:
    """Pad inputs (N, C, *spatial) by ``width`` pixels of ``value`` on all sides; 0 is the mean of normalized inputs."""

    def transform(inputs: Tensor, draws: RandomNumbers) -> Tensor:
        return F.pad(inputs, (width, width) * (inputs.ndim - 2), value=value)

    return transform


def jittered(width: int) -> Transformation:
    """Crop each input (C, *spatial) at a random place to a window ``width`` pixels smaller along every axis."""

    def transform(inputs: Tensor, draws: RandomNumbers) -> Tensor:
        rank = inputs.ndim - 2
        windows = []
        for values in inputs:
            place = [int(share * (width + 1)) for share in draws.floats(rank)]
            windows.append(_window(values, place, width))
        return torch.stack(windows)

    return transform


def scaled(factors: Sequence[float]) -> Transformation:
    """Scale each input (C, *spatial) about its middle by one of the factors; the size stays, and zeros fill it up."""

    def transform(inputs: Tensor, draws: RandomNumbers) -> Tensor:
        rank = inputs.ndim - 2
        zooms = [factors[int(share * len(factors))] for share in draws.floats(len(inputs))]
        same = torch.eye(rank, device=inputs.device, dtype=inputs.dtype)
        return _moved(inputs, torch.stack([same / zoom for zoom in zooms]))

    return transform


def rotated(degrees: float) -> Transformation:
    """Rotate each input (C, *spatial) about its middle by up to ``degrees`` either way.

    Volumes turn in the plane of their last two axes. Raises ValueError for signals.
    """

    def transform(inputs: Tensor, draws: RandomNumbers) -> Tensor:
        rank = inputs.ndim - 2
        if rank < 2:
            raise ValueError(f"the inputs are {tuple(inputs.shape)}: signals can't be turned; leave the rotation out")
        drawn = draws.uniform((len(inputs),), inputs.dtype).to(inputs.device)
        angles = torch.deg2rad(degrees * (2 * drawn - 1))
        turns = torch.eye(rank, device=inputs.device, dtype=inputs.dtype).repeat(len(inputs), 1, 1)
        # the grid counts axes from the last, and from -1 to 1 whatever their lengths
        height, width = inputs.shape[-2:]
        turns[:, 0, 0] = turns[:, 1, 1] = angles.cos()
        turns[:, 0, 1], turns[:, 1, 0] = -angles.sin() * height / width, angles.sin() * width / height
        return _moved(inputs, turns)

    return transform


def middle(size: Sequence[int]) -> Transformation:
    """Crop inputs (N, C, *spatial) to the middle of the spatial size; smaller inputs are padded with zeros."""

    def transform(inputs: Tensor, draws: RandomNumbers) -> Tensor:
        border: list[int] = []
        for length, goal in zip(reversed(inputs.shape[2:]), reversed(size), strict=True):
            before = (goal - length) // 2
            border += [before, goal - length - before]
        return F.pad(inputs, border)  # a negative border cuts off

    return transform


def _window(values: Tensor, place: Sequence[int], less: int) -> Tensor:
    """A window of (C, *spatial) that begins at that place, ``less`` pixels shorter along each axis."""
    for dim, start in enumerate(place, 1):
        values = values.narrow(dim, start, values.shape[dim] - less)
    return values


def _moved(inputs: Tensor, matrices: Tensor) -> Tensor:
    """Each input (C, *spatial) sampled where its matrix (rank, rank) maps the grid; axes count from the last."""
    if inputs.ndim == 3:  # the grid is of images and volumes; a signal is an image of one line
        along = F.pad(matrices, (0, 1, 0, 1))
        along[:, 1, 1] = 1
        return _moved(inputs[:, :, None], along)[:, :, 0]
    grid = F.affine_grid(F.pad(matrices, (0, 1)), list(inputs.shape), align_corners=False)
    return F.grid_sample(inputs, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
