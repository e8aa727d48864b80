"""Which renderer draws an explanation when nobody names one. Renderers declare it; no name stands here."""

from __future__ import annotations

from typing import Literal

from cnnviz.registry.hooks import HOME
from cnnviz.registry.registry import PluginError, renderers


def default_renderer(rank: int, kind: Literal["coarse", "fine"]) -> str | None:
    """The renderer that is declared as the default for inputs of so many spatial dimensions; None if there is none.

    ``kind`` is "fine" for values of the input's own shape, and else "coarse". Renderers that cnnviz ships are asked
    first, then others by name; one that does not load is passed over.
    """
    for name in sorted(renderers, key=lambda name: (renderers.origin(name).partition(" ")[0] != HOME, name)):
        try:
            renderer = renderers[name]
        except PluginError:
            continue
        if rank in renderer.ranks and renderer.default_for in (kind, "all"):
            return name
    return None
