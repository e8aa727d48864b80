"""Places in the order of their evidence, and the question whose score follows as they go: what curves are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from cnnviz import Run, Sign, Trial, evidence

Scale = Literal["probability", "score"]
Scored = Callable[[Trial], Tensor]


def check_curve(step: float, scale: str) -> None:
    """Raises ValueError for a share of places that is none, or a scale there is not."""
    if not 0 < step <= 1:
        raise ValueError(f"step={step:g} is no share of the places; use more than 0, and up to 1")
    check_scale(scale)


def check_scale(scale: str) -> None:
    if scale not in ("probability", "score"):
        raise ValueError(f"there is no scale={scale!r}; use 'probability' or 'score'")


def question(trial: Trial, scale: str) -> Run:
    """The question that was answered, with probabilities of classes or scores as they are."""
    return trial.run.as_probability() if scale == "probability" else trial.run


def ranks(trial: Trial, sign: Sign) -> Tensor:
    """For each place how many have more evidence, (N, places); chance, the same for each input, orders equal ones."""
    maps = evidence(trial.explanation, sign).flatten(1)
    mixed = torch.randperm(maps.shape[1], generator=trial.run.generator, device=maps.device)
    order = mixed[maps[:, mixed].argsort(stable=True, dim=1, descending=True)]
    numbers = torch.arange(maps.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, numbers)


def first_of(ranked: Tensor, counts: Tensor, like: Tensor) -> Tensor:
    """Where the ``counts`` (K,) foremost places of inputs like (N, C, *spatial) are: (K, N, 1, *spatial) bool."""
    return (ranked < counts.to(ranked.device)[:, None, None]).view(len(counts), len(like), 1, *like.shape[2:])
