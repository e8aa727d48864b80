"""Softmax or sigmoid, which turn scores into probabilities; chosen once for all passes of a question."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from cnnviz.engine.black_box import BlackBox
from cnnviz.engine.deferred import assumed
from cnnviz.engine.forward import OutputRecorder, forward
from cnnviz.engine.model_facts import facts_of
from cnnviz.engine.model_inputs import ModelInputs
from cnnviz.engine.operations import SIGMOIDS

ScoreTransform = Literal["softmax", "sigmoid"]


class UnknownTransform(ValueError):
    """Nobody knows whether the scores of a black box are probabilities already."""


def score_transform(
    model: nn.Module, inputs: ModelInputs, scores: Tensor, precision: torch.dtype
) -> ScoreTransform | None:
    """Sigmoid for a single class, else softmax, for scores (N, K); None if they are probabilities already.

    They are where each row adds up to one, or where the model ends in a sigmoid, which one more pass shows.
    ``precision`` is what the model computed them in. Raises UnknownTransform for a black box of which it is not known.
    """
    transform: ScoreTransform = "sigmoid" if scores.shape[1] == 1 else "softmax"
    values, slack = scores.detach().double(), max(1e-4, 2 * torch.finfo(precision).eps)
    # what was found for this model before is the best guess
    facts = facts_of(model)
    facts["logits"] = assumed(((values < 0) | (values > 1 + slack)).any(), facts.get("logits", True))
    if facts["logits"]:
        return transform
    if transform == "softmax" and assumed(((values.sum(1) - 1).abs() < slack).all()):
        return None
    if isinstance(model, BlackBox):
        raise UnknownTransform(
            "all scores are between 0 and 1, and a black box does not show whether a sigmoid gave them; "
            "take the scores as they are: score='logit' of methods, scale='score' of metrics"
        )
    return None if ends_in_sigmoid(model, inputs) else transform


def ends_in_sigmoid(model: nn.Module, inputs: ModelInputs) -> bool:
    """True if a sigmoid gave the model's output, which one more pass shows. Found once for each model."""
    facts, fact = facts_of(model), "ends in a sigmoid"
    if fact not in facts:
        sigmoids = OutputRecorder(SIGMOIDS)
        facts[fact] = sigmoids.input_of(forward(model, inputs, modes=[sigmoids])) is not None
    return bool(facts[fact])


def both_sides(scores: Tensor, names: tuple[str, ...] | None, probabilities: bool) -> Tensor:
    """A single score (N, 1) for what it says and against it, (N, 2): p and 1 - p, or a logit and its negative.

    With two class names, the score is that of the second: columns are as the names. Otherwise it is class 0, and what
    speaks against it is -1, the last column.
    """
    against = 1 - scores if probabilities else -scores
    return torch.cat([against, scores] if names is not None and len(names) == 2 else [scores, against], 1)


def as_probabilities(scores: Tensor, transform: ScoreTransform | None) -> Tensor:
    """Scores (N, K) as probabilities, where there is a transform."""
    return scores if transform is None else scores.sigmoid() if transform == "sigmoid" else scores.softmax(1)
