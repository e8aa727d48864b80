"""How good is an explanation? Metrics asked of it, one number for each input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from cnnviz.engine.deferred import require, settled
from cnnviz.engine.device_policy import kind_of
from cnnviz.engine.loans import borrows
from cnnviz.engine.meter import metered
from cnnviz.engine.validation import as_network, check_finite, check_model
from cnnviz.explanations.evaluation import Evaluation
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.inputs import Arguments, called_with
from cnnviz.explanations.metric_context import Trial, checked_masks
from cnnviz.explanations.options import ExplainOptions
from cnnviz.explanations.progress_bar import Progress, listening
from cnnviz.explanations.saved_explanations import check_explanation, check_inputs_kept
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.protocols import Metric
from cnnviz.registry.registry import Method, metrics
from cnnviz.registry.resolve import resolve
from cnnviz.run.resolve_target import resolved_target
from cnnviz.run.run import Run
from cnnviz.run.targets import Target

if TYPE_CHECKING:
    from cnnviz.registry.protocols import Attribution


@overload
def evaluate(
    explanation: Explanation,
    metric: str | Metric = ...,
    *,
    masks: Any = ...,
    model: nn.Module | LoadedModel | Callable[..., Any] | None = ...,
    attribution: Attribution | None = ...,
    target: Target = ...,
    others: Sequence[Tensor] | Mapping[str, Tensor] = ...,
    arguments: Arguments = ...,
    options: ExplainOptions | None = ...,
    progress: Progress = ...,
    **settings: Any,
) -> Tensor: ...


@overload
def evaluate(
    explanation: Explanation,
    metric: Sequence[str | Metric],
    *,
    masks: Any = ...,
    model: nn.Module | LoadedModel | Callable[..., Any] | None = ...,
    attribution: Attribution | None = ...,
    target: Target = ...,
    others: Sequence[Tensor] | Mapping[str, Tensor] = ...,
    arguments: Arguments = ...,
    options: ExplainOptions | None = ...,
    progress: Progress = ...,
    **settings: Any,
) -> dict[str, Tensor]: ...


@overload
def evaluate(
    explanation: Mapping[str, Explanation],
    metric: str | Metric | Sequence[str | Metric] = ...,
    **asked: Any,
) -> Evaluation: ...


@borrows
def evaluate(
    explanation: Explanation | Mapping[str, Explanation],
    metric: str | Metric | Sequence[str | Metric] = "roc_auc",
    *,
    masks: Any = None,
    model: nn.Module | LoadedModel | Callable[..., Any] | None = None,
    attribution: Attribution | None = None,
    target: Target = None,
    others: Sequence[Tensor] | Mapping[str, Tensor] = (),
    arguments: Arguments = (),
    options: ExplainOptions | None = None,
    progress: Progress = False,
    **settings: Any,
) -> Tensor | dict[str, Tensor] | Evaluation:
    """How good is an explanation?

    Args:
        explanation: what :func:`cnnviz.explain` gave, for one method or for several, or what was read from a file.
        metric: a metric's name, or any callable of a :class:`~cnnviz.Trial`; or a sequence of them.
        masks: (N, *spatial) of the inputs' size, True or 1 where the annotated evidence is; a tensor or an array.
        model: for metrics that ask it again: the one that was explained.
        attribution: for metrics that explain again: the one that was used, such as ``attributions["grad_cam"]()``;
            needed only for an explanation that was read from a file.
        target, arguments: with a model, as :func:`cnnviz.explain` was given them; the target only where it was a
            function of the output.
        others: with a model, its inputs without the one explained, in their order or by name.
        options: how the model is asked; None: as the explanation was computed.
        progress: True shows a bar, or a function of (done, total), as for :func:`cnnviz.explain`.
        settings: for metrics given by name. With several names each takes those it knows.

    Returns:
        One number for each input, (N,); for a sequence of metrics a dict of them by name. For several methods an
        :class:`~cnnviz.explanations.Evaluation`: a dict of such dicts, with a ``table()`` of means and standard errors.

    Raises:
        ValueError: for masks of another shape, for what a metric needs and nobody gave, for what it can't score.
        LookupError, TypeError: for a metric or setting that does not exist.
    """
    single = isinstance(metric, str) or callable(metric)
    scorers = resolve(
        metrics,
        metric,
        settings,
        forms="a metric's name, or a callable of a trial",
        configured="a callable of a trial",
    )
    if isinstance(explanation, Mapping):
        measures: list[str | Metric] = [metric] if single else list(metric)  # type: ignore[list-item, arg-type]  # either
        found = {
            name: evaluate(
                each,
                measures,
                masks=masks,
                model=model,
                attribution=attribution,
                target=target,
                others=others,
                arguments=arguments,
                options=options,
                progress=progress,
                **settings,
            )
            for name, each in explanation.items()
        }
        return Evaluation(found, {name: ~each.values.flatten(1).any(1).cpu() for name, each in explanation.items()})
    if not isinstance(explanation, Explanation):
        kind = type(explanation).__name__
        raise TypeError(f"evaluate takes an explanation, or several by name, not a {kind}; give each of them a name")
    check_explanation(explanation)
    annotation = None if masks is None else checked_masks(masks, explanation)

    def answer() -> dict[str, Tensor]:
        explained = explanation if options is None else replace(explanation, options=options)
        question = None if model is None else partial(asked_again, explained, model, target, others, arguments)
        used = attribution() if isinstance(attribution, Method) else attribution
        trial = Trial(explanation, annotation, question, used)
        with metered(listener):
            return {name: _scored(name, scorer, trial) for name, scorer in scorers.items()}

    with listening(progress, "evaluating") as listener, torch.inference_mode(False), torch.no_grad():
        scores = settled(answer, defers=kind_of(explanation.values.device).defers)
    return next(iter(scores.values())) if single else scores


def _scored(name: str, metric: Metric, trial: Trial) -> Tensor:
    scores = metric(trial)
    if not isinstance(scores, Tensor):
        raise TypeError(f"{name} gave a {type(scores).__name__}; a metric gives a tensor ({len(trial)},)")
    if scores.shape != (len(trial),):
        raise ValueError(
            f"{name} gave {tuple(scores.shape)}; a metric gives one number for each input, ({len(trial)},)"
        )
    check_finite(scores, f"what {name} gives")
    return scores


def asked_again(
    explanation: Explanation,
    model: nn.Module | LoadedModel | Callable[..., Any],
    target: Target = None,
    others: Sequence[Tensor] | Mapping[str, Tensor] = (),
    arguments: Arguments = (),
) -> Run:
    """The question that was answered, put to the model in the same way. Raises ValueError if its scores are others."""
    network = as_network(model.module if isinstance(model, LoadedModel) else model)
    check_model(network)
    question: Any = explanation.target
    if question is None:
        question = resolved_target(target, len(explanation), explanation.categories)
        if question is None or isinstance(question, Tensor):
            raise ValueError("what was explained is a function of the output; give it again, as target=...")
    inputs, _ = called_with(network, _all_inputs(explanation, others), arguments, explanation.of)
    network, options = explanation.options.prepare(network, inputs, explanation.preprocessing, explanation.categories)
    run = Run(network, inputs, question, options=options)
    score, expected = run.score, explanation.score
    expected = expected.to(score)
    slack = 1e-2 * (expected.abs() + expected.abs().max())
    require(((score - expected).abs() <= slack).all(), _refuse_scores)
    return run


def _refuse_scores() -> None:
    raise ValueError(
        "the model gives these inputs other scores than the explanation tells of; "
        "give the model, target and before_softmax that it was made with"
    )


def _all_inputs(explanation: Explanation, others: Sequence[Tensor] | Mapping[str, Tensor]) -> Any:
    """The inputs as :func:`cnnviz.explain` was given them. Raises ValueError where some are missing."""
    check_inputs_kept(explanation)
    of = explanation.of
    if isinstance(of, str):
        if not isinstance(others, Mapping):
            raise ValueError(f"the input {of!r} was explained; give the others by name too, others={{...}}")
        return {of: explanation.inputs, **others}
    if isinstance(others, Mapping) or len(others) < of:
        raise ValueError(f"input {of} was explained; give those before and after it, in their order, as others=(...)")
    return (*others[:of], explanation.inputs, *others[of:])
