"""Backward rules: a rule replaces the gradient of an operation wherever a model calls that operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from cnnviz.engine.operations import Operation, canonical


class Call:
    """One call of an operation, as a rule sees it when the gradient of its output arrives."""

    def __init__(
        self,
        inputs: Sequence[Tensor],
        output: Tensor,
        vjps: Callable[[Tensor], tuple[Tensor, ...]],
        again: Callable[..., Call],
        reference: Callable[[], Call] | None = None,
    ):
        self.inputs = tuple(inputs)
        """The arguments that depend on the model's input, without weights and constants."""
        self.output = output
        self.vjps = vjps
        """The operation's plain backward: from the gradient of its output to those of all ``inputs``."""
        self.again = again
        """Evaluate the operation at other ``inputs``, with the same weights and constants; returns a new call."""
        self._find_reference = reference
        self._reference: Call | None = None

    @property
    def input(self) -> Tensor:
        """The operand, of any shape such as (N, C, *spatial); the first where there are several."""
        return self.inputs[0]

    def vjp(self, grad: Tensor) -> Tensor:
        """The operation's plain backward: from the gradient of its output, of the same shape, to that of its input.

        That is the first one where there are several.
        """
        return self.vjps(grad)[0]

    @property
    def reference(self) -> Call:
        """The same call in the pass of the reference inputs, such as baselines, of equal shapes.

        Raises ValueError where the gradient was asked for without reference inputs.
        """
        if self._find_reference is None:
            raise ValueError(
                "the rule compares each operation with that of reference inputs, and there are none; "
                "ask for it by cnnviz.formulas.compared"
            )
        if self._reference is None:
            self._reference = self._find_reference()
        return self._reference


Backward = Callable[[Call, Tensor], "Tensor | Sequence[Tensor]"]


@dataclass(frozen=True, eq=False)
class Rule:
    """The backward function of each listed operation, which replaces its plain backward."""

    name: str
    backwards: Mapping[Operation, Backward]
    reads_input: bool = True
    """False spares a copy where the rule needs only ``call.output`` and ``call.vjp``."""
    otherwise: str | None = ""
    """Hint for the LookupError raised if none of the operations lies between score and input; None: no error."""
    compares: bool = False
    """True if it reads ``call.reference``, the same call in a pass of reference inputs."""

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
