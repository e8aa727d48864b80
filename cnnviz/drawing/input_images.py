"""Inputs drawn as they are, without a map over them: images, signals as lines, volumes as slices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cnnviz.images.bounds import Bounds
from cnnviz.images.preprocessing import Preprocessing

BEYOND = 1e-3  # rounding, of values that are shares of what a picture can be
SLICES = 9
WIDTH, ROW, INK = 640, 120, 40  # pixels of a signal's picture, and of each of its channels; gray of its line


def drawn(inputs: Tensor, preprocessing: Preprocessing | None = None, contrast: float = 1.0) -> NDArray[np.uint8]:
    """Pictures (N, H, W, 3), uint8, of inputs (N, C, *spatial).

    Images are brought back by the preprocessing; those with values beyond what it makes of pictures are stretched from
    their lowest to their highest. Volumes are ``SLICES`` of their depth, signals a row for each channel. ``contrast``
    multiplies the distance from an image's mean gray.
    Raises ValueError for inputs without spatial extent.
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
        if low < -BEYOND or high > 1 + BEYOND:
            share.sub_(low).div_(high - low)
    pictures = _colours(shares).movedim(1, -1).numpy()  # (N, *spatial, 3)
    if contrast != 1:
        gray = (pictures @ [0.299, 0.587, 0.114]).mean(tuple(range(1, rank + 1)))
        gray = gray.reshape(-1, *(1,) * (rank + 1))
        pictures = gray + contrast * (pictures - gray)
    whole = np.rint(pictures.clip(0, 1) * 255).astype(np.uint8)
    return np.stack([_slices(volume) for volume in whole]) if rank == 3 else whole


def _colours(shares: Tensor) -> Tensor:
    """(N, 3, *spatial): colours as they are, other numbers of channels as the gray of their mean."""
    if shares.shape[1] == 3:
        return shares
    if shares.shape[1] == 4:
        return shares[:, :3]
    return shares.mean(1, keepdim=True).expand(-1, 3, *shares.shape[2:])


def _slices(volume: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Evenly spaced slices (H, W, 3) of a volume (D, H, W, 3), nearly in a square."""
    count = min(SLICES, len(volume))
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    height, width = volume.shape[1:3]
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, 3), 255, np.uint8)
    for place in range(count):
        row, column = divmod(place, columns)
        top, left = row * (height + 1), column * (width + 1)
        sheet[top : top + height, left : left + width] = volume[(2 * place + 1) * len(volume) // (2 * count)]
    return sheet


def _lines(signal: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A signal (C, L) as a line for each channel, all on one scale."""
    from PIL import Image, ImageDraw

    low, high = float(signal.min()), float(signal.max())
    heights = 1 - (signal - low) / (high - low or 1)
    sheet = Image.new("RGB", (WIDTH, ROW * len(signal)), "white")
    pen = ImageDraw.Draw(sheet)
    across = np.linspace(4, WIDTH - 5, max(signal.shape[1], 2))
    for row, points in enumerate(heights):
        down = row * ROW + 8 + points * (ROW - 17)
        pen.line([(0, row * ROW), (WIDTH, row * ROW)], fill=(225,) * 3)
        ends = zip(across, np.resize(down, len(across)), strict=True)
        pen.line([(float(x), float(y)) for x, y in ends], fill=(INK,) * 3, width=2)
    return np.asarray(sheet).copy()
