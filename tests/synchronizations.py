"""What would make Python wait for a GPU, counted on a CPU: values that are read, and values that are copied there."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# the sizes of their outputs, or the numbers that they return, are known only when the device is through
READING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.bincount.default,
    aten.repeat_interleave.Tensor,
}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
# of tensors, whose values then go to the host, and of Python's numbers, which then go to the device
TO_HOST = ("tolist", "numpy", "cpu", "__array__")


class Synchronizations(TorchDispatchMode):
    """Counts, by the line of cnnviz or of a plugin that asked, what would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: Counter[str] = Counter()
        self._patches = ExitStack()

    @property
    def count(self) -> int:
        """How often Python would have waited."""
        return self.sites.total()

    def __enter__(self) -> Synchronizations:
        for name in TO_HOST:
            self._watch(torch.Tensor, name)
        self._watch(torch.Tensor, "new_tensor")
        self._watch(torch, "tensor", lambda kwargs: kwargs.get("device") is not None)
        self._watch(torch, "as_tensor", lambda kwargs: kwargs.get("device") is not None)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masked = func in INDEXING and any(isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1])
        if func in READING or masked:
            self._note(str(func))
        return func(*args, **(kwargs or {}))

    def _watch(self, owner: Any, name: str, waits: Callable[[dict[str, Any]], bool] = lambda kwargs: True) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            if waits(kwargs):
                self._note(name)
            return original(*args, **kwargs)

        self._patches.enter_context(mock.patch.object(owner, name, watched))

    def _note(self, what: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if "/cnnviz" in frame.filename]
        frames = [frame for frame in frames if "/tests/" not in frame.filename]
        last = frames[-1] if frames else None
        place = f"{last.filename.rpartition('/cnnviz')[2]}:{last.lineno} {last.name}" if last else "elsewhere"
        self.sites[f"{place} {what}"] += 1
