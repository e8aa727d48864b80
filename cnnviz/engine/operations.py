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
Limits = tuple[Any, Any]
"""The lowest and the highest output: numbers, tensors of constants, or None for no limit."""

_OF_EACH_VALUE = (
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "square", "reciprocal"),
    *("abs", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "sinc"),
    *("erf", "erfc", "erfinv", "logit", "lgamma", "digamma", "i0", "sign", "round", "floor", "ceil", "trunc", "frac"),
)

_GETTERS = {
    *("size", "dim", "ndimension", "numel", "nelement", "stride", "element_size", "storage_offset", "__len__"),
    *("get_device", "is_contiguous", "is_floating_point", "is_complex", "is_signed", "is_pinned", "is_inference"),
    *("register_hook", "retain_grad"),
}
_TENSOR_ATTRIBUTES = {"T", "mT", "H", "mH", "data", "real", "imag"}
_ASSIGNING = {"and", "or", "xor", "lshift", "rshift", "floordiv", "mod"}  # the others come as add_ and the like


READ_BY_PYTHON = {
    getattr(home, name)
    for home in (torch, Tensor)
    for name in (
        *("__bool__", "__int__", "__float__", "__index__", "__complex__", "__contains__", "__array__", "__dlpack__"),
        *("item", "tolist", "numpy", "equal", "allclose", "is_nonzero", "nonzero", "argwhere", "masked_select"),
        *("unique", "unique_consecutive", "storage", "untyped_storage", "data_ptr"),
    )
    if hasattr(home, name)
}
"""Operations that give values of a tensor to Python, or a shape that depends on them."""


READ_SIZES = {Tensor.dim, Tensor.size, Tensor.ndimension, Tensor.numel, Tensor.__len__}
"""Methods that tell the size of a tensor, and nothing else."""


def spelled(*names: str) -> tuple[Any, ...]:
    """Every function and method of these names, in place or not."""
    spellings = [form for name in names for form in (name, f"{name}_", f"__{name}__", f"__i{name}__", f"__r{name}__")]
    return tuple(
        getattr(home, name) for home in (torch, Tensor, torch.special) for name in spellings if hasattr(home, name)
    )


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
    torch.sigmoid: (*spelled("sigmoid", "expit"), F.sigmoid),
    torch.tanh: (*spelled("tanh"), F.tanh),
    **{getattr(torch, name): spelled(name) for name in _OF_EACH_VALUE},
    torch.abs: spelled("abs", "absolute"),
    torch.pow: spelled("pow"),
    torch.neg: spelled("neg", "negative"),
    torch.add: spelled("add"),
    torch.sub: (*spelled("sub", "subtract"), torch.rsub),
    torch.mul: spelled("mul", "multiply"),
    torch.div: spelled("div", "divide", "true_divide", "truediv"),
    torch.matmul: spelled("matmul", "mm", "bmm", "mv"),
    **{getattr(torch, name): spelled(name) for name in ("addmm", "addmv", "addbmm", "baddbmm")},
    **{getattr(torch, name): spelled(name) for name in ("dot", "inner", "tensordot", "kron", "cross", "cov")},
    **{getattr(torch, name): spelled(name) for name in ("cumprod", "float_power", "lerp", "addcdiv", "addr")},
    torch.outer: spelled("outer", "ger"),
    torch.linalg.vecdot: (),
    torch.addcmul: spelled("addcmul"),
    torch.maximum: (Tensor.maximum,),
    torch.amax: (Tensor.amax,),
    F.max_pool1d: (torch.max_pool1d, F.max_pool1d_with_indices),
    F.max_pool2d: (torch.max_pool2d, F.max_pool2d_with_indices),
    F.max_pool3d: (torch.max_pool3d, F.max_pool3d_with_indices),
    F.adaptive_max_pool1d: (torch.adaptive_max_pool1d, F.adaptive_max_pool1d_with_indices),
    F.adaptive_max_pool2d: (F.adaptive_max_pool2d_with_indices,),
    F.adaptive_max_pool3d: (F.adaptive_max_pool3d_with_indices,),
    F.softmax: spelled("softmax"),
    F.log_softmax: spelled("log_softmax"),
    F.layer_norm: (torch.layer_norm,),
    F.group_norm: (torch.group_norm,),
    F.instance_norm: (torch.instance_norm,),
    F.rms_norm: (torch.rms_norm,),
    F.glu: (torch._C._nn.glu,),
    F.cosine_similarity: (torch.cosine_similarity,),
    torch.norm: (Tensor.norm, torch.linalg.norm, torch.linalg.vector_norm),
    torch.std: spelled("std"),
    torch.var: spelled("var"),
    torch.prod: spelled("prod"),
    torch.logsumexp: spelled("logsumexp"),
}
_CANONICAL = {spelling: operation for operation, spellings in _SPELLINGS.items() for spelling in spellings}
_CLAMPS = frozenset(spelled("clamp", "clip"))
_LOWER_CLAMPS = frozenset(spelled("clamp_min"))
_UPPER_CLAMPS = frozenset(spelled("clamp_max"))
HARDTANHS: frozenset[Operation] = frozenset((F.hardtanh, F.hardtanh_, torch._C._nn.hardtanh, torch._C._nn.hardtanh_))
_MAXIMA = frozenset((torch.max, Tensor.max))

SOFTMAXES: tuple[Operation, ...] = (
    *(F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax),
    *(F.log_softmax, torch.log_softmax, Tensor.log_softmax, torch.special.log_softmax),
)
"""A softmax, or its logarithm, in every spelling."""
SIGMOIDS: tuple[Operation, ...] = (
    *(F.sigmoid, torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, torch.special.expit),
    *(F.logsigmoid,),
)
"""A sigmoid, or its logarithm, in every spelling."""

RECTIFIERS: tuple[Operation, ...] = (F.relu, F.relu6, F.leaky_relu, F.prelu, F.rrelu, F.threshold)
"""Activations that pass what is positive and hold back what is negative."""

ACTIVATIONS: tuple[Operation, ...] = (
    *RECTIFIERS,
    *(F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.softplus),
    *(F.hardtanh, torch.sigmoid, torch.tanh),
)
"""Every pointwise nonlinearity, smooth ones included."""

POINTWISE: tuple[Operation, ...] = (
    *ACTIVATIONS,
    *(F.logsigmoid, F.softsign, F.tanhshrink, F.hardshrink, F.softshrink, torch.clamp),
    *(getattr(torch, name) for name in _OF_EACH_VALUE),
)
"""Activations, and other curves that every value goes through by itself."""


def canonical(func: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Operation:
    """The operation's one name. Clamping at zero is a ReLU, at zero and above a ReLU6; max(dim) is amax."""
    if isinstance(func, torch._ops.OpOverload | torch._ops.OpOverloadPacket):  # torch.ops.aten.relu is torch.relu
        func = _of_library(func)
    if func in HARDTANHS:
        low, high = bounds(func, args, kwargs)
        return F.relu6 if low == 0 and high > 0 else F.hardtanh
    if func in _CLAMPS:
        low, high = _argument(args, kwargs, 1, "min", None), _argument(args, kwargs, 2, "max", None)
        if isinstance(low, int | float) and low == 0:
            return F.relu if high is None else F.relu6
        return torch.clamp
    if func in _LOWER_CLAMPS:
        low = _argument(args, kwargs, 1, "min", None)
        return F.relu if isinstance(low, int | float) and low == 0 else torch.clamp
    if func in _UPPER_CLAMPS:
        return torch.clamp
    if func in _MAXIMA:
        other = _argument(args, kwargs, 1, "other", None)
        if isinstance(other, Tensor):
            return torch.maximum
        return func if _argument(args, kwargs, 1, "dim", None) is None else torch.amax
    if kwargs.get("rounding_mode") is not None:
        return func  # a quotient in steps
    return _CANONICAL.get(func, func)


def _of_library(func: Any) -> Operation:
    library, _, name = str(getattr(func, "_overloadpacket", func)).partition(".")
    homes = (torch, torch._C._nn) if library == "aten" else ()
    found: Operation = next((getattr(home, name) for home in homes if hasattr(home, name)), func)
    return found


def bounds(func: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    """Between which values a hard tanh, or a ReLU6, keeps what it is given."""
    if func is F.relu6:
        return 0.0, 6.0
    return _argument(args, kwargs, 1, "min_val", -1.0), _argument(args, kwargs, 2, "max_val", 1.0)


def limits_of(func: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Limits | None:
    """Between which values an operation keeps what it is given and changes nothing else; None where it does more."""
    if isinstance(func, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        func = _of_library(func)
    if func is F.relu6 or func in HARDTANHS:
        return bounds(func, args, kwargs)
    if func in _CLAMPS:
        return _argument(args, kwargs, 1, "min", None), _argument(args, kwargs, 2, "max", None)
    if func in _LOWER_CLAMPS:
        return _argument(args, kwargs, 1, "min", None), None
    if func in _UPPER_CLAMPS:
        return None, _argument(args, kwargs, 1, "max", None)
    return (0, None) if _CANONICAL.get(func, func) is F.relu else None


def in_place(func: Operation, kwargs: Mapping[str, Any]) -> bool:
    """Whether this call writes its first argument."""
    name = getattr(func, "__name__", "")
    if name.endswith("_") and not name.endswith("__"):
        return True
    return bool(kwargs.get("inplace"))  # torch's own functions hand it on by name, however it was said


def reads_metadata(func: Any) -> bool:
    """True for calls that only read metadata of a tensor, such as its size."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return getattr(func.__self__, "__name__", "") not in _TENSOR_ATTRIBUTES
    return name in _GETTERS


def written_tensor(func: Operation, operands: Sequence[Tensor], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The tensor that a call writes, if it writes one."""
    if isinstance(kwargs.get("out"), Tensor):
        return kwargs["out"]  # type: ignore[no-any-return]  # asked just above
    name = getattr(func, "__name__", "")
    assigns = name in ("__setitem__", "__set__") or (name.startswith("__i") and name[3:-2] in _ASSIGNING)
    return operands[0] if operands and (assigns or in_place(func, kwargs)) else None


def name_of(operation: Operation) -> str:
    return str(getattr(operation, "__name__", repr(operation))).strip("_")


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str, default: Any) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)
