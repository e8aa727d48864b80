"""Colours of maps and pictures. Pictures are (..., 3), within 0 and 1."""

from __future__ import annotations

import difflib

import matplotlib
import numpy as np
from matplotlib.colors import Colormap

from cnnviz.drawing.intensity import Floats

LUMA = (0.2989, 0.5870, 0.1140)


def colormap_named(name: str | Colormap) -> Colormap:
    """matplotlib's colour map of that name, or one as it is. Raises ValueError with the nearest name if there is none.

    TypeError for what is neither.
    """
    if isinstance(name, Colormap):
        return name
    if not isinstance(name, str):
        raise TypeError(f"a colour map is a name or a matplotlib Colormap, not a {type(name).__name__}")
    if name not in matplotlib.colormaps:
        near = difflib.get_close_matches(name, list(matplotlib.colormaps), n=1)
        way_out = f"did you mean {near[0]!r}?" if near else "use one of matplotlib's, such as 'turbo', 'jet', 'magma'"
        raise ValueError(f"there is no colour map {name!r}; {way_out}")
    return matplotlib.colormaps[name]


def colors_of(colormap: Colormap, strengths: Floats) -> Floats:
    """RGB (..., 3) of strengths (...) from 0 to 1."""
    return np.asarray(colormap(strengths), np.float64)[..., :3]


def gray(pictures: Floats) -> Floats:
    """Pictures (..., 3) without their colours, still (..., 3)."""
    brightness: Floats = pictures @ np.array(LUMA) / sum(LUMA)
    return np.repeat(brightness[..., None], 3, -1)


def mixed(under: Floats, over: Floats, opacity: Floats | float) -> Floats:
    """Pictures (..., 3) with others over them; ``opacity``, 0 to 1, is one number or one for each place (...)."""
    share = np.asarray(opacity)[..., None]
    blended: Floats = under * (1 - share) + over * share
    return blended
