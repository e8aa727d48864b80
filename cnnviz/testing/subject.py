"""What is checked, built with its settings; and when two of its answers are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cnnviz.registry.registry import Method, Registry


def built(registry: Registry[Any], method: Any, settings: dict[str, Any]) -> tuple[str, Any]:
    """The method's name, and the method with its settings, after a look at how it takes them."""
    found: Callable[..., Any] = registry[method] if isinstance(method, str) else method
    if not isinstance(found, Method):
        if settings:
            raise TypeError(f"{method!r} has its settings in it; give the method itself to check it with others")
        return getattr(found, "__name__", repr(found)), found
    if not found.summary:
        raise AssertionError(f"{found.name} has no docstring, which is its page")
    try:
        found(**settings, no_such_setting=0)
    except TypeError as error:
        if "no_such_setting" not in str(error):
            raise AssertionError(f"{found.name} does not name the setting it refuses: {error}") from error
    else:
        raise AssertionError(f"{found.name} takes settings it does not have")
    return found.name, found(**settings)


def equal(old: Any, new: Any) -> bool:
    both = isinstance(old, Tensor) and isinstance(new, Tensor)
    return torch.equal(old, new) if both else bool(old is new or old == new)


def close(found: Tensor, expected: Tensor) -> bool:
    reach = expected.detach().abs().max().item()
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * reach)
