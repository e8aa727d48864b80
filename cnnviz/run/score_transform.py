"""Softmax or sigmoid, which turn scores into probabilities; chosen once for all passes of a question."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnviz.engine.black_box import BlackBox
from cnnviz.engine.forward import OutputRecorder, forward
from cnnviz.engine.model_inputs import ModelInputs

ScoreTransform = Literal["softmax", "sigmoid"]
SIGMOIDS = {torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, F.sigmoid, torch.special.expit}


def score_transform(
    model: nn.Module, inputs: ModelInputs, scores: Tensor, precision: torch.dtype
) -> ScoreTransform | None:
    """Sigmoid for a single class, else softmax, for scores (N, K); None if they are probabilities already.

    They are where each row adds up to one, or where the model ends in a sigmoid, which a pass of one input shows.
    ``precision`` is what the model computed them in.
    """
    transform: ScoreTransform = "sigmoid" if scores.shape[1] == 1 else "softmax"
    values, slack = scores.detach().double(), max(1e-4, 2 * torch.finfo(precision).eps)
    if bool(((values < 0) | (values > 1 + slack)).any()):
        return transform
    if transform == "softmax" and bool(((values.sum(1) - 1).abs() < slack).all()):
        return None
    if isinstance(model, BlackBox):
        raise ValueError(
            "all scores are between 0 and 1, and a black box does not show whether a sigmoid gave them; "
            "take the scores as they are: score='logit' of methods, scale='score' of metrics"
        )
    sigmoids = OutputRecorder(SIGMOIDS)
    output = forward(model, inputs.rows(slice(0, 1)), modes=[sigmoids], batch=inputs[0])
    return transform if sigmoids.input_of(output) is None else None


def as_probabilities(scores: Tensor, transform: ScoreTransform | None) -> Tensor:
    """Scores (N, K) as probabilities, where there is a transform."""
    return scores if transform is None else scores.sigmoid() if transform == "sigmoid" else scores.softmax(1)
