"""Formulas: expressions of scores, activations and gradients of a run.

A formula is data: equal parts are computed once, one forward pass serves all of them, and it prints as it was written.
Any PyTorch function takes a formula where it takes a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial, update_wrapper
from typing import Any

import torch
from torch import Tensor

from cnnviz.engine.model_inputs import plain
from cnnviz.engine.torch_functions import function_text
from cnnviz.engine.validation import check_dense
from cnnviz.formulas.written_parts import call_text, part_text, unknown
from cnnviz.run.plan import Plan
from cnnviz.run.run import Run


class Expr:
    """A formula: an attribution that takes part in arithmetic and in PyTorch functions.

    A part that :func:`cnnviz.parse_formula` knows has the text it is called by as ``called``.
    """

    def __call__(self, run: Run, /) -> Tensor:
        if self not in run.answers:
            run.answers[self] = self.compute(run)
        return run.answers[self]

    def compute(self, run: Run) -> Tensor:
        """The formula's value for the inputs of the run, (N, ...); it is computed once for each run."""
        raise NotImplementedError

    def plan(self) -> Plan:
        """What the forward pass must keep so that this can be computed."""
        return plan(*self.parts())

    def parts(self) -> Iterator[Expr]:
        """The formulas that this one is made of."""
        for part in fields(self):  # type: ignore[arg-type]  # every formula is a dataclass
            yield from _formulas(getattr(self, part.name))

    def automatic(self) -> bool:
        """True if a part of it names no layer, so that the last one that is a place for a map is chosen."""
        return any(part.automatic() for part in self.parts())

    def scores_only(self) -> bool:
        """True if it asks for nothing but scores: no gradients, no layers."""
        return self.plan().scores_only and all(part.scores_only() for part in self.parts())

    def recipe(self, run: Run) -> str:
        """The formula as a user would write it, with the layers that were chosen for it."""

        return self.text(writer(run))

    def __repr__(self) -> str:
        return self.text(_code)

    def text(self, write: Callable[[Any], str]) -> str:
        """The formula as code; ``write`` turns its parts into code."""
        return call_text(self, write)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Expr:
        return applied(func, args, kwargs)

    def __add__(self, other: Any) -> Expr:
        return applied(torch.add, (self, other))

    def __radd__(self, other: Any) -> Expr:
        return applied(torch.add, (other, self))

    def __sub__(self, other: Any) -> Expr:
        return applied(torch.sub, (self, other))

    def __rsub__(self, other: Any) -> Expr:
        return applied(torch.rsub, (self, other))

    def __mul__(self, other: Any) -> Expr:
        return applied(torch.mul, (self, other))

    def __rmul__(self, other: Any) -> Expr:
        return applied(torch.mul, (other, self))

    def __truediv__(self, other: Any) -> Expr:
        return applied(torch.div, (self, other))

    def __rtruediv__(self, other: Any) -> Expr:
        return applied(torch.true_divide, (other, self))

    def __pow__(self, other: Any) -> Expr:
        return applied(torch.pow, (self, other))

    def __neg__(self) -> Expr:
        return Apply(torch.neg, (self,))

    def __abs__(self) -> Expr:
        return Apply(torch.abs, (self,))

    def relu(self) -> Expr:
        """The positive part of the values."""
        return Apply(torch.relu, (self,))


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
            # what is computed first has its brackets, a + (b + c) too: its rounding differs from that of a + b + c
            power = sign == "**"
            sides = _bracketed(left, write, strength + power), _bracketed(right, write, strength + (not power))
            return f"{sides[0]} {sign} {sides[1]}"
        if self.func is torch.rsub and len(self.args) == 2 and not self.kwargs:
            return f"{_bracketed(self.args[1], write, 1)} - {_bracketed(self.args[0], write, 2)}"
        if self.func is torch.neg and len(self.args) == 1 and not self.kwargs:
            return f"-{_bracketed(self.args[0], write, 3)}"
        told = getattr(self.func, "__name__", type(self.func).__name__)
        settings = [write(arg) for arg in self.args] + [f"{name}={write(value)}" for name, value in self.kwargs]
        return f"{function_text(self.func) or unknown(told)}({', '.join(settings)})"


@dataclass(frozen=True, eq=False, repr=False)
class Constant(Expr):
    """A tensor in a formula; equal to itself only."""

    value: Tensor

    def __post_init__(self) -> None:
        check_dense(self.value, "a tensor in the formula")

    def compute(self, run: Run) -> Tensor:
        value = self.value.to(run.inputs.device)
        whole = value.ndim in (1, run.inputs.ndim) and run.copies > 1 and len(value) == len(run.inputs) // run.copies
        return value.repeat(run.copies, *(1,) * (value.ndim - 1)) if whole and len(value) > 1 else value

    def text(self, write: Callable[[Any], str]) -> str:
        return f"tensor{tuple(self.value.shape)}" if self.value.ndim else repr(self.value.item())


def applied(func: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> Expr:
    """The formula of a function's value; the arguments may be formulas, tensors, and whatever can be hashed."""
    named = tuple((name, frozen(value)) for name, value in sorted((kwargs or {}).items()))
    return Apply(func, tuple(map(frozen, args)), named)


def lift(func: Callable[..., Tensor]) -> Callable[..., Expr]:
    """Let a function of tensors such as (N, C, *spatial) take formulas too; called with one, it returns a formula."""

    def lifted(*args: Any, **kwargs: Any) -> Any:
        if any(True for value in (*args, *kwargs.values()) for _ in _formulas(value)):
            return applied(func, args, kwargs)
        return func(*args, **kwargs)

    return update_wrapper(lifted, func)


def plan(*attributions: Any) -> Plan:
    """What one forward pass must keep so that all of these attributions can be computed."""
    union = Plan()
    for method in attributions:
        union |= method.plan() if isinstance(method, Expr) else Plan(again=True)  # what a callable needs is unknown
    return union


def frozen(value: Any) -> Any:
    """The value as part of a formula, which must be hashable."""
    if isinstance(value, Tensor):
        return Constant(plain(value))
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return tuple(map(frozen, value))
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
        for part in value:
            yield from _formulas(part)


def _kinds(value: Any) -> Any:
    return tuple(map(_kinds, value)) if isinstance(value, tuple) else type(value)


def _value(value: Any, run: Run) -> Any:
    if isinstance(value, Expr):
        return value(run)
    return type(value)([_value(part, run) for part in value]) if isinstance(value, tuple | list) else value


def writer(run: Run) -> Callable[[Any], str]:
    """Turns parts of a formula into code, with the layers that were chosen for it in this run."""
    return partial(_written, run)  # a function that calls itself by a name of its own would keep the run


def _written(run: Run, value: Any) -> str:
    if isinstance(value, Expr):
        return value.recipe(run)
    return part_text(value, writer(run), lambda module: repr(run.layer_name(module)))


def _code(value: Any) -> str:
    """A part of a formula as code, with no run to tell a module's name."""
    if isinstance(value, Expr):
        return value.text(_code)
    return part_text(value, _code, lambda module: unknown(type(module).__name__))


def _bracketed(value: Any, write: Callable[[Any], str], strength: int) -> str:
    inner = 5
    if isinstance(value, Apply) and not value.kwargs:
        inner = {torch.neg: 3, torch.rsub: 1}.get(value.func, _INFIX.get(value.func, ("", 5))[1])
    elif isinstance(value, int | float) and value < 0 and strength > 4:
        inner = 4  # -2 ** f is the negative of a power
    return f"({write(value)})" if inner < strength else write(value)
