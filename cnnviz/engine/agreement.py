"""Whether a quick way to scores gives what the plain way gives.

Judged is by what changes do to the score, not by the score itself: beside a large score, a wrong change is small.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Departed(Exception):
    """The model called something else than was recorded."""


# What goes wrong where a model looks at shapes or strides of what was expanded
STUMBLES = (Departed, RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)

TOLERANCE = 1e-3
"""Share of a change by which it may be wrong."""


def alike(found: Tensor, plain: Tensor, score: Tensor, noise: Tensor | float = 0.0) -> bool | None:
    """Whether changes of ``score`` found quickly are those found plainly, (K,); None where that can't be told.

    It can't where all of them are so small that rounding may have made them, or a good part of them. ``noise`` is by
    how much the two ways differ where nothing changes.
    """
    step = _step(plain)
    # half precision is summed in float32: errors do not grow from layer to layer as much as the numbers are coarse
    steps, telling = (64, 16) if step < 2.0**-16 else (4, 4)
    reach = torch.maximum(plain.abs().max(), score.abs().max())
    rounding = steps * step * reach + 2 * noise
    larger = torch.maximum(found.abs(), plain.abs())
    if not bool(((found - plain).abs() <= max(TOLERANCE, 4 * step) * larger + rounding).all()):
        return False
    return True if bool((larger > telling * rounding).any()) else None


def _step(scores: Tensor) -> float:
    """From one number to the next. On CUDA float32 is rounded to ten bits, unless torch is told not to."""
    ten_bits = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    coarse = scores.is_cuda and scores.dtype == torch.float32 and ten_bits
    return max(torch.finfo(scores.dtype).eps, 2.0**-10 if coarse else 0.0)
