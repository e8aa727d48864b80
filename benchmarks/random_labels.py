"""A network that learned by heart what chance said of drawn pictures (Adebayo et al., 2018, arXiv:1810.03292)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from cnnviz.demo import CATEGORIES, as_inputs
from cnnviz.demo.drawing import draw
from cnnviz.demo.residual import DemoNet

BATCH = 64


def learned_by_heart(pictures: int = 192, epochs: int = 36, seed: int = 0) -> tuple[nn.Module, float]:
    """The bundled network's architecture fitted to random labels, and the share of them that it gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = draw(pictures, seed)
        inputs = as_inputs(drawn.pictures).contiguous(memory_format=torch.channels_last)
        labels = torch.randint(len(CATEGORIES), (pictures,))
        module = DemoNet(len(CATEGORIES)).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(module.parameters(), lr=6e-3, weight_decay=0)
        steps = epochs * -(-pictures // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=steps, pct_start=0.15)
        for _ in range(epochs):
            right = 0
            for batch in torch.split(torch.randperm(pictures), BATCH):
                scores = module(inputs[batch])
                loss = cross_entropy(scores, labels[batch])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
                right += int((scores.argmax(1) == labels[batch]).sum())
            if right == pictures:
                break
        module.eval()
        with torch.no_grad():
            given = torch.cat([module(each).argmax(1) for each in torch.split(inputs, BATCH)])
    return module, float((given == labels).float().mean())
