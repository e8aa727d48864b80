"""What a pass bound to names of a model's modules, taken back: they hold again what they held before it.

Models keep features for later, or make a weight anew in each pass; in a replay those are tensors of the replay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

_NOTHING: Any = object()


@contextmanager
def taken_back(model: nn.Module) -> Iterator[None]:
    """While it lasts, tensors may be bound to attributes, parameters and buffers. What is written into them stays."""
    places = [place for each in model.modules() for place in (vars(each), each._parameters, each._buffers)]
    before: list[tuple[dict[str, Any], dict[str, Any]]] = [(place, dict(place)) for place in places]
    try:
        yield
    finally:
        for place, held in before:
            _restore(place, held)


def _restore(place: dict[str, Any], held: dict[str, Any]) -> None:
    bound = [name for name, value in place.items() if held.get(name, _NOTHING) is not value]
    bound += held.keys() - place.keys()
    for name in bound:
        old = held.get(name, _NOTHING)
        if not any(isinstance(each, Tensor) for each in (old, place.get(name))):
            continue
        if old is _NOTHING:
            del place[name]
        else:
            place[name] = old
