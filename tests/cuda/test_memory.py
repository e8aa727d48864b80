"""Where the device's memory runs out, smaller chunks give the same answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnnviz import explain

MANY: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 48},
    "smoothgrad": {"samples": 48},
    "score_cam": {"layer": "0"},
}
ROOM = 384 * 2**20
"""Bytes of the smaller device: some variants of what is asked, and not all together."""


def wide() -> nn.Sequential:
    """A network whose maps of 256 x 256 take 16 MB for each input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolutions = nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 8, 3, padding=1), nn.ReLU()
        return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 3)).eval()


def asked(name: str, device: torch.device) -> Tensor:
    inputs = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(3))
    return explain(wide().to(device), inputs.to(device), name, target=1, seed=2, **MANY[name]).values


@pytest.fixture
def little_memory(device: torch.device) -> Iterator[Callable[[], None]]:
    """Leaves this process ``ROOM`` beside what it holds already, until the test ends."""

    def shrink() -> None:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + ROOM) / total, device)

    yield shrink
    torch.cuda.set_per_process_memory_fraction(1.0, device)
    torch.cuda.empty_cache()


@pytest.mark.parametrize("name", MANY)
def test_smaller_chunks_give_the_same(name: str, little_memory: Callable[[], None], device: torch.device) -> None:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    expected = asked(name, device)
    assert torch.cuda.max_memory_allocated(device) - before > ROOM
    little_memory()
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(ROOM + 2**27, dtype=torch.uint8, device=device)
    found = asked(name, device)
    assert torch.cosine_similarity(found.flatten(), expected.flatten(), 0) >= 1 - 1e-5


def test_one_input_that_does_not_fit_is_told(little_memory: Callable[[], None], device: torch.device) -> None:
    inputs = torch.zeros(1, 3, 2048, 2048, device=device)  # whose first maps take 1 GiB
    model = wide().to(device)
    little_memory()
    with pytest.raises(torch.OutOfMemoryError):
        explain(model, inputs, "integrated_gradients", target=1)
