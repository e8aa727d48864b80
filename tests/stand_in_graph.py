"""A graph of operations on a CPU that behaves as a CUDA graph: fixed tensors, no Python, no value read meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from synchronizations import Synchronizations
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

T = TypeVar("T")


class StandInGraph:
    """Captures the operations on tensors that stand for those of a device, and calls them again.

    Args:
        given: the model's weights and the tensors that are captured.
    """

    def __init__(self, given: Callable[[], Iterable[Tensor]]):
        self.given = given
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    def warmed(self, compute: Callable[[], T]) -> T:
        return compute()

    @contextmanager
    def capturing(self) -> Iterator[None]:
        with _Capture(self.given(), self.operations):
            yield

    def replay(self) -> None:
        self.replays += 1
        with torch.inference_mode(False), torch.no_grad():
            for func, args, kwargs, output in self.operations:
                for now, then in zip(_tensors(func(*args, **kwargs)), _tensors(output), strict=True):
                    if now.data_ptr() != then.data_ptr():
                        then.copy_(now)


class _Capture(Synchronizations):
    def __init__(self, given: Iterable[Tensor], operations: list[tuple[Any, Any, Any, Any]]):
        super().__init__(given)
        self.operations = operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(isinstance(leaf, torch.Generator) for leaf in tree_leaves((args, kwargs))):
            raise RuntimeError("a generator that is not registered draws while a stream is capturing")
        there = any(operand in self._there for operand in _tensors((args, kwargs)))
        operands = tree_map_only(Tensor, Tensor.detach, (args, kwargs or {}))  # whose shapes nobody changes later
        output = super().__torch_dispatch__(func, types, args, kwargs)
        if there:
            self.operations.append((func, *operands, tree_map_only(Tensor, Tensor.detach, output)))
        return output

    def _made(self, name: str, original: Any, args: Any, kwargs: Any) -> Any:
        output = super()._made(name, original, args, kwargs)
        if isinstance(kwargs.get("device"), torch.device):
            self.operations.append((original, args, kwargs, output.detach()))
        return output

    def _note(self, what: str) -> None:
        raise RuntimeError(f"operation not permitted when a stream is capturing ({what})")


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
