"""Whether a map lies on what was annotated: metrics that compare evidence with masks, of signals, images or volumes.

Each input is scored by itself. A blank map scores as one that knows nothing, or that points nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from cnnviz import Sign, Trial, evidence, metric, segment
from cnnviz_plugins.metrics._connected_parts import connected, intervals

Scored = Callable[[Trial], Tensor]


@metric
def roc_auc(per: Literal["pixel", "section", "interval"] = "pixel", sign: Sign = "auto", count: int = 6) -> Scored:
    """How well evidence tells annotated places from others: the area under the ROC curve, 0.5 by chance, 1 at best.

    It is the share of pairs of a place inside and one outside in which the place inside has more evidence; ties count
    half. ``per="section"`` compares the strongest evidence of every connected part, annotated or not, and
    ``per="interval"`` that of ``count`` equal parts of the longest side, annotated where any place of them is.
    An input with no annotated place, or no other, can't be scored: ValueError.
    """
    if per not in ("pixel", "section", "interval"):
        raise ValueError(f"there is no per={per!r}; use 'pixel', 'section' or 'interval'")
    if count < 2:
        raise ValueError(f"count={count} intervals are not to be compared; use 2 or more")

    def score(trial: Trial) -> Tensor:
        maps = evidence(trial.explanation, sign).double()
        _demand_inside(trial)
        _demand_outside(trial)
        found = []
        for each, mask in zip(maps, trial.masks, strict=True):
            if per == "section":
                strengths, inside = connected(each, mask)
            elif per == "interval":
                strengths, inside = intervals(each, mask, count)
            else:
                strengths, inside = each.flatten(), mask.flatten()
            if bool(inside.all()):
                raise ValueError(f"all {count} intervals hold annotated places, and there is none to compare; use more")
            found.append(_area_under_curve(strengths, inside))
        return torch.stack(found)

    return score


@metric
def mass_inside(sign: Sign = "auto") -> Scored:
    """Which share of the positive evidence lies on annotated places, 0 to 1 (Wang et al., 2020, arXiv:1910.01279).

    Their energy-based pointing game. A map without positive evidence has none there: 0. The share of the picture that
    is annotated is what an even map scores. An input with no annotated place can't be scored: ValueError.
    """

    def score(trial: Trial) -> Tensor:
        energy = evidence(trial.explanation, sign).double().clamp(min=0)
        _demand_inside(trial)
        total = energy.flatten(1).sum(1)
        return (energy * trial.masks).flatten(1).sum(1) / total.where(total > 0, 1)

    return score


@metric
def pointing_game(tolerance: float = 0.0, sign: Sign = "auto") -> Scored:
    """Whether the place with the most evidence is annotated, 1 or 0 (Zhang et al., 2018, arXiv:1608.00507).

    It may miss by ``tolerance`` pixels; the paper allows 15 on photographs of some 500. Where several places share the
    most, their share of hits. A map without positive evidence points nowhere: 0. An input with no annotated place
    can't be scored: ValueError.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance={tolerance:g} is no distance; use 0 or more pixels")

    def score(trial: Trial) -> Tensor:
        maps = evidence(trial.explanation, sign)
        _demand_inside(trial)
        allowed = _within(trial.masks, tolerance).flatten(1)
        each = maps.flatten(1)
        peaks = (each == each.amax(1, keepdim=True)) & (each > 0)
        return (peaks & allowed).sum(1).double() / peaks.sum(1).clamp(min=1)

    return score


@metric
def mask_iou(by: Literal["threshold", "segmentation"] = "threshold", threshold: float = 0.15) -> Scored:
    """How far the map's region and the annotated one are the same: their intersection over their union, 0 to 1.

    The region is where the evidence is at least ``threshold`` of its peak, by default as Selvaraju et al. (2017,
    arXiv:1610.02391) take it; or ``by="segmentation"``, of images, the object that :func:`cnnviz.segment` cuts out. Of
    a blank map it is empty. An input with no annotated place can't be scored: ValueError.
    """
    if by not in ("threshold", "segmentation"):
        raise ValueError(f"there is no by={by!r}; use 'threshold' or 'segmentation'")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold:g} is no share of the peak; use more than 0, and up to 1")

    def score(trial: Trial) -> Tensor:
        _demand_inside(trial)
        if by == "segmentation":
            region = segment(trial.explanation).masks.flatten(1)
        else:
            each = trial.evidence.flatten(1)
            region = (each >= threshold * each.amax(1, keepdim=True)) & (each > 0)
        mask = trial.masks.flatten(1)
        return (region & mask).sum(1).double() / (region | mask).sum(1)

    return score


def _demand_inside(trial: Trial) -> None:
    empty = [item for item, mask in enumerate(trial.masks) if not bool(mask.any())]
    if empty:
        raise ValueError(f"input {_listed(empty)} has no annotated place, and can't be scored; leave it out")


def _demand_outside(trial: Trial) -> None:
    full = [item for item, mask in enumerate(trial.masks) if bool(mask.all())]
    if full:
        raise ValueError(f"input {_listed(full)} is annotated everywhere, with nothing to compare; leave it out")


def _listed(items: list[int]) -> str:
    return ", ".join(map(str, items[:5])) + (", ..." if len(items) > 5 else "")


def _area_under_curve(strengths: Tensor, inside: Tensor) -> Tensor:
    """Of strengths (K,) and whether each is inside, by ranks: those of equal strength share theirs."""
    order = strengths.sort().values
    first, behind = torch.searchsorted(order, strengths), torch.searchsorted(order, strengths, right=True)
    ranks = (first + behind + 1).double() / 2  # from 1
    several, others = inside.sum(), (~inside).sum()
    area: Tensor = (ranks[inside].sum() - several * (several + 1) / 2) / (several * others)
    return area


def _within(masks: Tensor, tolerance: float) -> Tensor:
    """Masks (N, *spatial) with all places that are so many pixels away, along straight lines."""
    if tolerance == 0:
        return masks
    reach = int(tolerance)
    squared = torch.where(masks, 0.0, torch.inf)  # of the way to the nearest place inside, axis by axis
    for axis in range(1, masks.ndim):
        nearest = squared.clone()
        for step in range(1, min(reach, masks.shape[axis] - 1) + 1):
            size = masks.shape[axis] - step
            before, behind = nearest.narrow(axis, 0, size), nearest.narrow(axis, step, size)
            before.copy_(torch.minimum(before, squared.narrow(axis, step, size) + step**2))
            behind.copy_(torch.minimum(behind, squared.narrow(axis, 0, size) + step**2))
        squared = nearest
    return squared <= tolerance**2
