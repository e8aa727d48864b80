"""Backward rules: a rule replaces the gradient of an operation wherever a model calls that operation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from cnnviz.engine.operations import Limits, Operation, canonical

Backwards = Callable[[Tensor], tuple[Tensor, ...]]
"""From the gradient of an output to those of all inputs."""


class Call:
    """One call of an operation, as a rule sees it when the gradient of its output arrives."""

    def __init__(
        self,
        inputs: Sequence[Tensor],
        evaluate: Callable[[], tuple[Tensor, Backwards]],
        again: Callable[..., Call],
        limits: Limits | None = None,
        reference: Callable[[], Call] | None = None,
    ):
        self.inputs = tuple(inputs)
        """The arguments that depend on the model's input, without weights and constants."""
        self.again = again
        """The operation at other ``inputs``, with the same weights and constants, as a new call."""
        self.limits = limits
        """Lowest and highest output of a ReLU, ReLU6, hard tanh or clamp, None where there is none; of others None."""
        self._evaluate = evaluate
        self._find_reference = reference

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

    def __post_init__(self) -> None:
        for operation in self.backwards:
            if isinstance(operation, nn.Module | type) or not callable(operation):
                raise TypeError(f"a rule names operations, not modules: {_way_out(operation)}")

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
        names = dict.fromkeys((canonical(operation, (), {}) for operation in operations), backward)
        return Rule(name or backward.__name__, names, reads_input, otherwise)

    return make


def _way_out(module: Any) -> str:
    """Which operation is meant by a module, its class or a name."""
    name = module if isinstance(module, str) else getattr(module, "__name__", type(module).__name__)
    known = {function.replace("_", ""): function for function in dir(F) if function.strip("_") == function}
    spelled = name.lower()
    function = known.get(spelled) or known.get(re.sub(r"[123]d$", "", spelled)) or "relu"
    kinds = ", or RECTIFIERS" if function == "relu" else ""
    return f"for {name} say torch.nn.functional.{function}{kinds}"
