"""Models computed in half of their precision: convolutions and matrix products, while sums stay in float32.

The weights are converted once for each question, by autocast, and nothing of that is left behind. What float32 itself
is computed in is in :mod:`cnnviz.engine.speed.tf32`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
_LOWER = {"float32": None, "tf32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def lower(precision: str | None, model: nn.Module, inputs: Tensor) -> torch.dtype | None:
    """What autocast computes in; None where nothing is to be done.

    Raises ValueError for a precision there is not, or that the model or the device can't be asked in.
    """
    if precision is None:
        return None
    if precision not in _LOWER:
        raise ValueError(f"there is no precision {precision!r}; there are {', '.join(_LOWER)}")
    kinds = {
        str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters() if parameter.is_floating_point()
    }
    if inputs.dtype is not torch.float32 or kinds - {"float32"}:
        has = ", ".join(sorted(kinds | {str(inputs.dtype).removeprefix("torch.")}))
        raise ValueError(
            f"precision={precision!r} is for models and inputs in float32, and here is {has}; leave precision out"
        )
    dtype = _LOWER[precision]
    if dtype is not None and not torch.amp.is_autocast_available(inputs.device.type):
        raise ValueError(f"there is no {precision} on {inputs.device}; leave precision out")
    return dtype


@contextmanager
def converted_once(device: torch.device, precision: torch.dtype | None) -> Iterator[None]:
    """While it lasts, weights that were converted are kept; behind it none are."""
    if precision is None:
        yield
        return
    kind = device.type
    # nothing is converted by this one: it only holds what those inside of it convert
    outer = torch.autocast(kind, dtype=torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind))
    with outer:
        try:
            yield
        finally:
            torch.clear_autocast_cache()  # a caller's own autocast would use them even after the weights changed
