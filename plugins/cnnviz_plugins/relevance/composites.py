"""Composites: which layers follow which rule of relevance propagation, as data; and the backward rule made of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz import Call, Rule
from cnnviz.formulas import CONVOLUTIONS, MATRIX_PRODUCTS
from cnnviz_plugins.relevance.operations import (
    SUMS,
    Function,
    carried,
    functions,
    layered,
    padded,
    product,
)
from cnnviz_plugins.relevance.rules import (
    LayerRule,
    Shares,
    alpha_beta,
    epsilon,
    flat,
    gamma,
    w_square,
    z_box,
    z_plus,
)

Biases = Literal["absorb", "ignore", "report"]
Products = Literal["gate", "halves"]
Attended = Literal["attn_lrp", "cp_lrp"]


@dataclass(frozen=True)
class composite:
    """A rule for each kind of layer: the ``first`` ones that read the input, convolutions, and linear layers.

    ``depthwise`` is for convolutions of each channel by itself, where they differ; ``operations`` holds pairs of an
    operation, such as ``torch.matmul``, and its rule. Layers without a rule divide by LRP-0.
    """

    called = "composite"

    first: LayerRule | None = None
    conv: LayerRule | None = None
    linear: LayerRule | None = None
    depthwise: LayerRule | None = None
    operations: tuple[tuple[Callable[..., Any], LayerRule], ...] = ()

    def __post_init__(self) -> None:
        operations: dict[Any, Any] = dict(self.operations)
        named = {getattr(operation, "__name__", str(operation)): rule for operation, rule in operations.items()}
        rules = {"conv": self.conv, "linear": self.linear, "depthwise": self.depthwise, "first": self.first}
        if not any((*rules.values(), *named)):
            raise ValueError("composite: it has no rule; give one, such as conv=z_plus(), or linear=epsilon(0)")
        for place, rule in (*named.items(), *rules.items()):
            if rule is not None and (isinstance(rule, type) or not callable(rule)):
                raise TypeError(f"composite: {place} is {rule!r}; give a rule, such as z_plus()")
            if place != "first" and isinstance(rule, flat | w_square | z_box):
                raise ValueError(f"composite: {rule.called} is a rule for the first layer; give it as first")
        one_name_each = Rule("operations", operations).backwards
        object.__setattr__(self, "operations", tuple(one_name_each.items()))

    def of(self, call: Call, operation: Callable[..., Any]) -> LayerRule | None:
        """The rule of a call."""
        if self.first is not None and call.first:
            return self.first
        named = dict(self.operations).get(operation)
        if named is not None or operation not in CONVOLUTIONS:
            return named or self.linear
        groups = call.constant(6, "groups", 1)
        apart = groups > 1 and groups == call.input.shape[1 - call.weight.ndim]
        return (self.depthwise if apart else None) or self.conv


def named(name: str, e: float, factor: float, low: float | None, high: float | None) -> composite:
    """The composite of a name. Raises ValueError for one that there is not."""
    linear = epsilon(e)
    known = {
        "epsilon_plus": composite(conv=z_plus(), linear=linear),
        "epsilon_plus_flat": composite(flat(), z_plus(), linear),
        "epsilon_gamma_box": composite(z_box(low, high), gamma(factor), linear),
        "epsilon_alpha2_beta1": composite(conv=alpha_beta(2, 1), linear=linear),
        "epsilon_alpha2_beta1_flat": composite(flat(), alpha_beta(2, 1), linear),
    }
    if name not in known:
        raise ValueError(f"there is no composite {name!r}; it is {', '.join(known)}, or a composite of rules")
    return known[name]


@cache
def rule_of(
    of: composite,
    bias: Biases = "absorb",
    products: Products = "gate",
    last: Callable[[LayerRule], LayerRule] | None = None,
    must_act: bool = False,
    attention: Attended = "attn_lrp",
) -> Rule:
    """The backward rule of a composite; ``last`` changes the rule of the last layer before the score.

    With ``must_act`` a LookupError is raised where none of its rules is for a layer of the network.
    """
    settings = ("bias", bias, Biases), ("product", products, Products), ("attention", attention, Attended)
    for setting, value, ways in settings:
        if value not in get_args(ways):
            raise ValueError(f"there is no {setting}={value!r}; it is {' or '.join(map(repr, get_args(ways)))}")
    shares, gate = Shares(bias == "ignore", bias == "report"), products == "gate"
    constant = attention == "cp_lrp"

    def backward(operation: Callable[..., Any]) -> Callable[[Call, Tensor], Any]:
        def layer(call: Call, grad: Tensor) -> Any:
            if len(call.inputs) > 1 and operation in _LAYERS:
                return layered(call, grad, shares, gate, constant, _LAYERS[operation])
            if len(call.inputs) > 1:
                added = range(operation in _SUMS and call.constant(0, "input") is None)
                return product(call, grad, shares, False, constant, added)
            chosen = of.of(call, operation)
            if last is not None and call.last:
                return last(chosen or epsilon(0))(call, grad, shares)
            if chosen is not None:
                return chosen(call, grad, shares)
            return epsilon(0)(call, grad, shares) if shares.reports or shares.ignores else NotImplemented

        return layer

    layers = (*CONVOLUTIONS, *MATRIX_PRODUCTS)
    ruled = layers if of.first else (CONVOLUTIONS if of.conv or of.depthwise else ())
    ruled = (*ruled, *(MATRIX_PRODUCTS if of.linear else ()), *dict(of.operations))
    bare: dict[Any, Function] = functions(gate, constant, shares.ignores) | dict(of.operations)
    moving: dict[Any, Function] = {}
    if of.first is not None:  # what the first layers report goes on through the operations before them
        moving = {**dict.fromkeys((torch.add, torch.sub, torch.neg, *bare), carried), F.pad: padded}
    backwards: dict[Any, Any] = {
        operation: partial(_with_shares, function, shares) for operation, function in bare.items()
    }
    return Rule(
        "lrp",
        backwards | {operation: backward(operation) for operation in layers},
        otherwise="name a rule for a kind of layer that it has, such as conv or linear",
        folds=True,
        carried={operation: partial(_with_shares, function, shares) for operation, function in moving.items()},
        lone=frozenset(SUMS) - set(dict(of.operations)),
        follows=of.first is not None or bias == "report",
        counted=frozenset(ruled if must_act else ()),
    )


def _with_shares(function: Callable[..., Any], shares: Shares, call: Call, grad: Tensor) -> Any:
    return function(call, grad, shares)


_SUMS = tuple(operation for operation in MATRIX_PRODUCTS if operation.__name__.startswith(("add", "baddbmm")))
_LAYERS: dict[Callable[..., Any], tuple[str, ...]] = {
    **dict.fromkeys((F.linear, *CONVOLUTIONS), ("input", "weight")),
    F.bilinear: ("input1", "input2", "weight"),
}
"""Layers that add a bias, and the names of their factors."""
