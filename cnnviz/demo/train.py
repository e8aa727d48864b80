"""Trains the bundled networks: `python -m cnnviz.demo.train`; minutes on two cores.

The same seed draws the same pictures and starts from the same weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from torch.nn.functional import cross_entropy

from cnnviz.demo import CATEGORIES, NETWORKS, as_inputs
from cnnviz.demo.drawing import Drawn, Tag, draw
from cnnviz.demo.residual import DemoNet

PICTURES = {"demo": 24_000, "demo-shortcut": 8_000}
EPOCHS = {"demo": 6, "demo-shortcut": 3}
TAGS: dict[str, Tag] = {"demo": "none", "demo-shortcut": "true"}
HELD_OUT_SEED = 1_000_000
BATCH = 64


def train(name: str, seed: int) -> DemoNet:
    """Draw the pictures of a network and fit it to them; a mirrored shape is still the shape."""
    torch.manual_seed(seed)
    drawn = draw(PICTURES[name], seed, tag=TAGS[name])
    labels = torch.from_numpy(drawn.labels)
    module = DemoNet(len(CATEGORIES)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(module.parameters(), lr=6e-3, weight_decay=0.05)
    batches = len(labels) // BATCH
    steps = EPOCHS[name] * batches
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=steps, pct_start=0.15)
    for epoch in range(EPOCHS[name]):
        right = 0
        for batch in torch.randperm(len(labels))[: batches * BATCH].view(batches, BATCH):
            inputs = as_inputs(drawn.pictures[batch.numpy()]).contiguous(memory_format=torch.channels_last)
            scores = module(inputs.flip(-1) if torch.rand(()) < 0.5 else inputs)
            loss = cross_entropy(scores, labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            right += int((scores.argmax(1) == labels[batch]).sum())
        print(
            f"{name}: epoch {epoch + 1} of {EPOCHS[name]}, {right / len(labels):.1%} while training",
            flush=True,
        )
    return module.eval()


def accuracy(module: nn.Module, drawn: Drawn) -> float:
    """The share of pictures whose class gets the highest score."""
    with torch.no_grad():
        batches = np.array_split(drawn.pictures, len(drawn.labels) // BATCH)
        predicted = [module(as_inputs(pictures)).argmax(1) for pictures in batches]
    return float((torch.cat(predicted) == torch.from_numpy(drawn.labels)).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cnnviz.demo.train", description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, action="append", help="train this one only; default: both")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the weights go")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in arguments.network or NETWORKS:
        module = train(name, arguments.seed)
        held_out = accuracy(module, draw(2_000, HELD_OUT_SEED, tag=TAGS[name], held_out=True))
        print(f"{name}: {held_out:.2%} of 2000 held-out pictures")
        metadata = {
            "seed": str(arguments.seed),
            "accuracy": f"{held_out:.4f}",
            "shapes": " ".join(CATEGORIES),
        }
        weights = {key: tensor.contiguous() for key, tensor in module.state_dict().items()}
        (arguments.out / f"{name}.safetensors").write_bytes(save(weights, metadata))


if __name__ == "__main__":
    main()
