"""The hooks that plugins implement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from cnnviz.registry.registry import Registry

HOME = "cnnviz"

hookspec = pluggy.HookspecMarker(HOME)
hookimpl = pluggy.HookimplMarker(HOME)


class Hooks:
    """Every hook a plugin may implement. Arguments are only ever added."""

    @hookspec(historic=True)
    def cnnviz_register(self, registry: Registry[Any]) -> None:
        """Offer methods: call ``registry.add(method)`` for each."""
