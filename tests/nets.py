"""Tiny networks in float64, few enough numbers to be worked out by hand, and the slow ways to do so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

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


class Attending(nn.Module):
    """Places of (N, channels, *spatial) attend to each other, and what they find is added."""

    def __init__(self, channels: int):
        super().__init__()
        self.parts = nn.Linear(channels, 3 * channels)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.parts(x.flatten(2).mT).chunk(3, 2)
        return x + ((query @ key.mT).softmax(2) @ value).mT.reshape(x.shape)


class AveragingNet(nn.Module):
    """Ends as CAM wants it: the last maps averaged over space, then a linear layer.

    With ``attention`` the places of the first maps attend to each other.
    """

    def __init__(self, rank: int = 2, channels: int = 2, classes: int = 3, attention: bool = False):
        super().__init__()
        self.attention = Attending(3) if attention else nn.Identity()
        self.first = CONV[rank](channels, 3, 3, padding=1)
        self.norm = NORM[rank](3)
        self.early = nn.ReLU(inplace=True)
        self.pool = POOL[rank](2)
        self.second = CONV[rank](3, 4, 3, padding=1)
        self.late = nn.ReLU()
        self.head = nn.Linear(4, classes)
        randomized(self, seed=rank)

    def maps(self, x: Tensor) -> Tensor:
        return self.late(self.second(self.attention(self.pool(self.early(self.norm(self.first(x)))))))

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


@dataclass(frozen=True)
class Curve:
    """A rectifier as mathematics: zero (or a slope) below zero, the identity up to a cap."""

    below: float = 0.0
    cap: float = float("inf")

    def value(self, z: Tensor) -> Tensor:
        return torch.where(z > self.cap, self.cap, torch.where(z > 0, z, self.below * z))

    def slope(self, z: Tensor) -> Tensor:
        low = torch.full_like(z, self.below)  # float64, as torch.where of two numbers would not be
        return torch.where(z > self.cap, 0.0, torch.where(z > 0, 1.0, low))


RELU, RELU6, LEAKY = Curve(), Curve(cap=6.0), Curve(below=0.2)
Rectifier = Callable[[Tensor], Tensor]


SPELLINGS: dict[str, tuple[Curve, Callable[[], Rectifier]]] = {
    "nn.ReLU": (RELU, nn.ReLU),
    "nn.ReLU-inplace": (RELU, lambda: nn.ReLU(inplace=True)),
    "F.relu": (RELU, lambda: F.relu),
    "F.relu-inplace": (RELU, lambda: lambda x: F.relu(x, inplace=True)),
    "F.relu-inplace-positional": (RELU, lambda: lambda x: F.relu(x, True)),
    "F.relu-by-name": (RELU, lambda: lambda x: F.relu(input=x)),
    "F.relu_": (RELU, lambda: F.relu_),
    "torch.relu": (RELU, lambda: torch.relu),
    "torch.relu_": (RELU, lambda: torch.relu_),
    "method": (RELU, lambda: lambda x: x.relu()),
    "method-inplace": (RELU, lambda: lambda x: x.relu_()),
    "clamp": (RELU, lambda: lambda x: x.clamp(min=0)),
    "clamp-positional": (RELU, lambda: lambda x: x.clamp(0)),
    "clamp-float": (RELU, lambda: lambda x: torch.clamp(x, min=0.0)),
    "clamp-inplace": (RELU, lambda: lambda x: x.clamp_(min=0)),
    "clamp-by-name": (RELU, lambda: lambda x: torch.clamp(input=x, min=0)),
    "clamp_min": (RELU, lambda: lambda x: x.clamp_min(0)),
    "clip": (RELU, lambda: lambda x: torch.clip(x, min=0)),
    "clip_": (RELU, lambda: lambda x: torch.clip_(x, min=0)),
    "threshold": (RELU, lambda: nn.Threshold(0, 0)),
    "threshold-inplace": (RELU, lambda: nn.Threshold(0, 0, inplace=True)),
    "nn.ReLU6": (RELU6, nn.ReLU6),
    "nn.ReLU6-inplace": (RELU6, lambda: nn.ReLU6(inplace=True)),
    "F.relu6": (RELU6, lambda: F.relu6),
    "F.hardtanh": (RELU6, lambda: lambda x: F.hardtanh(x, 0, 6)),
    "clamp-both": (RELU6, lambda: lambda x: x.clamp(0, 6)),
    "nn.LeakyReLU": (LEAKY, lambda: nn.LeakyReLU(0.2)),
    "nn.LeakyReLU-inplace": (LEAKY, lambda: nn.LeakyReLU(0.2, inplace=True)),
    "F.leaky_relu": (LEAKY, lambda: lambda x: F.leaky_relu(x, 0.2)),
    "F.leaky_relu_": (LEAKY, lambda: lambda x: F.leaky_relu_(x, 0.2)),
    "nn.PReLU": (LEAKY, lambda: nn.PReLU(init=0.2, dtype=torch.float64)),
    "nn.RReLU": (LEAKY, lambda: nn.RReLU(0.1, 0.3)),
}


class Rectified(nn.Module):
    """Affine, rectifier, affine, the same rectifier again, linear."""

    def __init__(self, rank: int, rectify: Rectifier):
        super().__init__()
        self.first = CONV[rank](2, 3, 3, padding=1)
        self.second = nn.Linear(3 * torch.Size(SIZES[rank]).numel(), 7)
        self.head = nn.Linear(7, 3)
        randomized(self, seed=rank)
        with torch.no_grad():
            self.first.weight.mul_(4)  # so that some values pass six
        self.rectify = rectify
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.rectify(self.first(x))
        return self.head(self.rectify(self.second(maps.flatten(1))))


class Residual(nn.Module):
    """One rectifier, in place, used three times, once behind an addition: x, relu(x), relu(x) + A relu(x)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 2, 1)
        self.branch = nn.Conv2d(2, 2, 3, padding=1)
        self.head = nn.Linear(60, 3)
        self.relu = nn.ReLU(inplace=True)
        randomized(self, seed=5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        out = self.relu(self.branch(x))
        out = out + x
        return self.head(self.relu(out - 1).flatten(1))


class Halfway(nn.Module):
    """Rectifies two of three channels in place, through a view."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.head = nn.Linear(90, 3)
        randomized(self, seed=6)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.first(x)
        maps[:, :2].relu_()
        return self.head(maps.flatten(1))


def untrained(name: str) -> nn.Module:
    """Seeded, batch norm's statistics those of some noise: else signals fade on the way through."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"num_classes": 10}
    settings |= {"init_weights": False} if name in ("googlenet", "vgg11_bn") else {}
    settings |= {"aux_logits": False} if name == "googlenet" else {}
    net: nn.Module = models.get_model(name, weights=None, **settings)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.bias, -0.5, 0.5)
    for parameter_name, parameter in net.named_parameters():
        if parameter_name.endswith("layer_scale"):
            nn.init.constant_(parameter, 0.5)  # untrained, they all but switch the blocks off
    with torch.no_grad():
        net.train()(torch.randn(4, 3, 64, 64))
    return net.eval()


class Cramped(FlatteningNet):
    """Has no memory for more than ``most`` items."""

    most = 2

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        return super().forward(x)


def small_classifier() -> nn.Module:
    """Of pictures (N, 3, H, W) in four classes, in float32; layers by number, the classifier is the ninth."""
    layers = [
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
    ]
    return randomized(nn.Sequential(*layers)).float()
