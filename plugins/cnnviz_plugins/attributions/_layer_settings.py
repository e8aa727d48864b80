"""The settings that every class activation map has for its layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, Literal

from cnnviz import Expr, LayerAt
from cnnviz.formulas import layer_maps

_SETTINGS: dict[str, tuple[Any, Any]] = {
    "call": (None, int | None),
    "layout": ("auto", Literal["auto", "tokens", "channels_last", "channels_first"]),
    "grid": (None, Sequence[int] | str | None),
    "extra": (0, int),
    "fuse": ("mean", Literal["mean", "sum", "max", "product"]),
}
_ADDED = """

    ``layer`` may be a list of layers, whose maps ``fuse`` to one: their "mean", "sum", "max" or "product". ``call`` is
    the number of a call where a layer runs several times, from 1; None adds up the maps of all calls that the score
    depends on. Where the places of a layer can't be followed, ``layout`` says how it is laid out ("tokens" (N, T, C),
    "channels_last", "channels_first"), ``grid`` the sizes of the grid of tokens, such as (14, 14) or "14x14", and
    ``extra`` how many tokens before it (negative: behind it) belong to no place.
    """


def of_layers(build: Callable[..., Expr]) -> Callable[..., Expr]:
    """Let a function from one layer and other settings to a map take every way to say layers."""

    @wraps(build)
    def fused(layer: Any = None, **settings: Any) -> Expr:
        said = {name: settings.pop(name, default) for name, (default, _) in _SETTINGS.items()}
        fuse = said.pop("fuse")
        places = tuple(layer_at(each, **said) for each in (layer if isinstance(layer, list) else [layer]))
        return layer_maps(tuple(build(place, **settings) for place in places), places, fuse)

    own = inspect.signature(build)
    added = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)
        for name, (default, kind) in _SETTINGS.items()
    ]
    fused.__signature__ = own.replace(parameters=[*own.parameters.values(), *added])  # type: ignore[attr-defined]
    fused.__doc__ = (build.__doc__ or "").rstrip() + _ADDED
    return fused


def layer_at(layer: Any, **said: Any) -> LayerAt:
    """The layer with what is said of it. A ``LayerAt`` keeps what is not said, which has the default."""
    if not isinstance(layer, LayerAt):
        return LayerAt(layer, **said)
    return replace(layer, **{name: value for name, value in said.items() if value != _SETTINGS[name][0]})
