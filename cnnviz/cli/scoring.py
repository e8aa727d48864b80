"""Explains pictures and scores their maps. A picture without scores costs only itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from cnnviz.cli.batch_explain import Explainer, Unreadable, batches
from cnnviz.cli.scores import Score
from cnnviz.explanations.evaluate import evaluate
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.annotations import Annotations, read_mask
from cnnviz.registry.protocols import Metric


def scored(
    explainer: Explainer,
    metrics: Mapping[str, Metric],
    annotations: Annotations | None,
    pictures: Sequence[Path],
    batch: int,
) -> Iterator[tuple[Path, dict[str, Score] | Exception]]:
    """Each picture with its scores by method, or with the reason why there are none.

    Pictures that can't be read or are not annotated are reported and left out.
    """
    left_out = Unreadable(raising=len(pictures) == 1)
    for paths, inputs in batches(pictures, explainer.model, batch, left_out):
        masks: dict[int, Tensor | None] = {}
        for item, path in enumerate(paths):
            try:
                size, preprocessing = tuple(inputs.shape[2:]), explainer.model.preprocessing
                masks[item] = None if annotations is None else read_mask(annotations, path, preprocessing, size)
            except (OSError, ValueError, LookupError) as error:
                left_out(path, error)
        for item, explanations in _explained(explainer, inputs, list(masks)):
            yield paths[item], _scores(explanations, explainer, metrics, masks[item])


def _explained(
    explainer: Explainer, inputs: Tensor, items: Sequence[int]
) -> Iterator[tuple[int, dict[str, Explanation] | Exception]]:
    """These items of a batch with their explanations; those of a batch that fails are explained one by one."""
    if not items:
        return
    try:
        explanations = explainer(inputs[list(items)])
    except Exception as error:
        if len(items) == 1:
            yield items[0], error
        else:
            for item in items:
                yield from _explained(explainer, inputs, [item])
        return
    for place, item in enumerate(items):
        yield item, {name: explanation[place] for name, explanation in explanations.items()}


def _scores(
    explanations: dict[str, Explanation] | Exception,
    explainer: Explainer,
    metrics: Mapping[str, Metric],
    mask: Tensor | None,
) -> dict[str, Score] | Exception:
    if isinstance(explanations, Exception):
        return explanations
    scores = {}
    for method, explanation in explanations.items():
        try:
            values = evaluate(
                explanation,
                list(metrics.values()),
                masks=None if mask is None else mask[None],
                model=explainer.model,
                attribution=explainer.attributions[method],
                target=explainer.target,
                **explainer.options,
            )
        except Exception as error:
            return error
        by_metric = dict(zip(metrics, map(float, values.values()), strict=True))
        scores[method] = Score(by_metric, blank=not bool(explanation.values.any()))
    return scores
