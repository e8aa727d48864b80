"""Operations that no function mode sees, such as those of TorchScript or of an extension."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class UnseenOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its hook for subclasses
    """Detects operations that no function mode sees, such as those of TorchScript or of an extension."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inside = 0
        """Greater than zero while a function runs that was seen."""
        self.found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found = self.found or not self.inside
        return func(*args, **(kwargs or {}))

    def __exit__(self, *error: Any) -> None:
        places = range(torch._C._len_torch_dispatch_stack())
        if not any(torch._C._get_dispatch_stack_at(place) is self for place in places):
            torch._C._push_on_torch_dispatch_stack(self)  # an interruption inside of torch took it off already
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def aside(self) -> Aside:
        """A context in which operations are not those of the model."""
        return Aside(self)


class Aside:
    """Inside, no function mode sees operations, and they do not count as unseen."""

    def __init__(self, unseen: UnseenOperations):
        self.unseen, self.unobserved = unseen, torch._C.DisableTorchFunction()

    def __enter__(self) -> None:
        self.unseen.inside += 1
        self.unobserved.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.unobserved.__exit__(*error)
        self.unseen.inside -= 1
