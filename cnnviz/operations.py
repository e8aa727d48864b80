"""One name for each operation, however a model spells it.

``nn.ReLU``, ``F.relu(x, inplace=True)``, ``x.relu_()`` and ``torch.clamp(x, min=0)`` are the same operation to a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Operation = Callable[..., Any]

_SPELLINGS: dict[Operation, tuple[Any, ...]] = {
    F.relu: (torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
    F.leaky_relu: (F.leaky_relu_, torch._C._nn.leaky_relu),
    F.prelu: (torch.prelu, Tensor.prelu),
    F.rrelu: (F.rrelu_, torch.rrelu, torch.rrelu_),
    F.threshold: (torch.threshold, torch.threshold_),
    F.elu: (F.elu_, torch._C._nn.elu),
    F.selu: (torch.selu, torch.selu_),
    F.celu: (torch.celu, torch.celu_),
    F.gelu: (),
    F.silu: (torch._C._nn.silu,),
    F.mish: (torch._C._nn.mish,),
    F.hardswish: (torch._C._nn.hardswish,),
    F.hardsigmoid: (torch._C._nn.hardsigmoid,),
    F.softplus: (),
    torch.sigmoid: (torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, F.sigmoid, torch.special.expit),
    torch.tanh: (torch.tanh_, Tensor.tanh, Tensor.tanh_, F.tanh),
}
_CANONICAL = {spelling: operation for operation, spellings in _SPELLINGS.items() for spelling in spellings}
_CLAMPS = (torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_, torch.clip, torch.clip_, Tensor.clip, Tensor.clip_)
_LOWER_CLAMPS = (torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_)
_HARDTANHS = (F.hardtanh, F.hardtanh_, torch._C._nn.hardtanh, torch._C._nn.hardtanh_)

SOFTMAXES: tuple[Operation, ...] = (
    *(F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax),
    *(F.log_softmax, torch.log_softmax, Tensor.log_softmax, torch.special.log_softmax),
)
"""A softmax, or its logarithm, in every spelling."""

RECTIFIERS: tuple[Operation, ...] = (F.relu, F.relu6, F.leaky_relu, F.prelu, F.rrelu, F.threshold)
"""Activations that pass what is positive and hold back what is negative."""

ACTIVATIONS: tuple[Operation, ...] = (
    *RECTIFIERS,
    *(F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.softplus),
    *(F.hardtanh, torch.sigmoid, torch.tanh),
)
"""Every pointwise nonlinearity, smooth ones included."""


def canonical(func: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Operation:
    """The operation's one name. Clamping at zero is a ReLU, at zero and above a ReLU6."""
    if func in _HARDTANHS:
        low, high = _argument(args, kwargs, 1, "min_val", -1.0), _argument(args, kwargs, 2, "max_val", 1.0)
        return F.relu6 if low == 0 and high > 0 else F.hardtanh
    if func in _CLAMPS:
        low, high = _argument(args, kwargs, 1, "min", None), _argument(args, kwargs, 2, "max", None)
        if isinstance(low, int | float) and low == 0:
            return F.relu if high is None else F.relu6
        return func
    if func in _LOWER_CLAMPS:
        low = _argument(args, kwargs, 1, "min", None)
        return F.relu if isinstance(low, int | float) and low == 0 else func
    return _CANONICAL.get(func, func)


def in_place(func: Operation, kwargs: Mapping[str, Any]) -> bool:
    """Whether this call writes its first argument."""
    name = getattr(func, "__name__", "")
    if name.endswith("_") and not name.endswith("__"):
        return True
    return bool(kwargs.get("inplace"))  # torch's own functions hand it on by name, however it was said


def name_of(operation: Operation) -> str:
    return str(getattr(operation, "__name__", repr(operation))).strip("_")


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str, default: Any) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)
