"""A method with its settings: does what its function does, and prints as its call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

Canvas: TypeAlias = Literal["picture", "map", "figure"]
"""What a renderer draws: over the picture of the input, or the map alone, pixel for pixel; or a figure of its own."""


def code(value: Any, layer: Callable[[Any], str] = lambda module: f"<{type(module).__name__}>") -> str:
    """A setting's value as code; ``layer`` names a module, and a tensor is told by its shape alone."""
    if hasattr(value, "named_modules"):  # asked by attributes: listing methods loads neither torch nor Pillow
        return layer(value)
    if type(value).__name__ == "Several":
        return f"[{', '.join(code(item, layer) for item in value)}]"
    if hasattr(value, "requires_grad"):
        return f"tensor{tuple(value.shape)}"
    if hasattr(value, "is_gray"):  # a colour map prints with its address
        return repr(value.name)
    return str(value) if hasattr(value, "getbands") else repr(value)


def name_of(method: Any) -> str:
    """How a callable is called: by its name, else as it prints, else by its type, for an address tells nothing."""
    name = getattr(method, "__name__", "") or repr(method)
    return type(method).__name__ if name == object.__repr__(method) else name


@dataclass(frozen=True, repr=False)
class ConfiguredMethod:
    """A registered method with its settings: called as the callable that its function returned, printed as its call.

    Two of them are equal if name, settings and callable are.
    """

    name: str
    function: Callable[[Any], Any]
    """What the method is with these settings: takes a run, an explanation, an ascent or a trial."""
    settings: tuple[tuple[str, Any], ...] = ()
    """Name and value of those that are not the defaults, in the order given."""

    def __call__(self, subject: Any, /) -> Any:
        return self.function(subject)

    def __repr__(self) -> str:
        return self.text(code)

    def text(self, write: Callable[[Any], str]) -> str:
        """The call as code; ``write`` turns the values of settings into code."""
        return f"{self.name}({', '.join(f'{name}={write(value)}' for name, value in self.settings)})"

    def at_layer(self, layer: str) -> ConfiguredMethod:
        """The same call with the layer that was chosen automatically as its first setting, if it names none itself."""
        settings = dict(self.settings)
        if settings.get("layer") is not None:
            return self
        settings.pop("layer", None)
        return replace(self, settings=(("layer", layer), *settings.items()))


@dataclass(frozen=True, repr=False)
class ConfiguredRenderer(ConfiguredMethod):
    """A renderer with its settings."""

    canvas: Canvas = "picture"
