"""Hooks on a borrowed model: set while a stack is open, gone when it closes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

# torch numbers hooks without a lock: two threads could be given one number, and one hook would replace the other
_numbering = threading.Lock()


def lend(stack: ExitStack, register: Callable[[Any], RemovableHandle], hook: Callable[..., Any]) -> None:
    """Set a hook that the stack takes away. It acts in this thread alone; others may run the same model meanwhile."""
    thread = threading.get_ident()

    def only_here(*args: Any) -> Any:
        return hook(*args) if threading.get_ident() == thread else None

    with _numbering:
        handle = register(only_here)
    stack.callback(handle.remove)


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
