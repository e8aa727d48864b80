"""What functions and classes compute by: their code, and what that finds outside of it."""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from functools import cache, cached_property
from types import CodeType, FunctionType
from typing import Any

LISTED = ("torch.", "torchvision.", "numpy.", "PIL.", "cnnviz.")
"""Packages whose versions a run's identity has; no part of them is told beside their names."""

GROWING = ("append", "extend", "add", "update", "insert", "appendleft")
"""Methods of containers that take something in."""


def is_listed(module: str | None) -> bool:
    """True if a version tells the code of this module, or the Python version does."""
    top = (module or "").partition(".")[0]
    return f"{top}." in LISTED or (top in sys.stdlib_module_names and top != "__main__") or top == "builtins"


def members_of(kind: type) -> Iterator[tuple[str, Any]]:
    """Functions and values of a class and of those that it inherits from, by name, as far as no version tells them."""
    for base in kind.__mro__:
        if is_listed(base.__module__):
            continue
        yield "class", f"{base.__module__}.{base.__qualname__}"
        for name in sorted(vars(base)):
            value = vars(base)[name]
            for function in _functions(value):
                yield name, function
            if not name.startswith(("__", "_abc_")) and not [*_functions(value)] and not hasattr(value, "__get__"):
                yield name, value


def _functions(value: Any) -> Iterator[FunctionType]:
    """The functions that a member of a class is made of."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    parts = (value.fget, value.fset) if isinstance(value, property) else (value,)
    for part in parts:
        function = part.func if isinstance(part, cached_property) else part
        if isinstance(function, FunctionType):
            yield function


def globals_of(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The global values that a function uses, by name; none of a function whose version is known."""
    if is_listed(function.__module__):
        return
    for name in _global_names(function.__code__):
        if name in function.__globals__:
            yield name, function.__globals__[name]


def code_of(function: Any) -> CodeType | None:
    """The code of a function, also of one that a decorator wraps; None for what is not of Python."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None


@cache
def stored_in(code: CodeType | None) -> frozenset[str]:
    """The names of attributes that a code sets, or adds something to, as ``self.passes.append(3)`` does."""
    found: set[str] = set()
    for part in () if code is None else _parts(code):
        before: dis.Instruction | None = None
        for step in dis.get_instructions(part):
            grows = step.opname in ("LOAD_ATTR", "LOAD_METHOD") and step.argval in GROWING
            if step.opname == "STORE_ATTR":
                found.add(step.argval)
            elif grows and before is not None and before.opname == "LOAD_ATTR":
                found.add(before.argval)
            before = step
    return frozenset(found)


@cache
def _global_names(code: CodeType) -> tuple[str, ...]:
    """As the code itself names them, and not attributes of the same name."""
    return tuple(sorted(set(_names(code, "LOAD_GLOBAL"))))


def _names(code: CodeType, operation: str) -> Iterator[str]:
    for part in _parts(code):
        yield from (step.argval for step in dis.get_instructions(part) if step.opname == operation)


def _parts(code: CodeType) -> Iterator[CodeType]:
    """The code and the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)
