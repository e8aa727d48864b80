"""What is sent to worker processes: any model and any formula, also those of a notebook."""

from __future__ import annotations

import io
import pickle
from typing import Any

import cloudpickle

from cnnviz.datasets.workers.fingerprint import fingerprint, origin_of_method
from cnnviz.registry.configured import ConfiguredMethod
from cnnviz.registry.registry import Method, Registry, registries


class Sent:
    """A value that is sent when this is pickled, and is not touched in the process that it is of."""

    def __init__(self, value: Any, otherwise: Any = None):
        """``otherwise`` is sent where the value can't be."""
        self._value, self._otherwise = value, otherwise
        self._content: bytes | None = None
        self.was_sent = False
        """True in another process than the value is of."""

    def value(self) -> Any:
        """The value. In another process, raises ImportError or AttributeError where a module of it is not there."""
        if self._content is not None and self._value is None:
            self._value = cloudpickle.loads(self._content)
        return self._value

    def __getstate__(self) -> dict[str, Any]:
        if self._content is None:
            try:
                self._content = _packed(self._value)
            except TypeError:
                if self._otherwise is None:
                    raise
                self._content = _packed(self._otherwise)
        return {"_value": None, "_otherwise": None, "_content": self._content, "was_sent": True}


def _packed(value: Any) -> bytes:
    """The value as bytes. Raises TypeError, with the way out, for what can't leave this process."""
    stream = io.BytesIO()
    try:
        _Pickler(stream, protocol=5).dump(value)
    except (
        TypeError,
        AttributeError,
        pickle.PicklingError,
        NotImplementedError,
        RuntimeError,
        RecursionError,
    ) as error:
        told = " ".join(str(error).split())[:120]
        raise TypeError(
            f"the question can't be sent to other processes ({told}); compute it in this one, by workers=0 "
            "(--workers 0)"
        ) from error
    return stream.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    """Methods of installed packages are sent by their names and settings, all else by value or reference."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Method):
            for registry in registries:
                if obj.name in registry and registry.origin(obj.name) != "this process" and registry[obj.name] is obj:
                    return _method, (registry.group, obj.name)
        if isinstance(getattr(obj, "method", obj), ConfiguredMethod):
            configured = getattr(obj, "method", obj)
            for registry in registries:
                settings = dict(configured.settings)
                if origin_of_method(obj, registry) and _is_same(obj, registry, configured.name, settings):
                    return _configured, (registry.group, configured.name, settings)
        return super().reducer_override(obj)


def _is_same(obj: Any, registry: Registry[Any], name: str, settings: dict[str, Any]) -> bool:
    """True if the method of that name with these settings is what the object is."""
    made = registry[name](**settings)
    if type(made) is not type(obj):
        return False
    ours, its = (getattr(each, "method", each).function for each in (obj, made))
    return made == obj or fingerprint(ours) == fingerprint(its)


def _registry(group: str) -> Registry[Any]:
    return next(registry for registry in registries if registry.group == group)


def _method(group: str, name: str) -> Any:
    return _registry(group)[name]


def _configured(group: str, name: str, settings: dict[str, Any]) -> Any:
    return _registry(group)[name](**settings)
