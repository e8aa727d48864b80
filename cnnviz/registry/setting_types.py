"""Does a setting's value fit its annotation? A value of a wrong type would fail somewhere inside the method.

Only numbers, texts and sequences of them are looked at. Of tensors, formulas, layers and objectives the methods
themselves know what they take, and which way out to tell.
"""

from __future__ import annotations

import operator
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_NUMBERS: dict[Any, str] = {int: "an integer", float: "a number", bool: "True or False"}


def check_types(name: str, settings: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Raise TypeError for the first setting whose value is not what its annotation says.

    Args:
        name: of the method, for the message.
        settings: values by name.
        kinds: annotations by name. A setting that has none takes anything.
    """
    for setting, value in settings.items():
        kind = kinds.get(setting, Any)
        if not fits(value, kind):
            given = f"{value!r}" if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
            raise TypeError(f"{name}: {setting} is {given}; give {_told(kind)}")


def fits(value: Any, kind: Any) -> bool:
    """False if a value is not of an annotation's type; True also for an annotation that is not looked at.

    What acts as a number counts as one: NumPy's numbers, and tensors of one value.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return fits(value, arguments[0])
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in arguments)
    if origin is Literal:  # which ones there are, the method knows best
        return any(isinstance(value, type(each)) for each in arguments)
    if origin is Sequence:
        if isinstance(value, Sequence) and not isinstance(value, str):
            return all(fits(each, arguments[0]) for each in value)
        return hasattr(value, "__array__")  # its values are not looked at
    if kind is str:
        return isinstance(value, str)
    if kind in _NUMBERS:
        return _is_number(value, kind)
    return value is None if kind is types.NoneType else True


def _is_number(value: Any, kind: type) -> bool:
    if isinstance(value, str | bytes) or (kind is int and isinstance(value, bool)):  # float() would read a string
        return False
    if kind is bool and type(value).__name__ in ("bool", "bool_"):  # NumPy's is no integer
        return True
    try:
        number = float(value) if kind is float else operator.index(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return False
    return kind is not bool or number in (0, 1)


def _told(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _told(arguments[0])
    if origin in (Union, types.UnionType):
        told = dict.fromkeys(_told(each) for each in arguments)
        return (", or " if any(": " in each for each in told) else " or ").join(told)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is Sequence:
        return f"a list of these: {_told(arguments[0])}"
    if kind is str:
        return "a string"
    return "None" if kind is types.NoneType else _NUMBERS.get(kind, getattr(kind, "__name__", str(kind)))
