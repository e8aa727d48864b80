"""The pictures of signals and volumes: two networks are trained on noise with a narrow or a wide bump somewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import cnnviz
from cnnviz.drawing import Layout, fitted, laid_out

RANKED = {"line": 1, "projection": 3, "slices": 3}
METHODS = {"line": ("layer_cam", "integrated_gradients"), "projection": ("layer_cam",), "slices": ("layer_cam",)}
WIDEST = 1000


class BumpNet(nn.Module):
    """Tells the class of a bump in a signal or a volume."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        conv: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        self.body = nn.Sequential(
            conv(1, 16, 5, padding=2), nn.ReLU(), conv(16, 32, 5, stride=2, padding=2), nn.ReLU(),
            conv(32, 32, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(32, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(inputs).flatten(2).mean(2))
        return scores


def bumps(count: int, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with a narrow bump (class 0) or a wide one (class 1) somewhere."""
    generator = torch.Generator().manual_seed(seed)
    size = 160 if rank == 1 else 24
    labels = torch.randint(2, (count,), generator=generator)
    widths = torch.where(labels == 0, 0.02, 0.05) * (1 if rank == 1 else 2.5)
    axis = torch.linspace(0, 1, size)
    total = torch.zeros(count, *(1,) * rank)
    for dim in range(rank):
        centre = 0.2 + 0.6 * torch.rand(count, 1, generator=generator)
        shape = [count, *(size if other == dim else 1 for other in range(rank))]
        total = total + (((axis - centre) / widths[:, None]) ** 2).view(shape)
    noise = 0.15 * torch.randn(count, 1, *(size,) * rank, generator=generator)
    return torch.exp(-total / 2)[:, None] + noise, labels


def trained(rank: int) -> BumpNet:
    torch.manual_seed(0)
    network = BumpNet(rank)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(200 if rank == 1 else 60):
        inputs, labels = bumps(32, rank, seed=step)
        optimizer.zero_grad()
        F.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
    return network.eval()


def draw(write: Callable[[str, NDArray[np.uint8]], None]) -> None:
    for renderer, rank in RANKED.items():
        inputs, labels = bumps(1, rank, seed=1000)
        answers = cnnviz.explain(
            trained(rank), inputs, METHODS[renderer], target=labels, categories=["narrow bump", "wide bump"]
        )
        figures = [fitted(answer.render(renderer)[0], WIDEST) for answer in answers.values()]
        rows = [[([name], figure)] for name, figure in zip(answers, figures, strict=True)]
        write(renderer, laid_out(rows, Layout(gap=8)))
