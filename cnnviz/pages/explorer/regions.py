"""Networks that name a class for each place of a picture: a question is about a class where it is named."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from cnnviz.engine.loans import borrows
from cnnviz.engine.validation import as_network
from cnnviz.explanations.inputs import called_with
from cnnviz.explanations.read_inputs import read_inputs
from cnnviz.models.loading import LoadedModel
from cnnviz.run.dense_targets import region
from cnnviz.run.options import RunOptions
from cnnviz.run.output_targets import dense_output
from cnnviz.run.plan import Plan
from cnnviz.run.run import Run

ANYWHERE = region(0, where=(0, 0))
"""A question that every such network has an answer to."""


@borrows
def covered(model: LoadedModel, image: Image.Image) -> list[dict[str, Any]]:
    """The classes that are named somewhere, with their share of the picture: the largest first, the background last."""
    network = as_network(model.module)
    call, _ = called_with(network, read_inputs(network, image, model.preprocessing)[0])
    with torch.inference_mode(False), torch.no_grad():
        run = Run(network, call, ANYWHERE, plan=Plan(again=True), options=RunOptions(model.preprocessing))
        run.score  # noqa: B018  # what is wrong with the model or its input shows here
        scores = dense_output(run.trace.output)[0]
    places = scores.argmax(0) if len(scores) > 1 else torch.zeros_like(scores[0], dtype=torch.int64)
    counts = places.flatten().bincount(minlength=len(scores)).cpu()
    names = model.categories or tuple(f"class {index}" for index in range(len(scores)))
    order = sorted(counts.nonzero().flatten().tolist(), key=lambda index: (_behind(names, index), -int(counts[index])))
    return [{"index": index, "share": float(counts[index] / counts.sum())} for index in order]


def _behind(names: tuple[str, ...], index: int) -> bool:
    return index < len(names) and names[index].strip("_ ").lower() == "background"
