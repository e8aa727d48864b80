"""Whether a model is as it was: its modules, weights, modes, hooks and attributes, and torch's settings for numbers."""

from __future__ import annotations

from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from cnnviz.engine.model_facts import modules_of
from cnnviz.engine.speed.tf32 import of_cuda

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_DICTS = ("_parameters", "_buffers", *_HOOKS)


class ModelVersion:
    """A model as it is now; ``is_current`` compares it at the speed of C, for every call of a prepared question.

    Weights count by their place in memory and by how often they were written. Other attributes count by identity: a
    list, a dict or an object that is changed in place is not noticed, and neither is a write through ``weight.data``.
    """

    def __init__(self, model: nn.Module):
        self.modules = modules_of(model)
        self._values = _held(self.modules)  # which keeps them alive, so that no other object gets their identity
        self._weights = _weights(self.modules)
        self._settings = _settings()

    def is_current(self, model: nn.Module) -> bool:
        """True if nothing was exchanged, written, moved, hooked or switched since."""
        modules = modules_of(model)
        return (
            len(modules) == len(self.modules)
            and all(map(is_, modules, self.modules))
            and _alike(_held(modules), self._values)
            and _weights(modules) == self._weights
            and _settings() == self._settings
        )

    @property
    def has_hooks(self) -> bool:
        """True if a module calls hooks, its own or those of all modules, which may do more than compute."""
        of_all = any(vars(torch_modules).get(f"_global{name}") for name in _HOOKS)
        return of_all or any(vars(module).get(name) for module in self.modules for name in _HOOKS)


def _held(modules: list[nn.Module]) -> list[Any]:
    """What the modules hold by name: attributes, weights and hooks."""
    names = [*map(vars, modules)]
    inside = [held[name] for held in names for name in _DICTS if held.get(name)]
    dicts = [*names, *inside]
    return [*chain.from_iterable(dicts), *chain.from_iterable(map(dict.values, dicts))]


def _alike(now: list[Any], before: list[Any]) -> bool:
    try:
        return now == before  # lists compare what they hold by identity first
    except Exception:  # other tensors or arrays, which do not say whether they are equal
        return False


def _weights(modules: list[nn.Module]) -> list[tuple[int, int]]:
    """Where each weight lies, and how often it was written."""
    held = [each for module in modules for each in (*module._parameters.values(), *module._buffers.values())]
    return [(_place(tensor), _writes(tensor)) for tensor in held if tensor is not None]


def _place(tensor: Tensor) -> int:
    return tensor.data_ptr() if tensor.layout is torch.strided else id(tensor)


def _writes(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _settings() -> tuple[Any, ...]:
    """What torch computes by, of this thread and of all."""
    return (
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
        torch.get_autocast_dtype("cuda"),
        of_cuda(),
        torch.backends.cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
    )
