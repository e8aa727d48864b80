"""How strong is full strength: maps are divided by a peak, so zero stays zero and a sign stays a sign.

A policy says where the peak comes from. Where those values are all alike they hold no scale, and the map is blank:
a constant map tells no place from another, and stretching its rounding errors would invent places. A peak given as
a number needs no scale from the map, so there even a constant map is drawn, at its level.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

POLICIES = ("image", "shared", "percentile", "signed")
ALIKE = 1e-6  # of the peak: a few float32 roundings


@dataclass(frozen=True)
class Scale:
    """Where full strength is.

    ``image``: the strongest value drawn of each map. ``shared``: of the whole batch, to compare its maps.
    ``percentile``: that percentile of each map, so that a few outliers do not hide the rest. ``signed``: the
    strongest value of either sign, also where one sign is drawn. A number: that value, to compare any two pictures.
    Raises ValueError for anything else.
    """

    policy: str | float = "image"
    percentile: float = 99.5

    def __post_init__(self) -> None:
        if isinstance(self.policy, str):
            if self.policy not in POLICIES:
                near = difflib.get_close_matches(self.policy, POLICIES, n=1)
                way_out = f"did you mean {near[0]!r}?" if near else f"use {', '.join(POLICIES)} or a positive number"
                raise ValueError(f"there is no normalization {self.policy!r}; {way_out}")
        elif not (math.isfinite(self.policy) and self.policy > 0):
            raise ValueError(f"normalize={self.policy} cannot be full strength; use a positive number")
        if not 0 < self.percentile <= 100:
            raise ValueError(f"percentile={self.percentile} is out of range; use one above 0 and up to 100")

    def __call__(self, drawn: Floats, signed: Floats | None = None) -> Floats:
        """Maps (N, ...) in units of their peak, within -1 and 1.

        ``signed`` are the values that ``drawn`` is a part of, for the policy that looks at both signs.
        """
        peaks = self.peaks(drawn if signed is None or self.policy != "signed" else signed)
        within = np.clip(drawn, -peaks, peaks)
        return np.divide(within, peaks, out=np.zeros_like(drawn), where=peaks > 0)

    def peaks(self, maps: Floats) -> Floats:
        """(N, 1, ...) for maps (N, ...): the magnitude drawn at full strength; 0 where the map must stay blank."""
        single = (len(maps),) + (1,) * (maps.ndim - 1)
        if not isinstance(self.policy, str):
            return np.full(single, float(self.policy))
        magnitudes = np.abs(maps)
        peaks = magnitudes.max(self._axes(maps), keepdims=True)
        if self.policy == "percentile":
            cut = np.percentile(magnitudes, self.percentile, self._axes(maps), keepdims=True)
            peaks = np.where(cut > ALIKE * peaks, cut, peaks)  # a map of few points has only zeros or roundings below
        return np.broadcast_to(np.where(self._alike(maps), 0.0, peaks), single)

    def above_lowest(self, maps: Floats) -> Floats:
        """Maps (N, ...) less their lowest value, which becomes zero; a peak given as a number counts from zero."""
        if not isinstance(self.policy, str):
            return maps
        return np.where(self._alike(maps), 0.0, maps - maps.min(self._axes(maps), keepdims=True))

    def _axes(self, maps: Floats) -> tuple[int, ...]:
        return tuple(range(0 if self.policy == "shared" else 1, maps.ndim))

    def _alike(self, maps: Floats) -> NDArray[np.bool_]:
        highest, lowest = maps.max(self._axes(maps), keepdims=True), maps.min(self._axes(maps), keepdims=True)
        alike: NDArray[np.bool_] = highest - lowest <= ALIKE * np.maximum(highest, -lowest)
        return alike
