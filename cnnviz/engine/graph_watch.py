"""Whether a graph that begins at a layer holds all that the score depends on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from cnnviz.engine.thread_state import WatchingMode

_SET_GRAD = torch._C._set_grad_enabled


class GraphWatch:
    """Finds out whether a graph that begins at a layer misses a part.

    It does where somebody holds the output that was replaced by a copy (a list, an attribute, who handed it to a layer
    that works in place), and where the model turns gradients off, as it does to restore the grad mode it began with.
    """

    def __init__(self) -> None:
        self.lost = False
        self._begun = False
        self._replaced: StorageWeakRef | None = None

    def begin(self, replaced: Tensor) -> None:
        """The layer returns, and a copy takes the place of what it returns. To be called last of all."""
        with torch._C.DisableTorchFunction():  # it is not the model that asks
            self.lost = self.lost or (self._begun and self._replaced is not None)
            self._begun, self._replaced = True, StorageWeakRef(replaced.untyped_storage())  # type: ignore[no-untyped-call]  # torch has no types here

    def see(self, func: Any, args: Any) -> None:
        """An operation that is about to run."""
        if self._begun:
            self._look()
            self.lost = self.lost or (func is _SET_GRAD and not args[0])

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        if self._begun:
            self._look()
            self.lost = self.lost or not torch.is_grad_enabled()

    def _look(self) -> None:
        """The layer has returned: whoever holds the memory now may go on with it."""
        if self._replaced is not None:
            self.lost = self.lost or not self._replaced.expired()  # type: ignore[no-untyped-call]  # nor here
            self._replaced = None


class WatchedOperations(WatchingMode):
    """Shows the watch all operations."""

    def __init__(self, watch: GraphWatch):
        super().__init__()
        self.see = watch.see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.see(func, args)
        return func(*args, **(kwargs or {}))
