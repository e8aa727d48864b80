"""Backward rules: a rule replaces the gradient of an operation wherever a model calls that operation."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from cnnviz.engine.call_site import CallSite
from cnnviz.engine.operations import Limits, Operation, canonical
from cnnviz.engine.weights import Linear

Backwards = Callable[[Tensor], tuple[Tensor, ...]]
"""From the gradient of an output to those of all inputs."""
Change = Callable[[Tensor], Tensor]
"""From a weight or a bias to what takes its place."""


class Weighed(Protocol):
    """An operation with its arguments, as far as rules look at them."""

    @property
    def linear(self) -> Linear:
        """Its weight and bias. Raises LookupError where it has none."""

    def reweighed(self, values: Tensor, weight: Change, bias: Change | None) -> Call:
        """It with other weights, at an operand."""

    def constant(self, place: int, name: str, default: Any) -> Any:
        """An argument that does not come from the input."""

    def linear_part(self, inputs: Sequence[Tensor]) -> Tensor:
        """Its derivative in the direction of these operands, at them."""


class Call:
    """One call of an operation, as a rule sees it when the gradient of its output arrives."""

    def __init__(
        self,
        inputs: Sequence[Tensor],
        evaluate: Callable[[], tuple[Tensor, Backwards]],
        again: Callable[..., Call],
        limits: Limits | None = None,
        reference: Callable[[], Call] | None = None,
        weighed: Weighed | None = None,
        site: CallSite | None = None,
    ):
        self.inputs = tuple(inputs)
        """The arguments that depend on the model's input, without weights and constants."""
        self.again = again
        """The operation at other ``inputs``, with the same weights and constants, as a new call."""
        self.limits = limits
        """Lowest and highest output of a ReLU, ReLU6, hard tanh or clamp, None where there is none; of others None."""
        self._evaluate = evaluate
        self._find_reference = reference
        self._weighed = weighed
        self._site = site

    @property
    def output(self) -> Tensor:
        """What the operation gave, of any shape."""
        return self._evaluated[0]

    def vjps(self, grad: Tensor) -> tuple[Tensor, ...]:
        """The operation's plain backward: from the gradient of its output to those of all ``inputs``, of any shape."""
        return self._evaluated[1](grad)

    @cached_property
    def _evaluated(self) -> tuple[Tensor, Backwards]:
        """The output and its plain backward. A rule that asks for neither does not make the operation run again."""
        return self._evaluate()

    @property
    def input(self) -> Tensor:
        """The operand, of any shape such as (N, C, *spatial); the first where there are several."""
        return self.inputs[0]

    def vjp(self, grad: Tensor) -> Tensor:
        """The operation's plain backward: from the gradient of its output, of the same shape, to that of its input.

        That is the first one where there are several.
        """
        return self.vjps(grad)[0]

    @cached_property
    def reference(self) -> Call:
        """The same call in the pass of the reference inputs, such as baselines, of equal shapes.

        Raises ValueError where the gradient was asked for without reference inputs.
        """
        if self._find_reference is None:
            raise ValueError(
                "the rule compares each operation with that of reference inputs, and there are none; "
                "ask for it by cnnviz.formulas.compared"
            )
        return self._find_reference()

    @property
    def weight(self) -> Tensor:
        """The constant factor of a convolution, a linear layer or a matrix product, of any shape, as it is given.

        Raises LookupError for other operations, and where both factors come from the input.
        """
        return self._linear.weight

    @property
    def bias(self) -> Tensor | None:
        """What such an operation adds, as it broadcasts to the output, (C, 1, 1) or (C,); None where it adds nothing.

        Raises LookupError as ``weight`` does.
        """
        return self._linear.bias

    def with_weights(self, weight: Change, bias: Change | None = None) -> Call:
        """Such an operation at its input with functions of its weight and bias in their place, as a new call.

        Without a function for the bias nothing is added. Raises LookupError as ``weight`` does.
        """
        if self._weighed is None:
            raise _weightless()
        return self._weighed.reweighed(self.input, weight, bias)

    def linear_part(self) -> Tensor:
        """The operation's derivative in the direction of all its inputs, of the same shape as its output.

        What the output has beside it is what the operation adds of its own.
        """
        if self._weighed is None:
            return self.output  # of a rectifier
        return self._weighed.linear_part(self.inputs)

    def constant(self, place: int, name: str, default: Any = None) -> Any:
        """An argument of the operation that does not come from the input, by its place or name."""
        return default if self._weighed is None else self._weighed.constant(place, name, default)

    @property
    def first(self) -> bool:
        """True if no convolution, linear layer or other product with weights lies between the input and this call."""
        return self._found_site.first

    @property
    def last(self) -> bool:
        """True if no convolution, linear layer or other product with weights lies between this call and the score."""
        return self._found_site.last

    @property
    def shares(self) -> tuple[bool, ...]:
        """For each of ``inputs``, True if it comes from the model's input through a softmax only.

        Such are the shares of an attention, also where they are masked, scaled or mixed behind the softmax.
        """
        return self._found_site.shares

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest values that the operand can have, each of the same shape.

        They follow from the preprocessing. Raises ValueError where there is none, or where the model changes its input
        before this call.
        """
        return self._found_site.bounds(self.input)

    def report(self, name: str, values: Tensor, *, at_input: bool = False) -> None:
        """Note relevance that stays here: values of the same shape as the output, or as the input, under a name.

        Relevance of the call's input is carried on to the model's input by the rule's ``carried``.
        ``cnnviz.formulas.reported_relevance`` reads it on the grid of the model's input.
        """
        self._found_site.report(name, values, at_input)

    @property
    def _found_site(self) -> CallSite:
        if self._site is None:
            raise ValueError("this call is none of the pass: it was made again, or for an operation without a rule")
        return self._site

    @cached_property
    def _linear(self) -> Linear:
        """The operation with its weights, which are looked up once."""
        if self._weighed is None:
            raise _weightless()
        return self._weighed.linear


def _weightless() -> LookupError:
    return LookupError("an activation has no weights; they are known of convolutions and linear layers")


Backward = Callable[[Call, Tensor], "Tensor | Sequence[Tensor]"]


@dataclass(frozen=True, eq=False)
class Rule:
    """The backward function of each listed operation, which replaces its plain backward.

    A function may return NotImplemented for a call that is none of its own: then the plain backward is taken.
    """

    name: str
    backwards: Mapping[Operation, Backward]
    reads_input: bool = True
    """False spares a copy where the rule needs only ``call.output`` and ``call.vjp``."""
    otherwise: str | None = ""
    """Hint for the LookupError raised if none of the operations lies between score and input; None: no error."""
    compares: bool = False
    """True if it reads ``call.reference``, the same call in a pass of reference inputs."""
    folds: bool = False
    """True if a batch norm behind a convolution or a linear layer is one operation with it, with merged weights."""
    follows: bool = False
    """True if it reads ``call.first``, or reports something of its calls: then axes are followed from the input on."""
    carried: Mapping[Operation, Backward] = field(default_factory=dict)
    """How what is reported of operands goes on to the model's input, where that is not torch's own backward.

    It acts before the first convolution, linear layer or other product with weights.
    """
    lone: Collection[Operation] = ()
    """Operations that it leaves as they are where several operands come from the input."""
    counted: Collection[Operation] | None = None
    """Operations of which one must lie between score and input where ``otherwise`` is no None; None: any of all."""

    def __post_init__(self) -> None:
        for operation in self.backwards:
            if isinstance(operation, nn.Module | type) or not callable(operation):
                raise TypeError(f"a rule names operations, not modules: {_way_out(operation)}")
        for setting, functions in (("backwards", self.backwards), ("carried", self.carried)):
            named = {canonical(operation, (), {}): backward for operation, backward in functions.items()}
            object.__setattr__(self, setting, named)

    @property
    def must_act(self) -> bool:
        """True if an operation of it has to lie between the score and what is explained."""
        return bool(self.backwards if self.counted is None else self.counted) and self.otherwise is not None

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str | tuple[Any, ...]:
        """The plain rule is one object in every process, known by its identity."""
        return "PLAIN" if self is PLAIN else super().__reduce__()


PLAIN = Rule("plain", {})


def rule(
    *operations: Operation, reads_input: bool = True, otherwise: str | None = "", name: str | None = None
) -> Callable[[Backward], Rule]:
    """Make a rule of one backward function ``(call, gradient) -> gradient`` for all of ``operations``.

    Where several of an operation's arguments come from the model's input, as in ``x * gate(x)``, it returns a tuple:
    one gradient for each of ``call.inputs``.
    """

    def make(backward: Backward) -> Rule:
        return Rule(name or backward.__name__, dict.fromkeys(operations, backward), reads_input, otherwise)

    return make


def _way_out(module: Any) -> str:
    """Which operation is meant by a module, its class or a name."""
    name = module if isinstance(module, str) else getattr(module, "__name__", type(module).__name__)
    known = {function.replace("_", ""): function for function in dir(F) if function.strip("_") == function}
    spelled = name.lower()
    function = known.get(spelled) or known.get(re.sub(r"[123]d$", "", spelled)) or "relu"
    kinds = ", or RECTIFIERS" if function == "relu" else ""
    return f"for {name} say torch.nn.functional.{function}{kinds}"
