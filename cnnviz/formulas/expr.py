"""Formulas over what a run offers.

A formula is data: equal parts are computed once, one forward pass serves all of them, and it prints as it was written.
Any PyTorch function takes a formula where it takes a tensor.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import update_wrapper, wraps
from typing import Annotated, Any, TypeAlias, overload

import torch
from torch import Tensor, nn

from cnnviz.registry.registry import Method, attributions
from cnnviz.run.plan import Plan
from cnnviz.run.run import Run


class Expr:
    """An attribution that can be computed with."""

    def __call__(self, run: Run, /) -> Tensor:
        if self not in run.answers:
            run.answers[self] = self.compute(run)
        return run.answers[self]

    def compute(self, run: Run) -> Tensor:
        raise NotImplementedError

    def plan(self) -> Plan:
        """What computing this needs of the forward pass."""
        found = Plan()
        for part in self.parts():
            found |= part.plan()
        return found

    def parts(self) -> Iterator[Expr]:
        for each in fields(self):  # type: ignore[arg-type]  # every formula is a dataclass
            yield from _formulas(getattr(self, each.name))

    def automatic(self) -> bool:
        """Whether some part of it leaves the layer to be found."""
        return any(part.automatic() for part in self.parts())

    def recipe(self, run: Run) -> str:
        """The formula as a user would write it, with the layers that were chosen for it."""

        return self.text(_writer(run))

    def __repr__(self) -> str:
        return self.text(lambda value: f"<{type(value).__name__}>" if isinstance(value, nn.Module) else repr(value))

    def text(self, write: Callable[[Any], str]) -> str:
        """The formula as code; ``write`` turns its parts into text."""
        said: list[str] = []
        for place, each in enumerate(fields(self)):  # type: ignore[arg-type]  # every formula is a dataclass
            value = getattr(self, each.name)
            if value is not each.default and (each.default is MISSING or value != each.default):
                said.append(write(value) if place == len(said) else f"{each.name}={write(value)}")
        return f"{type(self).__name__}({', '.join(said)})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Expr:
        named = tuple((name, frozen(value)) for name, value in sorted((kwargs or {}).items()))
        return Apply(func, tuple(frozen(arg) for arg in args), named)

    def __add__(self, other: Any) -> Expr:
        return Apply(torch.add, (self, frozen(other)))

    def __radd__(self, other: Any) -> Expr:
        return Apply(torch.add, (frozen(other), self))

    def __sub__(self, other: Any) -> Expr:
        return Apply(torch.sub, (self, frozen(other)))

    def __rsub__(self, other: Any) -> Expr:
        return Apply(torch.rsub, (self, frozen(other)))

    def __mul__(self, other: Any) -> Expr:
        return Apply(torch.mul, (self, frozen(other)))

    def __rmul__(self, other: Any) -> Expr:
        return Apply(torch.mul, (frozen(other), self))

    def __truediv__(self, other: Any) -> Expr:
        return Apply(torch.div, (self, frozen(other)))

    def __rtruediv__(self, other: Any) -> Expr:
        return Apply(torch.true_divide, (frozen(other), self))

    def __pow__(self, other: Any) -> Expr:
        return Apply(torch.pow, (self, frozen(other)))

    def __neg__(self) -> Expr:
        return Apply(torch.neg, (self,))

    def __abs__(self) -> Expr:
        return Apply(torch.abs, (self,))

    def relu(self) -> Expr:
        """What is positive of it."""
        return Apply(torch.relu, (self,))


Formula: TypeAlias = Annotated[Any, "Formula"]
"""For settings: a formula, or the name of a method, which is put in its place."""

_INFIX = {
    torch.add: ("+", 1),
    torch.sub: ("-", 1),
    torch.mul: ("*", 2),
    torch.div: ("/", 2),
    torch.true_divide: ("/", 2),
    torch.pow: ("**", 4),
}


@dataclass(frozen=True, repr=False)
class Apply(Expr):
    """A function of tensors, applied to formulas."""

    func: Callable[..., Tensor]
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()
    kinds: tuple[Any, ...] = field(init=False)
    """Types of the arguments: 1, 1.0 and True are equal, but not to every function."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", _kinds((self.args, self.kwargs)))

    def compute(self, run: Run) -> Tensor:
        named = {name: _value(value, run) for name, value in self.kwargs}
        return self.func(*[_value(arg, run) for arg in self.args], **named)  # a list lets StopIteration through

    def text(self, write: Callable[[Any], str]) -> str:
        if self.func in _INFIX and len(self.args) == 2 and not self.kwargs:
            sign, strength = _INFIX[self.func]
            left, right = self.args
            # a - (b - c) and a / (b / c) need their brackets, a + b + c does not
            return f"{_bracketed(left, write, strength)} {sign} {_bracketed(right, write, strength + (sign in '-/'))}"
        if self.func is torch.rsub:
            return f"{write(self.args[1])} - {_bracketed(self.args[0], write, 2)}"
        if self.func is torch.neg:
            return f"-{_bracketed(self.args[0], write, 3)}"
        name = {torch.abs: "abs"}.get(self.func, getattr(self.func, "__name__", repr(self.func)))
        settings = [write(arg) for arg in self.args] + [f"{name}={write(value)}" for name, value in self.kwargs]
        return f"{name}({', '.join(settings)})"


@dataclass(frozen=True, repr=False)
class Named(Expr):
    """A method with its settings: computes its formula, prints as its call."""

    of: Callable[[Run], Tensor]
    name: str
    settings: tuple[tuple[str, Any], ...]
    renderer: str | None = None
    takes_layer: bool = False
    formulas: tuple[tuple[str, Expr], ...] = ()
    """Settings that are formulas, as they were built of methods' names."""

    def compute(self, run: Run) -> Tensor:
        return self.of(run)

    def plan(self) -> Plan:
        return plan(self.of)

    def parts(self) -> Iterator[Expr]:
        yield from _formulas(self.of)

    def text(self, write: Callable[[Any], str]) -> str:
        return f"{self.name}({', '.join(f'{name}={write(value)}' for name, value in self.settings)})"

    def recipe(self, run: Run) -> str:
        """As the call that gives the same answer on any network: what was found automatically is said."""
        told = dict(self.settings)
        if self.takes_layer and "layer" not in told and self.automatic():
            told = {"layer": run.layer_name(None)} | told
        told |= {name: formula for name, formula in self.formulas if name in told or formula.automatic()}
        return replace(self, settings=tuple(told.items()), takes_layer=False, formulas=()).text(_writer(run))


@dataclass(frozen=True, eq=False, repr=False)
class Constant(Expr):
    """A tensor in a formula; equal to itself only."""

    value: Tensor

    def compute(self, run: Run) -> Tensor:
        value = self.value.to(run.inputs.device)
        whole = value.ndim in (1, run.inputs.ndim) and run.copies > 1 and len(value) == len(run.inputs) // run.copies
        return value.repeat(run.copies, *(1,) * (value.ndim - 1)) if whole and len(value) > 1 else value

    def text(self, write: Callable[[Any], str]) -> str:
        return f"tensor{tuple(self.value.shape)}" if self.value.ndim else repr(self.value.item())


def lift(func: Callable[..., Tensor]) -> Callable[..., Expr]:
    """Make a function of tensors take formulas as well; then it is a formula itself."""

    def lifted(*args: Any, **kwargs: Any) -> Any:
        if any(True for value in (*args, *kwargs.values()) for _ in _formulas(value)):
            named = tuple((name, frozen(value)) for name, value in sorted(kwargs.items()))
            return Apply(func, tuple(frozen(arg) for arg in args), named)
        return func(*args, **kwargs)

    return update_wrapper(lifted, func)


@overload
def attribution(build: Callable[..., Any], /) -> Method[Named]: ...


@overload
def attribution(*, renderer: str) -> Callable[[Callable[..., Any]], Method[Named]]: ...


def attribution(build: Callable[..., Any] | None = None, /, *, renderer: str | None = None) -> Any:
    """Make a method of a function from settings to a formula (or to any callable of a run).

    The function's name is the method's, its docstring the method's page. ``renderer`` names how its values are drawn
    when nobody says otherwise. A setting annotated ``Formula`` also takes a method's name.
    """
    if build is None:
        return lambda build: _method(build, renderer)
    return _method(build, None)


def _method(build: Callable[..., Any], renderer: str | None) -> Method[Named]:
    parameters = inspect.signature(build).parameters
    formulas = {
        name: each.default for name, each in parameters.items() if "Formula" in re.split(r"\W+", str(each.annotation))
    }

    @wraps(build)
    def build_formula(**settings: Any) -> Any:
        for name, default in formulas.items():
            chosen = settings.get(name, default)
            if isinstance(chosen, str):
                settings[name] = attributions[chosen]()
        return build(**settings)

    def finish(name: str, result: Any, settings: dict[str, Any]) -> Named:
        if not callable(result):
            raise TypeError(f"{name} returned {result!r}; an attribution is a formula or a callable of a run")
        kept = tuple((key, frozen(value)) for key, value in settings.items())
        built = {key: settings.get(key, default) for key, default in formulas.items()}
        built = {key: attributions[value]() if isinstance(value, str) else value for key, value in built.items()}
        found = tuple((key, value) for key, value in built.items() if isinstance(value, Expr))
        return Named(result, name, kept, renderer, "layer" in parameters, found)

    return Method(build_formula, finish)


def plan(*attributions: Any) -> Plan:
    """What a forward pass must leave behind for all of them."""
    found = Plan()
    for each in attributions:
        found |= each.plan() if isinstance(each, Expr) else Plan(again=True)  # who knows what it asks for
    return found


def frozen(value: Any) -> Any:
    """The value as part of a formula, which must be hashable."""
    if isinstance(value, Tensor):
        return Constant(value)
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return tuple(frozen(each) for each in value)
    try:
        hash(value)
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"a formula can't hold a {kind}; make it a tensor, or lift a function that uses it") from None
    return value


def _formulas(value: Any) -> Iterator[Expr]:
    if isinstance(value, Expr):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _formulas(each)


def _kinds(value: Any) -> Any:
    return tuple(map(_kinds, value)) if isinstance(value, tuple) else type(value)


def _value(value: Any, run: Run) -> Any:
    if isinstance(value, Expr):
        return value(run)
    return type(value)([_value(each, run) for each in value]) if isinstance(value, tuple | list) else value


def _writer(run: Run) -> Callable[[Any], str]:
    def write(value: Any) -> str:
        if isinstance(value, nn.Module):
            return repr(run.layer_name(value))
        return value.recipe(run) if isinstance(value, Expr) else repr(value)

    return write


def _bracketed(value: Any, write: Callable[[Any], str], strength: int) -> str:
    inner = 5
    if isinstance(value, Apply):
        inner = {torch.neg: 3, torch.rsub: 1}.get(value.func, _INFIX.get(value.func, ("", 5))[1])
    return f"({write(value)})" if inner < strength else write(value)
