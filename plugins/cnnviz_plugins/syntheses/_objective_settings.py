"""The objective of a synthesis, from the settings that several of them have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cnnviz import Ascent, Layer
from cnnviz.objectives import Objective, channel, class_score, neuron

At = str | int | Sequence[int] | None


def objective_of(
    ascent: Ascent,
    layer: Layer = None,
    index: int | None = None,
    at: At = None,
    target: int | str | Callable[..., Any] | None = None,
    objective: Objective | None = None,
) -> Objective:
    """The objective given, a class's score, a channel's mean, or with ``at`` one unit of it.

    Raises ValueError unless exactly one of them is asked for.
    """
    if at is not None and index is None:
        raise ValueError("at is the place of a unit in a channel; say which channel too")
    values = {"channel": index, "target": target, "objective": objective}
    names = [name for name, value in values.items() if value is not None]
    if len(names) != 1:
        reason = f"{' and '.join(names)} are asked for together" if names else "nothing is asked for"
        raise ValueError(f"{reason}; say one of channel (of a layer), target (a class), objective")
    if objective is not None:
        if not isinstance(objective, Objective):
            example = "cnnviz.objectives.channel('layer', 5)"
            raise TypeError(f"objective is {objective!r}; give one such as {example}, or say channel")
        return objective
    if index is not None:
        return channel(layer, index) if at is None else neuron(layer, index, _place(at))
    return class_score(ascent.class_index(target))  # type: ignore[arg-type]  # the only one left


def _place(at: str | int | Sequence[int]) -> tuple[int, ...] | None:
    """``middle``, or whole numbers with commas between."""
    if not isinstance(at, str):
        return (at,) if isinstance(at, int) else tuple(at)
    if at == "middle":
        return None
    try:
        return tuple(map(int, at.split(",")))
    except ValueError:
        raise ValueError(f"at is 'middle' or a place in the layer such as 6,6, not {at!r}") from None
