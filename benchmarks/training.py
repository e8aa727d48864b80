"""Trains the bundled networks and the one that learned random labels: `python -m benchmarks.training`.

Minutes on two cores, 20 more for the segmentation network. The same seed draws the same pictures and starts from the
same weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cnnviz import demo
from cnnviz.demo import BUNDLED, CATEGORIES, SEGMENTATION, SEGMENTS, TRANSFORMER, as_inputs
from cnnviz.demo.drawing import Drawn, Tag, draw
from cnnviz.demo.plain import plain_trunk
from cnnviz.demo.residual import DemoNet
from cnnviz.models.segmentation_net import SegmentationNet, intersection_over_union

PICTURES = {"demo": 24_000, "demo-shortcut": 8_000, "demo-transformer": 16_000}
EPOCHS = {"demo": 6, "demo-shortcut": 3, "demo-transformer": 14}
RATES = {"demo": 6e-3, "demo-shortcut": 6e-3, "demo-transformer": 2e-3}
"""Of learning, at the most."""
TAGS: dict[str, Tag] = {"demo": "none", "demo-shortcut": "true", "demo-transformer": "none"}
BATCH, SEGMENTATION_BATCH = 64, 32
NAMING, SEGMENTING = 57_600, 57_600  # pictures
HELD_OUT_SEEDS = {"demo": 1_000_000, "demo-shortcut": 1_000_000, TRANSFORMER: 1_000_000, SEGMENTATION: 2_000_000}

Loss = Callable[[Tensor, Drawn, float], Tensor]  # of scores, the drawn pictures, and the progress of training, 0 to 1


# Classifiers


def classifier(name: str, seed: int) -> nn.Module:
    """The bundled classifier of that name, trained on drawn pictures; a mirrored shape is still the shape."""
    torch.manual_seed(seed)
    drawn = draw(PICTURES[name], seed, tag=TAGS[name])
    module = demo.untrained(name)
    labels = torch.from_numpy(drawn.labels)
    epochs = fit(module, drawn.pictures, labels, EPOCHS[name], mirrored=True, learning_rate=RATES[name])
    for epoch, share in enumerate(epochs, 1):
        print(f"{name}: epoch {epoch} of {EPOCHS[name]}, {share:.1%} while training", flush=True)
    return module.eval()


def learned_by_heart(pictures: int = 192, epochs: int = 36, seed: int = 0) -> tuple[nn.Module, float]:
    """A network fitted to random labels of drawn pictures, and the share of these labels that it gives.

    The labels' test of Adebayo et al., 2018, arXiv:1810.03292. Training ends early where all labels are learned.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = draw(pictures, seed)
        labels = torch.randint(len(CATEGORIES), (pictures,))
        module = DemoNet(len(CATEGORIES))
        for share in fit(module, drawn.pictures, labels, epochs, weight_decay=0):
            if share == 1:
                break
    return module.eval(), accuracy(module, drawn.pictures, labels)


def fit(
    module: nn.Module,
    pictures: NDArray[np.uint8],
    labels: Tensor,
    epochs: int,
    *,
    weight_decay: float = 0.05,
    mirrored: bool = False,
    learning_rate: float = 6e-3,
) -> Iterator[float]:
    """Train a classifier; yields after every epoch the share of pictures that were classified as labelled.

    mirrored: half of the batches are seen in a mirror.
    """
    step = stepping(module, learning_rate, epochs * -(-len(labels) // BATCH), weight_decay)
    for _ in range(epochs):
        right = 0
        for batch in torch.split(torch.randperm(len(labels)), BATCH):
            inputs = as_inputs(pictures[batch.numpy()]).contiguous(memory_format=torch.channels_last)
            scores = module(inputs.flip(-1) if mirrored and torch.rand(()) < 0.5 else inputs)
            step(cross_entropy(scores, labels[batch]))
            right += int((scores.argmax(1) == labels[batch]).sum())
        yield right / len(labels)


def accuracy(module: nn.Module, pictures: NDArray[np.uint8], labels: Tensor) -> float:
    """The share of pictures (N, H, W, 3) whose class gets the highest score."""
    return float((predictions(module, pictures) == labels).float().mean())


# The segmentation network


def segmentation_net(seed: int) -> SegmentationNet:
    """Fit the trunk to the labels of drawn pictures, then trunk and mirror to their masks, as the paper does."""
    torch.manual_seed(seed)
    trunk = plain_trunk()
    channels = [layer for layer in trunk if isinstance(layer, nn.Conv2d)][-1].out_channels
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(CATEGORIES))
    fit_drawn(nn.Sequential(trunk, *head), naming_loss, NAMING, 100_000 * seed)
    net = SegmentationNet(trunk, len(SEGMENTS))
    fit_drawn(net, segmentation_loss, SEGMENTING, 100_000 * seed + NAMING)
    return net.eval()


def fit_drawn(net: nn.Module, loss_of: Loss, pictures: int, seed: int) -> None:
    """One pass over so many pictures, each drawn when it is needed; the classes take turns in every batch."""
    steps = pictures // SEGMENTATION_BATCH
    step = stepping(net, 3e-3, steps)
    for number in range(steps):
        drawn = draw(SEGMENTATION_BATCH, seed + number)
        inputs = as_inputs(drawn.pictures).contiguous(memory_format=torch.channels_last)
        loss = loss_of(net(inputs), drawn, number / steps)
        step(loss)
        if number % 100 == 99 or number == steps - 1:
            print(f"{loss_of.__name__}: {loss.detach():.4f} in step {number + 1} of {steps}", flush=True)


def naming_loss(scores: Tensor, drawn: Drawn, progress: float) -> Tensor:
    """Cross-entropy of the labels."""
    return cross_entropy(scores, torch.from_numpy(drawn.labels))


def segmentation_loss(scores: Tensor, drawn: Drawn, progress: float) -> Tensor:
    """Cross-entropy of all pixels. Nearly all are background: they count little at first, or they alone are learned."""
    weight = torch.ones(len(SEGMENTS))
    weight[-1] = 0.1 ** (1 - progress)
    return cross_entropy(scores, class_maps(drawn), weight)


def class_maps(drawn: Drawn) -> Tensor:
    """For every pixel the number of its shape, (N, H, W); the background is the last class."""
    return torch.from_numpy(np.where(drawn.masks, drawn.labels[:, None, None], len(CATEGORIES)))


def class_overlaps(net: nn.Module, drawn: Drawn) -> Tensor:
    """The intersection over union of each class, (classes,)."""
    return intersection_over_union(predictions(net, drawn.pictures), class_maps(drawn), len(SEGMENTS))


# Both


def stepping(net: nn.Module, learning_rate: float, steps: int, weight_decay: float = 0.05) -> Callable[[Tensor], None]:
    """A function that moves the weights down a loss: AdamW under a one-cycle schedule of so many steps."""
    net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps, pct_start=0.15)

    def step(loss: Tensor) -> None:
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()

    return step


def predictions(net: nn.Module, pictures: NDArray[np.uint8]) -> Tensor:
    """The class of the highest score: (N,) of a classifier, (N, H, W) of a segmentation network."""
    with torch.no_grad():
        return torch.cat([net(inputs).argmax(1) for inputs in torch.split(as_inputs(pictures), SEGMENTATION_BATCH)])


def trained(name: str, seed: int) -> tuple[nn.Module, dict[str, str]]:
    """The network of that name, and the metadata of its weights; prints how good it is on held-out pictures."""
    if name == SEGMENTATION:
        net = segmentation_net(seed)
        overlaps = class_overlaps(net, draw(1_000, HELD_OUT_SEEDS[name], held_out=True))
        by_class = ", ".join(f"{segment} {share:.3f}" for segment, share in zip(SEGMENTS, overlaps, strict=True))
        print(f"{name}: mean IoU {overlaps.mean():.4f} of 1000 held-out pictures ({by_class})")
        return net, {"seed": str(seed), "iou": f"{overlaps.mean():.4f}", "classes": " ".join(SEGMENTS)}
    module = classifier(name, seed)
    drawn = draw(2_000, HELD_OUT_SEEDS[name], tag=TAGS[name], held_out=True)
    share = accuracy(module, drawn.pictures, torch.from_numpy(drawn.labels))
    print(f"{name}: {share:.2%} of 2000 held-out pictures")
    return module, {"seed": str(seed), "accuracy": f"{share:.4f}", "shapes": " ".join(CATEGORIES)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=BUNDLED, default=BUNDLED, help="train these only")
    parser.add_argument("--out", type=Path, default=Path(demo.__file__).parent, help="where the weights go")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for name in options.networks:
        module, metadata = trained(name, options.seed)
        weights = {key: tensor.contiguous() for key, tensor in module.state_dict().items()}
        (options.out / f"{name}.safetensors").write_bytes(save(weights, metadata))


if __name__ == "__main__":
    main()
