"""The five protocols that plugins implement: attributions, renderers, syntheses, metrics and backends.

This file alone imports types of rooms above its own, since they are the protocols' arguments and results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from cnnviz.datasets.workers.work import Job, Workers
    from cnnviz.explanations.explanation import Explanation
    from cnnviz.explanations.metric_context import Trial
    from cnnviz.feature_visualization.ascent import Ascent
    from cnnviz.formulas.attribution import ConfiguredAttribution as ConfiguredAttribution
    from cnnviz.run.run import Run


@runtime_checkable
class Attribution(Protocol):
    """Computes why a model gives an input its score."""

    def __call__(self, run: Run, /) -> Tensor:
        """Values (N, C, *spatial), raw and signed: positive for the target, negative against it."""


@runtime_checkable
class Renderer(Protocol):
    """Draws an explanation, from nothing but the explanation."""

    def __call__(self, explanation: Explanation, /) -> NDArray[np.uint8]:
        """Pictures (N, H, W, 3), uint8 RGB, one for each input."""


@runtime_checkable
class Synthesis(Protocol):
    """Makes inputs that maximize an objective of a model."""

    def __call__(self, ascent: Ascent, /) -> Tensor:
        """Inputs (N, C, *spatial), normalized as the model takes them."""


@runtime_checkable
class Metric(Protocol):
    """Measures explanations."""

    def __call__(self, trial: Trial, /) -> Tensor:
        """One number for each input, (N,)."""


@runtime_checkable
class Backend(Protocol):
    """Starts the workers of a batch run: on this machine, on a cluster."""

    def __call__(self, job: Job, /) -> Workers:
        """Workers for this job. Raises ValueError where there are fewer processors or devices than it needs."""
