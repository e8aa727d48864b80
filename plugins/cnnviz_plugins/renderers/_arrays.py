"""From tensors to arrays that can be shown: pictures of the inputs, maps of one channel at their size, colours.

Arrays have their channels last and are float64; pictures are within 0 and 1.
"""

from __future__ import annotations

import difflib

import matplotlib
import numpy as np
import torch
from matplotlib.colors import Colormap
from numpy.typing import NDArray
from torch import Tensor

from cnnviz import Explanation, input_pictures
from cnnviz_plugins.renderers._intensity import Floats, Scale

LUMA = (0.2989, 0.5870, 0.1140)
KINDS = {0: ("vectors", "line"), 1: ("signals", "line"), 2: ("images", "overlay"), 3: ("volumes", "slices")}
INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


def check_rank(explanation: Explanation, name: str, *ranks: int) -> None:
    """Raises ValueError, naming the right renderer, unless the inputs have one of these numbers of dimensions."""
    rank = explanation.inputs.ndim - 2
    draws = " and ".join(KINDS[rank][0] for rank in ranks)
    if rank not in KINDS:
        raise ValueError(f"{name} draws {draws}; there is no renderer for inputs {tuple(explanation.inputs.shape)}")
    if rank not in ranks:
        kind, right = KINDS[rank]
        raise ValueError(f"{name} draws {draws}; for {kind} use {right!r}")
    if explanation.values.ndim != explanation.inputs.ndim:
        shapes = f"{tuple(explanation.values.shape)} do not lie over inputs {tuple(explanation.inputs.shape)}"
        raise ValueError(f"{name}: values {shapes}; a method for {KINDS[rank][0]} returns (N, C, *spatial)")


def values_of(explanation: Explanation, channels: int | None = None) -> Floats:
    """The values (N, C, *spatial). Raises ValueError where they are not finite, for no colour would be true.

    Unless ``channels`` says how many there are, they are one map, or one for each channel of the input: what is
    something else would be added up to nothing that was asked.
    """
    if channels is None and explanation.values.shape[1] not in (1, explanation.inputs.shape[1]):
        asked = explanation.renderer
        own = f"render them with {asked!r}" if asked else "draw them with a renderer of their own, or keep the values"
        many = explanation.values.shape[1]
        raise ValueError(f"{explanation.recipe} has {many} maps for each input, which are no one picture; {own}")
    values = explanation.values.detach().cpu().double()
    broken = int((~values.isfinite()).sum())
    if broken:
        raise ValueError(
            f"{broken} of {values.numel()} values of {explanation.recipe} are NaN or infinite and cannot be drawn; "
            "a model in half precision may overflow: explain it in float32"
        )
    return _array(values)


def is_coarse(explanation: Explanation) -> bool:
    """One map for all channels at a layer's resolution, as a CAM is, and not one value for each input value."""
    return explanation.values.shape[1] == 1 and explanation.values.shape != explanation.inputs.shape


def one_channel(values: Floats) -> Floats:
    """(N, *spatial) of (N, C, *spatial): a single channel as it is, of several the sum of magnitudes."""
    return values[:, 0] if values.shape[1] == 1 else np.abs(values).sum(1)


def magnitudes(explanation: Explanation) -> Floats:
    """(N, *spatial): how much each place matters. Of a CAM that is the positive part, of others the magnitude."""
    values = values_of(explanation)
    return values[:, 0].clip(0) if is_coarse(explanation) else np.abs(values).sum(1)


def heat(explanation: Explanation, scale: Scale, absolute: bool = False) -> Floats:
    """(N, *spatial of the inputs), 0 to 1: what speaks for the target, or with ``absolute`` also against it."""
    return scale(*_drawn_and_signed(explanation, absolute))


def heat_range(explanation: Explanation, scale: Scale, absolute: bool = False) -> list[tuple[float, float]]:
    """For each input the value that :func:`heat` is 1 for, 0 for a blank map; and the highest there is."""
    drawn, signed = _drawn_and_signed(explanation, absolute)
    peaks = scale.peaks(signed if scale.policy == "signed" else drawn)
    highest = drawn.reshape(len(drawn), -1).max(1)
    return list(zip(peaks.ravel().tolist(), highest.tolist(), strict=True))


def _drawn_and_signed(explanation: Explanation, absolute: bool) -> tuple[Floats, Floats]:
    signed, size = one_channel(values_of(explanation)), explanation.inputs.shape[2:]
    part = np.abs(signed) if absolute else signed.clip(0)  # before resizing, as Grad-CAM's ReLU is
    return resized(part, size), resized(signed, size)


def resized(maps: Floats, size: tuple[int, ...]) -> Floats:
    """Maps (N, *spatial) interpolated linearly to a size; those that have it are returned as they are."""
    if maps.shape[1:] == tuple(size):
        return maps
    tensor = torch.from_numpy(np.ascontiguousarray(maps))[:, None]
    mode = INTERPOLATION[len(size)]
    return _array(torch.nn.functional.interpolate(tensor, tuple(size), mode=mode, align_corners=False)[:, 0])


def pictures_of(explanation: Explanation) -> Floats:
    """The inputs as pictures (N, *spatial, 3), whatever their channels: see :func:`cnnviz.input_pictures`."""
    return np.moveaxis(_array(input_pictures(explanation).cpu().double()), 1, -1)


def gray(pictures: Floats) -> Floats:
    """Pictures (..., 3) without their colours."""
    brightness: Floats = pictures @ np.array(LUMA) / sum(LUMA)
    return np.repeat(brightness[..., None], 3, -1)


def mixed(under: Floats, over: Floats, opacity: Floats | float) -> Floats:
    """Pictures (..., 3) seen through others; an opacity (...) may change from place to place."""
    share = np.asarray(opacity)[..., None]
    seen: Floats = under * (1 - share) + over * share
    return seen


def colors_of(colormap: Colormap, strengths: Floats) -> Floats:
    """RGB (..., 3) for strengths (...) from 0 to 1."""
    return np.asarray(colormap(strengths), np.float64)[..., :3]


def colormap_named(name: str) -> Colormap:
    """matplotlib's colour map. Raises ValueError with the nearest name for one it does not have."""
    if name not in matplotlib.colormaps:
        near = difflib.get_close_matches(name, list(matplotlib.colormaps), n=1)
        way_out = f"did you mean {near[0]!r}?" if near else "use one of matplotlib's, such as 'turbo', 'jet', 'magma'"
        raise ValueError(f"there is no colour map {name!r}; {way_out}")
    return matplotlib.colormaps[name]


def check_share(name: str, value: float) -> None:
    """Raises ValueError unless the setting is within 0 and 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} is out of range; use 0 to 1")


def as_uint8(pictures: Floats) -> NDArray[np.uint8]:
    """What is shown of pictures in 0..1."""
    return np.round(pictures.clip(0, 1) * 255).astype(np.uint8)


def _array(tensor: Tensor) -> Floats:
    array: Floats = tensor.numpy()
    return array
