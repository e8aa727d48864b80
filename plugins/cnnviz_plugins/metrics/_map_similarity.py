"""How alike two maps are: by ranks, by structure, or by the directions of their edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Alike = Callable[[Tensor, Tensor], float]


def spearman(first: Tensor, second: Tensor) -> float:
    """The correlation of ranks, -1 to 1; places of equal evidence share theirs."""
    return _correlation(_ranks(first.flatten()), _ranks(second.flatten()))


def structure(first: Tensor, second: Tensor) -> float:
    """The structural similarity of the maps (*spatial), each divided by its peak, -1 to 1."""
    from skimage.metrics import structural_similarity

    similarity: Any = structural_similarity  # has no types
    shortest = min(first.shape)
    if shortest < 3:
        raise ValueError(f"maps of {tuple(first.shape)} have no structure to compare; use similarity='spearman'")
    window = min(7, shortest - 1 + shortest % 2)
    one, other = (_peaked(each).cpu().numpy() for each in (first, second))
    return float(similarity(one, other, win_size=window, data_range=1.0))


def gradients(first: Tensor, second: Tensor) -> float:
    """The correlation of the histograms of oriented gradients of two maps (H, W), -1 to 1."""
    from skimage.feature import hog

    if first.ndim != 2 or min(first.shape) < 9:
        raise ValueError(
            f"maps of {tuple(first.shape)} have no histograms of oriented gradients; use similarity='spearman'"
        )
    cell = min(16, min(first.shape) // 3)
    one, other = (
        torch.from_numpy(hog(_peaked(each).cpu().numpy(), pixels_per_cell=(cell, cell))) for each in (first, second)
    )
    return _correlation(one, other)


SIMILARITIES: dict[str, Alike] = {"spearman": spearman, "ssim": structure, "hog": gradients}


def alike(name: str, first: Tensor, second: Tensor) -> float:
    """Of maps (*spatial) by one of ``SIMILARITIES``. Two even maps are alike: 1. An even one is like no other: 0."""
    even = [bool((each == each.flatten()[0]).all()) for each in (first, second)]
    return float(all(even)) if any(even) else SIMILARITIES[name](first.double(), second.double())


def _peaked(values: Tensor) -> Tensor:
    return values / values.abs().max()


def _ranks(values: Tensor) -> Tensor:
    order = values.sort().values
    first, behind = torch.searchsorted(order, values), torch.searchsorted(order, values, right=True)
    return (first + behind).double() / 2


def _correlation(first: Tensor, second: Tensor) -> float:
    one, other = (each.double() - each.double().mean() for each in (first, second))
    size = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / size if size > 0 else 0.0
