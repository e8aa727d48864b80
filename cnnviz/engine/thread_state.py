"""What torch holds for each thread: grad mode, inference mode, autocast, and the modes that see functions.

It is noted before the model is called and put back when that is over, however it ends. An interruption strikes
anywhere: also between the change of a mode and the statement that would undo it, and inside of torch's own contexts.
"""

from __future__ import annotations

import contextlib
import os
from functools import cache
from operator import is_
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_HOLD_STATE = (os.path.dirname(torch.__file__), contextlib.__file__, os.path.dirname(__file__))
"""Whose calls may hold a context that has not ended: torch, contextlib, and this room."""

_torch: Any = torch._C  # torch has no types for all of it
_guards: list[Any] = []
"""Held for ever; there are none unless an interruption met torch's inference mode."""


class ThreadState:
    """What torch holds for this thread, as it is now."""

    def __init__(self) -> None:
        self.grad, self.inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        self.modes = _function_modes()
        self.dispatch_modes = _dispatch_modes()
        self.functions_seen = _torch._get_torch_function_state()
        self.autocast = _autocast()

    def restore(self) -> None:
        """Put all of it back. May be interrupted and called again."""
        if _torch._get_torch_function_state() != self.functions_seen:
            _torch._set_torch_function_state(self.functions_seen)
        self.restore_modes()
        if torch.is_inference_mode_enabled() is not self.inference:
            guard: Any = torch._C._InferenceMode(self.inference)
            _guards.append(guard)  # which would end the mode with itself
            guard.__enter__()
        if torch.is_grad_enabled() is not self.grad:
            with torch._C.DisableTorchFunction():  # it is not for modes of the user's
                torch._C._set_grad_enabled(self.grad)

    def restore_modes(self) -> None:
        """Put back what sees functions, and autocast: what a question inside of another one's pass must not meet."""
        if not _same(_dispatch_modes(), self.dispatch_modes):
            while torch._C._len_torch_dispatch_stack():
                torch._C._pop_torch_dispatch_stack(None)
            for mode in self.dispatch_modes:
                torch._C._push_on_torch_dispatch_stack(mode)
        if not _same(_function_modes(), self.modes):
            while torch._C._len_torch_function_stack():
                torch._C._pop_torch_function_stack()
            for mode in self.modes:
                torch._C._push_on_torch_function_stack(mode)
        if _autocast() != self.autocast:
            cached, *kinds = self.autocast
            torch.set_autocast_cache_enabled(cached)
            for kind, enabled, dtype in kinds:
                torch.set_autocast_enabled(kind, enabled)
                torch.set_autocast_dtype(kind, dtype)


def let_go(error: BaseException | None) -> None:
    """End the contexts that were left half-entered where this error was raised.

    The error's traceback would hold them. They would change torch's state as late as it is forgotten.
    """
    met: set[int] = set()
    while error is not None and id(error) not in met:
        met.add(id(error))
        traceback = error.__traceback__
        while traceback is not None:
            frame, traceback = traceback.tb_frame, traceback.tb_next
            if frame.f_code.co_filename.startswith(_HOLD_STATE):
                with contextlib.suppress(RuntimeError):  # it still runs
                    frame.clear()
        error = error.__cause__ or error.__context__


def _function_modes() -> list[Any]:
    return [torch._C._get_function_stack_at(place) for place in range(torch._C._len_torch_function_stack())]


def _dispatch_modes() -> list[Any]:
    return [torch._C._get_dispatch_stack_at(place) for place in range(torch._C._len_torch_dispatch_stack())]


def _same(modes: list[Any], others: list[Any]) -> bool:
    return len(modes) == len(others) and all(map(is_, modes, others))


def _autocast() -> tuple[Any, ...]:
    kinds = ((kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in _kinds())
    return torch.is_autocast_cache_enabled(), *kinds


@cache
def _kinds() -> tuple[str, ...]:
    """The kinds of devices there are."""
    accelerator = torch.accelerator.current_accelerator()
    return ("cpu",) if accelerator is None else ("cpu", accelerator.type)


class WatchingMode(TorchFunctionMode):
    """Sees functions. Its end raises nothing where an interruption inside of torch took it off already."""

    def __exit__(self, *error: object) -> None:
        if any(mode is self for mode in _function_modes()):
            while torch._C._pop_torch_function_stack() is not self:
                pass  # what lies above did not end
