"""The values of an explanation as arrays that can be drawn: checked, in one channel, at the size of the inputs.

Arrays are float64.
"""

from __future__ import annotations

import numpy as np
import torch

from cnnviz.drawing.intensity import Floats, Scale, fraction_of_peak
from cnnviz.explanations.explanation import Explanation
from cnnviz.images.resampling import resize
from cnnviz.registry.default_renderer import default_renderer

KINDS = {0: "vectors", 1: "signals", 2: "images", 3: "volumes"}


def check_rank(explanation: Explanation, name: str, *ranks: int) -> None:
    """Raises ValueError unless the inputs have one of these numbers of spatial dimensions, and the values as many.

    The message says what the renderer ``name`` draws and which renderer is the default for such inputs.
    """
    rank = explanation.inputs.ndim - 2
    drawable = " and ".join(KINDS[rank] for rank in ranks)
    if rank not in ranks:
        default = default_renderer(rank, "coarse")
        if default is None:
            shape = tuple(explanation.inputs.shape)
            raise ValueError(f"{name} draws {drawable}; there is no renderer for inputs {shape}")
        raise ValueError(f"{name} draws {drawable}; for {KINDS[rank]} use {default!r}")
    if explanation.values.ndim != explanation.inputs.ndim:
        shapes = f"{tuple(explanation.values.shape)} do not lie over inputs {tuple(explanation.inputs.shape)}"
        raise ValueError(f"{name}: values {shapes}; a method for {KINDS[rank]} returns (N, C, *spatial)")


def check_share(name: str, value: float) -> None:
    """Raises ValueError unless the value of the setting ``name`` is within 0 and 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} is out of range; use 0 to 1")


def values_of(explanation: Explanation, channels: int | None = None) -> Floats:
    """The values (N, C, *spatial), raw and signed, at the method's own resolution.

    ``channels`` is how many maps for each input the renderer draws. None: one map, or one for each channel of the
    input, for the sum of any others has no meaning. Raises ValueError for other numbers of maps, and for values that
    are NaN or infinite, which no colour shows.
    """
    if channels is None and explanation.values.shape[1] not in (1, explanation.inputs.shape[1]):
        own = explanation.renderer
        way_out = f"render them with {own!r}" if own else "draw them with a renderer of their own, or keep the values"
        maps = explanation.values.shape[1]
        raise ValueError(f"{explanation.recipe} has {maps} maps for each input, which are no one picture; {way_out}")
    values = explanation.values.detach().cpu().double()
    broken = int((~values.isfinite()).sum())
    if broken:
        raise ValueError(
            f"{broken} of {values.numel()} values of {explanation.recipe} are NaN or infinite and cannot be drawn; "
            "a model in half precision may overflow: explain it in float32"
        )
    array: Floats = values.numpy()
    return array


def is_coarse(explanation: Explanation) -> bool:
    """True for one map for all channels, as of a CAM; False for a value for each input value."""
    return explanation.values.shape[1] == 1 and explanation.values.shape != explanation.inputs.shape


def magnitudes(explanation: Explanation) -> Floats:
    """How much each place matters, (N, *spatial): the positive part of a coarse map, else the sum of magnitudes."""
    values = values_of(explanation)
    return values[:, 0].clip(0) if is_coarse(explanation) else np.abs(values).sum(1)


def heat(explanation: Explanation, scale: Scale, absolute: bool = False) -> Floats:
    """Evidence for the target, (N, *spatial of the inputs), 0 to 1; with ``absolute`` evidence against it as well.

    A map without contrast is zero everywhere. Raises ValueError as :func:`values_of` does.
    """
    return fraction_of_peak(*heat_and_peaks(explanation, scale, absolute))


def heat_and_peaks(explanation: Explanation, scale: Scale, absolute: bool = False) -> tuple[Floats, Floats]:
    """The maps of :func:`heat` in the method's units, and their peaks (N, 1, ...), drawn as 1; 0 for a blank map."""
    values, size = values_of(explanation), explanation.inputs.shape[2:]
    signed = values[:, 0] if values.shape[1] == 1 else np.abs(values).sum(1)
    part = np.abs(signed) if absolute else signed.clip(0)  # before resizing, as Grad-CAM's ReLU is
    maps = resized(part, size)
    return maps, scale.peaks(resized(signed, size) if scale.policy == "signed" else maps)


def resized(maps: Floats, size: tuple[int, ...]) -> Floats:
    """Maps (N, *spatial), or (N, C, *spatial), interpolated linearly to another spatial size."""
    leading = maps.shape[: -len(size)]
    tensor = torch.from_numpy(np.ascontiguousarray(maps)).reshape(-1, 1, *maps.shape[len(leading) :])
    array: Floats = resize(tensor, torch.Size(size)).reshape(*leading, *size).numpy()
    return array
