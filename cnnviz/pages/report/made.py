"""How a report was made: what a reader needs to make it again."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

import torch

from cnnviz.engine.validation import as_network
from cnnviz.models.loading import LoadedModel
from cnnviz.pages.report.content import Content
from cnnviz.pages.shared.texts import shown


@dataclass(frozen=True)
class Made:
    """Who made the explanations, and how to make them again."""

    model: str = ""
    """Its name."""
    command: str = ""
    python: str = ""

    @classmethod
    def by(cls, model: Any) -> Made:
        """Of a model of which nothing more is known than itself; None: not even that."""
        if model is None:
            return cls()
        if isinstance(model, LoadedModel):
            return cls(f"{model.name} ({type(model.module).__name__})")
        return cls(type(as_network(model)).__name__)


def facts(made: Made, content: Content) -> list[tuple[str, str]]:
    """What a page says of how it was made, in pairs."""
    options: Mapping[str, object] = content.options
    told = [
        ("Model", shown(made.model) or "not told"),
        ("Seed", str(options.get("seed", 0))),
        ("Computed in", ", ".join(content.computed_in) or "not told"),
    ]
    told += [
        (name, text)
        for name, key, text in (
            ("Score", "before_softmax", "what goes into the softmax"),
            ("Score", "before_sigmoid", "what goes into the sigmoid"),
            ("Batch norms", "fold", "put into the convolutions before them"),
            ("Compiled", "compile", "passes that need no gradient"),
        )
        if options.get(key)
    ]
    versions = f"cnnviz {version('cnnviz')}, torch {torch.__version__}, Python {platform.python_version()}"
    now = datetime.now().astimezone()
    return [*told, ("Versions", versions), ("Date", now.strftime("%Y-%m-%d %H:%M %z"))]
