"""Reentrant checkpointing, set aside during a pass.

It builds the graph of a part only in the backward pass, where ``torch.autograd.grad`` refuses it and hooks come too
late. What it saves is memory of training. The part is called directly instead, which gives the same numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from torch.utils.checkpoint import CheckpointFunction


class _SetAside:
    """torch has one such function for all threads: the first pass replaces it, the last one restores it.

    The replacement acts only in threads that are inside of a pass.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.passes = 0
        self.here = threading.local()

    def __enter__(self) -> None:
        with self.lock:
            if self.passes == 0:
                self.ordinary = CheckpointFunction.apply
                CheckpointFunction.apply = self.apply
            self.passes += 1
        self.here.depth = getattr(self.here, "depth", 0) + 1

    def __exit__(self, *error: object) -> None:
        self.here.depth -= 1
        with self.lock:
            self.passes -= 1
            if self.passes == 0:
                del CheckpointFunction.apply  # which was inherited

    def apply(self, function: Callable[..., Any], preserves_random_state: bool, *args: Any) -> Any:
        if getattr(self.here, "depth", 0):
            return function(*args)
        return self.ordinary(function, preserves_random_state, *args)


reentrant_checkpoints_set_aside = _SetAside()
