"""What strangers implement.

An attribution answers a run, a renderer draws an explanation, a synthesis makes inputs, a metric scores explanations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from cnnviz.explanations.explanation import Explanation
    from cnnviz.explanations.metric_context import Trial
    from cnnviz.feature_visualization.ascent import Ascent
    from cnnviz.formulas.attribution import ConfiguredAttribution as ConfiguredAttribution
    from cnnviz.run.run import Run


@runtime_checkable
class Attribution(Protocol):
    """Answers a question put to a model."""

    def __call__(self, run: Run, /) -> Tensor:
        """Values (N, C, *spatial), raw and signed: what speaks for the target is positive."""


@runtime_checkable
class Renderer(Protocol):
    """Draws an explanation; reads nothing but its argument."""

    def __call__(self, explanation: Explanation, /) -> NDArray[np.uint8]:
        """Pictures (N, H, W, 3), one for each input."""


@runtime_checkable
class Synthesis(Protocol):
    """Makes inputs that a model answers strongly, or in a way that was asked for."""

    def __call__(self, ascent: Ascent, /) -> Tensor:
        """Inputs (N, C, *spatial), as the model takes them."""


@runtime_checkable
class Metric(Protocol):
    """Scores explanations."""

    def __call__(self, trial: Trial, /) -> Tensor:
        """One number for each input, (N,)."""
