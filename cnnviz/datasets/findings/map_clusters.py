"""Clusters of maps that are unlike the others, and the most typical and the strangest maps of a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import affine_grid, grid_sample

from cnnviz.datasets.findings.heat_shares import Maps

LEAST = 10
"""Maps of a cluster, at least; of more than 1,000 maps one in a hundred."""
APART = 3.0
"""How many times as far from other maps as from each other the maps of a cluster are, at least."""
NEIGHBOURS = 5
"""Which neighbour distances go to: the fifth nearest, so that no single map decides."""
MOST = 3_000
"""How many maps are clustered at once; the time grows with their square."""
ONE_PLACE = 4.0
"""How many times a uniform map's share of the heat a cluster has in one place, at least."""
MIDDLE = "middle"
Labels = NDArray[np.int64]
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Cluster:
    """Maps that are like each other and unlike all others."""

    number: int
    members: tuple[int, ...]
    """Which maps, by number."""
    apart: float
    """How many times as far from other maps as from each other: the ratio of the distances to the fifth nearest."""
    centre: tuple[float, float]
    """The middle of the place that has most heat: from the top and from the left, as shares of the picture."""
    share: float
    """The mean share of their heat in that place, which is a quarter of the picture's height and of its width."""
    usual: bool
    """True for more than half of all maps."""

    @property
    def is_one_place(self) -> bool:
        """True if the heat of the cluster lies in one place."""
        return self.share >= ONE_PLACE / 16

    @property
    def place(self) -> str:
        """Which part of a picture the place is in, such as "top left corner"."""
        return place_name(self.centre)

    @property
    def is_finding(self) -> bool:
        """False for more than half of all maps, which are no exception; unless these have one place at the border."""
        return not self.usual or (self.is_one_place and self.place != MIDDLE)


def cluster_maps(
    maps: Maps, native: tuple[int, int] | None = None, groups: Mapping[str, NDArray[np.bool_]] | None = None
) -> Labels:
    """The cluster of each map (n,), -1 for a map of none, found by HDBSCAN among all of them.

    The distance of two unit maps is Euclidean. A cluster has at least 10 maps, or one in a hundred, and counts if its
    maps are at least 3 times as far from the nearest other maps as from each other. That keeps away the clusters that
    HDBSCAN finds in maps whose places change gradually. A coarse map of a network has few places to be at, which alone
    would make clusters: so each map is moved first by up to half a cell of its own, at random but the same each time.

    Args:
        maps: (n, s, s), see :func:`unit_maps`; those without heat belong to no cluster.
        native: the method's own height and width; None: as fine as the maps.
        groups: classes, among which more than 3,000 maps are clustered separately, 3,000 of each at most.

    Raises ImportError where scikit-learn is not installed.
    """
    labels = np.full(len(maps), -1, np.int64)
    hot = np.flatnonzero(maps.any((1, 2)))
    parts = [hot]
    if len(hot) > MOST:
        parts = [np.intersect1d(hot, np.flatnonzero(chosen)) for chosen in (groups or {}).values()] or parts
    found = 0
    for part in parts:
        chosen = part if len(part) <= MOST else part[np.linspace(0, len(part) - 1, MOST).astype(int)]
        own = _clustered(_dithered(maps[chosen], native))
        labels[chosen] = np.where(own >= 0, own + found, -1)
        found += int(own.max(initial=-1)) + 1
    return labels


def clusters_of(maps: Maps, labels: Labels, native: tuple[int, int] | None = None) -> list[Cluster]:
    """What the clusters are, the largest of one place first."""
    moved = _dithered(maps, native)
    found = []
    hot = maps.any((1, 2))
    for number in range(int(labels.max(initial=-1)) + 1):
        chosen = labels == number
        members = np.flatnonzero(chosen)
        rest = np.flatnonzero(hot & ~chosen)
        rest = rest if len(rest) <= MOST else rest[np.linspace(0, len(rest) - 1, MOST).astype(int)]
        centre, share = hottest_place(maps[chosen].mean(0))
        usual = 2 * len(members) > int(hot.sum())
        ratio = apart(moved[members], moved[rest])
        found.append(Cluster(number, tuple(members.tolist()), ratio, centre, share, usual))
    return sorted(found, key=lambda each: (not each.is_finding, not each.is_one_place, -len(each.members)))


def apart(own: Rows, others: Rows) -> float:
    """How many times as far from others as from each other: medians of the distances to the fifth nearest."""
    if len(own) < 2 or not len(others):
        return float("inf")
    inner = nearest(own, own, min(NEIGHBOURS + 1, len(own)))  # the nearest of all is the map itself
    outer = nearest(own, others, min(NEIGHBOURS, len(others)))
    middle = float(np.median(inner))
    return float(np.median(outer)) / middle if middle > 0 else float("inf")


def nearest(rows: Rows, others: Rows, rank: int) -> NDArray[np.float64]:
    """The distance of each row (n, d) to the ``rank``-th nearest of the others, (n,)."""
    found = np.empty(len(rows))
    for first in range(0, len(rows), 512):
        found[first : first + 512] = np.partition(distances(rows[first : first + 512], others), rank - 1)[:, rank - 1]
    return found


def distances(rows: Rows, others: Rows) -> Rows:
    """Euclidean distances (n, m) of rows (n, d) and (m, d)."""
    found: Rows = torch.cdist(
        torch.from_numpy(rows), torch.from_numpy(others), compute_mode="donot_use_mm_for_euclid_dist"
    ).numpy()
    return found


def hottest_place(mean: NDArray[Any]) -> tuple[tuple[float, float], float]:
    """The square of a quarter of a side with the most heat in a map (s, s): its middle, and its share of the heat."""
    side, width = mean.shape[0], mean.shape[0] // 4
    sums = np.lib.stride_tricks.sliding_window_view(mean.astype(np.float64), (width, width)).sum((2, 3))
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    centre = (float(row) + width / 2) / side, (float(column) + width / 2) / side
    return centre, float(sums.max() / max(float(mean.sum()), 1e-30))


def place_name(centre: tuple[float, float]) -> str:
    """Which part of a picture a place is in, from its distance from the top and from the left, as shares."""
    down = ("top", "", "bottom")[sum(centre[0] >= limit for limit in (0.25, 0.75))]
    right = ("left", "", "right")[sum(centre[1] >= limit for limit in (0.25, 0.75))]
    if down and right:
        return f"{down} {right} corner"
    return f"{down or right} edge" if down or right else MIDDLE


def typical_and_strange(maps: Maps, members: NDArray[np.bool_], count: int) -> tuple[list[int], list[int]]:
    """Of a class, the maps that are nearest to most others, and those that are farthest from any others.

    Typical is a small median distance to the maps of the class; strange, a large distance to the fifth nearest of them.
    """
    numbers = np.flatnonzero(members & maps.any((1, 2)))
    if len(numbers) < 2:
        return numbers.tolist(), []
    rows = maps[numbers].reshape(len(numbers), -1).astype(np.float64)
    few = rows if len(rows) <= MOST else rows[np.linspace(0, len(rows) - 1, MOST).astype(int)]
    medians, strange = nearest(rows, few, len(few) // 2 + 1), nearest(rows, few, min(NEIGHBOURS + 1, len(few)))
    shown = min(count, len(numbers) // 2)
    first = np.argsort(medians, kind="stable")[: min(count, len(numbers) - shown)]
    last = [number for number in np.argsort(-strange, kind="stable") if number not in first][:shown]
    return numbers[first].tolist(), numbers[last].tolist()


def _dithered(maps: Maps, native: tuple[int, int] | None) -> Rows:
    """Each map moved by up to half a cell of its own grid, as rows (n, s * s); its border goes on beyond it."""
    side = maps.shape[1]
    if not len(maps):
        return np.zeros((0, side * side))
    rows, columns = native or (side, side)
    halves = np.array([max(side / columns, 1), max(side / rows, 1)]) / side  # of a width of 2, as grid_sample has it
    shifts = np.random.default_rng(0).uniform(-halves, halves, (len(maps), 2))
    moves = torch.eye(2, 3).repeat(len(maps), 1, 1)
    moves[:, :, 2] = torch.from_numpy(shifts)
    grid = affine_grid(moves, [len(maps), 1, side, side], align_corners=False)
    moved = grid_sample(torch.from_numpy(maps)[:, None], grid, padding_mode="border", align_corners=False)
    flat = moved.reshape(len(maps), -1).double().numpy()
    rows_of: Rows = flat / np.maximum(flat.sum(1, keepdims=True), 1e-30)
    return rows_of


def _clustered(rows: Rows) -> Labels:
    """The clusters of rows that lie apart, numbered from 0; -1 for the rest."""
    least = max(LEAST, len(rows) // 100)
    labels = np.full(len(rows), -1, np.int64)
    if len(rows) < 2 * least:
        return labels
    found = _hdbscan()(min_cluster_size=least, min_samples=least, copy=True).fit_predict(rows)
    kept = 0
    for number in range(int(found.max(initial=-1)) + 1):
        chosen = found == number
        if apart(rows[chosen], rows[~chosen]) >= APART:
            labels[chosen] = kept
            kept += 1
    return labels


def _hdbscan() -> Any:
    try:
        return import_module("sklearn.cluster").HDBSCAN
    except ImportError as error:
        raise ImportError("an audit finds clusters with scikit-learn; pip install 'cnnviz[audit]'") from error
