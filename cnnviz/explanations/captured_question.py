"""A whole question in a graph: the forward pass, its rules, several methods and their formulas, without Python."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import Tensor, nn

from cnnviz.engine.captured import Graph
from cnnviz.engine.deferred import Deferred, deferring, rehearsed
from cnnviz.engine.model_version import ModelVersion
from cnnviz.engine.randomness import Draws
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.request import Answers, Asked, Request
from cnnviz.run.objectives import Objective
from cnnviz.run.options import RunOptions


class Uncapturable(Exception):
    """The question can't be captured in a graph; says why."""


class CapturedQuestion:
    """Answers by replaying a graph.

    Args:
        graph: on the device of the question.
        request: the model, methods and options.
        asked: inputs and targets of the shapes that will be asked.
        network: what is asked.
        options: of its runs.

    Raises:
        Uncapturable: for a model that draws random numbers, for what reads values, and for what the device refuses.
    """

    def __init__(self, graph: Graph, request: Request, asked: Asked, network: nn.Module, options: RunOptions):
        # the graph computes from these tensors, whatever they hold when it is replayed
        device = asked.call.first.device
        with torch.inference_mode(False):  # whose tensors could not be written later
            targets = [each.to(device).clone() if isinstance(each, Tensor) else each for each in asked.targets]
            self._asked = replace(asked, call=asked.call.each(Tensor.clone), targets=targets)
        self._graph = graph

        def answer() -> Answers:
            return request.answers(self._asked, network, options)

        drawn = Draws(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is to be told, the answer itself tells
            _, self._rehearsal = graph.warmed(lambda: rehearsed(answer))  # which holds the values that were uploaded
        if drawn:
            raise Uncapturable(f"{type(network).__name__} draws random numbers in forward")
        deferred = Deferred(like=self._rehearsal)
        try:
            with graph.capturing(), deferring(deferred):
                self._answers = answer()
                self._surprises = deferred.surprises()
        except RuntimeError as error:
            raise Uncapturable((str(error).splitlines() or [type(error).__name__])[0]) from error

    def __call__(self, asked: Asked) -> Answers | None:
        """The answers for these inputs; None where something is not as it was when the graph was captured."""
        pairs = [*zip(self._asked.call.tensors, asked.call.tensors, strict=True)]
        pairs += [
            (place, given)
            for place, given in zip(self._asked.targets, asked.targets, strict=True)
            if isinstance(place, Tensor)
        ]
        for place, given in pairs:
            place.copy_(given, non_blocking=True)
        self._graph.replay()
        answers = [{name: [*map(_own, parts)] for name, parts in each.items()} for each in self._answers]
        if self._surprises is not None and any(self._surprises.tolist()):
            return None
        return answers


def captured(
    graph: Graph, request: Request, asked: Asked, network: nn.Module, options: RunOptions, version: ModelVersion
) -> CapturedQuestion:
    """The question in a graph. Raises Uncapturable, also for a model with hooks, which a graph does not call."""
    if version.has_hooks:
        raise Uncapturable(f"{type(network).__name__} has hooks, which a graph would not call")
    if not all(target is None or isinstance(target, Tensor | Objective) for target in asked.targets):
        raise Uncapturable("the target is a function, which a graph would not call")
    if torch.is_autocast_enabled(asked.call.first.device.type):
        raise Uncapturable("torch.autocast is on around it, whose casts of weights would be kept")
    if asked.call.call.args is not None:
        raise Uncapturable("the model is called with further arguments, which may change")
    return CapturedQuestion(graph, request, asked, network, options)


def _own(explanation: Explanation) -> Explanation:
    """With tensors that the next replay does not write."""
    return replace(
        explanation,
        values=explanation.values.clone(),
        inputs=explanation.inputs.clone(),
        target=None if explanation.target is None else explanation.target.clone(),
        score=explanation.score.clone(),
        probability=None if explanation.probability is None else explanation.probability.clone(),
        boxes=None if explanation.boxes is None else explanation.boxes.clone(),
        notes={name: note.clone() for name, note in explanation.notes.items()},
    )
