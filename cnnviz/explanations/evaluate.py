"""How good is an explanation? Metrics asked of it, one number for each input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from cnnviz.engine.validation import check_finite, check_model, unwrap
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.metric_context import Trial, checked_masks
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.protocols import Metric
from cnnviz.registry.registry import Method, metrics
from cnnviz.run.options import RunOptions
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
    model: nn.Module | LoadedModel | None = ...,
    attribution: Attribution | None = ...,
    target: Target = ...,
    others: Sequence[Tensor] = ...,
    seed: int = ...,
    memory: int | None = ...,
    before_softmax: bool = ...,
    **settings: Any,
) -> Tensor: ...


@overload
def evaluate(
    explanation: Explanation,
    metric: Sequence[str | Metric],
    *,
    masks: Any = ...,
    model: nn.Module | LoadedModel | None = ...,
    attribution: Attribution | None = ...,
    target: Target = ...,
    others: Sequence[Tensor] = ...,
    seed: int = ...,
    memory: int | None = ...,
    before_softmax: bool = ...,
    **settings: Any,
) -> dict[str, Tensor]: ...


def evaluate(
    explanation: Explanation,
    metric: str | Metric | Sequence[str | Metric] = "roc_auc",
    *,
    masks: Any = None,
    model: nn.Module | LoadedModel | None = None,
    attribution: Attribution | None = None,
    target: Target = None,
    others: Sequence[Tensor] = (),
    seed: int = 0,
    memory: int | None = None,
    before_softmax: bool = False,
    **settings: Any,
) -> Tensor | dict[str, Tensor]:
    """How good is an explanation?

    Args:
        explanation: what :func:`cnnviz.explain` gave, or :meth:`cnnviz.Explanation.load`.
        metric: a metric's name, or any callable of a :class:`~cnnviz.Trial`; or a sequence of them.
        masks: (N, *spatial) of the inputs' size, True or 1 where the annotated evidence is; a tensor or an array.
        model: for metrics that ask it again: the one that was explained.
        attribution: for metrics that explain again: the one that was used, such as ``attributions["grad_cam"]()``.
        target, others, seed, memory, before_softmax: with a model, as :func:`cnnviz.explain` was given them; the target
            only where it was a function of the output.
        settings: for metrics given by name. With several names each takes those it knows.

    Returns:
        One number for each input, (N,); for a sequence of metrics a dict of them by name.

    Raises:
        ValueError: for masks of another shape, for what a metric needs and nobody gave, for what it can't score.
        LookupError, TypeError: for a metric or setting that does not exist.
    """
    single = isinstance(metric, str) or callable(metric)
    asked = _metrics([metric] if single else metric, settings)  # type: ignore[list-item, arg-type]
    annotation = None if masks is None else checked_masks(masks, explanation)
    options = RunOptions(explanation.preprocessing, explanation.categories, seed, memory, before_softmax)
    with torch.inference_mode(False), torch.no_grad():
        question = None if model is None else partial(_run, explanation, model, target, others, options)
        trial = Trial(explanation, annotation, question, attribution)
        scores = {name: _scored(name, each, trial) for name, each in asked.items()}
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


def _run(
    explanation: Explanation,
    model: nn.Module | LoadedModel,
    target: Target,
    others: Sequence[Tensor],
    options: RunOptions,
) -> Run:
    network = unwrap(model.module if isinstance(model, LoadedModel) else model)
    check_model(network)
    asked: Any = explanation.target
    if asked is None:
        if not callable(target):
            raise ValueError("what was explained is a function of the output; give it again, as target=...")
        asked = target
    run = Run(network, explanation.inputs, asked, others=others, options=options)
    score, told = run.score, explanation.score
    if not torch.allclose(score, told.to(score), rtol=1e-2, atol=1e-2 * float(told.abs().max())):
        raise ValueError(
            "the model gives these inputs other scores than the explanation tells of; "
            "give the model, target and before_softmax that it was made with"
        )
    return run


def _metrics(asked: Iterable[str | Metric], settings: dict[str, Any]) -> dict[str, Metric]:
    named = {each: metrics[each] for each in asked if isinstance(each, str)}
    named |= {each.name: each for each in asked if isinstance(each, Method)}
    for setting in settings:
        if not any(setting in method.settings for method in named.values()):
            if len(named) == 1:
                next(iter(named.values())).bind(**{setting: None})  # raises, and knows the nearest name
            raise TypeError(f"there is no setting {setting!r} in {', '.join(named) or 'a callable of a trial'}")
    found: dict[str, Metric] = {}
    for each in asked:
        if isinstance(each, str | Method):
            name = each if isinstance(each, str) else each.name
            method = named[name]
            found[name] = method(**{key: value for key, value in settings.items() if key in method.settings})
        elif callable(each):
            name = getattr(each, "__name__", repr(each))
            if found.get(name, each) is not each:
                raise ValueError(f"two metrics are called {name!r}; ask for them one by one")
            found[name] = each
        else:
            raise TypeError(f"{each!r} is no metric; give a metric's name, or a callable of a trial")
    if not found:
        raise ValueError("no metric was asked for; name at least one")
    return found
