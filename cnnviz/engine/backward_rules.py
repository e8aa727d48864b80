"""What a rule is: it replaces the gradient of an operation, wherever a model calls that operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from cnnviz.engine.operations import Operation, canonical


class Call:
    """One operation as it ran, when its gradient arrives."""

    def __init__(
        self,
        inputs: Sequence[Tensor],
        output: Tensor,
        vjps: Callable[[Tensor], tuple[Tensor, ...]],
        again: Callable[..., Call],
    ):
        self.inputs = tuple(inputs)
        """Those of its arguments that come from the model's input, weights and constants left out."""
        self.output = output
        self.vjps = vjps
        """The operation's ordinary backward: from the gradient of its output to those of all its inputs."""
        self.again = again
        """The same operation at other inputs, as many as there are, weights and constants as they were: a call."""

    @property
    def input(self) -> Tensor:
        """The operand, of any shape such as (N, C, *spatial); the first where there are several."""
        return self.inputs[0]

    def vjp(self, grad: Tensor) -> Tensor:
        """The operation's ordinary backward: from the gradient of its output, of the same shape, to that of its input.

        That is the first one where there are several.
        """
        return self.vjps(grad)[0]


Backward = Callable[[Call, Tensor], "Tensor | Sequence[Tensor]"]


@dataclass(frozen=True, eq=False)
class Rule:
    """What each listed operation does to a gradient, instead of its ordinary backward."""

    name: str
    backwards: Mapping[Operation, Backward]
    reads_input: bool = True
    """False spares a copy where the rule needs only ``call.output`` and ``call.vjp``."""
    otherwise: str | None = ""
    """What to say to a user whose network has none of the operations; None: there, the plain gradient is meant."""

    def __repr__(self) -> str:
        return self.name


PLAIN = Rule("plain", {})


def rule(
    *operations: Operation, reads_input: bool = True, otherwise: str | None = "", name: str | None = None
) -> Callable[[Backward], Rule]:
    """Make a rule of one backward function ``(call, gradient) -> gradient`` for all of ``operations``.

    Where several of an operation's arguments come from the model's input, as in ``x * gate(x)``, it returns a tuple:
    one gradient for each of ``call.inputs``.
    """

    def make(backward: Backward) -> Rule:
        names = dict.fromkeys((canonical(operation, (), {}) for operation in operations), backward)
        return Rule(name or backward.__name__, names, reads_input, otherwise)

    return make
