"""Settings of methods and renderers as options of their own: nobody declares them, their signatures are asked."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from cnnviz.formulas.expr import Named
    from cnnviz.registry.registry import Method

Read = Callable[[Path], "Tensor"]
TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
ALIASES = {
    "Layer": ("int", "str", "None"),
    "Baseline": ("float", "Tensor", "str"),
    "Baselines": ("float", "Tensors", "str"),
    "Formula": ("str",),
    "Quadrature": ("str",),
}
PLAIN = ("bool", "int", "float", "str")


def named_methods(names: Iterable[str], tokens: Sequence[str]) -> list[Method[Named]]:
    """The methods asked for, and after them those which their formula settings name. Raises LookupError."""
    from cnnviz.registry.registry import attributions

    found: dict[str, Method[Named]] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        if name in found:
            continue
        found[name] = attributions[name]
        for setting, parameter in found[name].settings.items():
            if _is_formula(parameter):
                inner = _peek(tokens, setting) or parameter.default
                waiting += [inner] if isinstance(inner, str) else []
    return list(found.values())


def separated(
    tokens: Sequence[str], methods: Sequence[Method[Any]], renderers: Sequence[Method[Any]], declared: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """The pictures, and the settings given by name, still as text.

    Raises TypeError for a setting that nobody has, with the nearest name; ValueError for one without value.
    """
    known: dict[str, list[Parameter]] = {}
    for method in (*methods, *renderers):
        for setting, parameter in method.settings.items():
            known.setdefault(setting, []).append(parameter)
    switches = {name for name, found in known.items() if all("bool" in _kinds(each) for each in found)}
    pictures: list[str] = []
    given: dict[str, str] = {}
    rest = iter(tokens)
    for token in rest:
        if not token.startswith("-") or token == "-":
            pictures.append(token)
            continue
        written, equals, value = token.partition("=")
        name = written.removeprefix("--").replace("-", "_")
        if name in switches and written.startswith("--"):
            given[name] = value if equals else "true"
        elif name.startswith("no_") and name[3:] in switches and not equals:
            given[name[3:]] = "false"
        elif name not in known or not written.startswith("--"):
            raise TypeError(_no_option(written, [*known, *declared], methods))
        else:
            given[name] = value if equals else next(rest, "--")
            if given[name].startswith("--"):
                raise ValueError(f"{written} has no value; say {written} VALUE or {written}=VALUE")
    return pictures, given


def formula(name: str, given: Mapping[str, str], read: Read) -> Named:
    """The method with those of the settings that it knows; the others go to the formula inside it, as far as known."""
    from cnnviz.registry.registry import attributions

    method = attributions[name]
    settings = converted(method, given, read)
    others = {setting: text for setting, text in given.items() if setting not in method.settings}
    for setting, parameter in method.settings.items():
        inner = settings.get(setting, parameter.default)
        if _is_formula(parameter) and isinstance(inner, str) and others:
            made = formula(inner, others, read)
            settings |= {setting: made} if made.settings else {}
    return method(**settings)


def converted(method: Method[Any], given: Mapping[str, str], read: Read | None = None) -> dict[str, Any]:
    """Those of the settings that the method has, each as what its annotation or default says. Raises ValueError."""
    return {
        name: _convert(f"--{name.replace('_', '-')} of {method.name}", text, method.settings[name], read)
        for name, text in given.items()
        if name in method.settings
    }


def annotation(parameter: Parameter) -> str:
    """A setting's type as text."""
    written = parameter.annotation
    if written is Parameter.empty:
        return "" if parameter.default in (None, Parameter.empty) else type(parameter.default).__name__
    if _is_formula(parameter):
        return "Formula"
    return written if isinstance(written, str) else inspect.formatannotation(written)


def _convert(what: str, text: str, parameter: Parameter, read: Read | None) -> Any:
    kinds = _kinds(parameter)
    choices = [each for kind in kinds for each in _choices(kind)]
    if text in map(str, choices):
        return next(each for each in choices if str(each) == text)
    if "None" in kinds and text.lower() == "none":
        return None
    if "bool" in kinds and text.lower() in TRUTHS:
        return TRUTHS[text.lower()]
    for kind, read_number in (("int", int), ("float", float)):
        if kind in kinds:
            try:
                return read_number(text)
            except ValueError:
                pass
    if read is not None and (Path(text).suffix or Path(text).exists()):
        if "Tensor" in kinds:
            return read(Path(text))
        if "Tensors" in kinds:
            return _several(what, Path(text), read)
    if "str" in kinds:
        return text
    says = {"bool": "true or false", "int": "a whole number", "float": "a number", "None": "none"}
    expected = [*map(str, choices), *(said for kind, said in says.items() if kind in kinds)]
    raise ValueError(f"{what} is {' or '.join(expected)}, not {text!r}")


def _several(what: str, path: Path, read: Read) -> Tensor:
    """A file, or all of a folder, (K, C, *spatial)."""
    import torch

    from cnnviz.images.files import find_pictures

    files = find_pictures(path)
    found = [read(each) for each in files]
    for file, each in zip(files, found, strict=True):
        if each.shape != found[0].shape:
            raise ValueError(
                f"{what} needs inputs of one size: {files[0]} is {tuple(found[0].shape)}, {file} is {tuple(each.shape)}"
            )
    return torch.stack(found)


def _kinds(parameter: Parameter) -> tuple[str, ...]:
    """The types that a value may have, by name; where only the default tells, that of the default."""
    found: list[str] = []
    for part in annotation(parameter).split("|"):
        name = part.strip().strip("'\"")
        name = name if "[" in name else name.rpartition(".")[2]
        found += ALIASES.get(name, (name,))
    found += ["None"] if parameter.default is None else []
    if any(kind in (*PLAIN, "Tensor", "Tensors") or _choices(kind) for kind in found):
        return tuple(found)
    default = type(parameter.default).__name__
    return (*found, *((default,) if default in PLAIN else PLAIN[1:]))


def _choices(kind: str) -> tuple[Any, ...]:
    inside = re.fullmatch(r"(?:typing\.)?Literal\[(.*)\]", kind)
    return tuple(ast.literal_eval(f"[{inside[1]}]")) if inside else ()


def _is_formula(parameter: Parameter) -> bool:
    return "Formula" in str(parameter.annotation)


def _peek(tokens: Sequence[str], setting: str) -> str | None:
    for place, token in enumerate(tokens):
        if token.startswith(f"--{setting}="):
            return token.partition("=")[2]
        if token == f"--{setting}" and place + 1 < len(tokens):
            return tokens[place + 1]
    return None


def _no_option(written: str, known: Sequence[str], methods: Sequence[Method[Any]]) -> str:
    names = [name.lstrip("-").replace("_", "-") for name in known]
    near = difflib.get_close_matches(written.lstrip("-"), names, n=1, cutoff=0.72)
    taken = sorted({f"--{name.replace('_', '-')}" for method in methods for name in method.settings})
    hint = f"did you mean --{near[0]}?" if near else f"it takes {', '.join(taken) or 'no settings'}"
    return f"there is no option {written} for {' and '.join(method.name for method in methods)}; {hint}"
