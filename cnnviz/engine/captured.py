"""A computation on a device, captured once in a graph of kernels and replayed for other values in the same tensors.

While a graph is captured nothing is computed, so that no value can be read; while it is replayed no Python runs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")


class Graph(Protocol):
    """What captures and replays kernels."""

    def warmed(self, compute: Callable[[], T]) -> T:
        """Compute once as it will be captured: libraries choose their kernels and take their memory."""

    def capturing(self) -> AbstractContextManager[object]:
        """What is computed inside is captured. Raises RuntimeError where a value is read."""

    def replay(self) -> None:
        """Compute what was captured, with the values that its tensors hold now."""


class CudaGraph:
    """A CUDA graph, with memory of its own, which is given back when it goes."""

    def __init__(self, device: torch.device):
        self.device, self._graph = device, torch.cuda.CUDAGraph()

    def warmed(self, compute: Callable[[], T]) -> T:
        # as torch asks for: the default stream can't be captured
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]  # torch has no types there
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            found = compute()
        torch.cuda.current_stream(self.device).wait_stream(side)
        return found

    def capturing(self) -> AbstractContextManager[object]:
        # other threads may use the device meanwhile
        return torch.cuda.graph(self._graph, capture_error_mode="thread_local")

    def replay(self) -> None:
        self._graph.replay()


def graph_on(device: torch.device) -> Graph | None:
    """A graph for this device; None where kernels can't be captured."""
    return CudaGraph(device) if device.type == "cuda" else None
