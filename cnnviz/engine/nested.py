"""Tensors inside of tuples, lists, dicts and dataclasses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor

_PLAIN = frozenset((int, float, bool, str, type(None)))


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a value, in their order."""
    found: list[Tensor] = []
    _gather((value,), found)
    return iter(found)


def _gather(values: Iterable[Any], found: list[Tensor]) -> None:
    for value in values:  # most are tensors and numbers, and every operation of a pass is asked
        if isinstance(value, Tensor):
            found.append(value)
        elif type(value) in _PLAIN:
            continue
        elif isinstance(value, tuple | list):
            _gather(value, found)
        elif isinstance(value, dict):
            _gather(value.values(), found)
        elif is_dataclass(value) and not isinstance(value, type):
            _gather(vars(value).values(), found)


def own(tensor: Tensor) -> Tensor:
    """What later passes do not write over, as they do where the model returns a part of a buffer of its own."""
    return tensor if tensor.requires_grad else tensor.clone()


def is_result_of_each(output: Any, count: int) -> bool:
    """True for a list with a result for each of ``count`` inputs, as detectors give them: dicts, or other results.

    Tensors with a row for each input, in whatever containers, are none.
    """
    if type(output) not in (tuple, list) or len(output) != count or isinstance(output[0], Tensor):
        return False
    if isinstance(output[0], dict):
        return all(isinstance(result, dict) for result in output)
    alike = all(type(result) is type(output[0]) for result in output)
    return alike and not all(tensor.shape[:1] == (count,) for tensor in tensors(output))


def mapped(func: Callable[[Any], Any], value: Any, kinds: type | tuple[type, ...] = Tensor) -> Any:
    """The value with every tensor in it, or all that is of these kinds, replaced; containers keep their types."""
    if isinstance(value, kinds):
        return func(value)
    if type(value) in (tuple, list):
        return type(value)(mapped(func, item, kinds) for item in value)
    if isinstance(value, tuple):
        parts = [mapped(func, item, kinds) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        replaced = copy(value)
        for name, item in value.items():
            replaced[name] = mapped(func, item, kinds)
        return replaced
    if is_dataclass(value) and not isinstance(value, type):
        instance: Any = copy(value)
        for name, item in vars(value).items():
            object.__setattr__(instance, name, mapped(func, item, kinds))  # it may be frozen
        return instance
    return value
