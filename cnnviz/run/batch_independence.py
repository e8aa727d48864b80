"""Models whose inputs change each other's scores, as norms without running statistics do: found once for each model."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from weakref import ReferenceType, WeakKeyDictionary

import torch
from torch import Tensor, nn

from cnnviz.engine import batching

TOLERANCE = 1e-4
_found: WeakKeyDictionary[nn.Module, tuple[list[ReferenceType[nn.Module]], bool]] = WeakKeyDictionary()


def mixes(model: nn.Module, judged: Callable[[], bool]) -> bool:
    """What was found of this model as it is; exchange a part, and it is another one."""
    parts = list(model.modules())
    met, found = _found.get(model, ([], False))
    if len(met) != len(parts) or any(there() is not part for there, part in zip(met, parts, strict=True)):
        found = judged()
        _found[model] = [weakref.ref(part) for part in parts], found
    return found


def differ(alone: Tensor, asked: Callable[[], Tensor], precision: torch.dtype | None) -> bool:
    """Whether scores differ by more than rounding from those that others were asked beside; also where these fail."""
    try:
        together = asked()
    except Exception as error:
        if batching.is_out_of_memory(error):
            raise
        return True
    slack = max(TOLERANCE, 16 * torch.finfo(alone.dtype).eps, 4 * torch.finfo(precision).eps if precision else 0)
    return not bool(((together - alone).abs() <= slack * alone.abs().max()).all())
