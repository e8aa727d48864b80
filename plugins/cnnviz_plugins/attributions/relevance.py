"""Layer-wise relevance propagation: the score divided among what made it, operation by operation, back to the input.

What is carried back is relevance over value, so that residual sums, concatenations and forks are right as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from cnnviz import Expr, Layer, Rule, Run, activation, attribution, gradient, image, lift, noted, procedure, score
from cnnviz.formulas import MapWarning, reported_relevance, require, tell_if
from cnnviz.objectives import Objective
from cnnviz_plugins.attributions._completeness import with_completeness_gap
from cnnviz_plugins.attributions._layer_settings import layer_at, of_layers
from cnnviz_plugins.relevance.composites import Attended, Biases, Products, named, rule_of
from cnnviz_plugins.relevance.composites import composite as Composite
from cnnviz_plugins.relevance.rules import contrasted, divided, negated, z_box, z_plus

Start = Literal["score", "one_hot", "clrp1", "clrp2", "sglrp"]
Rules = Annotated[str | Composite, "which layers follow which rule: epsilon_plus, epsilon_gamma_box, ..."]
Kept = Annotated[Literal["absorb", "ignore"], "whether biases take relevance, or are left out"]
Taken = Annotated[Biases, "whether biases take relevance, are left out, or have maps of their own"]
Split = Annotated[Products, "what a product of two branches gives to a gate: nothing, or half"]
Attention = Annotated[Attended, "whether the shares of an attention get relevance, or count as constants"]
Gamma = Annotated[float, "by how much more contributions of the output's sign count"]
Against = Annotated[bool, "take away what the opposite of the class gives"]
Bound = Annotated[float | None, "lowest or highest value of the input, in the model's units"]


@attribution(renderer="grayscale")
def lrp(
    composite: Rules = "epsilon_plus",
    layer: Layer = None,
    bias: Taken = "absorb",
    product: Split = "gate",
    start: Start = "score",
    epsilon: float = 1e-6,
    gamma: Gamma = 0.25,
    low: Bound = None,
    high: Bound = None,
    attention: Attention = "attn_lrp",
) -> Expr:
    """Each value's part of the score, by layer-wise relevance propagation (Bach et al., 2015).

    Values (N, C, *spatial) in units of the score (doi:10.1371/journal.pone.0130140). ``composite`` says which layers
    follow which rule: "epsilon_plus", "epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat", or a ``composite(first=..., conv=..., linear=...)`` of rules. ``epsilon`` and ``gamma``
    are those of the named ones, ``low`` and ``high`` the bounds of z_box in the model's units; None takes black and
    white. Biases absorb relevance; ``bias="ignore"`` leaves them out of every division, "report" tells what they and
    the stabilizer took, as the notes ``relevance_of_biases`` and ``relevance_of_stabilizer`` (N, 1, *spatial), whose
    sums complete the score. Of a ``product`` of two branches the gate gets nothing, or with "halves" both the same.
    ``start`` is the relevance of the outputs: the "score", "one_hot" (one in its place), "clrp1", "clrp2" (Gu et al.,
    2018, arXiv:1812.02100; the first with z_plus for epsilon in the last layer) or "sglrp" (Iwana et al., 2019,
    arXiv:1908.04351), which set the class against the others.
    In an ``attention`` the shares get half of what they and the values give, with "attn_lrp" (Achtibat et al., 2024,
    arXiv:2402.05602), or are constants, with "cp_lrp" (Ali et al., 2022, arXiv:2202.07304), so that queries and keys
    get nothing.
    With ``layer`` values are those of the layer's output. The note ``completeness_gap`` (N,) is the sum of the values,
    and of what is reported, minus the score. Warns where less than half of the score reaches the input, and without
    biases less than 0.9. Raises ValueError for a composite, bounds or a start that can't be had, LookupError for a
    network without such layers.
    """
    of = composite_of(composite, epsilon, gamma, low, high)
    if layer is not None:
        if bias == "report":
            raise ValueError("lrp: bias='report' tells of all layers down to the input; leave layer out")
        return _layer_relevance(of, layer_at(layer), bias, product, start, attention)
    last = divided if start == "clrp1" else None
    rule = rule_of(of, bias, product, last, must_act=not isinstance(composite, str), attention=attention)
    values, told = of_input(rule), of_input(rule)
    for name in ("biases", "stabilizer") if bias == "report" else ():
        share = reported_relevance(rule, name, biases=True)
        values, told = noted(values, f"relevance_of_{name}", share), _summed(told, share)
    values = values if bias == "report" else _watched(values, score(), bias)
    values = with_completeness_gap(values, score(), told)
    return _started(values, start, lambda: of_input(rule_of(of, bias, product, negated, attention=attention)))


@attribution(renderer="channels")
def layer_relevance(
    layer: Layer = None,
    composite: Rules = "epsilon_plus",
    bias: Kept = "absorb",
    product: Split = "gate",
    start: Start = "score",
    epsilon: float = 1e-6,
    gamma: Gamma = 0.25,
    call: int | None = None,
    attention: Attention = "attn_lrp",
) -> Expr:
    """Each value's part of the score in a layer's output, by layer-wise relevance propagation (Bach et al., 2015).

    Values (N, channels, *spatial) at the layer's size, or of features (N, F, 1, 1), in units of the score
    (doi:10.1371/journal.pone.0130140). Other settings are those of ``lrp``; ``call`` is the number of a call, from 1,
    where several reach the score. The note ``completeness_gap`` (N,) is the sum of the values minus the score: what
    biases behind the layer took, and other branches have. Raises LookupError for a layer that does not exist or did not
    run.
    """
    of = composite_of(composite, epsilon, gamma)
    return _layer_relevance(of, layer_at(layer, call=call), bias, product, start, attention)


@attribution
@of_layers
def lrp_cam(layer: Layer = None, composite: Rules = "epsilon_plus", bias: Kept = "absorb", relu: bool = False) -> Expr:
    """Channels weighted by the sum of their relevance, as ``lrp`` divides the score (Bach et al., 2015).

    Map (N, 1, *spatial) at the layer's size (doi:10.1371/journal.pone.0130140). ``relu`` keeps the positive part.
    """
    return _cam(layer, composite, bias, "score", relu)


@attribution
@of_layers
def relevance_cam(
    layer: Layer = None, composite: Rules = "epsilon_plus", bias: Kept = "absorb", relu: bool = False
) -> Expr:
    """Channels weighted by their relevance for the class, less that for all others (Lee et al., 2021).

    Map (N, 1, *spatial) at the layer's size (doi:10.1109/CVPR46437.2021.01470). ``relu`` keeps the positive part, as
    the paper does. A target that is no class has no others to take away.
    """
    return _cam(layer, composite, bias, "clrp2", relu)


@attribution
@of_layers
def excitation_backprop(layer: Layer = None, contrastive: Against = False) -> Expr:
    """How likely each place is to have excited the class, by positive weights alone (Zhang et al., 2016).

    Map (N, 1, *spatial) at the layer's size, which sums to one (arXiv:1608.00507). ``contrastive`` takes away what
    the same way from the opposite of the class gives, where less is left.
    """
    rule = rule_of(Composite(conv=z_plus(), linear=z_plus()), "ignore", "gate", contrasted if contrastive else None)
    relevance = activation(layer) * gradient(layer, rule)
    return _per_score(_over_channels(relevance), score())


def composite_of(
    of: str | Composite, e: float, factor: float, low: float | None = None, high: float | None = None
) -> Composite:
    """The composite of a name with these settings, or that which is given. Raises TypeError, ValueError for another."""
    if not isinstance(of, str | Composite):
        raise TypeError(f"composite is a {type(of).__name__}; give a name, or composite(conv=..., linear=...)")
    found = named(of, e, factor, low, high) if isinstance(of, str) else of
    if (low, high) != (None, None) and not (isinstance(of, str) and isinstance(found.first, z_box)):
        raise ValueError(
            "low and high are those of z_box in a composite of a name, such as epsilon_gamma_box; leave them out, or "
            "give z_box(low, high)"
        )
    return found


def of_input(rule: Rule) -> Expr:
    """The relevance of the input, (N, C, *spatial), by a rule of relevance."""
    values = image() * gradient(rule=rule)
    if not rule.follows:
        return values
    blind = _only_way(reported_relevance(rule, "blind"), gradient(rule=rule))
    return values + reported_relevance(rule, "input") + blind


def _layer_relevance(
    of: Composite, layer: Layer, bias: Biases, product: Products, start: Start, attention: Attended
) -> Expr:
    def values(rule: Rule) -> Expr:
        return _of_rank(activation(layer, spatial=None) * gradient(layer, rule), image())

    last = divided if start == "clrp1" else None
    plain = with_completeness_gap(values(rule_of(of, bias, product, last, attention=attention)), score())
    return _started(plain, start, lambda: values(rule_of(of, bias, product, negated, attention=attention)))


def _cam(layer: Layer, composite: str | Composite, bias: Biases, start: Start, relu: bool) -> Expr:
    rule = rule_of(composite_of(composite, 1e-6, 0.25), bias, "gate")
    values = activation(layer) * gradient(layer, rule)
    relevance = _started(values, start, lambda: values, of_class=False)
    cam = _over_channels(_sum(relevance) * activation(layer))
    return cam.relu() if relu else cam


@lift
def _of_rank(values: Tensor, like: Tensor) -> Tensor:
    """The values; features (N, F) with as many spatial dimensions of length one as the input has."""
    return values.reshape(*values.shape, *(1,) * (like.ndim - values.ndim))


@lift
def _over_channels(values: Tensor) -> Tensor:
    return values.sum(1, keepdim=True)


@lift
def _sum(values: Tensor) -> Tensor:
    return values.sum(tuple(range(2, values.ndim)), keepdim=True)


@lift
def _summed(values: Tensor, more: Tensor) -> Tensor:
    """Values and a map as one column of numbers, (N, F)."""
    return torch.cat([values.flatten(1), more.flatten(1)], 1)


@lift
def _per_score(values: Tensor, score: Tensor) -> Tensor:
    """Values for a relevance of one in the place of the score; all of them are zero where the score is."""
    return values / torch.where(score == 0, 1, score).reshape(-1, *(1,) * (values.ndim - 1))


@lift
def _only_way(blind: Tensor, grad: Tensor) -> Tensor:
    require(~(blind.any() & grad.any()), _refuse)
    return blind


def _refuse() -> None:
    raise ValueError(
        "the input also reaches a later layer than the first, where flat and w_square say nothing; give the first "
        "layer another rule, such as z_box or gamma"
    )


_GAMMA = "a composite with gamma"


@lift
def _watched(values: Tensor, score: Tensor, bias: str) -> Tensor:
    """The values; of a score that mostly was lost on the way it is told."""
    total = values.flatten(1).double().sum(1)
    share = total / torch.where(score == 0, 1, score.double())
    enough, ways = (0.9, _GAMMA) if bias == "ignore" else (0.5, f"bias='ignore', or {_GAMMA}")

    def text() -> str:
        return (
            f"only {float(share.min()):.2g} of the score reaches the input, as biases, softmaxes and the stabilizer "
            f"took the rest; try {ways}, and bias='report' for a map of what they took"
        )

    tell_if((share < enough).any() & values.any(), text, MapWarning)  # of zeros it is told anyway
    return values


def _started(values: Expr, start: Start, opposite: Callable[[], Expr], of_class: bool = True) -> Expr:
    """The values for another relevance of the outputs than the score itself.

    Without a class an error is raised ``of_class``, or the score taken.
    """
    if start == "score":
        return values
    if start == "one_hot":
        return _per_score(values, score())
    if start == "clrp1":
        return values - opposite()
    if start not in ("clrp2", "sglrp"):
        raise ValueError(f"there is no start {start!r}; it is score, one_hot, clrp1, clrp2 or sglrp")

    def from_classes(run: Run) -> Tensor:
        target = run.target
        if target is None and not of_class:
            return values(run)
        if target is None:
            raise ValueError(
                f"start={start!r} is about classes, and the target is none; give a class, or another start"
            )
        found: Tensor = values(run.toward(_Contrast(start, target), same_layers=True))
        return found

    return procedure(from_classes, needs=(values,))


@dataclass(frozen=True)
class _Contrast(Objective):
    """A sum of scores whose relevance is that of the class, less that of all others."""

    start: str
    target: Tensor = field(compare=False)
    """(N,)."""

    def __call__(self, seen: Any, /) -> Tensor:
        output = seen.output.reshape(len(seen.output), -1)
        scores, target = output.detach(), self.target.repeat(len(output) // len(self.target))
        if scores.shape[1] == 1:  # -1 speaks against the only class
            alone: Tensor = output[:, 0] * torch.where(target < 0, -1, 1)
            return alone
        own = torch.zeros_like(scores).scatter(1, target[:, None], 1.0)
        if self.start == "clrp2":
            relevance = scores.gather(1, target[:, None]) * (own - (1 - own) / (scores.shape[1] - 1))
        else:
            likely = scores.softmax(1)
            relevance = likely.gather(1, target[:, None]) * (own - likely)
        total: Tensor = (output * torch.where(scores == 0, 0, relevance / torch.where(scores == 0, 1, scores))).sum(1)
        return total

    @property
    def reads_output(self) -> bool:
        return True
