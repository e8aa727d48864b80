"""Methods that are broken on purpose, by the check that is to find it: what each check says of each of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from torch import Tensor

from cnnviz.registry.registry import Method

Check = Callable[[Any], None]
Broken = dict[Check, dict[Any, str]]
"""By check, methods with the words that the check says of them. The first of each check breaks no other."""
SEEDS = itertools.count()


def name_of(method: Any) -> str:
    return str(getattr(method, "__name__", method))


def pairs(broken: Broken) -> list[Any]:
    """Each method with its check, as parameters of a test."""
    return [
        pytest.param(check, method, id=f"{check.__name__}-{name_of(method)}")
        for check, methods in broken.items()
        for method in methods
    ]


def found(checks: Sequence[Check], subject: Callable[[], Any]) -> dict[Check, str]:
    """What each check says of a method, each asked of a subject of its own; nothing of promises that are kept."""
    said = {}
    for check in checks:
        try:
            check(subject())
        except AssertionError as error:
            said[check] = str(error)
    return said


class Lenient(Method[Any]):
    """Overlooks settings that it does not have."""

    def bind(self, *args: Any, **settings: Any) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name in self.settings}


class Wordless(Method[Any]):
    """Refuses settings without naming them."""

    def bind(self, *args: Any, **settings: Any) -> dict[str, Any]:
        if settings.keys() - self.settings.keys():
            raise TypeError("no")
        return settings


def settings_and_pages(right: Callable[[Any], Tensor]) -> dict[str, Any]:
    """Three broken methods that make ``right``: without a page, with settings overlooked, and refused without words."""

    def silent() -> Any:
        return right

    def lenient() -> Any:
        """A page."""
        return right

    def wordless() -> Any:
        """A page."""
        return right

    return {"silent": Method(silent), "lenient": Lenient(lenient), "wordless": Wordless(wordless)}
