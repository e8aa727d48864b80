"""What an explanation shows for each input: one map and one picture, both at the input's size."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnnviz.engine.validation import check_finite
from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.saved_explanations import check_inputs_kept
from cnnviz.images.resampling import resize

Sign = Literal["auto", "positive", "magnitude", "signed"]
SIGNS = ("auto", "positive", "magnitude", "signed")


def evidence(explanation: Explanation, sign: Sign = "auto") -> Tensor:
    """How much each place speaks for the target: one map for each input, at the input's size, (N, *spatial).

    Args:
        explanation: with one map for each input, or one for each channel of it.
        sign: how values become evidence. ``"positive"``: what is above zero; several channels are added up first.
            ``"magnitude"``: the magnitude, added up over channels. ``"signed"``: values as they are, added up over
            channels. ``"auto"``: positive for a map of its own resolution, as a class activation map is, whose sign
            means for or against; magnitude for values of the input's own shape, as a gradient is, whose sign only says
            which way the input would have to change.

    Returns:
        float32 (or float64), not negative unless ``"signed"``. Coarse maps are interpolated linearly.

    Raises:
        ValueError: for values that are not finite, or of another number of maps: no one of them is the map.
    """
    return resize(single_maps(explanation, sign), explanation.inputs.shape[2:])[:, 0]


def single_maps(explanation: Explanation, sign: Sign = "auto") -> Tensor:
    """The maps of :func:`evidence` before they are interpolated: (N, 1, *spatial) at their own size.

    Raises ValueError as it does.
    """
    if sign not in SIGNS:
        raise ValueError(f"there is no sign {sign!r}; use {', '.join(SIGNS)}")
    values, inputs = explanation.values.detach(), explanation.inputs
    if values.ndim != inputs.ndim or inputs.ndim < 3:
        shapes = f"values {tuple(values.shape)} of inputs {tuple(inputs.shape)}"
        raise ValueError(f"{explanation.recipe} gave {shapes}, which are no map; explain signals, images or volumes")
    if values.shape[1] not in (1, inputs.shape[1]):
        raise ValueError(
            f"{explanation.recipe} has {values.shape[1]} maps for each input, which are no one map; "
            "choose one with dataclasses.replace(explanation, values=explanation.values[:, :1])"
        )
    check_finite(values, f"what {explanation.recipe} gave")
    values = values if values.dtype == torch.float64 else values.float()
    if sign == "magnitude" or (sign == "auto" and explanation.fine):
        return values.abs().sum(1, keepdim=True)
    single = values.sum(1, keepdim=True)
    return single if sign == "signed" else single.relu()  # before resizing, as Grad-CAM's ReLU is


def shares_of_peak(maps: NDArray[Any]) -> NDArray[np.float32]:
    """Maps (N, *spatial) divided each by its highest magnitude, float32; a map of zeros stays zero."""
    wide = maps.astype(np.float64)
    peaks = np.abs(wide).max(tuple(range(1, maps.ndim)), keepdims=True)
    shares: NDArray[np.float32] = np.divide(wide, peaks, out=np.zeros_like(wide), where=peaks > 0).astype(np.float32)
    return shares


def input_pictures(explanation: Explanation) -> Tensor:
    """The inputs as pictures in colour, (N, 3, *spatial) float32 within 0 and 1, whatever their channels.

    One channel is gray, three are RGB, four are RGBA before white; of any other number the mean is gray.
    Without a preprocessing, an input that leaves 0..1 is stretched to it. Raises ValueError for inputs that were not
    kept.
    """
    check_inputs_kept(explanation)
    inputs, known = explanation.inputs.detach().float(), explanation.preprocessing
    pictures = _stretched(inputs) if known is None else known.inverse(inputs)
    if pictures.shape[1] == 4:
        pictures, opacity = pictures[:, :3], pictures[:, 3:]
        return pictures * opacity + (1 - opacity)
    if pictures.shape[1] == 3:
        return pictures
    return pictures.mean(1, keepdim=True).expand(-1, 3, *pictures.shape[2:])


def _stretched(inputs: Tensor) -> Tensor:
    flat = inputs.flatten(1)
    low, high = flat.amin(1), flat.amax(1)
    outside = (low < 0) | (high > 1)  # what lies within is a picture already, and keeps its own contrast
    low, high = low.where(outside, 0), high.where(outside, 1)
    single = (-1,) + (1,) * (inputs.ndim - 1)
    return (inputs - low.view(single)) / (high - low).where(high > low, 1).view(single)
