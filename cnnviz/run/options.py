"""Options shared by a run and all runs derived from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from cnnviz.engine.device_policy import DevicePolicy, policy_of
from cnnviz.engine.forward import Head
from cnnviz.engine.speed.compilation import Compiled
from cnnviz.engine.speed.conv_bn_folding import Folded
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.run.score_transform import ScoreTransform


@dataclass
class Findings:
    """How a model treats the inputs of a batch, as one question finds it for those that follow."""

    apart: dict[int, bool] = field(default_factory=dict)
    """Whether inputs change each other's scores at most within so many in a row."""
    apart_in_chunks: dict[int, bool] = field(default_factory=dict)
    """Whether so many variants, passed together, leave each other's scores as they are."""
    by_items: bool | None = None
    """Whether each input is passed by itself, because Python reads values of the batch; None: not known yet."""

    are_proven: bool = True
    """True if they hold for all inputs of these shapes and all targets of this kind, and not for what was tried."""

    @cached_property
    def of_probabilities(self) -> Findings:
        """The same where scores are turned into probabilities."""
        return Findings(by_items=self.by_items)


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
    policy: DevicePolicy | None = None
    """Decides on chunks; None: the policy of the device as it is when chunks are made."""
    findings: Findings | None = None
    """What earlier questions of equal shapes have found; None: it is found anew for each question."""

    def policy_on(self, device: torch.device) -> DevicePolicy:
        """What decides on chunks there. Raises ValueError for a memory budget of less than a byte."""
        return policy_of(device, self.memory) if self.policy is None else self.policy
