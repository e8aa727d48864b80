"""The output of a layer."""

from __future__ import annotations

import cnnviz
from cnnviz import Expr, Layer, attribution


@attribution(renderer="channels")
def activation(layer: Layer = None) -> Expr:
    """Feature maps: all channels of a layer's output, whatever the target (Zeiler & Fergus, 2014, arXiv:1311.2901).

    Values (N, channels, *spatial) at the layer's own size and in its own units. ``layer`` is a dotted name, the number
    of a convolution, a path of names, or a module; None is the last layer with spatial extent. Raises LookupError for a
    layer that does not exist or did not run, ValueError for one without spatial extent.
    """
    return cnnviz.activation(layer)
