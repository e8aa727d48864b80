"""Tiny networks in float64, few enough numbers to be worked out by hand, and the slow ways to do so."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
SIZES = {1: (8,), 2: (5, 6), 3: (4, 3, 4)}


def randomized(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64 and eval mode, every number in it drawn anew, batch norm's statistics too."""
    generator = torch.Generator().manual_seed(seed)
    for name, values in module.double().eval().state_dict().items():
        if values.is_floating_point():
            drawn = torch.randn(values.shape, generator=generator, dtype=torch.float64)
            values.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else 0.7 * drawn)
    return module


def tiny_inputs(rank: int = 2, items: int = 2, channels: int = 2, seed: int = 1) -> Tensor:
    """Noise (N, C, *spatial) in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(items, channels, *SIZES[rank], generator=generator, dtype=torch.float64)


class AveragingNet(nn.Module):
    """Ends as CAM wants it: the last maps averaged over space, then a linear layer."""

    def __init__(self, rank: int = 2, channels: int = 2, classes: int = 3):
        super().__init__()
        self.first = CONV[rank](channels, 3, 3, padding=1)
        self.norm = NORM[rank](3)
        self.early = nn.ReLU(inplace=True)
        self.pool = POOL[rank](2)
        self.second = CONV[rank](3, 4, 3, padding=1)
        self.late = nn.ReLU()
        self.head = nn.Linear(4, classes)
        randomized(self, seed=rank)

    def maps(self, x: Tensor) -> Tensor:
        return self.late(self.second(self.pool(self.early(self.norm(self.first(x))))))

    def classify(self, maps: Tensor) -> Tensor:
        return self.head(maps.mean(tuple(range(2, maps.ndim))))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.maps(x))


class FlatteningNet(nn.Module):
    """Ends in two linear layers on every place of the last maps, so that its gradient differs from place to place."""

    def __init__(self, rank: int = 2, channels: int = 2, classes: int = 3):
        super().__init__()
        self.first = CONV[rank](channels, 3, 3, padding=1)
        self.late = nn.ReLU()
        self.hidden = nn.LazyLinear(5)
        self.head = nn.Linear(5, classes)
        self(torch.zeros(1, channels, *SIZES[rank]))
        randomized(self, seed=10 + rank)

    def maps(self, x: Tensor) -> Tensor:
        return self.late(self.first(x))

    def classify(self, maps: Tensor) -> Tensor:
        return self.head(self.hidden(maps.flatten(1)).relu())

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.maps(x))


class LinearNet(nn.Module):
    """One linear layer on all values."""

    def __init__(self, rank: int = 2, channels: int = 2, classes: int = 3):
        super().__init__()
        self.head = nn.LazyLinear(classes)
        self(torch.zeros(1, channels, *SIZES[rank]))
        randomized(self, seed=20 + rank)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


class PowerNet(nn.Module):
    """Scores are weighted sums of a power of the input: gradients are known in closed form, (classes, C, *spatial)."""

    def __init__(self, power: int, rank: int = 2, channels: int = 2, classes: int = 3):
        super().__init__()
        self.power = power
        self.weight = nn.Parameter(torch.zeros(classes, channels, *SIZES[rank]))
        randomized(self, seed=30 + power)

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, None] ** self.power * self.weight).flatten(2).sum(2)


def scores(model: Callable[[Tensor], Tensor], target: list[int]) -> Callable[[Tensor], Tensor]:
    """The scores that are explained, as a function of what goes into the model."""

    def score(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.stack([row[index] for row, index in zip(model(x), target, strict=True)])

    return score


def slopes(score: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-6) -> Tensor:
    """The gradient of each item's score by central differences, one value moved at a time."""
    found = torch.zeros(len(x), x[0].numel(), dtype=torch.float64)
    for place in range(found.shape[1]):
        move = torch.zeros_like(found)
        move[:, place] = step
        move = move.view_as(x)
        found[:, place] = (score(x + move) - score(x - move)) / (2 * step)
    return found.view_as(x)


def dense(layer: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """An affine layer as a matrix (outputs, inputs) and a bias (outputs,), column by column."""
    with torch.no_grad():
        bias = layer(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
        columns = []
        for place in range(torch.Size(shape).numel()):
            unit = torch.zeros(torch.Size(shape).numel(), dtype=torch.float64)
            unit[place] = 1
            columns.append(layer(unit.view(1, *shape)).flatten() - bias)
    return torch.stack(columns, 1), bias
