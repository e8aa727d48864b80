"""The networks and pictures that are measured: trained where weights are at hand, otherwise made so that signals last.

Trained weights and photographs are looked for at ``../shared/assets``, or where ``CNNVIZ_ASSETS`` points. In networks
as they are initialized gradients fade to denormal numbers, which slow a CPU tenfold: untrained networks are given He's
initialization (2015, arXiv:1502.01852) and batch norm statistics of the very pictures, and denormal numbers count as
zero, for everyone measured.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import models

from cnnviz.images.preprocessing import IMAGENET

ASSETS = Path(os.environ.get("CNNVIZ_ASSETS") or Path(__file__).parents[2] / "shared" / "assets")
WEIGHTS = {"squeezenet1_0": "squeezenet1_0-imagenet.pth", "mobilenet_v2": "mobilenet_v2-imagenet-fp16.pth"}
LAYERS = {  # the last one with spatial extent that nothing after it writes over
    "squeezenet1_0": "features.12",
    "mobilenet_v2": "features.18",
    "resnet50": "layer4",
    "vgg16": "features.29",
}
CLASSIFIERS = {"mobilenet_v2": "classifier.1", "resnet50": "fc"}
"""The linear layer behind global average pooling, where a network ends in both."""


@dataclass(frozen=True)
class Network:
    """A network in eval mode, and the layer that its class activation maps are of."""

    name: str
    module: nn.Module
    layer: str
    trained: bool
    channels: int
    """Of that layer."""

    @property
    def target(self) -> nn.Module:
        """The module of that layer."""
        return self.module.get_submodule(self.layer)


def weights_of(name: str) -> Path:
    """The file of the trained weights, which need not be there."""
    return ASSETS / "models" / WEIGHTS.get(name, "")


def photographs() -> list[Path]:
    """The files of all photographs; none where there are no assets."""
    return sorted((ASSETS / "images" / "imagenet").glob("*.JPEG"))


def network(name: str, device: torch.device) -> Network:
    """One of ``LAYERS``, always with the same weights."""
    torch.manual_seed(0)
    module: nn.Module = models.get_model(name, weights=None)
    trained = weights_of(name).is_file()
    if trained:
        module.load_state_dict(torch.load(weights_of(name), weights_only=True))
    else:
        lasting(module)
    module = module.to(device).eval()
    layer, outputs = module.get_submodule(LAYERS[name]), []
    with torch.inference_mode(), layer.register_forward_hook(lambda module, args, output: outputs.append(output)):
        module(pictures(1, 64).to(device))
    return Network(name, module, LAYERS[name], trained, outputs[0].shape[1])


def lasting(module: nn.Module) -> None:
    """Weights with which activations and gradients stay normal numbers."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the statistics of the one batch that follows
    with torch.no_grad():
        module.train()(pictures(4, 128))


def pictures(count: int, size: int, spread: bool = False) -> Tensor:
    """(count, 3, size, size), normalized as ImageNet: photographs, or smooth noise where there are none.

    The first ones by name; ``spread`` takes them from everywhere in the list, where animals and things lie apart.
    """
    every = photographs()
    files = [every[number * len(every) // count] for number in range(count)] if spread and every else every[:count]
    if len(files) == count:
        prepare = replace(IMAGENET, resize=size, crop=(size, size))
        return torch.stack([prepare(Image.open(file).convert("RGB")) for file in files])
    noise = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(noise, (size, size), mode="bilinear")
