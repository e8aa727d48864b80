"""What must hold before a model is asked: checked once for each question, never mended behind the user's back."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from cnnviz.hooks import lend


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
        own = [(name, kept) for held in (module._parameters, module._buffers) for name, kept in held.items()]
        wrong = next((name for name, kept in own if kept is not None and kept.is_inference()), None)
        if wrong is not None:
            name = f"{part}.{wrong}" if part else wrong
            raise ValueError(
                f"the weight {name!r} was made inside torch.inference_mode(), which no gradient passes; "
                "build or load the model outside of it"
            )


def check_inputs(model: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Raises for inputs the model can't be asked about, naming both sides."""
    first = inputs[0]
    for place, each in enumerate(inputs):
        if not isinstance(each, Tensor):
            raise TypeError(f"input {place} is a {type(each).__name__}, not a tensor (N, C, *spatial)")
        if len(each.shape) == 0 or len(each) != len(first):
            raise ValueError(
                f"input {place} is {tuple(each.shape)}, the first {tuple(first.shape)}; they need one batch size"
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
    parameter = next((each for each in model.parameters() if each.is_floating_point()), None)
    if parameter is None:
        return
    if parameter.device != first.device:
        raise ValueError(f"the model is on {parameter.device}, the input on {first.device}; move one with .to(...)")
    autocast = torch.is_autocast_enabled(first.device.type)
    if not autocast and all(each.dtype != first.dtype for each in model.parameters()):
        raise TypeError(f"the input is {first.dtype}, the model {parameter.dtype}; convert one with .to(...)")


def check_finite(values: Tensor, what: str) -> None:
    """Raises ValueError that counts and places what is NaN or infinite."""
    finite = torch.isfinite(values)
    if bool(finite.all()):
        return
    wrong = (~finite).nonzero()
    place = ", ".join(str(int(each)) for each in wrong[0])
    kind = "NaN" if bool(values.isnan().any()) else "infinite"
    raise ValueError(f"{what} has {len(wrong)} values that are not finite, the first ({kind}) at [{place}]")


class asking:
    """Around every forward pass: compiled parts run operation by operation, and what the model can't take is explained.

    Raises ValueError where the input has not the shape that the model's convolutions expect.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, *, eager: bool = True):
        self.model = model
        self.inputs = inputs
        self.eager = eager
        self.stack = ExitStack()

    def __enter__(self) -> None:
        if self.eager and "torch._dynamo" in sys.modules:  # else nothing can have been compiled
            self.stack.enter_context(_eager)
        for module in self.model.modules():
            if isinstance(module, _ConvNd) and self.inputs.ndim == len(module.kernel_size) + 1:
                # a convolution takes an image without a batch dimension, and makes something else of it
                lend(self.stack, module.register_forward_pre_hook, _refuser(self.model, self.inputs))

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self.stack.close()
        if isinstance(error, RuntimeError | ValueError) and not isinstance(error, torch.OutOfMemoryError):
            reason = _misfit(self.model, self.inputs)
            if reason is not None:
                raise ValueError(reason) from error


class _Eager:
    """torch has one switch for all threads: the first one in turns it, the last one out turns it back."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.stance = ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.stance.enter_context(torch.compiler.set_stance("force_eager"))
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.stance.close()


_eager = _Eager()


def _misfit(model: nn.Module, inputs: Tensor) -> str | None:
    """How the input's shape differs from what the first convolution takes, if it does."""
    first = next((module for module in model.modules() if isinstance(module, _ConvNd)), None)
    if first is None:
        return None
    rank, channels, found = len(first.kernel_size), first.in_channels, tuple(inputs.shape)
    expected = f"{type(model).__name__} takes (N, {channels}, {('L', 'H, W', 'D, H, W')[rank - 1]})"
    if inputs.ndim == rank + 1:
        return f"the input is {found}, without a batch dimension; {expected}; pass inputs[None]"
    if inputs.ndim != rank + 2:
        return f"the input is {found}, of the wrong rank; {expected}"
    if inputs.shape[1] != channels:
        way_out = "; it looks channels last: pass inputs.movedim(-1, 1)" if inputs.shape[-1] == channels else ""
        return f"the input is {found}, but {expected}{way_out}"
    return None


def _refuser(model: nn.Module, inputs: Tensor) -> Any:
    def refuse(module: nn.Module, args: tuple[Any, ...]) -> None:
        given = args[0] if args else None
        if isinstance(given, Tensor) and given.ndim == inputs.ndim:
            raise ValueError(_misfit(model, inputs))

    return refuse
