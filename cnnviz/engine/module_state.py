"""A pass may assign tensors to attributes of a model's modules; afterwards they hold their former values again.

Models keep features for later, or make a weight anew in each pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from operator import is_
from typing import Any

from torch import Tensor, nn

_NOTHING: Any = object()


@contextmanager
def bindings_restored(model: nn.Module) -> Iterator[None]:
    """Restore attributes, parameters and buffers that hold tensors at the end. In-place writes are not undone."""
    namespaces = [names for part in model.modules() for names in (vars(part), part._parameters, part._buffers)]
    before: list[tuple[dict[str, Any], dict[str, Any]]] = [(names, dict(names)) for names in namespaces]
    try:
        yield
    finally:
        for names, values in before:
            if not _same(names, values):
                _restore(names, values)


def _same(names: dict[str, Any], before: dict[str, Any]) -> bool:
    """True if no tensor was assigned. Fast, since every pass checks every module."""
    alike = len(names) == len(before) and all(map(is_, names, before))
    return alike and all(map(is_, names.values(), before.values()))


def _restore(names: dict[str, Any], before: dict[str, Any]) -> None:
    changed = [name for name, value in names.items() if before.get(name, _NOTHING) is not value]
    changed += before.keys() - names.keys()
    for name in changed:
        old = before.get(name, _NOTHING)
        if not any(isinstance(value, Tensor) for value in (old, names.get(name))):
            continue
        if old is _NOTHING:
            del names[name]
        else:
            names[name] = old
