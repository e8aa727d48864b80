"""Forward passes handed to torch.compile; what it can't compile is said in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cnnviz.engine.agreement import outputs_agree
from cnnviz.engine.forward import forward
from cnnviz.engine.model_inputs import AnyInputs
from cnnviz.engine.nested import tensors


@dataclass(frozen=True, eq=False)
class Compiled:
    """What torch.compile made of a model."""

    call: Callable[..., Any]
    name: str
    backend: str

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Around a call: RuntimeError where torch can't compile the model."""
        from torch._dynamo.exc import TorchDynamoException

        try:
            yield
        except TorchDynamoException as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise RuntimeError(
                f"{self.name} can't be compiled by {self.backend}: {reason}; leave compile out"
            ) from error


def compiled(model: nn.Module, inputs: AnyInputs, how: bool | str) -> Compiled | None:
    """The compiled model, compared with the model on these inputs; None for ``how=False``.

    torch keeps what it compiled for the next question. Raises LookupError for a backend that does not exist,
    RuntimeError where it can't compile the model, ValueError where the compiled model answers differently.
    """
    if how is False:
        return None
    import torch._dynamo as dynamo

    backend = "inductor" if how is True else how
    known = dynamo.list_backends(exclude_tags=())
    if backend not in known:
        raise LookupError(f"torch.compile has no backend {backend!r}; there are {', '.join(known)}")
    compiled = Compiled(torch.compile(model, backend=backend), type(model).__name__, backend)
    vars(model).pop("_is_torch_compile", None)  # which torch leaves on whatever it compiles
    plain = forward(model, inputs)
    if not any(True for _ in tensors(plain)):
        kind = type(plain).__name__
        raise ValueError(f"{compiled.name} gives a {kind} without tensors that can be compared; leave compile out")
    if not outputs_agree(forward(model, inputs, modes=[compiled.failures()], compiled=compiled.call), plain):
        raise ValueError(f"{compiled.name} answers differently when compiled by {backend}; leave compile out")
    return compiled
