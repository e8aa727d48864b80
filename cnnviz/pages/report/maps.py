"""Maps as the report stores them: at most 112 places a side, in 8 bits, with their scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cnnviz.explanations.evidence_maps import single_maps
from cnnviz.explanations.explanation import Explanation

SIDE = 112
"""The most places of a stored map on a side."""
DEEPER_SIDE = 56
"""The same of a map at a further layer, of which there are many."""
FULL = 99.5
"""The percentile of a map's magnitudes that is drawn in full colour, unless its reader chooses the peak."""
ZERO = 128
"""The byte of zero in a signed map."""
Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Map:
    """One map as it is before it is stored."""

    values: Floats
    """(h, w), with at most 112 on a side."""
    peak: float
    """The highest magnitude of the method's own map, at its own size."""
    size: tuple[int, int]
    """The method's own (height, width)."""


@dataclass(frozen=True, eq=False)
class StoredMap:
    """A map in bytes: the value of a byte is ``low + byte / 255 * (high - low)``."""

    bytes: NDArray[np.uint8]
    """(h, w)"""
    low: float
    high: float
    cut: float
    """The magnitude below which 99.5 % of the values lie; the peak where that is nothing."""
    peak: float
    size: tuple[int, int]

    def values(self) -> Floats:
        """The values (h, w) that a reader of the page is told."""
        told: Floats = (self.low + self.bytes / np.float32(255) * (self.high - self.low)).astype(np.float32)
        return told


def reduced_maps(explanation: Explanation, side: int = SIDE) -> list[Map]:
    """One map for each input, with at most ``side`` places on a side.

    Magnitudes are added up over channels where values are of the input's own shape. A larger map is reduced by the
    mean over the area of each place. Raises ValueError for what is no one map, and for values that are not finite.
    """
    own = single_maps(explanation, "magnitude" if explanation.fine else "signed").cpu().float()
    height, width = own.shape[2:]
    small = _reduced(own, side)[:, 0].numpy()
    peaks = own.abs().flatten(1).amax(1).tolist()
    return [Map(values, peak, (height, width)) for values, peak in zip(small, peaks, strict=True)]


def _reduced(maps: Tensor, side: int) -> Tensor:
    height, width = maps.shape[2:]
    longest = max(height, width)
    if longest <= side:
        return maps
    return F.adaptive_avg_pool2d(maps, (max(1, round(height * side / longest)), max(1, round(width * side / longest))))


def stored(found: Map, signed: bool) -> StoredMap:
    """The map in 8 bits: from 0 to its highest value, or where ``signed`` the same far below and above zero.

    Of a signed map zero is the byte 128, exactly. A blank map has the scale 0 to 0.
    """
    magnitudes = np.abs(found.values, dtype=np.float64)
    high = float(magnitudes.max(initial=0))
    if high == 0 or not np.isfinite(1 / np.float64(high)):
        blank = np.full(found.values.shape, ZERO if signed else 0, np.uint8)
        return StoredMap(blank, 0.0, 0.0, 0.0, found.peak, found.size)
    low = -high * ZERO / (255 - ZERO) if signed else 0.0
    levels = np.rint((found.values.astype(np.float64) - low) / (high - low) * 255).clip(0, 255)
    cut = float(np.percentile(magnitudes, FULL))
    return StoredMap(levels.astype(np.uint8), low, high, cut if cut > 1e-6 * high else high, found.peak, found.size)


def has_both_signs(maps: list[Map]) -> bool:
    """True if any of them has values below zero that are no rounding."""
    return any(float(each.values.min(initial=0)) < -1e-6 * each.peak for each in maps)
