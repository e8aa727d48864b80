"""Failures on purpose: networks that raise in one of their passes, forward or backward."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from cnnviz.testing.nets import SmallNet


class SimulatedError(Exception):
    """Raised inside the model."""


class FailingLayer(nn.Module):
    """The identity. Counts the passes through it, and raises ``error`` from the given one on; 0 is none.

    What fails goes on failing: who asks again in another way meets the error again.

    Args:
        error: an exception, or a type of exception.
        forward: the number of the first forward pass that fails, from 1.
        backward: the number of the first backward pass that fails, from 1.
    """

    def __init__(
        self, error: BaseException | type[BaseException] = SimulatedError, forward: int = 0, backward: int = 0
    ):
        super().__init__()
        self.error, self.fails_at = error, {"forward": forward, "backward": backward}
        self.passes = {"forward": 0, "backward": 0}

    def count(self, way: str) -> None:
        """One more pass ``forward`` or ``backward``. Raises the error in those that fail."""
        self.passes[way] += 1
        if 0 < self.fails_at[way] <= self.passes[way]:
            raise self.error

    def forward(self, x: Tensor) -> Tensor:
        """``x``, of any shape, with a graph that counts and fails on the way back."""
        self.count("forward")
        output = x.clone()
        if output.requires_grad:
            output.register_hook(lambda grad: self.count("backward"))  # type: ignore[no-untyped-call]
        return output


def failing_nets(
    rank: int, passes: dict[str, int], attention: bool = False
) -> Iterator[tuple[SmallNet, type[BaseException], str]]:
    """Networks that raise an exception or an interrupt in the first or the last of so many passes, either way.

    Each comes with its error, and with words for the situation.
    """
    for way, count in passes.items():
        for error in (SimulatedError, KeyboardInterrupt):
            for place in sorted({1, count}) if count else ():
                model = SmallNet(rank, between=FailingLayer(error, **{way: place}), attention=attention)
                yield model, error, f" when {error.__name__} is raised in {way} pass {place}"
