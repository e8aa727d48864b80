"""Command-line options for the settings of methods and renderers, derived from their signatures."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import click

from cnnviz.cli.method_names import is_formula

if TYPE_CHECKING:
    from torch import Tensor

    from cnnviz.formulas.attribution import ConfiguredAttribution
    from cnnviz.formulas.expr import Expr
    from cnnviz.registry.registry import Method

Read = Callable[[Path], "Tensor"]
PLAIN = {
    bool: (click.BOOL, "true or false"),
    int: (click.INT, "a whole number"),
    float: (click.FLOAT, "a number"),
    NoneType: (click.Choice(["none"], case_sensitive=False), "none"),
}
"""Types that are read from text, in this order, each with its description for error texts."""
_OPTIONS = re.compile(r"\b(\w+)=(?!\w)")
"""Arguments in remarks that are written for Python."""


def named_methods(names: Iterable[str], tokens: Sequence[str]) -> list[Method[ConfiguredAttribution]]:
    """The named methods, followed by those that their formula settings name. Raises LookupError for unknown names.

    A formula stands among them as a method without settings: it has them in it.
    """
    from cnnviz.registry.registry import Method, attributions

    def no_settings() -> None:
        """A formula takes none."""

    chosen: dict[str, Method[ConfiguredAttribution]] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0)
        if name in chosen:
            continue
        if is_formula(name):
            chosen[name] = Method(no_settings)
            chosen[name].name = name
            continue
        chosen[name] = attributions[name]
        for setting, default in formula_settings(chosen[name]).items():
            inner = _peek(tokens, setting) or default
            waiting += [inner] if isinstance(inner, str) else []
    return list(chosen.values())


def separated(
    tokens: Sequence[str], methods: Sequence[Method[Any]], renderers: Sequence[Method[Any]], declared: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """The pictures, and the settings by name, as text.

    Raises TypeError for a setting that no method has, with the nearest name; ValueError for one without a value.
    """
    known: dict[str, list[Sequence[Any]]] = {}
    for method in (*methods, *renderers):
        for setting in method.settings:
            known.setdefault(setting, []).append(_types(method, setting))
    switches = {name for name, types in known.items() if all(bool in annotations for annotations in types)}
    pictures: list[str] = []
    texts: dict[str, str] = {}
    rest = iter(tokens)
    for token in rest:
        if not token.startswith("-") or token == "-":
            pictures.append(token)
            continue
        written, equals, value = token.partition("=")
        name = written.removeprefix("--").replace("-", "_")
        if name in switches and written.startswith("--"):
            texts[name] = value if equals else "true"
        elif name.startswith("no_") and name[3:] in switches and not equals:
            texts[name[3:]] = "false"
        elif name not in known or not written.startswith("--"):
            raise TypeError(_no_option(written, [*known, *declared], methods, renderers))
        else:
            texts[name] = value if equals else next(rest, "--")
            if texts[name].startswith("--"):
                raise ValueError(f"{written} has no value; say {written} VALUE or {written}=VALUE")
    return pictures, texts


def formula(name: str, texts: Mapping[str, str], read: Read) -> Expr:
    """The method with the settings that it has; the other settings are passed to the formulas inside it.

    What has a bracket or a sign in its name is a formula, and takes no settings. Raises FormulaError for one that is
    none.
    """
    from cnnviz.formulas.attribution import ConfiguredAttribution
    from cnnviz.formulas.parsing import parse_formula
    from cnnviz.registry.registry import attributions

    if is_formula(name):
        return parse_formula(name)
    method = attributions[name]
    settings = converted(method, texts, read)
    others = {setting: text for setting, text in texts.items() if setting not in method.settings}
    for setting, default in formula_settings(method).items():
        inner = settings.get(setting, default)
        if isinstance(inner, str) and (others or is_formula(inner)):
            made = formula(inner, others, read)
            plain = isinstance(made, ConfiguredAttribution) and not made.method.settings
            settings |= {} if plain and not is_formula(inner) else {setting: made}
    return method(**settings)


def converted(method: Method[Any], texts: Mapping[str, str], read: Read | None = None) -> dict[str, Any]:
    """The settings that the method has, converted to their types. Raises ValueError for text of another type."""
    own = {name: text for name, text in texts.items() if name in method.settings}
    settings = {}
    for name, text in own.items():
        # a method that fuses maps takes several layers, which are a list
        several = name == "layer" and "fuse" in method.settings and "," in text
        what, types = f"--{name.replace('_', '-')} of {method.name}", _types(method, name)
        parts = [_convert(what, part.strip(), types, read) for part in text.split(",")] if several else []
        settings[name] = parts or _convert(what, text, types, read)
    return settings


def formula_settings(method: Method[Any]) -> dict[str, Any]:
    """The settings that take a formula, with their defaults."""
    from cnnviz.formulas.attribution import takes_formula

    return {name: method.settings[name].default for name, kind in method.types.items() if takes_formula(kind)}


def annotation(method: Method[Any], setting: str) -> str:
    """A setting's type as text: one wording for all methods, with the values of a setting that has only some."""
    from cnnviz.engine.layers import Layer

    if setting in formula_settings(method):
        return "Formula"
    parameter = method.settings[setting]
    # the alias is a text, which only its own file can resolve
    kind = Layer if parameter.annotation == Layer else method.types.get(setting)
    if kind is not None:
        return _written(kind)
    written = parameter.annotation
    if written is inspect.Parameter.empty:
        return "" if parameter.default in (None, inspect.Parameter.empty) else type(parameter.default).__name__
    return written if isinstance(written, str) else inspect.formatannotation(written)


def _written(kind: Any) -> str:
    from cnnviz.engine.layers import Layer
    from cnnviz.formulas.baselines import Baseline, Baselines

    kind, arguments = getattr(kind, "__value__", kind), get_args(kind)
    members = set(_members(kind)) - {NoneType}
    for name, alias in {"Baseline": Baseline, "Baselines": Baselines, "Layer": Layer}.items():
        if members == set(_members(alias)) - {NoneType}:
            return f"{name} | None" if NoneType in arguments and name != "Layer" else name
    if get_origin(kind) is Annotated:
        return _written(arguments[0])
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(dict.fromkeys(map(_written, arguments)))
    if get_origin(kind) is Literal:
        return " | ".join(map(str, arguments))
    if arguments:
        inner = ", ".join(_written(each) for each in arguments if each is not Ellipsis and not isinstance(each, list))
        return f"{kind.__name__}[{inner}]"
    return "None" if kind is NoneType else str(getattr(kind, "__name__", kind))


def _types(method: Method[Any], setting: str) -> list[Any]:
    """The types of a setting: those of its annotation, or that of its default."""
    from torch import Tensor

    from cnnviz.formulas.baselines import Stack

    default = method.settings[setting].default
    types = [*_members(method.types.get(setting)), *([NoneType] if default is None else [])]
    if any(kind in (bool, int, float, str, Tensor, Stack) or get_origin(kind) is Literal for kind in types):
        return types
    return [*types, *([type(default)] if type(default) in (bool, int, float, str) else [int, float, str])]


def _members(kind: Any) -> list[Any]:
    """The types of a union, with aliases resolved; formulas are given by name, as text."""
    from cnnviz.formulas.attribution import takes_formula
    from cnnviz.formulas.baselines import Stack

    kind = getattr(kind, "__value__", kind)  # of an alias made by a type statement
    if get_origin(kind) in (Union, UnionType):
        return [member for part in get_args(kind) for member in _members(part)]
    if get_origin(kind) is Annotated and kind != Stack:
        return [str] if takes_formula(kind) else _members(get_args(kind)[0])
    return [kind]


def _convert(what: str, text: str, types: Sequence[Any], read: Read | None) -> Any:
    from torch import Tensor

    from cnnviz.formulas.baselines import Stack

    choices = {str(value): value for kind in types if get_origin(kind) is Literal for value in get_args(kind)}
    if text in choices:
        return choices[text]
    plain = [(kind, *PLAIN[kind]) for kind in PLAIN if kind in types]
    for kind, param_type, _ in plain:
        try:
            value = param_type.convert(text, None, None)
            return None if kind is NoneType else value
        except click.BadParameter:
            continue
    if read is not None and (Path(text).suffix or Path(text).exists()):
        if Tensor in types:
            return read(Path(text))
        if Stack in types:
            return _several(what, Path(text), read)
    if str in types:
        return text
    expected = [*choices, *(description for _, _, description in plain)]
    raise ValueError(f"{what} is {' or '.join(expected)}, not {text!r}")


def _several(what: str, path: Path, read: Read) -> Tensor:
    """A file, or all files of a folder, (K, C, *spatial)."""
    import torch

    from cnnviz.images.finding import find_pictures

    files = find_pictures(path)
    inputs = list(map(read, files))
    size = tuple(inputs[0].shape)
    for file, other in zip(files, (tuple(tensor.shape) for tensor in inputs), strict=True):
        if other != size:
            raise ValueError(f"{what} needs inputs of one size: {files[0]} is {size}, {file} is {other}")
    return torch.stack(inputs)


def _peek(tokens: Sequence[str], setting: str) -> str | None:
    for place, token in enumerate(tokens):
        if token.startswith(f"--{setting}="):
            return token.partition("=")[2]
        if token == f"--{setting}" and place + 1 < len(tokens):
            return tokens[place + 1]
    return None


def _no_option(
    written: str, known: Sequence[str], methods: Sequence[Method[Any]], renderers: Sequence[Method[Any]]
) -> str:
    from cnnviz.registry.peer_names import near_settings

    names = [name.lstrip("-").replace("-", "_") for name in known]
    near, remark = near_settings(written.lstrip("-").replace("-", "_"), names, cutoff=0.72)
    if near:
        hint = f"did you mean {_option(near[0])}?{f' {remark}' if remark else ''}"
    elif remark:
        hint = _OPTIONS.sub(lambda found: _option(found[1]), remark)
    else:
        hint = f"it takes {_listed(methods) or 'no settings'}"
        if renderers:
            drawn = _listed(renderers) or "no settings"
            hint += f"; what draws it takes {drawn}" if len(renderers) == 1 else "; cnnviz methods overlay lists more"
    if any(is_formula(method.name) for method in methods):
        of_formula = "a formula has its settings in it, such as grad_cam(layer=3)"
        hint = of_formula if near and _option(near[0]) == written else f"{of_formula}; {hint}"
    return f"there is no option {written} for {' and '.join(method.name for method in methods)}; {hint}"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _listed(methods: Sequence[Method[Any]]) -> str:
    return ", ".join(sorted({_option(name) for method in methods for name in method.settings}))
