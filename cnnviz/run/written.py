"""Parts of targets as titles have them: short, and the same in every process."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import Module


def written(value: Any) -> str:
    """A part of a target as titles have it: a tensor is told by its shape alone, a function by its name."""
    if isinstance(value, Tensor):
        return f"tensor{tuple(value.shape)}"
    if isinstance(value, Module):
        return f"<{type(value).__name__}>"
    if callable(value):
        return str(getattr(value, "__name__", type(value).__name__))
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return repr(value.item())
    return f"<{type(value).__name__}>" if hasattr(value, "getbands") else repr(value)
