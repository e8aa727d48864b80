"""Channels last changes no answer, however the model copies and writes; fold neither, whichever way an input takes."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnviz import explain
from cnnviz.engine.speed.memory_format import ORDINARY, preferred
from cnnviz.run.run import Run


class Net(nn.Module):
    """``between`` acts on the first map, and may write into what it takes for a copy of it."""

    def __init__(self, between: Callable[[Tensor], Tensor | None]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, stride=2)
        self.head, self.between = nn.Linear(8, 5), between
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.first(x).tanh() * 2
        other = self.between(maps)
        maps = F.avg_pool2d(maps if other is None else other, 2)
        return self.head(self.second(maps).relu().mean((2, 3))) * 100


def corner(maps: Tensor) -> None:
    maps[:, :, :1, :1].contiguous().mul_(50.0)


def pixel(maps: Tensor) -> None:
    maps[:, :, 0, 0].contiguous().mul_(50.0)


def pixel_reshaped(maps: Tensor) -> None:
    maps[:, :, 0, 0].reshape(-1).mul_(50.0)


def one_channel(maps: Tensor) -> None:
    maps[:, 2:3].contiguous().mul_(50.0)


def turned(maps: Tensor) -> None:
    maps.permute(0, 2, 3, 1).contiguous().mul_(5.0)


def turned_and_computed(maps: Tensor) -> Tensor:
    places = maps.permute(0, 2, 3, 1).sigmoid()
    places.contiguous().mul_(5.0)
    return places.permute(0, 3, 1, 2)


def through_data(maps: Tensor) -> None:
    maps[:, :, :1, :1].contiguous().data.mul_(50.0)


def in_the_order_of_memory(maps: Tensor) -> Tensor:
    weights = torch.from_numpy(maps.detach().numpy().ravel(order="K").copy()).view(maps.shape)
    return maps * weights


def by_dlpack(maps: Tensor) -> Tensor:
    import numpy as np

    weights = torch.from_numpy(np.from_dlpack(maps.detach()).ravel(order="K").copy()).view(maps.shape)
    return maps * weights


WAYS = (
    *(corner, pixel, pixel_reshaped, one_channel, turned, turned_and_computed, through_data),
    *(in_the_order_of_memory, by_dlpack),
)


@pytest.mark.parametrize("way", WAYS)
def test_channels_last_changes_no_score_and_no_gradient(way: Callable[[Tensor], Tensor | None]) -> None:
    net, inputs = Net(way), torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.enable_grad():
        leaf = inputs.clone().requires_grad_()
        score = net(leaf * 1)[:, 1]
        (gradient,) = torch.autograd.grad(score.sum(), leaf)
    found = explain(Net(way), inputs, "gradient", target=1)
    torch.testing.assert_close(found.score, score.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.values, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize(
    "way", [lambda maps: None, lambda maps: maps.flatten(1).view_as(maps) * 1], ids=["none", "flat"]
)
def test_channels_last_stays_where_nothing_is_written(way: Callable[[Tensor], Tensor | None]) -> None:
    net, inputs = Net(way), torch.rand(1, 3, 64, 64)
    if preferred(net, inputs) is ORDINARY:
        pytest.skip("this machine computes in the ordinary memory format")
    run = Run(net, inputs, torch.tensor([1]))
    assert run.trace.options.layout is torch.channels_last


class Forks(nn.Module):
    """Dark inputs take a way on which the convolution's own output is read."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 5)
        self.norm.running_mean.fill_(0.2)
        self.norm.running_var.fill_(0.4)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.first(x)
        scores = self.head(self.norm(maps).relu().mean((2, 3)))
        return scores + maps.mean((1, 2, 3))[:, None] if float(x.abs().mean()) < 0.25 else scores


def test_fold_leaves_a_model_that_reads_values_as_it_is() -> None:
    inputs = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(1)).double()
    with pytest.warns(
        UserWarning, match="Forks reads values of a pass .float. and may go another way for other inputs"
    ):
        found = explain(Forks(), inputs, "occlusion", window=10, stride=2, target=1, fold=True, memory=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = explain(Forks(), inputs, "occlusion", window=10, stride=2, target=1, memory=1)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-9, atol=1e-12)
