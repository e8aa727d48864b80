"""Normalization of maps: they are divided by a peak, so that zero stays zero and signs are kept.

A policy says where the peak comes from. Where the values are constant up to rounding the map is blank: stretching
rounding errors would show places that no value points to. With a peak given as a number even a constant map is drawn,
at its level.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Normalization: TypeAlias = Literal["image", "shared", "percentile", "signed"] | float
"""Where the magnitude that is drawn at full strength comes from; a number is that magnitude."""
POLICIES: tuple[str, ...] = get_args(get_args(Normalization)[0])
ROUNDING = 1e-6  # of the peak: a few float32 roundings


@dataclass(frozen=True)
class Scale:
    """The magnitude that is drawn at full strength.

    ``"image"``: the highest magnitude drawn of each map. ``"shared"``: that of the whole batch, to compare its maps.
    ``"percentile"``: that percentile of each map's magnitudes, so that a few outliers do not hide the rest.
    ``"signed"``: the highest magnitude of both signs, even if only one sign is drawn. A number: that value, to compare
    any two pictures. Raises ValueError for anything else.
    """

    policy: Normalization = "image"
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
        """Maps (N, ...) divided by their peak, within -1 and 1.

        ``signed`` are the values that ``drawn`` is the part of one sign of; the policy ``"signed"`` needs them.
        """
        return fraction_of_peak(drawn, self.peaks(drawn if signed is None or self.policy != "signed" else signed))

    def peaks(self, maps: Floats) -> Floats:
        """The magnitude drawn at full strength, (N, 1, ...) for maps (N, ...); 0 if the map must stay blank."""
        single = (len(maps),) + (1,) * (maps.ndim - 1)
        if not isinstance(self.policy, str):
            return np.full(single, float(self.policy))
        magnitudes = np.abs(maps)
        peaks = magnitudes.max(self._axes(maps), keepdims=True)
        if self.policy == "percentile":
            cut = np.percentile(magnitudes, self.percentile, self._axes(maps), keepdims=True)
            peaks = np.where(cut > ROUNDING * peaks, cut, peaks)  # of a map of few points the cut may be rounding
        return np.broadcast_to(np.where(self._constant(maps), 0.0, peaks), single)

    def above_lowest(self, maps: Floats) -> Floats:
        """Maps (N, ...) minus their lowest value; unchanged if the peak is given as a number."""
        if not isinstance(self.policy, str):
            return maps
        return np.where(self._constant(maps), 0.0, maps - maps.min(self._axes(maps), keepdims=True))

    def _axes(self, maps: Floats) -> tuple[int, ...]:
        return tuple(range(0 if self.policy == "shared" else 1, maps.ndim))

    def _constant(self, maps: Floats) -> NDArray[np.bool_]:
        highest, lowest = maps.max(self._axes(maps), keepdims=True), maps.min(self._axes(maps), keepdims=True)
        constant: NDArray[np.bool_] = highest - lowest <= ROUNDING * np.maximum(highest, -lowest)
        return constant


def fraction_of_peak(maps: Floats, peaks: Floats) -> Floats:
    """Maps (N, ...) divided by their peaks (N, 1, ...), cut off at -1 and 1; zero if the peak is zero."""
    return np.divide(np.clip(maps, -peaks, peaks), peaks, out=np.zeros_like(maps), where=peaks > 0)
