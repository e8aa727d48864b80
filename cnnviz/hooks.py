"""Hooks on a borrowed model: set while a stack is open, gone when it closes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

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
