"""Checks of the model and its inputs before the first pass: what is wrong raises, nothing is changed silently."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.masked import MaskedTensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from cnnviz.engine.black_box import BlackBox, black_box, is_exported, opaque_part
from cnnviz.engine.deferred import require
from cnnviz.engine.model_facts import named_modules_of

COMPUTABLE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The floating-point types that PyTorch's operations compute in; others, such as float8, only store numbers."""
_WHOLE = re.compile(r"[+-]?[0-9]{1,4000}")  # Python reads no longer numbers


def as_network(model: Any) -> nn.Module:
    """The network that is asked; a black box of what is no module, or of a module whose operations can't be seen.

    Raises TypeError for what can't be called.
    """
    if not isinstance(model, nn.Module):
        return black_box(model)
    network = unwrap(model)
    return network if isinstance(network, BlackBox) or opaque_part(network) is None else black_box(network)


def unwrap(model: Any) -> nn.Module:
    """The model inside torch.compile, DataParallel and DistributedDataParallel. Raises TypeError for no model."""
    while isinstance(model, nn.Module):
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        else:
            return model
    raise TypeError(f"the model is a {type(model).__name__}; cnnviz explains a torch.nn.Module")


def check_model(model: nn.Module) -> None:
    """Raises for a model whose answers would be wrong, with the way out."""
    within = isinstance(model, BlackBox)
    if isinstance(model, BlackBox):
        if model.source is None or any(map(is_exported, model.source.modules())):
            return  # which has no evaluation mode
        model = model.source
    hidden = None if within else opaque_part(model)
    if hidden is not None:
        raise TypeError(hidden)
    parts = named_modules_of(model)
    if model.training:
        raise ValueError(
            "the model is in training mode, where images change each other's maps; call model.eval() first"
        )
    for name, module in parts.items():
        if isinstance(module, _BatchNorm) and module.training:
            raise ValueError(
                f"{name!r} is in training mode, where images change each other's maps and its statistics; "
                "call model.eval() first"
            )
    if within:
        return
    for name, weight in _weights(parts):
        if is_lazy(weight):
            raise ValueError(
                f"the weight {name!r} of a lazy module has no shape yet; run the model once, or load its weights"
            )
        if weight.is_meta:
            raise ValueError(
                f"the weight {name!r} is on the meta device, where tensors have no values; load the model's weights "
                "onto a device first"
            )
        if weight.is_inference():
            raise ValueError(
                f"the weight {name!r} was made inside torch.inference_mode(), which no gradient passes; "
                "build or load the model outside of it"
            )


def _weights(parts: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name."""
    for part, module in parts.items():
        for name, weight in (*module._parameters.items(), *module._buffers.items()):
            if weight is not None:
                yield (f"{part}.{name}" if part else name), weight


def check_inputs(model: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Raises for inputs the model can't be asked about, naming both sides."""
    first = inputs[0]
    for number, tensor in enumerate(inputs):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"input {number} is a {type(tensor).__name__}, not a tensor (N, C, *spatial)")
        check_dense(tensor, f"input {number}" if number else "the input")
        if len(tensor.shape) == 0 or len(tensor) != len(first):
            raise ValueError(
                f"input {number} is {tuple(tensor.shape)}, the first {tuple(first.shape)}; they need one batch size"
            )
    if first.ndim < 2:
        raise ValueError(f"the input is {tuple(first.shape)}; it needs a batch dimension: (N, C, *spatial)")
    if first.numel() == 0:
        raise ValueError(f"the input is {tuple(first.shape)}: there is nothing in it to explain")
    if not first.is_floating_point():
        raise TypeError(
            f"the input is {first.dtype}; models take normalized floating point, such as Preprocessing gives"
        )
    if first.dtype not in COMPUTABLE:
        raise TypeError(f"the input is {first.dtype}, which no model computes in; convert it with .float()")
    try:
        check_finite(first, "the input")
    except (RuntimeError, NotImplementedError) as error:
        raise TypeError(
            f"the input is a {type(first).__name__} whose values can't be read ({_first_line(error)}); "
            "give a plain torch.Tensor"
        ) from error
    parameter = next(filter(Tensor.is_floating_point, model.parameters()), None)
    if parameter is None:
        return
    if parameter.device != first.device:
        raise ValueError(f"the model is on {parameter.device}, the input on {first.device}; move one with .to(...)")
    autocast = torch.is_autocast_enabled(first.device.type)
    if not autocast and all(weight.dtype != first.dtype for weight in model.parameters()):
        raise TypeError(f"the input is {first.dtype}, the model {parameter.dtype}; convert one with .to(...)")


def spatial_rank(model: nn.Module) -> int | None:
    """The number of spatial dimensions that the model's first convolution takes; None where it has none."""
    first = next((module for module in model.modules() if isinstance(module, _ConvNd)), None)
    return None if first is None else len(first.kernel_size)


def check_dense(tensor: Tensor, what: str) -> None:
    """Raises TypeError or ValueError for a tensor that is not an ordinary block of numbers, with the way out."""
    if tensor.is_nested:
        raise TypeError(
            f"{what} is a nested tensor, whose items may differ in shape; give items of one shape, such as "
            "torch.stack(...), or pad them with .to_padded_tensor(0.0)"
        )
    if tensor.layout is not torch.strided:
        raise TypeError(f"{what} is a tensor of the layout {tensor.layout}; make it dense with .to_dense()")
    if isinstance(tensor, MaskedTensor):
        raise TypeError(f"{what} is a masked tensor; fill the masked places with .to_tensor(0.0)")
    if is_functorch_wrapped_tensor(tensor):
        raise TypeError(
            f"{what} is inside a transform of torch.func, such as vmap or grad, where values can't be read; "
            "call cnnviz outside of it"
        )
    if tensor.is_meta:
        raise ValueError(f"{what} is on the meta device, where tensors have no values; make it on the model's device")


def check_finite(values: Tensor, what: str, model: nn.Module | None = None) -> None:
    """Raises ValueError that counts and places what is NaN or infinite; if a weight of the model is, names that."""
    require(torch.isfinite(values).all(), lambda: _refuse_infinite(values, what, model))


def _refuse_infinite(values: Tensor, what: str, model: nn.Module | None) -> None:
    finite = torch.isfinite(values)
    if model is not None:
        check_weights_finite(model)
    wrong = (~finite).nonzero()
    place = ", ".join(str(int(index)) for index in wrong[0])
    kind = "NaN" if bool(values.isnan().any()) else "infinite"
    raise ValueError(f"{what} has {len(wrong)} values that are not finite, the first ({kind}) at [{place}]")


def check_weights_finite(model: nn.Module) -> None:
    """Raises ValueError that names the first weight with values that are not finite: a network that diverged.

    Reads all weights, so it is asked only where a result is not finite.
    """
    for name, weight in _weights(dict(model.named_modules())):
        if weight.layout is not torch.strided or weight.dtype not in COMPUTABLE:
            continue
        # a buffer may be infinite on purpose, as masks of attention are
        broken = ~weight.isfinite() if isinstance(weight, nn.Parameter) else weight.isnan()
        if bool(broken.any()):
            raise ValueError(
                f"the weight {name!r} of the network has {int(broken.sum())} values that are NaN or infinite; "
                "training diverged, or the file is damaged: load other weights"
            )


def checked_seed(seed: Any) -> int:
    """A seed as Python's number. Raises TypeError or ValueError for one that PyTorch's generators do not take."""
    try:
        number = operator.index(seed)  # NumPy's whole numbers too
    except TypeError:
        raise TypeError(f"the seed is {seed!r}; a seed is a whole number") from None
    if not -(2**63) <= number < 2**64:
        raise ValueError(f"the seed {number} is beyond 64 bits; give one from 0 to {2**64 - 1}")
    return number


def whole_number(text: str) -> int | None:
    """The number that a text of the digits 0 to 9 writes, with a sign or without; None for any other text."""
    return int(text) if _WHOLE.fullmatch(text) else None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip()


def constant_score(what: str) -> ValueError:
    """The error for a score of a changed input that has no gradient at all."""
    return ValueError(
        f"{what} is constant, as where a detector finds nothing, or a detach(), no_grad() or inference_mode() in the "
        "model cuts it, so it has no gradient there; "
        "give a target of cnnviz.targets, such as box(0), whose gradient is zero there"
    )
