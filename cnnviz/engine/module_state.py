"""A pass may assign tensors to attributes of a model's modules; afterwards they hold their former values again.

Models keep features for later, in attributes or in lists and dicts, or make a weight anew in each pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain, islice
from operator import is_
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from cnnviz.engine.model_facts import modules_of

_NOTHING: Any = object()
_OWN = frozenset(vars(nn.Module()))
"""Attributes that torch itself gives every module."""
_DEPTH = 3
_LONGEST = 10_000
_NUMBERS = frozenset({bool, int, float, str, type(None)})
_OTHERS = (Tensor, nn.Module, type, FunctionType, MethodType, ModuleType)


class Bindings:
    """What a model's names hold: attributes, parameters and buffers; with ``containers`` also lists, dicts and sets.

    ``restore`` gives those that hold tensors what they held. In-place writes are not undone, but a tensor that was no
    part of a graph is none afterwards.
    """

    def __init__(self, model: nn.Module, containers: bool = True):
        parts = modules_of(model)
        self._names = [names for part in parts for names in (vars(part), part._parameters, part._buffers)]
        # flat lists, made and compared at the speed of C, for every question holds every module
        self._sizes, self._keys = [*map(len, self._names)], [*chain.from_iterable(self._names)]
        self._values = [*chain.from_iterable(map(dict.values, self._names))]
        own = [vars(part) for part in parts if not _is_torchs(type(part).__module__)]
        kept = [names[name] for names in own for name in names.keys() - _OWN]
        self.kept = [value for value in kept if type(value) not in _NUMBERS]
        """What the model's own modules keep besides modules, parameters, buffers and numbers."""
        self._containers: list[tuple[Any, Any]] = []
        self._apart: list[Tensor] = []
        if containers:
            self._containers = [*_containers(self.kept)]
            held = [*chain.from_iterable(part._buffers.values() for part in parts), *_tensors_of(self.kept)]
            self._apart = [tensor for tensor in held if tensor is not None and tensor.grad_fn is None]

    def restore(self) -> None:
        """May be interrupted and called again."""
        now = chain.from_iterable(map(dict.values, self._names))
        if [*map(len, self._names)] != self._sizes or not all(map(is_, now, self._values)):
            pairs = zip(self._keys, self._values, strict=True)
            for names, size in zip(self._names, self._sizes, strict=True):
                _restore(names, dict(islice(pairs, size)))
        for container, contents in self._containers:
            _refill(container, contents)
        for tensor in self._apart:
            if tensor.grad_fn is not None and not tensor._is_view():
                tensor.detach_()


@cache
def _is_torchs(home: str) -> bool:
    """Torch's own modules keep nothing."""
    return home.startswith("torch.nn.")


def _same(names: dict[str, Any], before: dict[str, Any]) -> bool:
    alike = len(names) == len(before) and all(map(is_, names, before))
    return alike and all(map(is_, names.values(), before.values()))


def _restore(names: dict[str, Any], before: dict[str, Any]) -> None:
    changed = [name for name, value in names.items() if before.get(name, _NOTHING) is not value]
    changed += before.keys() - names.keys()
    for name in changed:
        old = before.get(name, _NOTHING)
        if not any(True for _ in _tensors_of([old, names.get(name)])):
            continue
        if old is _NOTHING:
            del names[name]
        else:
            names[name] = old


def _containers(values: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """The lists, dicts, sets and plain objects that a pass could keep tensors in, each with what it holds."""
    met: set[int] = set()
    for _ in range(_DEPTH):
        inside: list[Any] = []
        for value in values:
            contents = None if id(value) in met else _contents(value)
            if contents is None or len(contents) > _LONGEST:
                continue
            met.add(id(value))
            yield value, contents
            inside += contents.values() if isinstance(contents, dict) else contents
        values = inside


def _tensors_of(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among these values and in their containers."""
    values = [*values]
    for _, contents in [(None, values), *_containers(values)]:
        for item in contents.values() if isinstance(contents, dict) else contents:
            if isinstance(item, Tensor):
                yield item


def _contents(value: Any) -> dict[Any, Any] | list[Any] | tuple[Any, ...] | None:
    """A copy of what a container holds; None for anything else."""
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list | deque | set):
        return list(value)
    if isinstance(value, tuple):
        return value
    return None if isinstance(value, _OTHERS) or not hasattr(value, "__dict__") else dict(vars(value))


def _refill(container: Any, contents: Any) -> None:
    """Give a container what it held, where tensors are among what it held or holds."""
    if isinstance(container, tuple):
        return
    holds: Any = container if isinstance(container, dict | list | deque | set) else vars(container)
    if isinstance(holds, dict):
        if not _same(holds, contents):
            _restore(holds, contents)
        return
    alike = len(holds) == len(contents) and all(map(is_, holds, contents))
    if not alike and any(True for _ in _tensors_of([*holds, *contents])):
        holds.clear()
        (holds.update if isinstance(holds, set) else holds.extend)(contents)
