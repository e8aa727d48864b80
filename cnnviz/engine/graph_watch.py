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

    Args:
        alone: True if nobody shows it operations, so that it looks at them itself, from the layer on.
    """

    def __init__(self, alone: bool = True) -> None:
        self.lost = False
        self.alone = alone
        self._begun = False
        self._replaced: StorageWeakRef | None = None
        self._mode: _Shows | None = None
        self._depth = 0

    def begin(self, replaced: Tensor) -> None:
        """The layer returns, and a copy takes the place of what it returns. To be called last of all."""
        with torch._C.DisableTorchFunction():  # it is not the model that asks
            self.lost = self.lost or (self._begun and self._replaced is not None)
            self._begun, self._replaced = True, StorageWeakRef(replaced.untyped_storage())  # type: ignore[no-untyped-call]  # torch has no types here
        if self.alone and self._mode is None:
            self._mode = _Shows(self)
            self._mode.begin(self._depth)

    def see(self, func: Any, args: Any) -> None:
        """An operation that is about to run."""
        if self._begun:
            self._look()
            self.lost = self.lost or (func is _SET_GRAD and not args[0])

    def __enter__(self) -> None:
        self._depth = torch._C._len_torch_function_stack()

    def __exit__(self, *error: object) -> None:
        if self._mode is not None:
            self._mode.__exit__()
        if self._begun:
            self._look()
            self.lost = self.lost or not torch.is_grad_enabled()

    def _look(self) -> None:
        """The layer has returned: whoever holds the memory now may go on with it."""
        if self._replaced is not None:
            self.lost = self.lost or not self._replaced.expired()  # type: ignore[no-untyped-call]  # nor here
            self._replaced = None


class _Shows(WatchingMode):
    """Shows the watch all operations. A mode costs time at each of them, so it begins as late as it can."""

    def __init__(self, watch: GraphWatch):
        super().__init__()
        self.see = watch.see

    def begin(self, depth: int) -> None:
        """Begin in the middle of a pass, below the modes that the model has entered since, which it will end first."""
        above: list[Any] = []
        while torch._C._len_torch_function_stack() > depth:
            above.append(torch._C._pop_torch_function_stack())
        for mode in (self, *reversed(above)):
            torch._C._push_on_torch_function_stack(mode)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.see(func, args)
        return func(*args, **(kwargs or {}))
