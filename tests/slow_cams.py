"""Class activation maps as their papers say, by loops: from activation and gradient (C, *spatial) to a map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def places(channel: Tensor) -> list[float]:
    return [float(value) for value in channel.flatten()]


def weighted(maps: Tensor, weights: list[float]) -> Tensor:
    total = torch.zeros_like(maps[0])
    for weight, channel in zip(weights, maps, strict=True):
        total += weight * channel
    return total


def grad_cam(maps: Tensor, grads: Tensor) -> Tensor:
    return weighted(maps, [sum(places(grad)) / len(places(grad)) for grad in grads])


def grad_cam_plus_plus(maps: Tensor, grads: Tensor) -> Tensor:
    weights = []
    for channel, grad in zip(maps, grads, strict=True):
        total, weight = sum(places(channel)), 0.0
        for slope in places(grad):
            if slope > 0:
                weight += slope * slope**2 / (2 * slope**2 + total * slope**3 + 1e-6)
        weights.append(weight)
    return weighted(maps, weights)


def xgrad_cam(maps: Tensor, grads: Tensor) -> Tensor:
    weights = []
    for channel, grad in zip(maps, grads, strict=True):
        values, total = places(channel), sum(places(channel)) + 1e-7
        weights.append(sum(slope * value / total for slope, value in zip(places(grad), values, strict=True)))
    return weighted(maps, weights)


def hires_cam(maps: Tensor, grads: Tensor) -> Tensor:
    found = torch.zeros_like(maps[0])
    for place in np.ndindex(*found.shape):
        found[place] = sum(grads[k][place] * maps[k][place] for k in range(len(maps)))
    return found


def layer_cam(maps: Tensor, grads: Tensor) -> Tensor:
    found = torch.zeros_like(maps[0])
    for place in np.ndindex(*found.shape):
        found[place] = sum(max(grads[k][place], 0) * maps[k][place] for k in range(len(maps)))
    return found


def first_component(maps: Tensor, centred: bool) -> Tensor:
    matrix = maps.flatten(1).T.numpy()  # places x channels
    if centred:
        matrix = matrix - matrix.mean(0)
    _, _, right = np.linalg.svd(matrix, full_matrices=False)
    shares = matrix @ right[0]
    if (shares**3 if centred else shares).sum() < 0:
        shares = -shares
    return torch.from_numpy(shares).view(maps.shape[1:])


def eigen_cam(maps: Tensor, grads: Tensor) -> Tensor:
    return first_component(maps, centred=False)


def eigen_grad_cam(maps: Tensor, grads: Tensor) -> Tensor:
    return first_component(maps * grads, centred=False)


SLOW: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    each.__name__: each
    for each in (grad_cam, grad_cam_plus_plus, xgrad_cam, hires_cam, layer_cam, eigen_cam, eigen_grad_cam)
}
