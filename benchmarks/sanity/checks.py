"""The parts of the benchmark: those of drawn pictures, and trained networks with photographs from the assets."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import SqueezeNet

from benchmarks import networks
from cnnviz.demo import TRANSFORMER
from cnnviz.testing.sanity.cases import ATTENDING, DRAWN, Case, drawn_case

TRAINED = ("squeezenet1_0", "mobilenet_v2")
PARTS: dict[str, tuple[str, ...]] = {
    **{part: (network, *([ATTENDING[part]] if part in ATTENDING else [])) for part, network in DRAWN.items()},
    "weights": (DRAWN["weights"], ATTENDING["weights"], *TRAINED),
    "photographs": TRAINED,
}
NETWORKS = ("demo", "demo-shortcut", TRANSFORMER, *TRAINED)


def case(part: str, name: str, pictures: int, photographs: int, size: int, device: torch.device) -> Case:
    """A part's question to one network. Raises FileNotFoundError where trained weights or photographs are missing."""
    if name not in TRAINED:
        return drawn_case(part, name, pictures, device)
    weights = networks.weights_of(name)
    if not weights.is_file() or len(networks.photographs()) < photographs:
        missing = networks.ASSETS if weights.is_file() else weights
        raise FileNotFoundError(f"{missing} has not what {name} needs: weights, and {photographs} photographs")
    inputs = networks.pictures(photographs, size, spread=True).to(device)
    model, remark = networks.network(name, device).module, ""
    if isinstance(model, SqueezeNet) and part == "weights":
        # random scores are negative as often as not, and where a ReLU ends the network nothing passes it then
        model.classifier[2] = nn.Identity()
        remark = "SqueezeNet's random weights are asked without the ReLU that its scores end in"
    return Case(part, name, model, inputs, remark=remark, large=True)
