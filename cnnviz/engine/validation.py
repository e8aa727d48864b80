"""Checks of the model and its inputs before the first pass: what is wrong raises, nothing is changed silently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


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
    parts = dict(model.named_modules())
    if any(isinstance(module, torch.fx.GraphModule) and "eval" in vars(module) for module in parts.values()):
        raise TypeError(
            "the model comes from torch.export, which has no evaluation mode; give it as it was before torch.export"
        )
    if model.training:
        raise ValueError(
            "the model is in training mode, where images change each other's maps; call model.eval() first"
        )
    for name, module in parts.items():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{name or 'the model'} is a {type(module).__name__}, whose operations can't be seen; "
                "give the model as it was before torch.jit"
            )
        if isinstance(module, _BatchNorm) and module.training:
            raise ValueError(
                f"{name!r} is in training mode, where images change each other's maps and its statistics; "
                "call model.eval() first"
            )
    for part, module in parts.items():
        weights = {**module._parameters, **module._buffers}
        wrong = next((name for name, weight in weights.items() if weight is not None and weight.is_inference()), None)
        if wrong is not None:
            name = f"{part}.{wrong}" if part else wrong
            raise ValueError(
                f"the weight {name!r} was made inside torch.inference_mode(), which no gradient passes; "
                "build or load the model outside of it"
            )


def check_inputs(model: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Raises for inputs the model can't be asked about, naming both sides."""
    first = inputs[0]
    for number, tensor in enumerate(inputs):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"input {number} is a {type(tensor).__name__}, not a tensor (N, C, *spatial)")
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
    check_finite(first, "the input")
    parameter = next(filter(Tensor.is_floating_point, model.parameters()), None)
    if parameter is None:
        return
    if parameter.device != first.device:
        raise ValueError(f"the model is on {parameter.device}, the input on {first.device}; move one with .to(...)")
    autocast = torch.is_autocast_enabled(first.device.type)
    if not autocast and all(weight.dtype != first.dtype for weight in model.parameters()):
        raise TypeError(f"the input is {first.dtype}, the model {parameter.dtype}; convert one with .to(...)")


def check_finite(values: Tensor, what: str) -> None:
    """Raises ValueError that counts and places what is NaN or infinite."""
    finite = torch.isfinite(values)
    if bool(finite.all()):
        return
    wrong = (~finite).nonzero()
    place = ", ".join(str(int(index)) for index in wrong[0])
    kind = "NaN" if bool(values.isnan().any()) else "infinite"
    raise ValueError(f"{what} has {len(wrong)} values that are not finite, the first ({kind}) at [{place}]")
