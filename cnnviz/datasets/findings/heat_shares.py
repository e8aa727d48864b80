"""Where on a picture heat lies: shares of maps (n, s, s) in regions, and inside of masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnviz.explanations.tables import ERROR, Table

Maps = NDArray[np.float32]
"""Unit maps (n, s, s): not negative, each with a sum of 1; one that is 0 everywhere has no heat."""
Regions = Mapping[str, NDArray[np.float64]]
SIZE = 16
"""Cells on a side of a map; a multiple of 4."""
CORNERS = ("top left corner", "top right corner", "bottom left corner", "bottom right corner")
EDGES = ("top edge", "right edge", "bottom edge", "left edge")


def unit_maps(heat: NDArray[Any]) -> Maps:
    """Maps (n, s, s) divided each by its sum; what is below zero counts as zero.

    Raises ValueError for other shapes, and for values that are not finite.
    """
    if heat.ndim != 3 or heat.shape[1] != heat.shape[2] or heat.shape[1] < 4 or heat.shape[1] % 4:
        raise ValueError(f"maps {heat.shape} are none of an audit; give (n, s, s) with a side of 4, 8, 12, 16, ...")
    if not np.isfinite(heat).all():
        broken = int((~np.isfinite(heat)).any((1, 2)).sum())
        raise ValueError(f"{broken} of {len(heat)} maps have values that are NaN or infinite, and lie nowhere")
    positive = np.clip(heat, 0, None).astype(np.float64)
    peaks = positive.max((1, 2), keepdims=True)
    positive = np.divide(positive, peaks, out=np.zeros_like(positive), where=peaks > 0)  # else a sum may overflow
    sums = positive.sum((1, 2), keepdims=True)
    shares: Maps = np.divide(positive, sums, out=np.zeros_like(positive), where=sums > 0).astype(np.float32)
    return shares


def regions(side: int = SIZE) -> Regions:
    """Masks (side, side) of regions that together are the picture: its middle, 4 corners and 4 edges between them.

    Corners and edges are a quarter of a side wide: each corner is 1/16 of the picture, each edge 1/8, the centre 1/4.
    """
    first, last = slice(0, side // 4), slice(side - side // 4, side)
    middle = slice(side // 4, side - side // 4)
    places = zip(
        ("centre", *CORNERS, *EDGES),
        (
            (middle, middle), (first, first), (first, last), (last, first), (last, last),
            (first, middle), (middle, last), (last, middle), (middle, first),
        ),
        strict=True,
    )  # fmt: skip
    masks = {}
    for name, place in places:
        masks[name] = np.zeros((side, side))
        masks[name][place] = 1
    return masks


def groups(side: int = SIZE) -> Regions:
    """The regions, and all corners and all edges as one."""
    single = regions(side)
    together = {"corners": CORNERS, "edges": EDGES}
    found = {"centre": single["centre"]}
    for group, names in together.items():
        found[group] = np.sum([single[each] for each in names], 0)
        found |= {each: single[each] for each in names}
    return found


def shares(maps: Maps, region: NDArray[Any]) -> NDArray[np.float64]:
    """The share of each map's heat in a region, (n,): of one mask (s, s) or of a mask for each map, 0 to 1."""
    found: NDArray[np.float64] = (maps * region).sum((1, 2), dtype=np.float64)
    return found


def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """The mean, and its standard error; infinite of fewer than two values."""
    if len(values) < 2:
        return float(values.mean()) if len(values) else float("nan"), float("inf")
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def region_table(maps: Maps, members: Mapping[str, NDArray[np.bool_]]) -> Table:
    """A row for each set of maps and region: the mean share of its heat there, and how many times a uniform map's.

    Maps without heat are left out of the means.
    """
    rows = Table()
    hot = maps.any((1, 2))
    for name, chosen in members.items():
        for region, mask in groups(maps.shape[1]).items():
            mean, error = mean_and_error(shares(maps[chosen & hot], mask))
            rows.append(_row(name, int((chosen & hot).sum()), region, mean, error, float(mask.mean())))
    return rows


def inside_table(maps: Maps, masks: NDArray[Any], known: NDArray[np.bool_], members: Mapping[str, Any]) -> Table:
    """As :func:`region_table`, for the inside of each map's own mask (n, s, s), 0 to 1, where one is ``known``."""
    rows = Table()
    hot = maps.any((1, 2)) & known
    for name, chosen in members.items():
        mean, error = mean_and_error(shares(maps[chosen & hot], masks[chosen & hot]))
        uniform = float(masks[chosen & hot].mean()) if (chosen & hot).any() else float("nan")
        rows.append(_row(name, int((chosen & hot).sum()), "inside the masks", mean, error, uniform))
    return rows


def _row(name: str, pictures: int, region: str, mean: float, error: float, uniform: float) -> dict[str, Any]:
    known = pictures > 0
    return {
        "class": name,
        "pictures": pictures,
        "region": region,
        "share": mean if known else None,
        "share" + ERROR: error if pictures > 1 else None,
        "uniform": uniform if known else None,
        "times": mean / uniform if known and uniform > 0 else None,
    }
