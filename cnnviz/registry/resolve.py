"""Names, methods and callables that a user hands over, made into callables with their settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnnviz.registry.configured import name_of
from cnnviz.registry.peer_names import asked_back, near_settings
from cnnviz.registry.registry import Method, Registry, renderers


def resolve(
    registry: Registry[Any], methods: Any, settings: Mapping[str, Any], *, forms: str, configured: str
) -> dict[str, Any]:
    """Each method as a callable, under the name that its result gets.

    A name of the registry or a method gets those of the settings that it has; any other callable stays as it is.

    Args:
        registry: in which names are looked up.
        methods: a name, a method or a callable, or a sequence of them.
        settings: by name; each must be one of some method's.
        forms: for the error, what a user may give: "a metric's name, or a callable of a trial".
        configured: for the error, what takes no settings: "a callable of a trial".

    Raises:
        LookupError: for a name that the registry does not have.
        TypeError: for a setting that no method has, and for what is neither a name nor callable.
        ValueError: for no method at all, and for two different callables of one name.
    """
    methods = [methods] if isinstance(methods, str) or callable(methods) else list(methods)
    built = {method: registry[method] for method in methods if isinstance(method, str)}
    built |= {method.name: method for method in methods if isinstance(method, Method)}
    for setting in settings:
        if not any(setting in method.settings for method in built.values()):
            if len(built) == 1:
                next(iter(built.values())).bind(**{setting: None})  # raises, and knows the nearest name
            near, remark = near_settings(setting, {name: None for method in built.values() for name in method.settings})
            hint = f"; {asked_back(near, remark)}" if near else f"; {remark}" if remark else ""
            raise TypeError(f"there is no setting {setting!r} in {', '.join(built) or configured}{hint}")
    callables: dict[str, Any] = {}
    for method in methods:
        if isinstance(method, str | Method):
            name = method if isinstance(method, str) else method.name
            known = built[name].settings
            callables[name] = built[name](**{key: value for key, value in settings.items() if key in known})
        elif callable(method):
            name = getattr(method, "__name__", repr(method))
            if callables.get(name, method) != method:
                raise ValueError(f"two {registry.kind}s are called {name!r}; ask for them one by one")
            callables[name] = method
        else:
            raise TypeError(f"{method!r} is no {registry.kind}; give {forms}")
    if not callables:
        raise ValueError(f"no {registry.kind} was asked for; name at least one")
    return callables


def renderer_of(renderer: Any, settings: Mapping[str, Any]) -> Any:
    """A renderer's name, a renderer or a callable, as a callable with these settings.

    Raises LookupError for an unknown name, TypeError for settings of a callable, which has them in it.
    """
    found = renderers[renderer] if isinstance(renderer, str) else renderer
    if isinstance(found, Method):
        return found(**settings)
    if settings:
        raise TypeError(f"{name_of(found)} takes no setting {next(iter(settings))!r}: only renderers given by name do")
    return found
