"""What stands in a formula, as text: as it is read back, and all else as ``tensor(...)`` or ``<name>``.

Neither of these two is a word of the language, so that nothing is read back as what it was not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

from torch import Tensor, nn

from cnnviz.engine.backward_rules import Rule
from cnnviz.engine.layers import INPUT, LayerAt
from cnnviz.formulas.named_rules import rule_text
from cnnviz.registry.configured import code, name_of
from cnnviz.run.objectives import Combined, Objective

Write = Callable[[Any], str]


class Several(tuple[Any, ...]):
    """Several layers as a setting, which prints as the list it was given as; a plain tuple is the path of one layer."""

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self))}]"


def part_text(value: Any, write: Write, layer: Write) -> str:
    """What stands in a formula as code. ``write`` turns what is inside of it into code, ``layer`` a module."""
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, int | float):  # NumPy's floats are floats too, and print as NumPy's
        return repr(value.item() if hasattr(value, "item") else value)
    if isinstance(value, str):
        return repr(str(value))
    if isinstance(value, Several):
        return f"[{', '.join(map(write, value))}]"
    if type(value) is tuple:
        return f"({', '.join(map(write, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, LayerAt):
        return call_text(value, write, "LayerAt")
    if isinstance(value, nn.Module):
        return layer(value)
    if isinstance(value, Rule):
        return rule_text(value) or unknown(value.name)
    if isinstance(value, Objective):
        return repr(value) if _is_known(value) else unknown(type(value).__name__)
    if called(value):
        return call_text(value, write)
    if isinstance(value, Tensor):
        return code(value)
    if value is INPUT or type(value).__name__ == "dtype":
        return repr(value)
    if type(value).__module__ == "numpy" and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return write(value.item())
    return unknown(name_of(value) if callable(value) else type(value).__name__)


def unknown(name: str) -> str:
    """What stands in a text for something that has no text of its own."""
    return name if name.startswith("<") else f"<{name}>"


def called(part: Any) -> str:
    """The name by which a part of formulas is called; "" for what is none, as a class of one's own derived from one."""
    return str(vars(type(part)).get("called", ""))


def call_text(part: Any, write: Write, name: str = "") -> str:
    """A dataclass as the call that makes it: what has no default, or another value than that."""
    arguments: list[str] = []
    for place, each in enumerate(fields(part)):
        value = getattr(part, each.name)
        if value is not each.default and (each.default is MISSING or value != each.default):
            arguments.append(write(value) if place == len(arguments) else f"{each.name}={write(value)}")
    return f"{name or called(part) or unknown(type(part).__name__)}({', '.join(arguments)})"


def _is_known(target: Any) -> bool:
    """True for cnnviz's own objectives; another may have the name of one."""
    if isinstance(target, Combined):
        return _is_known(target.left) and _is_known(target.right)
    return not isinstance(target, Objective) or type(target).__module__.startswith("cnnviz.run.")
