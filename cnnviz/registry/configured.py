"""A synthesis or a metric with its settings, which prints as its call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from cnnviz.explanations.metric_context import Trial
    from cnnviz.feature_visualization.ascent import Ascent


@dataclass(frozen=True, eq=False, repr=False)
class NamedSynthesis:
    """What a synthesis is with its settings: makes inputs, and tells how."""

    name: str
    make: Callable[[Ascent], Tensor]
    settings: Mapping[str, Any]
    """Those that are not the defaults."""

    def __call__(self, ascent: Ascent, /) -> Tensor:
        return self.make(ascent)

    def __repr__(self) -> str:
        return self._call(self.settings, lambda module: f"<{type(module).__name__}>")

    def recipe(self, ascent: Ascent) -> str:
        """As the call that makes the same for any network: a layer that was found automatically is said."""
        told = dict(self.settings)
        if told.get("layer") is None and None in ascent.names:
            told = {"layer": ascent.names[None]} | {name: value for name, value in told.items() if name != "layer"}
        return self._call(told, lambda module: repr(ascent.layer_name(module)))

    def _call(self, settings: Mapping[str, Any], layer: Callable[[Any], str]) -> str:
        return f"{self.name}({', '.join(f'{name}={_written(value, layer)}' for name, value in settings.items())})"


@dataclass(frozen=True, eq=False, repr=False)
class NamedMetric:
    """What a metric is with its settings: scores explanations, and tells how."""

    name: str
    score: Callable[[Trial], Tensor]
    settings: Mapping[str, Any]
    """Those that are not the defaults."""

    def __call__(self, trial: Trial, /) -> Tensor:
        return self.score(trial)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.settings.items())})"


def _written(value: Any, layer: Callable[[Any], str]) -> str:
    if hasattr(value, "named_modules"):
        return layer(value)
    if hasattr(value, "requires_grad"):
        return f"tensor{tuple(value.shape)}"
    return str(value) if hasattr(value, "getbands") else repr(value)
