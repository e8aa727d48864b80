"""The pass of the inputs as they are, in which a target finds what is then held fixed for all variants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cnnviz.engine.feature_extraction import Seen
from cnnviz.engine.nested import mapped
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.run.options import RunOptions


def _no_pass(inputs: Tensor) -> Any:
    """Refuses to pass other inputs (N, C, *spatial)."""
    raise ValueError("the model is not asked about other inputs here; give what it gives for them, as a tensor")


@dataclass(frozen=True, eq=False)
class PlainPass:
    """What a target may look at to find its reference."""

    seen: Seen
    """Inputs, output and layers, detached."""
    categories: tuple[str, ...] | None = None
    """Class names by index."""
    preprocessing: Preprocessing | None = None
    """Makes inputs of pictures."""
    output_of: Callable[[Tensor], Any] = _no_pass
    """What the model gives for other inputs, without gradients."""


def plain_pass(seen: Seen, options: RunOptions, pass_of: Callable[[Tensor], Any]) -> PlainPass:
    """What was seen, without its graph, as targets look at it; ``pass_of`` passes other inputs (N, C, *spatial)."""
    layers = {layer: tensor.detach() for layer, tensor in seen.layers.items()}
    detached = Seen(seen.inputs.detach(), mapped(Tensor.detach, seen.output), layers)
    return PlainPass(detached, options.categories, options.preprocessing, lambda inputs: pass_of(inputs).trace.output)
