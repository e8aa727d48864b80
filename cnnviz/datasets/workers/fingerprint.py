"""Digests by which a run is known again: of weights, of methods with their settings, of any value in them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnviz.engine.black_box import BlackBox
from cnnviz.registry.configured import ConfiguredMethod
from cnnviz.registry.registry import Method, Registry, registries

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))


def fingerprint(value: Any) -> str:
    """The SHA-256 of all that a value is made of: numbers, tensors, formulas, functions with their code."""
    digest = hashlib.sha256()
    _add(value, digest, ())
    return digest.hexdigest()


def weights_of(module: nn.Module) -> str:
    """The SHA-256 of a model: its layers, their plain attributes, and every value of its parameters and buffers."""
    digest = hashlib.sha256()
    source = module.source if isinstance(module, BlackBox) else module
    if source is None:
        _add(module._inside[0] if isinstance(module, BlackBox) else module, digest, ())
        return digest.hexdigest()
    for name, part in source.named_modules():
        attributes = {key: each for key, each in vars(part).items() if isinstance(each, PLAIN) and key[:1] != "_"}
        _tell(digest, name, type(part).__module__, type(part).__qualname__, sorted(attributes.items()))
    for kind in (source.named_parameters(), source.named_buffers()):
        for name, tensor in kind:
            _tell(digest, name)
            _add_tensor(tensor, digest)
    return digest.hexdigest()


def origin_of_method(method: Any, registry: Registry[Any]) -> str | None:
    """The installed package that a configured method is from, with its version; None for any other callable."""
    configured = getattr(method, "method", method)
    if not isinstance(configured, ConfiguredMethod) or configured.name not in registry:
        return None
    origin = registry.origin(configured.name)
    return None if origin == "this process" else origin


def _add(value: Any, digest: Any, above: tuple[int, ...]) -> None:
    """Add what tells a value from others; ``above`` are the identities of those that it is a part of."""
    if isinstance(value, PLAIN):
        _tell(digest, type(value).__name__, repr(value))
        return
    if id(value) in above:
        _tell(digest, "above", len(above) - above.index(id(value)))
        return
    above = (*above, id(value))
    kind = type(value)
    if isinstance(value, Tensor):
        _add_tensor(value, digest)
    elif isinstance(value, np.ndarray | np.generic):
        array = np.ascontiguousarray(value)
        _tell(digest, "array", str(array.dtype), array.shape)
        digest.update(array.tobytes())
    elif isinstance(value, Mapping):
        _tell(digest, "mapping", len(value))
        for key in sorted(value, key=repr):
            _add(key, digest, above)
            _add(value[key], digest, above)
    elif isinstance(value, set | frozenset):
        _tell(digest, "set", sorted(map(fingerprint, value)))
    elif isinstance(value, list | tuple):
        _tell(digest, kind.__name__, len(value))
        for each in value:
            _add(each, digest, above)
    elif isinstance(value, nn.Module):
        _tell(digest, "module", weights_of(value))
    elif isinstance(value, Path | torch.dtype | torch.device | range | slice | ModuleType | type):
        _tell(digest, kind.__name__, repr(value))
    elif _registered(value):
        configured = getattr(value, "method", value)
        _tell(digest, "method", configured.name)
        _add(dict(configured.settings), digest, above)
    elif isinstance(value, Method):
        _add(value.build, digest, above)
    elif isinstance(value, partial):
        _add((value.func, value.args, value.keywords), digest, above)
    elif isinstance(value, MethodType):
        _add((value.__func__, value.__self__), digest, above)
    elif isinstance(value, FunctionType):
        _tell(digest, "function", value.__module__, value.__qualname__)
        _add_code(value.__code__, digest, above)
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        _add((value.__defaults__, value.__kwdefaults__, cells), digest, above)
    elif dataclasses.is_dataclass(value):
        _tell(digest, "object", kind.__module__, kind.__qualname__)
        for each in dataclasses.fields(value):
            _add(getattr(value, each.name, None), digest, above)
    elif callable(value) and hasattr(value, "__qualname__"):  # built in, or of an extension
        _tell(digest, "callable", getattr(value, "__module__", ""), value.__qualname__)
    else:
        _tell(digest, "object", kind.__module__, kind.__qualname__)
        # what prints with its address prints otherwise in the next process
        if getattr(kind, "__repr__", None) is not object.__repr__:
            _tell(digest, repr(value))
        _add({key: each for key, each in getattr(value, "__dict__", {}).items()}, digest, above)


def _registered(value: Any) -> bool:
    return any(origin_of_method(value, registry) for registry in registries)


def _add_tensor(tensor: Tensor, digest: Any) -> None:
    _tell(digest, "tensor", str(tensor.dtype), tuple(tensor.shape))
    if tensor.is_meta:
        return
    plain = tensor.detach().cpu()
    if plain.is_quantized:
        plain = plain.dequantize()
    if plain.layout != torch.strided:
        plain = plain.to_dense()
    if plain.numel():
        values = plain.resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8)
        digest.update(values.numpy().data)


def _add_code(code: CodeType, digest: Any, above: tuple[int, ...]) -> None:
    digest.update(code.co_code)
    _tell(digest, code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _add_code(constant, digest, above)
        else:
            _add(constant, digest, above)


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # an empty cell raises
    except ValueError:
        return False
    return True


def _tell(digest: Any, *texts: Any) -> None:
    digest.update(json.dumps(texts, default=repr).encode())
