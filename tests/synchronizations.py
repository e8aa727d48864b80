"""What would make Python wait for a GPU, counted on a CPU.

The model, its inputs and all that is computed from them stand for tensors of a device. Reading one of their values
waits, and so does copying a value of the host there, unless that is asked to go on meanwhile.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

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
MAKING = ("tensor", "as_tensor", "arange", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn")
MAKING += ("randperm", "zeros")


class Synchronizations(TorchDispatchMode):
    """Counts what would wait, by the line of cnnviz or of a plugin that asks. What the host makes is free to read.

    Args:
        given: the model's weights and the inputs.
    """

    def __init__(self, given: Iterable[Tensor]):
        super().__init__()
        self.sites: Counter[str] = Counter()
        self._there: Any = WeakTensorKeyDictionary()
        for tensor in given:
            self._there[tensor] = True
        self._patches = ExitStack()

    @property
    def count(self) -> int:
        """How often Python would have waited."""
        return self.sites.total()

    def __enter__(self) -> Synchronizations:
        for name in ("tolist", "numpy", "cpu", "__array__"):
            self._patch(torch.Tensor, name, self._read)
        for name in MAKING:
            self._patch(torch, name, self._made)
        self._patch(torch.Tensor, "new_tensor", self._copied)
        self._patch(torch.Tensor, "to", self._moved)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = any(operand in self._there for operand in operands)
        masks = args[1] if func in INDEXING else ()
        masked = any(isinstance(mask, Tensor) and mask.dtype == torch.bool and mask in self._there for mask in masks)
        if there and (func in READING or masked):
            self._note(str(func))
        output = func(*args, **(kwargs or {}))
        if there:
            self._mark(output)
        return output

    def _mark(self, output: Any) -> None:
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._there[leaf] = True

    def _patch(self, owner: Any, name: str, watched: Callable[..., Any]) -> None:
        original = getattr(owner, name)
        replacement = lambda *args, **kwargs: watched(name, original, args, kwargs)  # noqa: E731
        self._patches.enter_context(mock.patch.object(owner, name, replacement))

    def _read(self, name: str, original: Any, args: Any, kwargs: Any) -> Any:
        if args[0] in self._there:
            self._note(name)
        return original(*args, **kwargs)

    def _made(self, name: str, original: Any, args: Any, kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        if isinstance(kwargs.get("device"), torch.device):  # code of the host says device="cpu"
            if name in ("tensor", "as_tensor"):
                self._note(name)
            self._mark(output)
        return output

    def _copied(self, name: str, original: Any, args: Any, kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        if args[0] in self._there:
            self._note(name)
            self._mark(output)
        return output

    def _moved(self, name: str, original: Any, args: Any, kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        to = [*args[1:], *kwargs.values()]
        there = any(isinstance(each, torch.device) or (isinstance(each, Tensor) and each in self._there) for each in to)
        if there and args[0] not in self._there and not kwargs.get("non_blocking"):
            self._note(name)
        if there:
            self._mark(output)
        return output

    def _note(self, what: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if "/cnnviz" in frame.filename]
        frames = [frame for frame in frames if "/tests/" not in frame.filename]
        last = frames[-1] if frames else None
        place = f"{last.filename.rpartition('/cnnviz')[2]}:{last.lineno} {last.name}" if last else "elsewhere"
        self.sites[f"{place} {what}"] += 1
