"""Explains pictures and scores their maps. A picture without scores costs only itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cnnviz.cli.batch_explain import Explainer, batches
from cnnviz.cli.failures import Unreadable
from cnnviz.cli.scores import Score
from cnnviz.explanations.evaluate import evaluate
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.annotations import Annotations, read_mask
from cnnviz.registry.protocols import Metric

Result = dict[str, Score] | Exception
"""The scores of a picture by method, or the reason why there are none."""


@dataclass(frozen=True)
class Scorer:
    """Scores the explanations of pictures by several metrics."""

    explainer: Explainer
    metrics: Mapping[str, Metric]
    annotations: Annotations | None

    def __call__(
        self, pictures: Sequence[Path], batch: int, jobs: int, left_out: Unreadable
    ) -> Iterator[tuple[Path, Result]]:
        """Each picture with its result; ``left_out`` is told what can't be read or is not annotated."""
        model = self.explainer.model
        for paths, inputs, _ in batches(pictures, model, batch, left_out, jobs):
            masks: dict[int, Tensor | None] = {}
            for item, path in enumerate(paths):
                try:
                    masks[item] = self._mask(path, tuple(inputs.shape[2:]))
                except (OSError, ValueError, LookupError) as error:
                    left_out(path, error)
            for item, result in self._results(inputs, masks) if masks else ():
                yield paths[item], result

    def _mask(self, path: Path, size: tuple[int, ...]) -> Tensor | None:
        if self.annotations is None:
            return None
        return read_mask(self.annotations, path, self.explainer.model.preprocessing, size)

    def _results(self, inputs: Tensor, masks: Mapping[int, Tensor | None]) -> Iterator[tuple[int, Result]]:
        """The items of a batch that ``masks`` has; those of a batch that fails are explained one by one."""
        try:
            explanations = self.explainer(inputs[list(masks)])
        except Exception as error:
            if len(masks) == 1:
                yield next(iter(masks)), error
                return
            for item, mask in masks.items():
                yield from self._results(inputs, {item: mask})
            return
        for place, (item, mask) in enumerate(masks.items()):
            result: Result
            try:
                result = {name: self._score(part[place], mask) for name, part in explanations.items()}
            except Exception as error:
                result = error
            yield item, result

    def _score(self, explanation: Explanation, mask: Tensor | None) -> Score:
        values = evaluate(
            explanation,
            list(self.metrics.values()),
            masks=None if mask is None else mask[None],
            model=self.explainer.model,
            target=self.explainer.target,
        )
        metrics = dict(zip(self.metrics, map(float, values.values()), strict=True))
        return Score(metrics, blank=not bool(explanation.values.any()))
