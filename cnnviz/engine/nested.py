"""Tensors inside of tuples, lists and dicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

from torch import Tensor


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a value, in their order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from tensors(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from tensors(each)


def mapped(func: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The value with every tensor in it replaced; tuples and dicts of other kinds stay what they are."""
    if isinstance(value, Tensor):
        return func(value)
    if type(value) in (tuple, list):
        return type(value)(mapped(func, each) for each in value)
    if isinstance(value, tuple):
        parts = [mapped(func, each) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        instead = copy(value)
        for name, each in value.items():
            instead[name] = mapped(func, each)
        return instead
    return value
