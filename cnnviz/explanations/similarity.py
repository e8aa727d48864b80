"""Similarity of two maps: of their ranks, their structure, or the directions of their edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def spearman(first: Tensor, second: Tensor) -> float:
    """Correlation of the ranks of evidence, -1 to 1."""
    return _correlation(tied_ranks(first.flatten()), tied_ranks(second.flatten()))


def structure(first: Tensor, second: Tensor) -> float:
    """Structural similarity of maps (*spatial), each divided by its peak, -1 to 1."""
    from skimage.metrics import structural_similarity

    ssim: Any = structural_similarity  # has no types
    shortest = min(first.shape)
    if shortest < 3:
        raise ValueError(f"maps of {tuple(first.shape)} have no structure to compare; use similarity='spearman'")
    window = min(7, shortest - 1 + shortest % 2)
    return float(ssim(_peaked(first), _peaked(second), win_size=window, data_range=1.0))


def gradients(first: Tensor, second: Tensor) -> float:
    """Correlation of the histograms of oriented gradients of two maps (H, W), -1 to 1."""
    from skimage.feature import hog

    if first.ndim != 2 or min(first.shape) < 9:
        raise ValueError(
            f"maps of {tuple(first.shape)} have no histograms of oriented gradients; use similarity='spearman'"
        )
    side = min(16, min(first.shape) // 3)
    histograms = [torch.from_numpy(hog(_peaked(values), pixels_per_cell=(side, side))) for values in (first, second)]
    return _correlation(*histograms)


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "spearman": spearman,
    "ssim": structure,
    "hog": gradients,
}
"""Functions of two maps by the name that :func:`map_similarity` takes."""


def map_similarity(name: str, first: Tensor, second: Tensor) -> float:
    """How alike two maps (*spatial) of evidence are, -1 to 1; 1 for two constant maps, 0 if one of them is constant.

    ``name`` is "spearman", the correlation of ranks, "ssim", or "hog", the correlation of histograms of oriented
    gradients. Raises ValueError for maps that are too small for the last two.
    """
    constant = [bool((values == values.flatten()[0]).all()) for values in (first, second)]
    return float(all(constant)) if any(constant) else SIMILARITIES[name](first.double(), second.double())


def tied_ranks(values: Tensor) -> Tensor:
    """Ranks (K,) of values (K,), from 1 for the lowest, in float64; equal values share their mean rank."""
    order = values.sort().values
    first, behind = torch.searchsorted(order, values), torch.searchsorted(order, values, right=True)
    return (first + behind + 1).double() / 2


def _peaked(values: Tensor) -> Any:
    return (values / values.abs().max()).cpu().numpy()


def _correlation(first: Tensor, second: Tensor) -> float:
    """Pearson's correlation of two vectors; 0 if one of them is constant."""
    return float(torch.corrcoef(torch.stack([first, second]).double())[0, 1].nan_to_num(0.0))
