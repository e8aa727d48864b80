"""The eight shapes, each a signed distance: negative inside, zero on the outline, in units of its size.

Shapes are told apart by outline alone. All fit the unit circle or nearly, so size does not tell the class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def circle(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - 0.85


def square(x: Array, y: Array) -> Array:
    distance: Array = np.maximum(np.abs(x), np.abs(y)) - 0.75
    return distance


def triangle(x: Array, y: Array) -> Array:
    slanted = math.sqrt(0.75) * np.abs(x) - 0.5 * y
    return np.maximum(slanted, y) - 0.55


def star(x: Array, y: Array) -> Array:
    """Five points: one half-point is a half-plane, folded around the centre."""
    angle = np.arctan2(x, -y)
    folded = np.abs(angle - np.round(angle * 5 / (2 * math.pi)) * (2 * math.pi / 5))
    along, across = np.hypot(x, y) * np.cos(folded), np.hypot(x, y) * np.sin(folded)
    outer, inner = 1.1, 0.46
    notch = inner * math.cos(math.pi / 5), inner * math.sin(math.pi / 5)
    edge = math.hypot(outer - notch[0], notch[1])
    distance: Array = ((along - outer) * notch[1] + across * (outer - notch[0])) / edge
    return distance


def cross(x: Array, y: Array) -> Array:
    wide, narrow = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    return np.maximum(wide - 0.95, narrow - 0.3)


def ring(x: Array, y: Array) -> Array:
    distance: Array = np.abs(np.hypot(x, y) - 0.72) - 0.2
    return distance


def heart(x: Array, y: Array) -> Array:
    """A square standing on its corner, and a disc on each of its two upper sides."""
    half = 0.52
    across, down = np.abs(x), y - 0.1
    diagonal = math.sqrt(0.5)
    diamond = (across + np.abs(down)) * diagonal - half
    disc = np.hypot(across - half * diagonal, down + half * diagonal) - half
    distance: Array = np.minimum(diamond, disc)
    return distance


def crescent(x: Array, y: Array) -> Array:
    bite = 0.72 - np.hypot(x - 0.42, y)
    distance: Array = np.maximum(np.hypot(x, y) - 0.95, bite)
    return distance


OUTLINES: Mapping[str, Callable[[Array, Array], Array]] = {
    outline.__name__: outline for outline in (circle, square, triangle, star, cross, ring, heart, crescent)
}
