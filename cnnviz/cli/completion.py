"""What the shell offers when Tab is pressed: names of what is installed, which need no torch to be known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cnnviz.registry.registry import Registry, attributions, metrics, registries, renderers, syntheses

MODELS = ("demo", "demo-shortcut", "demo-segmentation")
Complete = Callable[[str], list[str]]


def among(names: Callable[[], Iterable[str]] | Iterable[str]) -> Complete:
    """Completes one of these names, or the last of several with commas between."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        found = names() if callable(names) else names
        return [before + comma + name for name in found if name.startswith(last)]

    return complete


def _names(*chosen: Registry[Any]) -> Complete:
    return among(lambda: dict.fromkeys(name for registry in chosen for name in registry))


attribution_names, renderer_names, metric_names, synthesis_names = map(
    _names, (attributions, renderers, metrics, syntheses)
)
all_names = _names(*registries)
