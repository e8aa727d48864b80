"""
Volumes
=======

Inputs of three dimensions are explained by the same calls. Slices through the volume show the map over it.

The network is a small one **with random weights**. The volume is bright in one place, and random filters answer to
that.
"""

import torch
from torch import nn

import cnnviz

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv3d(1, 8, 3, padding=1),
    nn.ReLU(),
    nn.MaxPool3d(2),
    nn.Conv3d(8, 16, 3, padding=1),
    nn.ReLU(),
    nn.AdaptiveAvgPool3d(1),
    nn.Flatten(),
    nn.Linear(16, 2),
).eval()

volume = 0.1 * torch.rand(1, 1, 16, 32, 32)
volume[:, :, 6:11, 8:16, 18:26] += 0.9
result = cnnviz.explain(network, volume, "grad_cam", target=0)
result.save("slices.png")
result

# %%
# Maximum projections along the three axes, with a colour bar:

result.save("volumes.png", "projection")
