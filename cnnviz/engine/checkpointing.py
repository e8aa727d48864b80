"""Checkpointing, set aside during a pass.

What it saves is memory of training. A reentrant one builds the graph of a part only in the backward pass, where
``torch.autograd.grad`` refuses it and hooks come too late. Another one runs the part again there, where nobody sees its
operations, and compares what it saved. The part is called directly instead, which gives the same numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch.utils.checkpoint
from torch.utils.checkpoint import CheckpointFunction

from cnnviz.engine.loans import Setting

_torch: Any = torch.utils.checkpoint
_saving = _torch._checkpoint_hook


class _SetAside(Setting):
    """torch has one of each for all threads. The replacements act only in threads that are inside of a pass."""

    def change(self) -> None:
        CheckpointFunction.apply = self.apply
        _torch._checkpoint_hook = self.save

    def restore(self) -> None:
        _torch._checkpoint_hook = _saving
        if "apply" in vars(CheckpointFunction):
            del CheckpointFunction.apply  # which was inherited

    def apply(self, function: Callable[..., Any], preserves_random_state: bool, *args: Any) -> Any:
        if self._is_here():
            return function(*args)
        return super(CheckpointFunction, CheckpointFunction).apply(function, preserves_random_state, *args)

    def save(self, frame: Any) -> AbstractContextManager[Any]:
        """What is entered around a part that is not reentrant."""
        around: AbstractContextManager[Any] = nullcontext() if self._is_here() else _saving(frame)
        return around

    def _is_here(self) -> bool:
        return any(loan.thread == threading.get_ident() for loan in [*self.inside])


checkpoints_set_aside = _SetAside()
