"""The curves that metrics such as insertion and deletion are the area of, to be drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

from torch import Tensor, nn

from cnnviz.explanations.drawn_above import drawing_function
from cnnviz.explanations.evaluate import evaluate
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.inputs import Arguments
from cnnviz.explanations.metric_context import CurvePoints, Trial
from cnnviz.explanations.options import ExplainOptions
from cnnviz.models.loading import LoadedModel
from cnnviz.registry.registry import metrics
from cnnviz.registry.resolve import resolve
from cnnviz.run.targets import Target

if TYPE_CHECKING:
    from cnnviz.registry.protocols import Metric


@dataclass(frozen=True, eq=False)
class Curve:
    """The scores of inputs as their places come or go."""

    metric: str
    """The metric's call, such as ``deletion(step=0.1)``."""
    shares: Tensor
    """(K,) the share of places that came or went, 0 to 1."""
    scores: Tensor
    """(N, K) the score at each share, in the metric's units."""
    number: Tensor
    """(N,) what the metric makes of it: the area under the curve, or its mean."""
    titles: Sequence[str]
    """For each input the class explained and its score."""

    def plot(self, ax: Any = None, **line: Any) -> Any:
        """Draw a line for each input into matplotlib's Axes ``ax``, and return it; None makes a figure.

        ``line`` are settings of matplotlib's lines, such as ``color``. ``ax.legend()`` tells the inputs apart.
        """
        return drawing_function("plotting", "plotted_curve")(self, ax, line)


@overload
def curves(explanation: Explanation, metric: str | Metric = ..., **asked: Any) -> Curve: ...


@overload
def curves(explanation: Mapping[str, Explanation], metric: str | Metric = ..., **asked: Any) -> dict[str, Curve]: ...


def curves(
    explanation: Explanation | Mapping[str, Explanation],
    metric: str | Metric = "insertion",
    *,
    model: nn.Module | LoadedModel | Callable[..., Any] | None = None,
    target: Target = None,
    others: Sequence[Tensor] | Mapping[str, Tensor] = (),
    arguments: Arguments = (),
    options: ExplainOptions | None = None,
    **settings: Any,
) -> Curve | dict[str, Curve]:
    """The curve behind a metric such as insertion, deletion or road.

    Args:
        explanation: what :func:`cnnviz.explain` gave; of several, by name, each has a curve.
        metric: a metric's name, or a callable of a :class:`~cnnviz.Trial` that tells a curve (``trial.draws``).
        model, target, others, arguments, options: as for :func:`cnnviz.evaluate`.
        settings: of the metric, given by name.

    Returns:
        A :class:`Curve` with shares of places (K,) and scores (N, K); for several explanations a dict of them by name.

    Raises:
        ValueError: for a metric that has no curve; and what :func:`cnnviz.evaluate` raises.
    """
    asked: dict[str, Any] = {
        "model": model,
        "target": target,
        "others": others,
        "arguments": arguments,
        "options": options,
    }
    if isinstance(explanation, Mapping):
        return {name: curves(each, metric, **asked, **settings) for name, each in explanation.items()}
    ((name, scorer),) = resolve(
        metrics,
        metric,
        settings,
        forms="a metric's name, or a callable of a trial",
        configured="a callable of a trial",
    ).items()
    points: list[CurvePoints] = []

    def recorded(trial: Trial) -> Tensor:
        points.clear()  # of an answer that is computed again
        number: Tensor = scorer(replace(trial, told=points))
        return number

    number = evaluate(explanation, recorded, **asked)
    if not points:
        raise ValueError(f"{name} has no curve; insertion, deletion and road have one")
    shares, scores = points[-1]
    return Curve(repr(scorer), shares.cpu(), scores.T.cpu(), number, explanation.titles())
