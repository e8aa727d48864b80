"""Places that are hot again and again: in more pictures of a class than chance, and than in other classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnnviz.datasets.findings.heat_shares import Maps

PART = 16
"""One in so many cells of a map is hot: as many in each map, so that a class of wider maps is not hot everywhere."""
SURE = 0.01
"""The chance of finding a place anywhere where there is none."""
TIMES = 1.5
"""How many times as often a place is hot in its class, as chance and as other classes have it."""


@dataclass(frozen=True)
class RepeatedPlace:
    """Cells side by side that are hot more often in one class."""

    name: str
    """The class."""
    cells: tuple[tuple[int, int], ...]
    """Rows and columns on the grid of the maps."""
    pictures: int
    """How many of the class have a hot cell there."""
    of: int
    """How many pictures the class has."""
    share: float
    """The share of the class's pictures in which the cell that is hot most often is hot."""
    elsewhere: float
    """The same of the other classes."""
    chance: float
    """The same if hot cells lay anywhere."""
    p: float
    """How probable that is by chance anywhere in the data set, at most: corrected for all cells and classes."""


def hot_cells(maps: Maps) -> NDArray[np.bool_]:
    """The hottest sixteenth of the cells of each map (n, s, s), without those that are only as hot as others left out.

    So a uniform map has no hot cell, and neither has a map without heat.
    """
    flat = maps.reshape(len(maps), -1)
    count = flat.shape[1] // PART
    first_left_out = -np.partition(-flat, count, axis=1)[:, count]
    return (flat > first_left_out[:, None]).reshape(maps.shape)


def repeated_places(maps: Maps, members: Mapping[str, NDArray[np.bool_]]) -> list[RepeatedPlace]:
    """The places that are hot in more pictures of a class than chance and than in the other classes.

    A cell counts if two tests say so. The first is against chance: a picture with k hot cells has each of them with
    probability k / cells, and the number of such pictures is binomial (of unequal probabilities, which only makes the
    test stricter). The second is Fisher's exact test against the pictures of other classes. The larger of the two
    probabilities, times all cells of all classes (Bonferroni), is at most 0.01. Both shares are exceeded 1.5 times.
    """
    some = maps.any((1, 2))
    members = {name: chosen & some for name, chosen in members.items()}
    members = {name: chosen for name, chosen in members.items() if chosen.any()}
    hot = hot_cells(maps)
    everyone = np.logical_or.reduce(list(members.values())) if members else np.zeros(len(maps), np.bool_)
    side, total = maps.shape[1], hot[everyone].sum(0)
    found = []
    for name, chosen in members.items():
        own, size = hot[chosen].sum(0), int(chosen.sum())
        others = int(everyone.sum()) - size
        if not others:
            continue
        chance = float(hot[chosen].mean())
        elsewhere = (total - own) / others
        candidates = (own / size > TIMES * chance) & (own / size > TIMES * elsewhere)
        p = np.ones((side, side))
        for row, column in np.argwhere(candidates):
            count = int(own[row, column])
            by_chance = binomial_tail(count, size, chance)
            against = fisher_tail(count, size, int(total[row, column]), size + others)
            p[row, column] = min(1.0, max(by_chance, against) * side * side * len(members))
        for cells in _side_by_side(p <= SURE):
            best = min(cells, key=lambda cell: (p[cell], -own[cell]))
            there = int(hot[chosen][:, [row for row, _ in cells], [column for _, column in cells]].any(1).sum())
            rates = float(own[best] / size), float(elsewhere[best]), chance
            found.append(RepeatedPlace(name, tuple(cells), there, size, *rates, float(p[best])))
    return sorted(found, key=lambda place: place.p)


def binomial_tail(count: int, of: int, probability: float) -> float:
    """The probability of ``count`` or more among ``of`` independent cases."""
    if count <= 0 or probability >= 1:
        return 1.0
    if probability <= 0:
        return 0.0
    k = np.arange(count, of + 1)
    logs = _log_choose(of, k) + k * np.log(probability) + (of - k) * np.log1p(-probability)
    return _sum_of(logs)


def fisher_tail(count: int, of: int, hot: int, everyone: int) -> float:
    """The probability that of ``of`` pictures, drawn from ``everyone``, ``count`` or more are ``hot`` ones."""
    k = np.arange(max(count, 0), min(of, hot) + 1)
    k = k[of - k <= everyone - hot]
    logs = _log_choose(hot, k) + _log_choose(everyone - hot, of - k) - _log_choose(everyone, np.array(of))
    return _sum_of(logs)


def _sum_of(logs: NDArray[np.float64]) -> float:
    return min(1.0, float(np.exp(logs).sum()))


def _log_choose(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
    table = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    chosen: NDArray[np.float64] = table[n] - table[k] - table[n - k]
    return chosen


def _side_by_side(cells: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """True cells in groups that touch, also at corners."""
    left = {(int(row), int(column)) for row, column in np.argwhere(cells)}
    parts = []
    while left:
        part, edge = [], [min(left)]
        left.discard(edge[0])
        while edge:
            row, column = edge.pop()
            part.append((row, column))
            near = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= near
            edge += sorted(near)
        parts.append(sorted(part))
    return parts
