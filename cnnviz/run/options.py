"""Options shared by a run and all runs derived from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from cnnviz.engine.forward import Head
from cnnviz.engine.speed.compilation import Compiled
from cnnviz.engine.speed.conv_bn_folding import Folded
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.run.score_transform import ScoreTransform


@dataclass(frozen=True)
class RunOptions:
    """Preprocessing, class names, seed, memory budget and numerical options of a run."""

    preprocessing: Preprocessing | None = None
    categories: tuple[str, ...] | None = None
    seed: int = 0
    memory: int | None = None
    """Bytes that one chunk of inputs may take; None: a share of what is free."""
    before: Head | None = None
    """Scores are what goes into this last operation of the model, instead of what comes out."""
    probabilities: ScoreTransform | None = None
    """What turns scores of classes into probabilities; None: scores stay as they are."""
    precision: torch.dtype | None = None
    """Of convolutions and matrix products, where that is less than the model's weights have."""
    folded: Folded | None = None
    """The copy that runs instead of the model, where batch norms were folded."""
    names: Mapping[Any, str] = field(default_factory=dict)
    """Names of layers that are given as modules of another model, of which this one is a copy."""
    compiled: Compiled | None = None
    """The compiled model, for passes that leave nothing but scores."""
