"""What is told of a run's target beside its score: names of objectives, boxes, the probability of the class."""

from __future__ import annotations

from torch import Tensor

from cnnviz.run.box_target import boxes_of
from cnnviz.run.run import Run
from cnnviz.run.score_transform import UnknownTransform
from cnnviz.run.targets import class_scores


def objectives_of(run: Run) -> str | tuple[str, ...] | None:
    """The objective explained, as it is written, or one for each input; None for other targets."""
    return run.objective or tuple(map(repr, run.question.objectives)) or None


def target_boxes(run: Run) -> Tensor | None:
    """The boxes that the target is about, (N, B, 4) as x1, y1, x2, y2; None for other targets."""
    return boxes_of(run.question.target)


def probability_of(run: Run) -> Tensor | None:
    """The probability of the class explained, (N,); None for other targets, and where it is not known.

    It is the score, where the model ends in a softmax or a sigmoid; else the softmax of several scores. A single score
    is known to be a logit where what goes into the sigmoid is explained, or where both sides have names.
    """
    if run.target is None:
        return None
    if run.options.before == "sigmoid":
        return run.score.sigmoid()
    if class_scores(run.trace.output, len(run.inputs)).shape[1] > 1:
        try:
            return run.as_probability().score
        except UnknownTransform:
            return None
    if run.question.sigmoid:
        return run.score
    return run.score.sigmoid() if len(run.options.categories or ()) == 2 else None
