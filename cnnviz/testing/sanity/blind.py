"""Maps made without any network, which every method has to beat: chance, a blob in the centre, an edge detector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.run.run import Run

BLIND = ("random", "centre blob", "edges")


def blind_maps(inputs: Tensor) -> dict[str, Tensor]:
    """Of pictures (N, C, H, W) the maps (N, H, W) by name."""
    height, width = inputs.shape[2:]
    rows = torch.linspace(-1, 1, height, device=inputs.device)[:, None]
    columns = torch.linspace(-1, 1, width, device=inputs.device)
    blob = torch.exp(-(rows**2 + columns**2) / (2 * 0.4**2)).expand(len(inputs), -1, -1)
    grey = inputs.mean(1, keepdim=True)
    kernel = inputs.new_tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    edges = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), torch.stack([kernel, kernel.T])[:, None])
    chance = torch.rand(len(inputs), height, width, generator=torch.Generator().manual_seed(0)).to(inputs)
    return dict(zip(BLIND, (chance, blob, edges.square().sum(1).sqrt()), strict=True))


class blind:
    """One of them, as an attribution; chance draws anew for every question."""

    def __init__(self, name: str):
        self.name = self.__name__ = name

    def __call__(self, run: Run) -> Tensor:
        if self.name == "random":
            values = run.inputs.double().sum((1, 2, 3)).abs().tolist()  # other inputs, or other weights, other maps
            weights = sum(float(weight.double().abs().sum()) for weight in run.model.parameters())
            drawn = [
                torch.rand(run.inputs.shape[2:], generator=torch.Generator().manual_seed(int(1e4 * (value + weights))))
                for value in values
            ]
            return torch.stack(drawn)[:, None].to(run.inputs)
        return blind_maps(run.inputs)[self.name][:, None]
