"""The torch functions that a formula's text can name: which name a function has there, and which function a name is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.overrides import get_overridable_functions

PLAIN = (
    *("abs", "amax", "amin", "cat", "clamp", "clip", "cos", "cumsum", "exp", "flatten", "flip", "log", "logsumexp"),
    *("max", "maximum", "mean", "median", "min", "minimum", "norm", "permute", "prod", "relu", "reshape", "roll"),
    *("round", "sigmoid", "sign", "sin", "softmax", "sqrt", "square", "squeeze", "stack", "std", "sum", "tanh"),
    *("topk", "transpose", "unsqueeze", "var", "where"),
)
"""Those that are written by their name alone. No others ever are, so that a name keeps its meaning with any torch."""
_PLACES = {
    "torch.nn.functional": torch.nn.functional,
    "torch.linalg": torch.linalg,
    "torch.special": torch.special,
    "torch.fft": torch.fft,
    "torch": torch,
}
_UNSAFE = re.compile(
    "^_|_$|strided|backward|batch_norm|bernoulli|cudnn|embedding_bag|fbgemm|gather_stats|gru|histogramdd|index_put|"
    "lstm|miopen|native|quant|_qparams|rnn|sparse|sym_|unsafe|_like$|_copy$|^put$|hash_tensor|autocast|"
    "dropout|rrelu|gumbel|multinomial|binomial|^poisson$|fractional_max_pool|attention|lowrank|lobpcg"
)
"""Functions that change their argument, draw, or are the inside of a layer: none of them is a step of a formula."""
_ARGUMENTS = {"out": None, "inplace": False}
"""Arguments that would change a tensor in its place, and the value that changes none."""


@cache
def _names() -> dict[Callable[..., Any], str]:
    """The text of every function that may be written, the shortest where it has several."""
    overridable = {function for functions in get_overridable_functions().values() for function in functions}
    names: dict[Callable[..., Any], str] = {}
    for place, module in _PLACES.items():
        for name in sorted(vars(module)):
            function = getattr(module, name)
            if callable(function) and _hashable(function) and function in overridable and not _UNSAFE.search(name):
                names[function] = f"{place}.{name}" if place != "torch" or name not in PLAIN else name
    return names


@cache
def _functions() -> dict[str, Callable[..., Any]]:
    """Every function by its text; the plain ones by their full names too."""
    functions = {name: function for function, name in _names().items()}
    for place, module in _PLACES.items():
        for name in sorted(vars(module)):
            function = getattr(module, name)
            if callable(function) and _hashable(function) and function in _names() and not _UNSAFE.search(name):
                functions.setdefault(f"{place}.{name}", function)
    return functions


def _hashable(function: Any) -> bool:
    return type(function).__hash__ is not None


def function_text(function: Callable[..., Any]) -> str | None:
    """How a torch function is written; None for any other function, and for one that is no step of a formula."""
    name = str(getattr(function, "__name__", ""))
    if name in PLAIN and function is getattr(torch, name):
        return name
    return _names().get(function) if _hashable(function) else None


def function_named(text: str) -> Callable[..., Any] | None:
    """The torch function that is written so; None where there is none."""
    if text in PLAIN:
        function: Callable[..., Any] = getattr(torch, text)
        return function
    return _functions().get(text)


def function_texts() -> list[str]:
    """All texts there are, for hints."""
    return list(_functions())


def changes_its_argument(name: str, value: Any) -> bool:
    """True for an argument with which a torch function writes into a tensor that is there."""
    return name in _ARGUMENTS and value is not _ARGUMENTS[name]


def writes_in_place(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """True for a call that says that it changes its arguments: ``relu_(x)``, ``relu(x, True)``, ``relu(x, out=y)``."""
    name = str(getattr(function, "__name__", ""))
    if name.endswith("_") and not name.endswith("__"):
        return True
    pairs = [*zip(argument_names(function), args, strict=False), *kwargs.items()]
    return any(changes_its_argument(name, value) for name, value in pairs)


def argument_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's arguments in their order; none for one that does not tell, as most of C."""
    return _argument_names(function) if _hashable(function) else ()


@cache
def _argument_names(function: Callable[..., Any]) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except (ValueError, TypeError):
        return ()
