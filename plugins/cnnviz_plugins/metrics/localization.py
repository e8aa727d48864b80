"""Localization: how well a map agrees with annotated places, of signals, images or volumes."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from cnnviz import Metric, Trial, metric, segment
from cnnviz.explanations import Sign, evidence, tied_ranks
from cnnviz_plugins.metrics._connected_parts import connected, intervals
from cnnviz_plugins.metrics._settings import check_choice


@metric
def roc_auc(
    per: Literal["pixel", "section", "interval"] = "pixel",
    sign: Sign = "auto",
    count: Annotated[int, "how many intervals"] = 6,
) -> Metric:
    """Area under the ROC curve of evidence (Hanley & McNeil, 1982, doi:10.1148/radiology.143.1.7063747).

    One number for each input, (N,), 0.5 by chance and for a blank map, 1 at best: the share of pairs of an annotated
    and another place in which the annotated one has more evidence; ties count half. ``per="section"`` compares the
    strongest evidence of every connected part, annotated or not, and ``per="interval"`` that of ``count`` equal parts
    of the longest side, annotated where any place of them is. Raises ValueError for an input with no annotated place or
    no other, an unknown ``per``, and a ``count`` below 2 or above the longest side.
    """
    check_choice("per", per, "pixel", "section", "interval")
    if count < 2:
        raise ValueError(f"count={count} intervals are not to be compared; use 2 or more")

    def score(trial: Trial) -> Tensor:
        maps = evidence(trial.explanation, sign).double()
        _check_annotated(trial)
        everywhere = trial.masks.flatten(1).all(1)
        _refuse(everywhere, "input {} is annotated everywhere, with nothing to compare; leave it out")
        areas = []
        for values, mask in zip(maps, trial.masks, strict=True):
            if per == "section":
                strengths, inside = connected(values, mask)
            elif per == "interval":
                strengths, inside = intervals(values, mask, count)
            else:
                strengths, inside = values.flatten(), mask.flatten()
            if bool(inside.all()):
                raise ValueError(f"all {count} intervals hold annotated places, and there is none to compare; use more")
            areas.append(_area_under_curve(strengths, inside))
        return torch.stack(areas)

    return score


@metric
def mass_inside(sign: Sign = "auto") -> Metric:
    """Share of the positive evidence that lies on annotated places (Wang et al., 2020, arXiv:1910.01279).

    The energy-based pointing game. One number for each input, (N,), 0 to 1; an even map scores the annotated share of
    the input, a map without positive evidence 0. Raises ValueError for an input with no annotated place.
    """

    def score(trial: Trial) -> Tensor:
        energy = evidence(trial.explanation, sign).double().clamp(min=0)
        _check_annotated(trial)
        total = energy.flatten(1).sum(1)
        return (energy * trial.masks).flatten(1).sum(1) / total.where(total > 0, 1)

    return score


@metric
def pointing_game(tolerance: float = 0.0, sign: Sign = "auto") -> Metric:
    """1 if the place with the most evidence is annotated, else 0 (Zhang et al., 2018, arXiv:1608.00507).

    One number for each input, (N,): of several places that share the most evidence, the share of hits; 0 for a map
    without positive evidence. A place within ``tolerance`` pixels of an annotated one is a hit; the paper allows 15 on
    photographs of some 500. Raises ValueError for a negative ``tolerance``, and an input with no annotated place.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance={tolerance:g} is no distance; use 0 or more pixels")

    def score(trial: Trial) -> Tensor:
        maps = evidence(trial.explanation, sign).flatten(1)
        _check_annotated(trial)
        allowed = _dilated(trial.masks, tolerance).flatten(1)
        peaks = (maps == maps.amax(1, keepdim=True)) & (maps > 0)
        return (peaks & allowed).sum(1).double() / peaks.sum(1).clamp(min=1)

    return score


@metric
def mask_iou(by: Literal["threshold", "segmentation"] = "threshold", threshold: float = 0.15) -> Metric:
    """Intersection over union of the map's region and the annotated one (Selvaraju et al., 2017, arXiv:1610.02391).

    One number for each input, (N,), 0 to 1; 0 for a blank map. The region is where the evidence is at least
    ``threshold`` of its peak, by default as in the paper; or, of images, the object that :func:`cnnviz.segment` finds
    (``by="segmentation"``). Raises ValueError for an unknown ``by``, a ``threshold`` outside of 0..1, and an input with
    no annotated place.
    """
    check_choice("by", by, "threshold", "segmentation")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold:g} is no share of the peak; use more than 0, and up to 1")

    def score(trial: Trial) -> Tensor:
        _check_annotated(trial)
        if by == "segmentation":
            region = segment(trial.explanation).masks.flatten(1)
        else:
            maps = trial.evidence.flatten(1)
            region = (maps >= threshold * maps.amax(1, keepdim=True)) & (maps > 0)
        mask = trial.masks.flatten(1)
        return (region & mask).sum(1).double() / (region | mask).sum(1)

    return score


def _check_annotated(trial: Trial) -> None:
    _refuse(~trial.masks.flatten(1).any(1), "input {} has no annotated place, and can't be scored; leave it out")


def _refuse(wrong: Tensor, message: str) -> None:
    """Raises ValueError with the numbers of the first inputs for which ``wrong`` (N,) is True put into the message."""
    items = wrong.nonzero()[:, 0].tolist()
    if items:
        listed = ", ".join(map(str, items[:5])) + (", ..." if len(items) > 5 else "")
        raise ValueError(message.format(listed))


def _area_under_curve(strengths: Tensor, inside: Tensor) -> Tensor:
    """The Mann-Whitney statistic of strengths (K,), inside against outside, as a share of all pairs."""
    several, others = inside.sum(), (~inside).sum()
    area: Tensor = (tied_ranks(strengths)[inside].sum() - several * (several + 1) / 2) / (several * others)
    return area


def _dilated(masks: Tensor, tolerance: float) -> Tensor:
    """Masks (N, *spatial) with all places within a Euclidean distance of ``tolerance`` pixels."""
    from skimage.morphology import isotropic_dilation

    dilated = [isotropic_dilation(mask.cpu().numpy(), tolerance) for mask in masks]  # type: ignore[no-untyped-call]
    return torch.stack([torch.from_numpy(mask) for mask in dilated]).to(masks.device)
