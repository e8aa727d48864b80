"""The output of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cnnviz
from cnnviz import Expr, Layer, attribution
from cnnviz_plugins.attributions._layer_settings import layer_at


@attribution(renderer="channels")
def activation(
    layer: Layer = None,
    call: int | None = None,
    layout: Literal["auto", "tokens", "channels_last", "channels_first"] = "auto",
    grid: Sequence[int] | str | None = None,
    extra: int = 0,
) -> Expr:
    """Feature maps: all channels of a layer's output, whatever the target (Zeiler & Fergus, 2014, arXiv:1311.2901).

    Values (N, channels, *spatial) at the layer's own size and in its own units. ``layer`` is a dotted name, the number
    of a convolution, a path of names as a tuple, or a module; None is the last layer that is a place for a map.
    ``call`` is the number of a call, from 1, where several reach the score. ``layout`` ("tokens", "channels_last",
    "channels_first"), ``grid`` (the sizes of a grid of tokens, (14, 14) or "14x14") and ``extra`` (how many tokens
    before it belong to no place) say how a layer is laid out whose places can't be followed. Raises LookupError for a
    layer that does not exist or did not run, ValueError for one that is no place for a map.
    """
    return cnnviz.activation(layer_at(layer, call=call, layout=layout, grid=grid, extra=extra))
