"""Attributions as a stranger registers them: functions from settings to a formula."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import wraps
from typing import Annotated, Any, TypeAlias, get_args, overload

from torch import Tensor

from cnnviz.formulas.expr import Expr, frozen, plan, writer
from cnnviz.formulas.words import method_text
from cnnviz.formulas.written_parts import Several
from cnnviz.registry.configured import ConfiguredMethod
from cnnviz.registry.registry import Method, attributions
from cnnviz.run.plan import Plan
from cnnviz.run.run import Run

_FORMULA = object()
Formula: TypeAlias = Annotated[Any, _FORMULA]
"""For settings: a formula, or the name of a method, which is put in its place."""


def takes_formula(setting: Any) -> bool:
    """True if a setting's type is ``Formula``, or a union with it."""
    return _FORMULA in getattr(setting, "__metadata__", ()) or any(map(takes_formula, get_args(setting)))


@dataclass(frozen=True, repr=False)
class ConfiguredAttribution(Expr):
    """A registered attribution with its settings: computes its formula, prints as its call."""

    method: ConfiguredMethod
    """Its function is a formula, or a callable of a run."""
    renderer: str | None = None
    """Draws the values when nobody says otherwise."""
    takes_layer: bool = False
    takes_call: bool = False
    formulas: tuple[tuple[str, Expr], ...] = ()
    """Settings that are formulas, built if they were given as methods' names."""

    def compute(self, run: Run) -> Tensor:
        values: Tensor = self.method(run)
        return values

    def plan(self) -> Plan:
        return plan(self.method.function)

    def parts(self) -> Iterator[Expr]:
        if isinstance(self.method.function, Expr):
            yield self.method.function

    def text(self, write: Callable[[Any], str]) -> str:
        return replace(self.method, name=method_text(self.method.name)).text(write)

    def recipe(self, run: Run) -> str:
        """The call that gives the same values on any network: a layer that was chosen automatically is named."""
        located = self.takes_layer and self.automatic()
        method = self.method.at_layer(run.layer_name(None)) if located else self.method
        settings = dict(method.settings)
        if self.takes_call and settings.get("call") is None and not isinstance(settings.get("layer"), Several):
            calls = (
                run.layers.calls(settings.get("layer")) if run.layers.runs_several_times(settings.get("layer")) else []
            )
            settings |= {"call": calls[0]} if len(calls) == 1 else {}
        settings |= {name: formula for name, formula in self.formulas if name in settings or formula.automatic()}
        called = method_text(method.name)
        return replace(method, name=called, settings=tuple(settings.items())).text(writer(run))


@overload
def attribution(build: Callable[..., Any], /) -> Method[ConfiguredAttribution]: ...


@overload
def attribution(*, renderer: str) -> Callable[[Callable[..., Any]], Method[ConfiguredAttribution]]: ...


def attribution(build: Callable[..., Any] | None = None, /, *, renderer: str | None = None) -> Any:
    """Make a method of a function from settings to a formula (or to any callable of a run).

    The function's name is the method's, its docstring the method's page. ``renderer`` names how its values are drawn
    when nobody says otherwise. A setting annotated ``Formula`` also takes a method's name.
    """
    return (lambda build: _method(build, renderer)) if build is None else _method(build, renderer)


def _held(setting: str, value: Any) -> Any:
    """A setting as part of a formula. A list of layers stays apart from a tuple, which is the path of one."""
    several = setting == "layer" and isinstance(value, list)
    return Several(map(frozen, value)) if several else frozen(value)


def _as_formula(method: str, setting: str, value: Any) -> Any:
    """What a setting says, as a formula: the name of a method, a method, or a formula already."""
    value = attributions[value] if isinstance(value, str) else value
    if not callable(value):
        given = repr(value) if isinstance(value, int | float | None) else f"a {type(value).__name__}"
        raise TypeError(f"{method}: {setting} is {given}; give a method's name, or a formula such as grad_cam()")
    return value() if isinstance(value, Method) else value


def _method(build: Callable[..., Any], renderer: str | None) -> Method[ConfiguredAttribution]:
    @wraps(build)
    def build_formula(**settings: Any) -> Any:
        return build(**settings | built(settings))

    def built(settings: dict[str, Any]) -> dict[str, Any]:
        """The settings that are formulas, made of methods' names where they are such."""
        defaults = {name: method.settings[name].default for name in method.types if takes_formula(method.types[name])}
        chosen = {name: settings.get(name, default) for name, default in defaults.items()}
        return {
            name: None if value is defaults[name] is None else _as_formula(method.name, name, value)
            for name, value in chosen.items()
        }

    def finish(configured: ConfiguredMethod) -> ConfiguredAttribution:
        name, result = configured.name, configured.function
        if not callable(result):
            raise TypeError(f"{name} returned {result!r}; an attribution is a formula or a callable of a run")
        formulas = built(dict(configured.settings))

        def held(setting: str, value: Any) -> Any:
            return formulas[setting] if isinstance(value, Method) and setting in formulas else _held(setting, value)

        return ConfiguredAttribution(
            replace(configured, settings=tuple((key, held(key, value)) for key, value in configured.settings)),
            renderer,
            "layer" in method.settings,
            "call" in method.settings,
            tuple((key, value) for key, value in formulas.items() if isinstance(value, Expr)),
        )

    method: Method[ConfiguredAttribution] = Method(build_formula, finish)
    return method
