"""What draws explanations lies above them, as renderers do: it is found when a result is asked to show itself."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def drawing_function(place: str, name: str) -> Any:
    """The function of that name in ``cnnviz/drawing``, in the file ``place``."""
    return getattr(import_module(f"cnnviz.drawing.{place}"), name)


def page_function(place: str, name: str) -> Any:
    """The function of that name in ``cnnviz/pages``, in the file ``place``, such as ``notebook.bundles``."""
    return getattr(import_module(f"cnnviz.pages.{place}"), name)
