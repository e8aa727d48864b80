"""Which methods need nothing but scores, so that they can explain a black box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from cnnviz.engine.black_box import BlackBox
from cnnviz.formulas.expr import Expr
from cnnviz.registry.registry import attributions


def check_seen(model: nn.Module, methods: Mapping[str, Any]) -> None:
    """Raises TypeError where a method needs more of a black box than scores, with those that do not."""
    if not isinstance(model, BlackBox):
        return
    for name, method in methods.items():
        if isinstance(method, Expr) and not method.scores_only():
            raise TypeError(
                f"{name} needs gradients or layers, and {model.reason}; or take a method that needs only scores: "
                f"{', '.join(scoring_methods())}"
            )


def scoring_methods() -> list[str]:
    """The names of all registered methods that need nothing but scores, as their formulas say."""
    names = []
    for name in attributions:
        try:
            method = attributions[name]()
        except Exception:  # a plugin that does not load, or needs a setting, is not to hide the others
            continue
        if isinstance(method, Expr) and method.scores_only():
            names.append(name)
    return names
