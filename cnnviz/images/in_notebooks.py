"""Answers show themselves in notebooks. What draws them there lies above them all, and is found when it is asked."""

from __future__ import annotations

from collections.abc import Container
from importlib import import_module

BUNDLES = "cnnviz.pages.notebook.bundles"


class InNotebooks:
    """An answer that a notebook shows as HTML, and a terminal as its ``repr``."""

    __slots__ = ()

    def _repr_mimebundle_(
        self, include: Container[str] | None = None, exclude: Container[str] | None = None
    ) -> dict[str, str]:
        """What a notebook shows, by its kind: HTML, text, and a picture where the answer is one picture.

        ``include`` and ``exclude`` are the kinds that are wanted and those that are not. It never raises.
        """
        bundle: dict[str, str] = import_module(BUNDLES).bundle(self, include, exclude)
        return bundle
