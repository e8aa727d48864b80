"""Inputs drawn as they are, without a map over them: images, signals as lines, volumes as slices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from cnnviz.drawing.intensity import Floats
from cnnviz.drawing.montage import tiled
from cnnviz.explanations.evidence_maps import input_pictures
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.bounds import Bounds
from cnnviz.images.preprocessing import Preprocessing

LUMA = (0.299, 0.587, 0.114)
ROUNDING = 1e-3  # by which shares of an image's range may leave 0..1
SLICES = 9
WIDTH, ROW, INK = 640, 120, 40  # pixels of a signal's picture, and of each of its channels; gray of its line


def pictures_of(explanation: Explanation) -> Floats:
    """The inputs of an explanation as pictures (N, *spatial, 3), within 0 and 1.

    See :func:`cnnviz.explanations.input_pictures`.
    """
    pictures: Floats = input_pictures(explanation).cpu().double().numpy()
    return np.moveaxis(pictures, 1, -1)


def as_uint8(pictures: Floats) -> NDArray[np.uint8]:
    """Pictures within 0 and 1 as uint8, rounded; values outside are cut off."""
    return np.round(pictures.clip(0, 1) * 255).astype(np.uint8)


def draw_inputs(inputs: Tensor, preprocessing: Preprocessing | None = None, contrast: float = 1.0) -> NDArray[np.uint8]:
    """Pictures (N, H, W, 3), uint8, of inputs (N, C, *spatial).

    The preprocessing is undone; images whose values then leave 0..1 are stretched from their lowest value to their
    highest. Volumes are drawn as ``SLICES`` of their depth, signals as a row for each channel. ``contrast`` multiplies
    the distance from an image's mean gray. Raises ValueError for inputs without spatial extent.
    """
    inputs = inputs.detach().cpu().double()
    rank = inputs.ndim - 2
    if rank not in (1, 2, 3):
        raise ValueError(f"inputs of {tuple(inputs.shape)} can't be drawn; (N, C, *spatial) has 1 to 3 in space")
    if rank == 1:
        return np.stack([_lines(signal) for signal in inputs.numpy()])
    shares = Bounds.of(preprocessing, inputs).shares(inputs)
    for share in shares:
        low, high = share.min(), share.max()
        if low < -ROUNDING or high > 1 + ROUNDING:
            share.sub_(low).div_(high - low)
    pictures = _colors(shares).movedim(1, -1).numpy()  # (N, *spatial, 3)
    if contrast != 1:
        gray = (pictures @ LUMA).mean(tuple(range(1, rank + 1)))
        gray = gray.reshape(-1, *(1,) * (rank + 1))
        pictures = gray + contrast * (pictures - gray)
    drawn = as_uint8(pictures)
    return np.stack([_slices(volume) for volume in drawn]) if rank == 3 else drawn


def _colors(shares: Tensor) -> Tensor:
    """(N, 3, *spatial): RGB as it is, RGBA without its opacity, other numbers of channels as the gray of their mean."""
    if shares.shape[1] in (3, 4):
        return shares[:, :3]
    return shares.mean(1, keepdim=True).expand(-1, 3, *shares.shape[2:])


def _slices(volume: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Evenly spaced slices (H, W, 3) of a volume (D, H, W, 3), nearly in a square."""
    count = min(SLICES, len(volume))
    middles = [(2 * place + 1) * len(volume) // (2 * count) for place in range(count)]
    return tiled(list(volume[middles]), columns=int(np.ceil(np.sqrt(count))), gap=1)


def _lines(signal: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A signal (C, L) as a line for each channel, all on one scale."""
    low, high = float(signal.min()), float(signal.max())
    heights = 1 - (signal - low) / (high - low or 1)
    canvas = Image.new("RGB", (WIDTH, ROW * len(signal)), "white")
    pen = ImageDraw.Draw(canvas)
    across = np.linspace(4, WIDTH - 5, max(signal.shape[1], 2))
    for row, points in enumerate(heights):
        down = row * ROW + 8 + points * (ROW - 17)
        pen.line([(0, row * ROW), (WIDTH, row * ROW)], fill=(225,) * 3)
        ends = zip(across, np.resize(down, len(across)), strict=True)
        pen.line([(float(x), float(y)) for x, y in ends], fill=(INK,) * 3, width=2)
    return np.asarray(canvas).copy()
