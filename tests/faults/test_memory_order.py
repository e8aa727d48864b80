"""Models whose result depends on the order of values in memory, which cnnviz may change to channels last."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from faults.references import Net, pictures
from faults.situations import LEARNING, NAMES, Situation, check, pairs
from torch import Tensor

from cnnviz import explain
from cnnviz.engine.speed.memory_format import ORDINARY, preferred


class Pooled(Net):
    """In float32, with a pooling after the first convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.conv1(x))

    def after(self, early: Tensor) -> Tensor:
        return self.classify(self.behind(F.avg_pool2d(early, 2))) * 100


class WritesACopy(Pooled):
    """One place of all channels is a copy in one order, and the map itself in the other."""

    def forward(self, x: Tensor) -> Tensor:
        early = self.conv1(x)
        early[:, :, :1, :1].contiguous().mul_(50.0)
        return self.after(early)


class WritesOnePlace(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        early = self.conv1(x)
        early[:, :, 0, 0].contiguous().mul_(50.0)
        return self.after(early)


class WritesAPermutedCopy(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        early = self.conv1(x)
        early.permute(0, 2, 3, 1).contiguous().mul_(5.0)
        return self.after(early)


class ReshapesInPlace(Pooled):
    """A reshape is a view in the ordinary order, and a copy in the other."""

    def forward(self, x: Tensor) -> Tensor:
        early = self.conv1(x)
        early.reshape(len(x), -1).mul_(5.0)
        return self.after(early)


class Multiplied(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.conv1(x) * 5.0)


class Views(Net):
    def forward(self, x: Tensor) -> Tensor:
        maps = self.maps(x)
        return self.head(maps.view(len(maps), 16, -1).mean(2))


class Strided(Net):
    def forward(self, x: Tensor) -> Tensor:
        early = self.conv1(x)
        return self.finish(F.relu(early.as_strided(early.shape, early.stride())))


class RavelsAnArray(Pooled):
    """NumPy is asked for the values in the order of the memory."""

    def forward(self, x: Tensor) -> Tensor:
        early = self.conv1(x)
        order = torch.from_numpy(early.detach().numpy().ravel(order="K").copy())
        return self.after(early) + order[:64].mean()


class RavelsOrdinary(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        early = self.conv1(x)
        return self.after(early) + early.detach().flatten()[:64].mean()


class ReadsAnArray(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        early = self.conv1(x)
        return self.after(early) + float(np.asarray(early.detach()).ravel(order="K")[:64].mean())


def large() -> Tensor:
    """A picture that is large enough for channels last."""
    return pictures(size=(64, 64)).float()


def situation(model: type[Net], twin: type[Net], layer: str = "conv2") -> Situation:
    names = tuple(name for name in NAMES if name not in LEARNING)
    wide = {"occlusion": {"window": 16, "stride": 16}}
    unseen = "outside of torch's functions"
    return Situation(model, twin, large, layer, names, wide, or_refused=unseen, by_twin=True, tolerance=1e-3)


SITUATIONS = {
    "a copy of one place": situation(WritesACopy, Pooled),
    "a copy of one place, without its extent": situation(WritesOnePlace, Pooled),
    "a permuted copy": situation(WritesAPermutedCopy, Pooled),
    "a reshape that is written": situation(ReshapesInPlace, Multiplied),
    "a view of the ordinary order": situation(Views, Net),
    "strides": situation(Strided, Net),
    "an array in the order of the memory": situation(RavelsAnArray, RavelsOrdinary),
    "an array read as numbers": situation(ReadsAnArray, RavelsOrdinary),
}


@pairs(SITUATIONS)
def test_the_order_changes_nothing(situation: Situation, name: str) -> None:
    check(situation, name)


def test_these_pictures_are_computed_in_channels_last() -> None:
    """Else the situations would show nothing."""
    if preferred(Net(), large(), None) is ORDINARY:
        pytest.skip("cnnviz keeps the ordinary order on this processor")
    seen: list[bool] = []
    model = Pooled()
    model.conv1.register_forward_hook(
        lambda module, args, output: seen.append(output.is_contiguous(memory_format=torch.channels_last))
    )
    explain(model, large(), "grad_cam", target=1, layer="conv2")
    assert any(seen)
