"""A pass may assign tensors to attributes of a model's modules; afterwards they hold their former values again.

Models keep features for later, in attributes or in lists and dicts, or make a weight anew in each pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from operator import is_
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

_NOTHING: Any = object()
_OWN = frozenset(vars(nn.Module()))
"""Attributes that torch itself gives every module."""
_DEPTH = 3
_LONGEST = 10_000
_OTHERS = (Tensor, nn.Module, type, FunctionType, MethodType, ModuleType)


class Bindings:
    """What a model's names hold: attributes, parameters and buffers; with ``containers`` also lists, dicts and sets.

    ``restore`` gives those that hold tensors what they held. In-place writes are not undone, but a tensor that was no
    part of a graph is none afterwards.
    """

    def __init__(self, model: nn.Module, containers: bool = True):
        namespaces = [names for part in model.modules() for names in (vars(part), part._parameters, part._buffers)]
        self.before: list[tuple[dict[str, Any], dict[str, Any]]] = [(names, dict(names)) for names in namespaces]
        self.containers: list[tuple[Any, Any]] = []
        """With what they hold."""
        self.apart: list[Tensor] = []
        """Tensors without a graph."""
        if containers:
            kept = [value for part in model.modules() for value in _kept_by(part)]
            self.containers = [*_containers(kept)]
            held = [*model.buffers(), *_tensors_of(kept)]
            self.apart = [each for each in held if not each.is_inference() and not each.requires_grad]

    def restore(self) -> None:
        """May be interrupted and called again."""
        for names, values in self.before:
            if not _same(names, values):
                _restore(names, values)
        for container, contents in self.containers:
            _refill(container, contents)
        for tensor in self.apart:
            if tensor.grad_fn is not None and not tensor._is_view():
                tensor.detach_()


def _same(names: dict[str, Any], before: dict[str, Any]) -> bool:
    """True if no tensor was assigned. Fast, since every pass checks every module."""
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


def _kept_by(part: nn.Module) -> list[Any]:
    """What a module keeps that torch does not know of. Torch's own modules keep nothing."""
    if type(part).__module__.startswith("torch.nn."):
        return []
    return [value for name, value in vars(part).items() if name not in _OWN]


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
