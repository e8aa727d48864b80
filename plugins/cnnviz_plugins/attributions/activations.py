"""What a layer gives, before anybody asks what for."""

from __future__ import annotations

import cnnviz
from cnnviz import Expr, Layer, attribution


@attribution(renderer="channels")
def activation(layer: Layer = None) -> Expr:
    """All channels of a layer, whatever the target: its feature maps (Zeiler & Fergus, 2014, arXiv:1311.2901).

    Values (N, channels, *spatial) at the layer's own size and in its own units. ``layer`` is a dotted name, the number
    of a convolution, a path of names, or a module; None is the last layer with spatial extent.
    """
    return cnnviz.activation(layer)
