"""Variants that are passed together and change each other's scores: the answer is that of each variant alone."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from faults.references import CLASS, Alone, Net, bright, hooked, loops_score, net, pictures
from faults.situations import Situation, answer, check, close, each, pairs
from torch import Tensor, nn

from cnnviz import explain, objectives

MANY: dict[str, dict[str, Any]] = {
    "expected_gradients": {"samples": 8, "baselines": pictures(3, seed=9)},
    "gradient_shap": {"samples": 8},
    "integrated_gradients": {"steps": 12},
    "kernel_shap": {"samples": 24},
    "lime": {"samples": 24, "pieces": 9},
    "rise": {"masks": 24, "cells": 4},
    "smoothgrad": {"samples": 8},
}
"""Enough variants that some of them decide for others."""


def standardized(h: Tensor) -> Tensor:
    """By the statistics of the batch."""
    return (h - h.mean((0, 2, 3), keepdim=True)) / (h.std((0, 2, 3), keepdim=True) + 1e-3)


def batch_statistics(offset: float) -> Any:
    return lambda self, x: self.classify(standardized(self.maps(x)) ** 2) + offset


def quantized(self: Net, x: Tensor) -> Tensor:
    """By the largest value of the batch, as quantization of activations does."""
    maps = self.maps(x)
    step = maps.abs().max() / 127
    return self.classify((maps / step).round() * step)


def minibatch_deviation(self: Net, x: Tensor) -> Tensor:
    """As in a GAN's discriminator."""
    maps = self.maps(x)
    return self.classify(maps + 5 * maps.std(0, unbiased=False).mean())


def sorted_and_rolled(self: Net, x: Tensor) -> Tensor:
    scores = Net.forward(self, x)
    return scores[scores[:, 0].argsort()].roll(1, 0)


def flow_by_mean(self: Net, x: Tensor) -> Tensor:
    """Python decides by a mean over the batch."""
    return Net.forward(self, x) * (3.0 if float(x.detach().abs().mean()) < 0.35 else 1.0)


def flow_by_maximum(self: Net, x: Tensor) -> Tensor:
    """A model that takes bytes for bytes."""
    return Net.forward(self, x / 255 if x.max() > 1.5 else x)


def nothing_detected(limit: float) -> Any:
    """A model that skips its second half where nothing in the batch passes a limit."""

    def forward(self: Net, x: Tensor) -> Tensor:
        early = self.early(x)
        if bool((early > limit).any()):
            return self.finish(early)
        return self.head(early.mean((2, 3)).repeat(1, 2) * 0)

    return forward


def from_eight_on(self: Net, x: Tensor) -> Tensor:
    """Statistics of the batch, only where it is large."""
    maps = self.maps(x)
    return self.classify(standardized(maps) ** 2 if len(x) >= 8 else maps)


def by_size(self: Net, x: Tensor) -> Tensor:
    return Net.forward(self, x) / len(x)


def without_duplicates(self: Net, x: Tensor) -> Tensor:
    """Inputs that hardly differ share one pass."""
    kept, place = torch.unique((x.flatten(1).sum(1) * 2).round(), return_inverse=True)
    first = torch.stack([(place == number).nonzero()[0, 0] for number in range(len(kept))])
    return Net.forward(self, x[first])[place]


def attention_over_the_batch(self: Net, x: Tensor) -> Tensor:
    features = self.maps(x).mean((2, 3))
    return self.head((features @ features.T).softmax(1) @ features)


LIMIT = 0.9 * float(net().early(bright()).detach().max())
SITUATIONS = {
    "statistics of the batch": Situation(lambda: net(batch_statistics(0.0)), settings=MANY),
    "statistics of the batch beside a large score": Situation(lambda: net(batch_statistics(1000.0)), settings=MANY),
    "quantization by the largest of the batch": Situation(lambda: net(quantized), settings=MANY),
    "minibatch deviation": Situation(lambda: net(minibatch_deviation), settings=MANY),
    "scores sorted and rolled in the batch": Situation(lambda: net(sorted_and_rolled), settings=MANY),
    "Python decides by a mean of the batch": Situation(lambda: net(flow_by_mean), layer="conv1", settings=MANY),
    "Python decides by a maximum of the batch": Situation(
        lambda: net(flow_by_maximum),
        inputs=bright,
        settings=MANY
        | {
            "expected_gradients": {"samples": 8, "baselines": pictures(3, seed=4).abs() * 1.6},
            "smoothgrad": {"samples": 8, "sigma": 0.3},
        },
    ),
    "Python skips where nothing is detected": Situation(
        lambda: net(nothing_detected(LIMIT)), inputs=bright, settings=MANY
    ),
    "statistics of batches from eight on": Situation(lambda: net(from_eight_on), settings=MANY),
    "scores divided by the size of the batch": Situation(lambda: net(by_size), settings=MANY),
    "near duplicates passed once": Situation(lambda: net(without_duplicates), settings=MANY),
    "attention over the batch": Situation(lambda: net(attention_over_the_batch), settings=MANY),
}


@pairs(SITUATIONS)
def test_a_variant_is_scored_as_if_alone(situation: Situation, name: str) -> None:
    check(situation, name)


SCORED = ("feature_ablation", "kernel_shap", "lime", "occlusion", "rise", "shapley_sampling")


@each(SCORED)
def test_a_linear_layer_that_quantizes_by_the_batch(name: str) -> None:
    """torch.ao's dynamic quantization takes its scale from all inputs of a pass."""

    class Hidden(Net):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(16, 16)

        def classify(self, maps: Tensor) -> Tensor:
            return self.head(F.relu(self.hidden(maps.mean((2, 3))))) * 20

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # torch.ao is deprecated, and in use
        torch.manual_seed(0)
        model = torch.ao.quantization.quantize_dynamic(Hidden().eval(), {nn.Linear}, dtype=torch.qint8)
        x = pictures().float()
        found = answer(name, model, x, "conv2", **MANY.get(name, {}))
        expected = answer(name, Alone(model), x, "model.conv2", **MANY.get(name, {}))
    assert not isinstance(found, str)
    assert not isinstance(expected, str)
    close(found[0], expected[0], 1e-3)


def normed(self: Net, x: Tensor) -> Tensor:
    return self.classify(self.late(self.conv2(F.relu(self.norm(self.conv1(x))))) ** 2)


def adapted() -> nn.Module:
    """What was found out about the model with statistics of its own is not true of it any more."""
    model = net(normed, norm=lambda: nn.BatchNorm2d(8))
    explain(model, pictures(), "occlusion", target=CLASS, window=4, stride=4)
    model.norm.track_running_stats = False
    model.norm.running_mean = model.norm.running_var = None
    return model


@each()
def test_batch_norm_that_loses_its_statistics_after_a_question(name: str) -> None:
    check(Situation(adapted, settings=MANY), name)


def test_an_objective_reads_a_branch_that_mixes_after_a_class_that_does_not() -> None:
    def forward(self: Net, x: Tensor) -> Tensor:
        maps = self.maps(x)
        self.mixed(standardized(self.branch(maps)) ** 2)
        return self.classify(maps)

    model, x = net(forward, branch=lambda: nn.Conv2d(16, 4, 1), mixed=nn.Identity), pictures()
    explain(model, x, "occlusion", target=CLASS, window=4, stride=4)
    found = explain(model, x, "occlusion", target=objectives.channel("mixed", 1), window=4, stride=4).values
    kept: list[Tensor] = []
    expected = torch.zeros_like(found)
    with hooked(model, "mixed", lambda module, args, output: kept.append(output[:, 1].mean())):
        loops_score(model, x)
        for top in range(0, 16, 4):
            for left in range(0, 16, 4):
                hidden = x.clone()
                hidden[:, :, top : top + 4, left : left + 4] = 0
                loops_score(model, hidden)
                expected[:, :, top : top + 4, left : left + 4] = kept[0] - kept[-1]
    close(found, expected)
