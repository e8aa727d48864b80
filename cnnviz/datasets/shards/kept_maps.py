"""How maps are kept: all of their values, or less of them, by choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

Kept: TypeAlias = Literal["full", "float16"]
Channels: TypeAlias = Literal["all", "sum", "magnitude"]


@dataclass(frozen=True)
class MapStorage:
    """What of a map is stored; the default is all of it, at the method's own resolution."""

    kept: Kept = "full"
    """``"full"``: float32, or float64 where the map is. ``"float16"``: 11 bits of each value, relative to the map's
    own peak, so that a gradient of 1e-7 keeps as many as one of 1."""
    channels: Channels = "all"
    """``"sum"``: channels are added up. ``"magnitude"``: their magnitudes are. Then a map has one channel."""
    size: int | None = None
    """The longest side that is kept, in pixels; a larger map is averaged over areas. None: all of them."""

    def __post_init__(self) -> None:
        if self.kept not in get_args(Kept):
            raise ValueError(f"maps can't be kept as {self.kept!r}; use {', '.join(get_args(Kept))}")
        if self.channels not in get_args(Channels):
            raise ValueError(f"channels can't be kept as {self.channels!r}; use {', '.join(get_args(Channels))}")
        whole = isinstance(self.size, int) and not isinstance(self.size, bool)
        if self.size is not None and (not whole or self.size < 1):
            raise ValueError(f"maps can't be kept at size {self.size!r}; give a number of pixels, at least 1")

    def __call__(self, values: Tensor) -> Tensor:
        """What is kept of maps (N, C, *spatial), in the dtype of the file but for float16, which packing makes."""
        values = values.detach()
        values = values if values.dtype == torch.float64 else values.float()
        if self.channels == "magnitude":
            values = values.abs()
        if self.channels != "all" and values.ndim > 2:
            values = values.sum(1, keepdim=True)
        sides = values.shape[2:]
        if self.size is None or not sides or max(sides) <= self.size:
            return values
        return area_averaged(values, [max(1, round(side * self.size / max(sides))) for side in sides])

    def described(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def area_averaged(values: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (N, C, *spatial) at a smaller spatial size: each new place is the mean over its area of the old ones.

    A place that lies in two areas counts in each by its share. The mean over the map stays what it was. An axis that
    is not longer than its new size is left alone.
    """
    for axis, new in enumerate(size, start=2):
        old = values.shape[axis]
        if old > new:
            edges = torch.arange(new + 1, dtype=torch.float64) * old / new
            places = torch.arange(old, dtype=torch.float64)
            low, high = edges[:-1, None].maximum(places), edges[1:, None].minimum(places + 1)
            shares = ((high - low).clamp(min=0) * new / old).to(values)
            values = (values.movedim(axis, -1) @ shares.T).movedim(-1, axis)
    return values.contiguous()


def stored_as_float16(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (N, ...) as float16, and the scale of each (N,), in the maps' dtype: ``stored * scale`` is the value.

    A scale is a power of two that brings the map's peak below 2^15. So 11 bits of a value are kept while it is at
    least 2^-29 of the peak, and nothing is added by the scale itself.
    """
    peaks = maps.flatten(1).abs().amax(1) if maps.numel() else maps.new_zeros(len(maps))
    lowest = math.frexp(torch.finfo(maps.dtype).tiny)[1] - 1  # below, the scale itself would lose bits
    exponents = (torch.frexp(peaks).exponent - 15).clamp(min=lowest)
    scales = torch.ldexp(torch.ones_like(peaks), exponents)
    each = scales.view(-1, *(1,) * (maps.ndim - 1))
    return (maps / each).half(), scales


def restored_from_float16(stored: Tensor, scales: Tensor) -> Tensor:
    """The maps that :func:`stored_as_float16` took, with 11 bits of each value."""
    return stored.to(scales.dtype) * scales.view(-1, *(1,) * (stored.ndim - 1))


def storage_of(described: Mapping[str, Any]) -> MapStorage:
    """As :meth:`MapStorage.described` told. Raises ValueError for what tells none."""
    try:
        return MapStorage(**described)
    except TypeError as error:
        raise ValueError(f"{str(dict(described))[:80]} does not tell how maps are kept") from error
