"""Where the score goes by layer-wise relevance propagation, and by other packages: `python -m benchmarks.relevance`.

Random weights and random batch norm statistics, one input of 96 x 96 noise, float64. zennit and autolrp are asked where
they are installed, as their pages say: a composite, and the network as it is.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models

import cnnviz

NETWORKS = ("squeezenet1_0", "vgg11_bn", "resnet18", "mobilenet_v2", "densenet121", "regnet_y_400mf", "convnext_tiny")
TARGET = 3


def network(name: str) -> nn.Module:
    """A network of torchvision in float64, in which batch norms do something."""
    torch.manual_seed(0)
    net: nn.Module = getattr(models, name)().double().eval()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight, 1, 0.3)
            nn.init.normal_(norm.bias, 0, 0.1)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.normal_(norm.running_mean, 0, 0.1)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return net


def of_zennit(net: nn.Module, x: Tensor) -> float:
    """The sum of relevance over the score, without canonizers."""
    composite: Any = import_module("zennit.composites").EpsilonPlus()
    with composite.context(copy.deepcopy(net)) as theirs:
        given = x.clone().requires_grad_()
        start = F.one_hot(torch.tensor([TARGET]), 1000).to(x)
        (relevance,) = torch.autograd.grad(theirs(given), given, start)
    return float(relevance.sum())


def of_autolrp(net: nn.Module, x: Tensor) -> float:
    """The sum of relevance over the score, with its defaults."""
    autolrp: Any = import_module("autolrp")
    given = autolrp.tensor(x.clone())
    net(given)[0, TARGET].lrp()
    return float(given.relevance.sum())


def asked(peer: Any, net: nn.Module, x: Tensor) -> str:
    try:
        return f"{peer(net, x):.3g}"
    except ImportError:
        return "not installed"
    except Exception as error:
        return type(error).__name__


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    warnings.simplefilter("ignore")
    print(
        "| network | input | biases | stabilizer | ignoring biases | zennit | autolrp |\n|---|---|---|---|---|---|---|"
    )
    for name in parser.parse_args().networks:
        net, x = network(name), torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1)).double()
        found = cnnviz.explain(net, x, "lrp", target=TARGET, bias="report")
        kept = cnnviz.explain(net, x, "lrp", target=TARGET, bias="ignore").values.sum()
        parts = [found.values, *(found.notes[f"relevance_of_{name}"] for name in ("biases", "stabilizer"))]
        shares = [f"{float(part.sum() / found.score[0]):.4f}" for part in (*parts, kept)]
        print(
            f"| {name} | {' | '.join(shares)} | {asked(of_zennit, net, x)} | {asked(of_autolrp, net, x)} |", flush=True
        )


if __name__ == "__main__":
    main()
