"""What the shell offers when Tab is pressed: names of what is installed, which need no torch to be known."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from cnnviz.registry.registry import Registry, attributions, metrics, registries, renderers, syntheses

MODELS = ("demo", "demo-shortcut", "demo-transformer", "demo-segmentation")
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


def attribution_names(incomplete: str) -> list[str]:
    """Completes a method's name, the last of several, or the last word of a formula."""
    match = re.fullmatch(r"(.*[^\w.:-])?([\w.:-]*)", incomplete, re.DOTALL)
    before, last = (match[1] or "", match[2]) if match is not None else ("", incomplete)
    return [before + name for name in attributions if name.startswith(last)]


renderer_names, metric_names, synthesis_names = map(_names, (renderers, metrics, syntheses))
all_names = _names(*registries)
