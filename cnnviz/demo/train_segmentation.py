"""Trains the bundled segmentation network: `python -m cnnviz.demo.train_segmentation`; 20 minutes on one core.

As in the paper, the trunk learns to name the shape before its mirror learns to find it. The same seed draws the same
pictures, each seen once, and starts from the same weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cnnviz.demo import CATEGORIES, SEGMENTATION, SEGMENTS, as_inputs
from cnnviz.demo.drawing import Drawn, draw
from cnnviz.demo.plain import plain_trunk
from cnnviz.models.segmentation_net import SegmentationNet, intersection_over_union

NAMING, SEGMENTING = 57_600, 57_600  # pictures
BATCH = 32
LEARNING_RATE = 3e-3
HELD_OUT_SEED = 2_000_000

Loss = Callable[[Tensor, Drawn, float], Tensor]  # of scores, what was drawn, and how far training is, 0 to 1


def train(seed: int) -> SegmentationNet:
    """Fit the trunk to the labels of drawn pictures, then trunk and mirror to their masks."""
    torch.manual_seed(seed)
    trunk = plain_trunk()
    channels = [layer for layer in trunk if isinstance(layer, nn.Conv2d)][-1].out_channels
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(CATEGORIES))
    fit(nn.Sequential(trunk, *head), naming_loss, NAMING, 100_000 * seed)
    net = SegmentationNet(trunk, len(SEGMENTS))
    fit(net, segmentation_loss, SEGMENTING, 100_000 * seed + NAMING)
    return net.eval()


def fit(net: nn.Module, loss: Loss, pictures: int, seed: int) -> None:
    """One pass over so many pictures; the classes take turns in every batch."""
    net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    steps = pictures // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps, pct_start=0.15)
    for step in range(steps):
        drawn = draw(BATCH, seed + step)
        inputs = as_inputs(drawn.pictures).contiguous(memory_format=torch.channels_last)
        lost = loss(net(inputs), drawn, step / steps)
        optimizer.zero_grad()
        torch.autograd.backward(lost)
        optimizer.step()
        schedule.step()
        if step % 100 == 99 or step == steps - 1:
            print(f"{loss.__name__}: {lost.detach():.4f} in step {step + 1} of {steps}", flush=True)


def naming_loss(scores: Tensor, drawn: Drawn, progress: float) -> Tensor:
    return cross_entropy(scores, torch.from_numpy(drawn.labels))


def segmentation_loss(scores: Tensor, drawn: Drawn, progress: float) -> Tensor:
    """Cross-entropy of all pixels. Nearly all are background: they count little at first, or they alone are learned."""
    weight = torch.ones(len(SEGMENTS))
    weight[-1] = 0.1 ** (1 - progress)
    return cross_entropy(scores, class_maps(drawn), weight)


def class_maps(drawn: Drawn) -> Tensor:
    """For every pixel the number of its shape, (N, H, W); the background is the last class."""
    return torch.from_numpy(np.where(drawn.masks, drawn.labels[:, None, None], len(CATEGORIES)))


def measured(net: nn.Module, drawn: Drawn) -> Tensor:
    """The intersection over union of each class, (classes,)."""
    with torch.no_grad():
        predicted = [net(inputs).argmax(1) for inputs in torch.split(as_inputs(drawn.pictures), BATCH)]
    return intersection_over_union(torch.cat(predicted), class_maps(drawn), len(SEGMENTS))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m cnnviz.demo.train_segmentation", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the weights go")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    net = train(arguments.seed)
    shares = measured(net, draw(1_000, HELD_OUT_SEED, held_out=True))
    each = ", ".join(f"{name} {share:.3f}" for name, share in zip(SEGMENTS, shares.tolist(), strict=True))
    print(f"{SEGMENTATION}: mean IoU {shares.mean():.4f} of 1000 held-out pictures ({each})")
    metadata = {"seed": str(arguments.seed), "iou": f"{shares.mean():.4f}", "classes": " ".join(SEGMENTS)}
    weights = {key: tensor.contiguous() for key, tensor in net.state_dict().items()}
    (arguments.out / f"{SEGMENTATION}.safetensors").write_bytes(save(weights, metadata))


if __name__ == "__main__":
    main()
