"""What a model says of inputs: the classes with the highest scores, before anything is explained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from cnnviz.engine.loans import borrows
from cnnviz.engine.validation import as_network, check_model
from cnnviz.explanations.inputs import called_with
from cnnviz.explanations.read_inputs import loaded_batches, read_inputs
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.models.prediction import Prediction, Predictions, Ranking
from cnnviz.run.options import RunOptions
from cnnviz.run.plan import Plan
from cnnviz.run.run import Run
from cnnviz.run.targets import class_scores
from cnnviz.run.told import probability_of


@borrows
def predictions(
    network: nn.Module,
    inputs: Any,
    top: int = 5,
    preprocessing: Preprocessing | None = None,
    categories: tuple[str, ...] | None = None,
) -> Predictions:
    """The ``top`` classes of each input, the highest score first; of a model with fewer classes, all.

    Takes inputs as :func:`cnnviz.explain` does. Raises ValueError for a ``top`` below 1, and what ``explain`` raises.
    """
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise ValueError(f"the top {top!r} classes can't be; ask for 1 or more")
    if isinstance(inputs, DataLoader):
        return Predictions(
            one
            for batch in loaded_batches(inputs)
            for one in predictions(network, batch, top, preprocessing, categories)
        )
    network = as_network(network)
    check_model(network)
    call, _ = called_with(network, read_inputs(network, inputs, preprocessing)[0])
    with torch.inference_mode(False), torch.no_grad():
        run = Run(network, call, plan=Plan(again=True), options=RunOptions(preprocessing, categories))
        run.score  # noqa: B018  # what is wrong with the model or its input shows here
        most = min(top, class_scores(run.trace.output, len(call.first)).shape[1])
        classes = run.question.ranked(run.trace.output, len(call.first), most)
        by_rank = [run.toward(ranked) for ranked in classes.unbind(1)]
        found = [_told(each) for each in by_rank]
    return Predictions(Ranking(row) for row in zip(*found, strict=True))


def _told(run: Run) -> list[Prediction]:
    """The class that is asked about, for each input."""
    names, probability = run.options.categories or (), probability_of(run)
    indices = [] if run.target is None else run.target.tolist()
    shares = [None] * len(indices) if probability is None else probability.tolist()
    return [
        Prediction(index, names[index] if 0 <= index < len(names) else None, score, share)
        for index, score, share in zip(indices, run.score.tolist(), shares, strict=True)
    ]
