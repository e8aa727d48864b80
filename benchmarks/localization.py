"""How much of each map lies on what the picture shows: energy inside the true mask of the bundled pictures.

``python -m benchmarks.localization`` prints, for the bundled network and held-out drawn pictures, the share of the
positive energy inside the shape's mask and how often the map's peak is inside, beside a random map, a blob in the
centre, and an edge detector, which know nothing of the network (Wang et al., 2020, arXiv:1910.01279 for the energy
measure; Zhang et al., 2018, arXiv:1608.00507 for the pointing game).
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

import cnnviz
from cnnviz import demo
from cnnviz.demo import drawing

BATCH = 50
BLIND = ("random", "centre blob", "edges")


def heat(values: Tensor, size: torch.Size) -> Tensor:
    """Positive evidence (N, *size) at the picture's size; magnitudes where a map has several channels."""
    single = values.relu() if values.shape[1] == 1 else values.abs().sum(1, keepdim=True)
    return F.interpolate(single, size, mode="bilinear", align_corners=False)[:, 0]


def blind_maps(inputs: Tensor) -> dict[str, Tensor]:
    """Maps (N, H, W) made without any network."""
    generator = torch.Generator().manual_seed(0)
    height, width = inputs.shape[2:]
    rows, columns = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    blob = torch.exp(-(rows**2 + columns**2) / (2 * 0.4**2)).expand(len(inputs), -1, -1)
    grey = inputs.mean(1, keepdim=True)
    kernel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    edges = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), torch.stack([kernel, kernel.T])[:, None])
    maps = (torch.rand(len(inputs), height, width, generator=generator), blob, edges.square().sum(1).sqrt())
    return dict(zip(BLIND, maps, strict=True))


def energy_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of each map's energy inside its mask, (N,); a blank map has none."""
    total = maps.flatten(1).sum(1)
    return (maps * masks).flatten(1).sum(1) / total.where(total > 0, 1)


def peak_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """Whether each map's highest place is inside its mask, (N,)."""
    return masks.flatten(1).gather(1, maps.flatten(1).argmax(1, keepdim=True))[:, 0].float()


def measure(methods: list[str], pictures: int, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Energy and pointing game of every picture, by method and by blind map."""
    drawn = drawing.draw(pictures, seed=seed, held_out=True)
    network = demo.network("demo")
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for start in range(0, pictures, BATCH):
        part = slice(start, start + BATCH)
        inputs, labels = demo.as_inputs(drawn.pictures[part]), torch.from_numpy(drawn.labels[part])
        masks = torch.from_numpy(drawn.masks[part])
        maps = {
            name: heat(each.values, inputs.shape[2:])
            for name, each in cnnviz.explain(network, inputs, methods, target=labels).items()
        }
        for name, each in (blind_maps(inputs) | maps).items():
            found.setdefault(name, []).append((energy_inside(each, masks), peak_inside(each, masks)))
    return {name: (torch.cat([e for e, _ in each]), torch.cat([p for _, p in each])) for name, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--methods", nargs="*", default=["grad_cam", "layer_cam", "guided_grad_cam"])
    options = parser.parse_args()
    found = measure(options.methods, options.pictures, options.seed)
    title = f"{options.pictures} held-out pictures"
    table = Table("map", "energy inside (%)", "± s.e.", "peak inside (%)", title=title)
    for name, (energy, peak) in sorted(found.items(), key=lambda each: float(each[1][0].mean())):
        shares = (energy.mean(), energy.std() / len(energy) ** 0.5, peak.mean())
        table.add_row(name, *(f"{100 * float(share):.1f}" for share in shares))
    Console().print(table)


if __name__ == "__main__":
    main()
