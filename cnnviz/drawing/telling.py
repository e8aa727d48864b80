"""Renderers that tell the scale of their colours, so that a colour bar can stand beside their pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cnnviz.drawing.figure import Legend
from cnnviz.explanations.explanation import Explanation

if TYPE_CHECKING:
    from cnnviz.registry.protocols import Renderer


@dataclass(frozen=True)
class WithLegends:
    """A renderer that also tells what its colours mean: notebooks show a colour bar below its pictures.

    ``return WithLegends(draw, tell)`` in place of ``return draw`` is all that a renderer's function does for it.
    """

    draw: Renderer
    """Draws an explanation: pictures (N, H, W, 3), uint8."""
    legends: Callable[[Explanation], list[Legend]]
    """Gives a legend for each of the N pictures."""

    def __call__(self, explanation: Explanation, /) -> NDArray[np.uint8]:
        return self.draw(explanation)


def legends_of(renderer: object, explanation: Explanation) -> list[Legend] | None:
    """A legend for each picture that a renderer draws of the explanation; None where it tells none.

    ``renderer`` is what a renderer's method makes of its settings, or any callable.
    """
    tell = getattr(getattr(renderer, "function", renderer), "legends", None)
    if tell is None:
        return None
    told: list[Legend] = tell(explanation)
    return told
