"""Reentrant checkpointing, set aside during a pass.

It builds the graph of a part only in the backward pass, where ``torch.autograd.grad`` refuses it and hooks come too
late. What it saves is memory of training. The part is called directly instead, which gives the same numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from torch.utils.checkpoint import CheckpointFunction

from cnnviz.engine.loans import Setting


class _SetAside(Setting):
    """torch has one such function for all threads. The replacement acts only in threads that are inside of a pass."""

    def change(self) -> None:
        CheckpointFunction.apply = self.apply

    def restore(self) -> None:
        if "apply" in vars(CheckpointFunction):
            del CheckpointFunction.apply  # which was inherited

    def apply(self, function: Callable[..., Any], preserves_random_state: bool, *args: Any) -> Any:
        if any(loan.thread == threading.get_ident() for loan in [*self.inside]):
            return function(*args)
        return super(CheckpointFunction, CheckpointFunction).apply(function, preserves_random_state, *args)


reentrant_checkpoints_set_aside = _SetAside()
