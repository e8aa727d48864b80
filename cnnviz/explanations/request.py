"""What :func:`cnnviz.explain` is asked of a model, apart from the inputs and the target: settled once, asked often."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.engine.deferred import tell_if
from cnnviz.engine.forward import InputTooSmall, misfit
from cnnviz.engine.model_inputs import ModelInputs
from cnnviz.engine.validation import as_network, check_model
from cnnviz.explanations.answers import answered_together
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.explanation_set import ExplanationList, Explanations
from cnnviz.explanations.inputs import Arguments, Explained, InputKey, called_with, chooses_input
from cnnviz.explanations.joint import JointExplanation
from cnnviz.explanations.options import ExplainOptions
from cnnviz.explanations.read_inputs import Originals, read_inputs
from cnnviz.formulas.scores_only import check_seen
from cnnviz.images.input_values import oddities
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.images.reading import one_line
from cnnviz.images.told import InputWarning
from cnnviz.models.class_names import class_names
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.protocols import Attribution
from cnnviz.registry.registry import attributions
from cnnviz.registry.resolve import resolve
from cnnviz.run.options import RunOptions
from cnnviz.run.resolve_target import resolved_target, several, top
from cnnviz.run.targets import Target

Answers = list[dict[str, list[Explanation]]]
"""For each target the explanations by the names of the methods, one for each of the model's inputs explained."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Inputs as the model is called with them, and targets as they are computed with."""

    call: ModelInputs
    explained: tuple[InputKey, ...]
    """Which of the model's inputs are explained."""
    originals: Mapping[InputKey, Originals]
    """The pictures that inputs were made of."""
    targets: Sequence[Any]
    count: int | None
    """So many of the classes with the highest scores, instead of targets."""


@dataclass(frozen=True, eq=False)
class Request:
    """A model, methods and options."""

    network: nn.Module
    methods: Mapping[str, Attribution]
    single: bool
    """True for one method that was not given in a list."""
    options: ExplainOptions
    preprocessing: Preprocessing | None
    categories: tuple[str, ...] | None
    of: Explained
    arguments: Arguments

    @property
    def device(self) -> torch.device | None:
        """Where the model's weights are; None where it has none."""
        return next((tensor.device for tensor in chain(self.network.parameters(), self.network.buffers())), None)

    def asked(self, inputs: Any, target: Target | top | several) -> Asked:
        """Raises what :func:`cnnviz.explain` says of inputs and targets that do not fit."""
        read, originals = read_inputs(self.network, inputs, self.preprocessing)
        call, explained = called_with(self.network, read, self.arguments, self.of)
        with torch.inference_mode(False):  # a graph cannot keep tensors made in it
            each = target.targets if isinstance(target, several) else [None if isinstance(target, top) else target]
            targets = [self._resolved(call.first, one) for one in each]
        return Asked(call, explained, originals, targets, target.count if isinstance(target, top) else None)

    def tell_odd_values(self, asked: Asked) -> None:
        """Warn of tensors that the preprocessing hardly made; files were told of by their names."""
        if self.preprocessing is not None and not asked.originals:
            for flag, text in oddities(asked.call.first, self.preprocessing):
                tell_if(flag, partial("the input {}".format, text), InputWarning)

    def prepared_for(self, asked: Asked) -> tuple[nn.Module, RunOptions]:
        """The network that is asked, and the options of runs on it."""
        return self.options.prepare(self.network, asked.call, self.preprocessing, self.categories)

    def answers(self, asked: Asked, network: nn.Module, run_options: RunOptions) -> Answers:
        """The explanations of these inputs."""
        try:
            return answered_together(network, asked.call, asked.targets, self.methods, run_options, asked.count)
        except InputTooSmall as error:
            size = self.preprocessing.input_size if self.preprocessing else None
            usual = f"; its preprocessing gives {size[0]} x {size[1]}" if size else ""
            raise ValueError(f"{error}{usual}") from error
        except (RuntimeError, AssertionError) as error:
            known = self.preprocessing
            if known is None or known.resize is None or known.input_size is not None:  # pictures are not kept whole
                raise
            shape, name = tuple(asked.call.first.shape), type(network).__name__
            raise ValueError(
                f"{name} can't compute inputs {shape} ({one_line(error)}); if it takes one size only, its pictures "
                "have to be cropped: leave preprocess='whole' out"
            ) from error

    def result(self, answers: Answers, asked: Asked, target: Target | top | several) -> Any:
        """The answers as :func:`cnnviz.explain` returns them."""
        together = not isinstance(self.of, int | str) or (self.of == "all" and "all" not in asked.explained)

        def told(parts: list[Explanation]) -> Explanation | JointExplanation:
            each = [
                replace(part, options=self.options, of=key, originals=asked.originals.get(key))
                for part, key in zip(parts, asked.explained, strict=True)
            ]
            return JointExplanation(each) if together else each[0]

        by_target: list[dict[str, Any]] = [{name: told(parts) for name, parts in each.items()} for each in answers]
        if isinstance(target, top | several):
            lists = {name: ExplanationList(each[name] for each in by_target) for name in self.methods}
            return next(iter(lists.values())) if self.single else Explanations(lists)
        return next(iter(by_target[0].values())) if self.single else Explanations(by_target[0])

    def _resolved(self, first: Tensor, target: Target) -> Any:
        try:
            return resolved_target(target, len(first), self.categories)
        except ValueError as error:
            reason = misfit(self.network, first)  # targets can't be counted where the first dimension is no batch
            if reason is None:
                raise
            raise ValueError(reason) from error


def requested(
    model: nn.Module | LoadedModel | Callable[..., Any],
    attribution: str | Attribution | Sequence[str | Attribution],
    options: ExplainOptions,
    settings: Mapping[str, Any],
    *,
    inputs: Any,
    of: Any,
    arguments: Arguments,
    preprocessing: Any,
    categories: Sequence[str] | None,
    preprocess: str = "crop",
) -> Request:
    """The request of these arguments of :func:`cnnviz.explain`. Raises what it says of models and methods."""
    if preprocess not in ("crop", "whole"):
        raise ValueError(f"there is no preprocess={preprocess!r}; use 'crop', or 'whole' for pictures without a crop")
    preprocessing = None if preprocessing is None else Preprocessing.of(preprocessing)
    if isinstance(model, LoadedModel):
        preprocessing = preprocessing or model.preprocessing
        categories = categories or model.categories
        model = model.module
    if preprocess == "whole":
        if preprocessing is None:
            raise ValueError("preprocess='whole' needs to know how pictures are prepared; give preprocessing=...")
        preprocessing = preprocessing.whole()
    network = as_network(model)
    check_model(network)
    if not chooses_input(of, inputs):
        settings, of = {**settings, "of": of}, 0
    methods = resolve(
        attributions,
        attribution,
        dict(settings),
        forms="a method's name, a formula, or a callable of a run",
        configured="a formula, which has its settings in it",
    )
    check_seen(network, methods)
    single = isinstance(attribution, str) or callable(attribution)
    names = class_names(categories) if categories is not None else None
    return Request(network, methods, single, options, preprocessing, names, of, arguments)


def device_of(request: Request, inputs: Any) -> torch.device:
    """Where a question is computed: the model tells, or else the inputs."""
    given = inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple | list) else [inputs]
    of_inputs = next((each.device for each in given if isinstance(each, Tensor)), torch.device("cpu"))
    return request.device or of_inputs
