"""Forward passes handed to torch.compile; what it can't compile is said in one line."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Compiled(nn.Module):
    """A model that torch.compile turned into another; raises RuntimeError where that fails."""

    def __init__(self, model: nn.Module, backend: str):
        super().__init__()
        self.name, self.backend = type(model).__name__, backend
        self.inside = torch.compile(model, backend=backend)
        vars(model).pop("_is_torch_compile", None)  # which torch leaves on whatever it is given

    def forward(self, *inputs: Any) -> Any:
        from torch._dynamo.exc import TorchDynamoException

        try:
            return self.inside(*inputs)
        except TorchDynamoException as error:
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise RuntimeError(f"{self.name} can't be compiled by {self.backend}: {said}; leave compile out") from error


def compiled(model: nn.Module, how: bool | str) -> Compiled | None:
    """The model, to be called like it; None where nothing was asked for. torch keeps what it compiled for the next one.

    Raises LookupError for a backend that does not exist.
    """
    if how is False:
        return None
    import torch._dynamo as dynamo

    backend = "inductor" if how is True else how
    known = dynamo.list_backends(exclude_tags=())
    if backend not in known:
        raise LookupError(f"torch.compile has no backend {backend!r}; there are {', '.join(known)}")
    return Compiled(model, backend)
