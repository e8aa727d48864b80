"""The smallest part that a network needs, and the smallest that it can't do without: masks that are learned."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz import Baseline, Expr, Run, attribution, baseline_input, blurred, learned_mask, lift, noted, procedure

LEVELS = 8  # of blur, between which masks choose
TEMPERATURE = 1 / 20  # of the smooth maximum
FINEST, BLUR = 32, 20 / 224  # nodes on the shorter side, and the widest blur, of that side
MODES = ("linear", "bilinear", "trilinear")


@attribution
def extremal_perturbation(
    area: float = 0.1, steps: int = 800, lr: float = 0.01, mirror: bool = True, perturbation: Literal["blur", "fade"] = "blur"
) -> Expr:
    """The part of a given size that keeps the score highest (Fong, Patrick & Vedaldi, 2019, arXiv:1910.08485).
    """
