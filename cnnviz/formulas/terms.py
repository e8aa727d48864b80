"""What formulas are made of: the input, scores, layers, gradients; the same at other inputs and for other classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from cnnviz.engine.backward_rules import PLAIN, Rule
from cnnviz.engine.deferred import reads_at_once
from cnnviz.engine.layers import INPUT, InputPlace, Layer, LayerAt, is_automatic
from cnnviz.formulas.expr import Expr, frozen, plan, writer
from cnnviz.images.resampling import resize
from cnnviz.run.objectives import Objective
from cnnviz.run.plan import Plan
from cnnviz.run.run import Run
from cnnviz.run.targets import class_index


@dataclass(frozen=True, repr=False)
class image(Expr):
    """The input itself, (N, C, *spatial)."""

    called: ClassVar[str] = "image"

    def compute(self, run: Run) -> Tensor:
        return run.inputs


@dataclass(frozen=True, repr=False)
class score(Expr):
    """The score explained, (N,)."""

    called: ClassVar[str] = "score"

    def compute(self, run: Run) -> Tensor:
        return run.score


@dataclass(frozen=True, repr=False)
class prediction(Expr):
    """The class with the highest score, (N,)."""

    called: ClassVar[str] = "prediction"

    def compute(self, run: Run) -> Tensor:
        return run.prediction


@dataclass(frozen=True, repr=False)
class activation(Expr):
    """A layer's map, (N, C, *spatial); None is the last layer that is a place for one.

    With ``spatial=False`` the output as it is; with None a map, or what a layer without places gives, such as (N, F),
    as the layer's ``gradient`` is laid out. ``LayerAt(layer, call=2)`` is a layer's second call.
    """

    called: ClassVar[str] = "cnnviz.activation"  # the name alone is a method's

    layer: Layer = None
    spatial: bool | None = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", frozen(self.layer))

    def compute(self, run: Run) -> Tensor:
        if self.spatial is None and not run.layers.choice.is_place(run.layers.at(self.layer)):
            values = run.activation(self.layer, spatial=False)
            if values.shape[2:].numel() == 1:
                return values
        return run.activation(self.layer, spatial=self.spatial is not False)

    def plan(self) -> Plan:
        layer = self.layer
        if self.spatial is False:
            layer = replace(layer, layout="raw") if isinstance(layer, LayerAt) else LayerAt(layer, layout="raw")
        return Plan(layers=frozenset({layer}))

    def automatic(self) -> bool:
        return is_automatic(self.layer)


@dataclass(frozen=True, repr=False)
class gradient(Expr):
    """The score's gradient at the input, or at a layer's map (None: the last layer with one), under a rule."""

    called: ClassVar[str] = "cnnviz.gradient"  # the name alone is a method's

    layer: Layer | InputPlace = INPUT
    rule: Rule = PLAIN

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", frozen(self.layer))

    def compute(self, run: Run) -> Tensor:
        return run.gradient(self.layer, self.rule)

    def plan(self) -> Plan:
        return Plan(gradients=frozenset({(self.rule, self.layer)}))

    def automatic(self) -> bool:
        return is_automatic(self.layer)


@dataclass(frozen=True, repr=False)
class bias_maps(Expr):
    """Sum of what ``each`` makes of every spatial gradient x implicit bias, (N, 1, *spatial) at the input's size."""

    called: ClassVar[str] = "bias_maps"

    each: Callable[[Tensor], Tensor]

    def compute(self, run: Run) -> Tensor:
        if not run.model_inputs.size:
            raise ValueError(f"the input is {tuple(run.inputs.shape)}, without spatial extent: a map has no place")
        total = torch.zeros_like(run.inputs[:, :1])
        for term in run.bias_gradients():
            if term.ndim == run.inputs.ndim and term.ndim > 2 and len(term) == len(total):
                total = total + resize(self.each(term), run.inputs.shape[2:], "corners")
        return total

    def plan(self) -> Plan:
        return Plan(gradients=frozenset({(PLAIN, INPUT)}), biases=True)


@dataclass(frozen=True, repr=False)
class bias_share(Expr):
    """What the implicit biases of all operations add to the score, (N,)."""

    called: ClassVar[str] = "bias_share"

    def compute(self, run: Run) -> Tensor:
        items = len(run.inputs)
        shares = [term.reshape(items, -1).sum(1, dtype=torch.float64) for term in run.bias_gradients()]
        return torch.stack(shares).sum(0) if shares else run.inputs.new_zeros(items, dtype=torch.float64)

    def plan(self) -> Plan:
        return Plan(gradients=frozenset({(PLAIN, INPUT)}), biases=True)


@dataclass(frozen=True, repr=False)
class procedure(Expr):
    """A step that no formula expresses: any function of the run.

    ``needs`` are formulas whose parts it will ask for, ``elsewhere`` those that it will ask for at other inputs.
    ``variants`` says that it asks for many variants of the inputs, as by ``run.scores_of``.
    """

    func: Callable[[Run], Tensor]
    needs: tuple[Expr, ...] = ()
    elsewhere: tuple[Expr, ...] = ()
    variants: bool = False

    def compute(self, run: Run) -> Tensor:
        return self.func(run)

    def plan(self) -> Plan:
        return plan(*self.needs) | Plan(again=True, variants=self.variants)

    def text(self, write: Callable[[Any], str]) -> str:
        return f"procedure({write(self.func)})"


@dataclass(frozen=True, repr=False)
class upsample(Expr):
    """A coarse map at the input's size; ``mode`` is "linear" (of whatever rank), "corners" or "nearest"."""

    called: ClassVar[str] = "upsample"

    of: Expr
    mode: Literal["linear", "nearest", "corners"] = "linear"

    def compute(self, run: Run) -> Tensor:
        size = run.model_inputs.size
        if not size:
            raise ValueError(
                f"the input is {tuple(run.inputs.shape)}, without spatial extent: a map has no place there"
            )
        values = self.of(run)
        run.layers.check_over_input()
        return resize(values, size, self.mode)


@dataclass(frozen=True, repr=False)
class at(Expr):
    """The formula's value at another input, given as a formula (N, C, *spatial)."""

    called: ClassVar[str] = "at"

    of: Expr
    inputs: Expr

    def compute(self, run: Run) -> Tensor:
        return self.of(run.at(self.inputs(run), plan(self.of)))

    def plan(self) -> Plan:
        return plan(self.inputs)


@dataclass(frozen=True, repr=False)
class toward(Expr):
    """The formula's value for another class: a number, name or formula (N,), as ``prediction()``; or an objective."""

    called: ClassVar[str] = "toward"

    of: Expr
    target: int | str | Expr | Objective

    def compute(self, run: Run) -> Tensor:
        if isinstance(self.target, Objective):
            return self.of(run.toward(self.target, plan(self.of)))
        if isinstance(self.target, Expr):
            indices = self.target(run)
        else:
            number = class_index(self.target, run.options.categories)
            indices = torch.full((len(run.inputs),), number, device=run.inputs.device)
        # where values are not read, the gradient of a class that is the same is taken once more
        if run.target is not None and reads_at_once() and torch.equal(indices, run.target):
            return self.of(run)
        return self.of(run.toward(indices, plan(self.of)))

    def plan(self) -> Plan:
        layers = self.target.layers if isinstance(self.target, Objective) else frozenset()
        return super().plan() | Plan(score_layers=layers, again=True)

    def recipe(self, run: Run) -> str:
        """The formula as code, with the class by its name where that is known and no other class has it."""
        names, number = run.options.categories or (), self.target
        if not isinstance(number, int) or not 0 <= number < len(names) or names.count(names[number]) > 1:
            return super().recipe(run)
        return replace(self, target=names[number]).text(writer(run))


@dataclass(frozen=True, repr=False)
class noted(Expr):
    """The formula's value; on the way, ``note`` (N,) is measured and told with the explanation under ``name``."""

    called: ClassVar[str] = "noted"

    of: Expr
    name: str
    note: Expr

    def compute(self, run: Run) -> Tensor:
        if run.copies == 1:  # nobody reads what is noted of variants
            run.notes[self] = self.note(run)
        return self.of(run)
