"""Digests by which a run is known again: of models, of methods with their settings, of any value in them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnviz.datasets.workers.code_parts import code_of, globals_of, members_of, stored_in
from cnnviz.engine.black_box import BlackBox
from cnnviz.registry.configured import ConfiguredMethod
from cnnviz.registry.registry import Method, Registry, registries

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
OWN = frozenset({*vars(nn.Module()), "_is_full_backward_hook"} - {"training"})
"""Attributes that every module has; its parameters, buffers and layers are told by themselves."""
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def fingerprint(value: Any) -> str:
    """The SHA-256 of all that a value is made of: numbers, tensors, formulas, functions with what they use."""
    digest = _Digest()
    digest.add(value)
    return digest.told.hexdigest()


def weights_of(module: nn.Module) -> str:
    """The SHA-256 of every value of a model's parameters and buffers."""
    source = _source_of(module)
    digest = _Digest()
    if isinstance(source, nn.Module):
        digest.add_values(source)
    return digest.told.hexdigest()


def layers_of(module: nn.Module) -> str:
    """The SHA-256 of what else a model computes by: its layers, all of their attributes, their code and their hooks.

    Attributes that ``forward`` sets are what it noted, and are left out.
    """
    source = _source_of(module)
    digest = _Digest()
    if isinstance(source, nn.Module):
        digest.add_layers(source)
    else:
        digest.add(source)
    return digest.told.hexdigest()


def origin_of_method(method: Any, registry: Registry[Any]) -> str | None:
    """The installed package that a configured method is from, with its version; None for any other callable."""
    configured = getattr(method, "method", method)
    if not isinstance(configured, ConfiguredMethod) or configured.name not in registry:
        return None
    origin = registry.origin(configured.name)
    return None if origin == "this process" else origin


def without_address(text: str) -> str:
    """A text without the addresses of objects, which are others in the next process."""
    return _ADDRESS.sub("", text)


class _Digest:
    """What was told so far."""

    def __init__(self) -> None:
        self.told = hashlib.sha256()
        self.above: list[int] = []
        """The identities of the values that the present one is a part of."""
        self.code: dict[int, tuple[int, Any]] = {}
        """The functions and classes that were told, by identity, numbered; kept, so that an identity stays theirs."""
        self.layers: dict[int, str] = {}
        """The names of the layers of models that are being told, by identity."""

    def tell(self, *texts: Any) -> None:
        self.told.update(json.dumps(texts, default=repr).encode())

    def add(self, value: Any) -> None:
        """Add what tells a value from others."""
        if isinstance(value, PLAIN) and type(value) in PLAIN:
            self.tell(type(value).__name__, repr(value))
        elif id(value) in self.layers:
            self.tell("layer", self.layers[id(value)])
        elif id(value) in self.code:
            self.tell("told", self.code[id(value)][0])
        elif id(value) in self.above:
            self.tell("above", len(self.above) - self.above.index(id(value)))
        else:
            self.above.append(id(value))
            self._add(value)
            self.above.pop()

    def _add(self, value: Any) -> None:
        kind = type(value)
        if isinstance(value, Tensor):
            self._add_tensor(value)
        elif isinstance(value, np.ndarray | np.generic) and not getattr(value, "dtype", np.dtype(bool)).hasobject:
            array = np.ascontiguousarray(value)
            self.tell("array", str(array.dtype), array.shape)
            self.told.update(array.tobytes())
        elif isinstance(value, nn.Module):
            self.tell("module")
            self.add_layers(value)
            self.add_values(value)
        elif kind in (dict, list, tuple, set, frozenset) or isinstance(value, Mapping):
            self._add_container(value)
        elif isinstance(value, Path):
            self.tell("path", value.as_posix())
            if value.is_file():  # whose content may be another one tomorrow
                with value.open("rb") as file:
                    self.tell(hashlib.file_digest(file, "sha256").hexdigest())
        elif isinstance(value, torch.dtype | torch.device | range | slice):
            self.tell(kind.__name__, repr(value))
        elif isinstance(value, ModuleType):
            self.tell("module", value.__name__)  # where it lies is not the same on all machines
        elif isinstance(value, type):
            self._add_class(value)
        elif callable(value) and self._add_callable(value):
            pass
        elif dataclasses.is_dataclass(value):
            self._add_class(kind)
            for each in dataclasses.fields(value):
                self.add(getattr(value, each.name, None))
        else:
            self._add_object(value)

    def _add_container(self, value: Any) -> None:
        kind = type(value)
        if isinstance(value, Mapping):
            self.tell("mapping", len(value))
            for key in sorted(value, key=fingerprint):
                self.add(key)
                self.add(value[key])
        elif isinstance(value, set | frozenset):
            self.tell("set", sorted(map(fingerprint, value)))
        else:
            self.tell(kind.__name__, len(value))
            for each in value:
                self.add(each)

    def _add_callable(self, value: Any) -> bool:
        """Add what is called; False where it is an object like any other."""
        if _registered(value):
            configured = getattr(value, "method", value)
            self.tell("method", configured.name)
            self.add(dict(configured.settings))
        elif isinstance(value, Method):
            self.add(value.build)
        elif isinstance(value, partial):
            self.tell("partial")
            for each in (value.func, value.args, value.keywords):
                self.add(each)
        elif isinstance(value, MethodType):
            self.tell("bound")
            self.add(value.__func__)
            self.add(value.__self__)
        elif isinstance(value, FunctionType):
            self._add_function(value)
        elif hasattr(value, "__wrapped__") and hasattr(value, "__qualname__"):  # of functools.cache
            self.add(value.__wrapped__)
        elif hasattr(value, "__qualname__"):  # built in, or of an extension
            self.tell("callable", getattr(value, "__module__", ""), value.__qualname__)
            owner = getattr(value, "__self__", None)
            if owner is not None and not isinstance(owner, ModuleType):
                self.add(owner)
        else:
            return False
        return True

    def _add_function(self, function: FunctionType) -> None:
        self.code[id(function)] = len(self.code), function
        self.tell("function", function.__module__, function.__qualname__)
        self._add_code(function.__code__)
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        for each in (function.__defaults__, function.__kwdefaults__, cells):
            self.add(each)
        for name, value in globals_of(function):
            self.tell("global", name)
            self.add(value)

    def _add_code(self, code: CodeType) -> None:
        self.told.update(code.co_code)
        self.tell(code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._add_code(constant)
            else:
                self.add(constant)

    def _add_class(self, kind: type) -> None:
        """A class by its name, and by its code where no version tells that."""
        if id(kind) in self.code:
            self.tell("told", self.code[id(kind)][0])
            return
        self.code[id(kind)] = len(self.code), kind
        self.tell("class", kind.__module__, kind.__qualname__)
        for name, value in members_of(kind):
            self.tell(name)
            self.add(value)

    def _add_object(self, value: Any) -> None:
        """Any object, by what it would be copied from."""
        self._add_class(type(value))
        try:
            parts = value.__reduce_ex__(4)
        except Exception:  # it can't be copied, and raises whatever it likes
            self.tell(without_address(repr(value)))
            self.add(dict(getattr(value, "__dict__", {})))
            return
        if isinstance(parts, str):
            self.tell(parts)
            return
        for each in parts:
            self.add([*each] if hasattr(each, "__next__") else each)

    def add_layers(self, module: nn.Module) -> None:
        """The layers of a model, with all of their attributes."""
        named = dict(module.named_modules())
        before = dict(self.layers)
        self.layers |= {id(part): f"{len(before)}.{name}" for name, part in named.items()}
        for name, part in named.items():
            self.tell("layer", name, type(part).__module__, type(part).__qualname__)
            if isinstance(part, torch.fx.GraphModule | torch.jit.ScriptModule):  # each has a class of its own
                self.tell("code", _written(part), part.training)
            else:
                self._add_class(type(part))
                noted = stored_in(code_of(type(part).forward))
                attributes = {key: each for key, each in vars(part).items() if key not in OWN and key not in noted}
                for key in sorted(attributes):
                    self.tell("attribute", key)
                    self.add(attributes[key])
            for key in HOOKS:
                for hook in vars(part).get(key, {}).values():
                    self.tell("hook", key)
                    self.add(hook)
        self.layers = before

    def add_values(self, module: nn.Module) -> None:
        """Every value of a model's parameters and buffers."""
        for kind in (module.named_parameters(), module.named_buffers()):
            for name, tensor in kind:
                self.tell(name)
                self._add_tensor(tensor)

    def _add_tensor(self, tensor: Tensor) -> None:
        self.tell("tensor", str(tensor.dtype), tuple(tensor.shape))
        if tensor.is_meta:
            return
        plain = tensor.detach().cpu()
        if plain.is_quantized:
            plain = plain.dequantize()
        if plain.layout != torch.strided:
            plain = plain.to_dense()
        if plain.numel():
            values = plain.resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8)
            self.told.update(values.numpy().data)


def _source_of(module: nn.Module) -> Any:
    """The module that a model is; for a function that was made one, the function."""
    if not isinstance(module, BlackBox):
        return module
    return module._inside[0] if module.source is None else module.source


def _written(module: Any) -> str:
    """The code of a module of torch.fx or torch.jit; one that has only layers has none."""
    try:
        return str(module.code)
    except (AttributeError, RuntimeError):
        return ""


def _registered(value: Any) -> bool:
    return any(origin_of_method(value, registry) for registry in registries)


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # an empty cell raises
    except ValueError:
        return False
    return True
