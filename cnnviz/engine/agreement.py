"""Comparison of fast paths with plain passes, and the fallback where a fast path fails.

Changes of a score are compared by what they do to it, not by the score itself: beside a large score, a wrong change is
small.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from itertools import zip_longest
from typing import Any, TypeVar

import torch
from torch import Tensor

from cnnviz.engine.batching import is_out_of_memory
from cnnviz.engine.deferred import assumed
from cnnviz.engine.nested import tensors
from cnnviz.engine.speed.tf32 import of_cuda

T = TypeVar("T")


class Departed(Exception):
    """The model did not call the recorded operations."""


OF_VALUES = 1e-4
"""Tolerance of values, relative to the largest one."""
OF_CHANGES = 1e-3
"""Tolerance of a change of the score, relative to that change."""


def agrees(
    fast: Tensor,
    plain: Tensor,
    *,
    score: Tensor | None = None,
    noise: Tensor | float = 0.0,
    precision: torch.dtype | None = None,
) -> bool | None:
    """True if both are equal up to rounding, False if not, None if rounding alone may explain all values.

    Args:
        fast: values of the fast path.
        plain: values of whole passes, of the same shape.
        score: of the unchanged input, if ``fast`` and ``plain`` are changes of it. Without it values are compared as
            they are, and the answer is never None.
        noise: by how much the two ways differ where nothing changes.
        precision: what one of them was computed in, if that is less than the tensors have.
    """
    if plain.numel() == 0 or fast.shape != plain.shape:
        return fast.shape == plain.shape
    if not plain.is_floating_point() and not plain.is_complex():  # numbers of classes, masks
        fast, plain = fast.float(), plain.float()
    coarse = torch.finfo(precision).eps if precision else 0.0
    if score is None:
        return bool(are_close(fast, plain, precision=precision))
    step = max(_step(plain), coarse)
    # half precision is summed in float32: errors do not grow from layer to layer as much as the numbers are coarse
    steps, telling = (64, 16) if step < 2.0**-16 else (4, 4)
    rounding = steps * step * torch.maximum(plain.abs().max(), score.abs().max()) + 2 * noise
    larger = torch.maximum(fast.abs(), plain.abs())
    if not assumed(((fast - plain).abs() <= max(OF_CHANGES, 4 * step) * larger + rounding).all()):
        return False
    return True if assumed((larger > telling * rounding).any()) else None


def are_close(
    fast: Tensor, plain: Tensor, *, precision: torch.dtype | None = None, rounding: float = OF_VALUES
) -> Tensor:
    """A flag on the device: true if both are equal up to ``rounding``, which is relative to the largest value."""
    coarse = torch.finfo(precision).eps if precision else 0.0
    step = max(torch.finfo(plain.dtype).eps, coarse)
    # a model may mask scores with minus infinity
    slack = max(rounding, (4 if precision else 16) * step) * plain.abs().where(plain.isfinite(), 0).max()
    same = (fast == plain) | (fast.isnan() & plain.isnan())
    return (same | ((fast - plain).abs() <= slack)).all()


def outputs_agree(fast: Any, plain: Any) -> bool:
    """True if two outputs of a model hold the same tensors up to rounding, and at least one."""
    pairs = list(zip_longest(tensors(fast), tensors(plain)))
    return bool(pairs) and all(None not in pair and agrees(*pair) for pair in pairs)


def special_or_plain(
    special: Callable[[], T], plain: Callable[[], T], refusals: tuple[type[Exception], ...] = (Exception,)
) -> tuple[T, bool]:
    """The result of a special pass and True; that of a plain pass and False, where a model does not take the special.

    Args:
        special: a pass that is observed, or in another memory format. A model may refuse it by any kind of error.
        plain: the pass as the user would make it.
        refusals: the kinds of errors that mean a refusal. All others are the model's own.

    Raises:
        Exception: what the special pass raised, if it does not fail a second time: the error is then the model's own.
            What the plain pass raises. Running out of memory.
    """
    try:
        return special(), True
    except refusals as error:
        if is_out_of_memory(error):
            raise
        failure = error
    traceback.clear_frames(failure.__traceback__)  # which hold the tensors of the pass that failed
    try:
        result = plain()
        try:
            special()
        except refusals as error:
            if is_out_of_memory(error):
                raise
            return result, False
        raise failure
    finally:
        del failure  # its traceback holds this frame


def _step(values: Tensor) -> float:
    """Machine epsilon of the computation; on CUDA that of TF32, with ten bits, unless torch has it disabled."""
    coarse = values.is_cuda and values.dtype == torch.float32 and "tf32" in of_cuda()
    return max(torch.finfo(values.dtype).eps, 2.0**-10 if coarse else 0.0)
