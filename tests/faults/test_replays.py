"""What a replay of a recorded pass, or of a box of it, could miss: parts that cnnviz does not see, and values read."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from faults.references import CLASS, Net, bright, net, pictures, scripted
from faults.situations import Situation, check, close, pairs
from torch import Tensor, nn

from cnnviz import explain


@scripted
def scripted_swish(h: Tensor) -> Tensor:
    return h * torch.sigmoid(h)


@scripted
def scripted_corner(h: Tensor) -> Tensor:
    return torch.relu(h[:, :, :2, :2].mean((2, 3)))


@scripted
def scripted_brightness(x: Tensor) -> Tensor:
    return torch.relu(x.mean(1, keepdim=True) - 0.2)


@scripted
def scripted_gate(h: Tensor) -> Tensor:
    return torch.clamp(h.mean((2, 3)) * 1000.0, 0.0, 1.0)


def swish(h: Tensor) -> Tensor:
    return h * torch.sigmoid(h)


# Each of these is given the scripted or the plain form of one part


def watermark_detector(corner: Any) -> Any:
    """A part looks at one corner of the picture; windows that are judged elsewhere do not show it."""
    return lambda self, x: Net.forward(self, x) + 0.02 * corner(F.interpolate(x, scale_factor=1.0)).sum(1, keepdim=True)


def swish_everywhere(activation: Any) -> Any:
    return lambda self, x: self.classify(activation(self.conv2(activation(self.conv1(x)))))


def brightness_beside(brightness: Any) -> Any:
    """A part looks at the picture beside the network."""
    return lambda self, x: Net.forward(self, x) + brightness(x).mean((1, 2, 3))[:, None]


def saturated_gate(gate: Any) -> Any:
    """A part that no judged change moves, because it is saturated."""

    def forward(self: Net, x: Tensor) -> Tensor:
        early = self.early(x)
        return self.finish(early) * gate(early).mean(1, keepdim=True)

    return forward


def early_exit(activation: Any) -> nn.Module:
    """Python reads the largest value. The judged change decides otherwise, and is no evidence for the others."""

    def forward(self: Net, x: Tensor) -> Tensor:
        maps = self.maps(x)
        return self.classify(activation(maps)) * (3 if float(maps.detach().max()) > self.limit else 2)

    model = net(forward)
    model.limit = 0.99 * float(model.maps(bright()).detach().max())
    return model


class Identity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class NumpyTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(np.tanh(x.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (1 - torch.tanh(x) ** 2)


def numpy_part(self: Net, x: Tensor) -> Tensor:
    """Half of the channels are handed over as an array, which no gradient passes."""
    maps = self.maps(x)
    array = np.maximum(maps.detach().numpy()[:, :8], 0.05)
    return self.classify(torch.cat([torch.from_numpy(array), maps[:, 8:]], 1))


def plain_numpy_part(self: Net, x: Tensor) -> Tensor:
    maps = self.maps(x)
    return self.classify(torch.cat([maps.detach()[:, :8].clamp(min=0.05), maps[:, 8:]], 1))


def doubled_if(read: Any) -> Any:
    """A value that Python reads in some way decides whether the score is doubled."""

    def forward(self: Net, x: Tensor) -> Tensor:
        maps = self.maps(x)
        return self.classify(maps) * (2 if read(maps.detach()) > 0.2 else 1)

    return forward


def by_storage(maps: Tensor) -> float:
    """Of the first 64 values."""
    stored = bytes(maps.contiguous().untyped_storage()[: 64 * 8].tolist())
    return max(struct.unpack("64d", stored))


def by_python_threshold(self: Net, x: Tensor) -> Tensor:
    """A threshold far from what the judged variants reach."""
    maps = self.maps(x)
    return self.classify(maps) + (1.0 if float(maps.detach()[0, 5].max()) < 0.01 else 0.0)


def by_threshold_in_the_graph(self: Net, x: Tensor) -> Tensor:
    dark = x[:, :, :2, :2].abs().amax((1, 2, 3)) < 0.01
    return Net.forward(self, x) + dark.to(x.dtype)[:, None]


def written_through_views(self: Net, x: Tensor) -> Tensor:
    early = self.early(x)
    canvas = torch.zeros_like(early)
    canvas[:, :4].copy_(early[:, :4])
    canvas.narrow(1, 4, 4).add_(early[:, 4:] * 2)
    return self.finish(canvas)


def one_channel_pasted(self: Net, x: Tensor) -> Tensor:
    early = self.early(x)
    canvas = torch.zeros_like(early)
    canvas[:, 5:6].copy_((early[:, 5:6] - 0.2).clamp(min=0))
    return self.finish(early) + canvas.mean((1, 2, 3))[:, None]


def growing_list(self: Net, x: Tensor) -> Tensor:
    maps = self.maps(x)
    self.kept.append(maps.mean().detach())
    return self.classify(maps)


def skip_in_an_attribute(self: Net, x: Tensor) -> Tensor:
    self.skip = self.early(x)
    return self.finish(self.skip) + self.skip[:, 2:7].mean((2, 3))


def counts_passes(self: Net, x: Tensor) -> Tensor:
    self.passes += 1
    return Net.forward(self, x)


def cached_ramps() -> nn.Module:
    ramps: dict[int, Tensor] = {}

    def forward(self: Net, x: Tensor) -> Tensor:
        width = x.shape[-1]
        if width not in ramps:
            ramps[width] = torch.linspace(0, 1, width, dtype=x.dtype)
        return Net.forward(self, x * ramps[width])

    return net(forward)


def hypernetwork(self: Net, x: Tensor) -> Tensor:
    weights = {"weight": self.head.weight * (1 + x.mean()), "bias": self.head.bias}
    return torch.func.functional_call(self.head, weights, self.maps(x).mean((2, 3)))


def dynamic_filters(self: Net, x: Tensor) -> Tensor:
    early = self.early(x)
    kernel = early.mean((0, 2, 3)).view(1, 8, 1, 1).expand(16, 8, 1, 1)
    return self.classify(F.conv2d(early, kernel))


def energy_model(self: Net, x: Tensor) -> Tensor:
    """The model differentiates a part of itself inside forward."""
    with torch.enable_grad():
        leaf = x if x.requires_grad else x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(torch.tanh(self.conv1(leaf)).sum(), leaf, create_graph=True)
    return self.classify(torch.tanh(self.conv2(torch.tanh(self.conv1(x + 0.1 * slope)))))


def masked_by_data(channel: int) -> nn.Module:
    """``.data`` changes values without moving the tensor's version."""

    def forward(self: Net, x: Tensor) -> Tensor:
        early = self.conv1(x)
        early.data[:, channel] = 0
        return self.finish(F.relu(early))

    return net(forward)


SEEN = "script|seen|Function|not known"
SITUATIONS = {
    "scripted detector in a corner": Situation(
        lambda: net(watermark_detector(scripted_corner)),
        lambda: net(watermark_detector(lambda h: torch.relu(h[:, :, :2, :2].mean((2, 3))))),
        bright,
        or_refused=SEEN,
    ),
    "early exit with a scripted activation": Situation(
        lambda: early_exit(scripted_swish), lambda: early_exit(swish), bright, layer="late", or_refused=SEEN
    ),
    "scripted activations": Situation(
        lambda: net(swish_everywhere(scripted_swish)),
        lambda: net(swish_everywhere(swish)),
        layer="conv1",
        or_refused=SEEN,
    ),
    "scripted part beside the network": Situation(
        lambda: net(brightness_beside(scripted_brightness)),
        lambda: net(brightness_beside(lambda x: torch.relu(x.mean(1, keepdim=True) - 0.2))),
        bright,
        or_refused=SEEN,
    ),
    "scripted gate that is saturated": Situation(
        lambda: net(saturated_gate(scripted_gate)),
        lambda: net(saturated_gate(lambda h: torch.clamp(h.mean((2, 3)) * 1000.0, 0.0, 1.0))),
        bright,
        layer="conv1",
        or_refused=SEEN,
    ),
    "NumPy in the middle": Situation(
        lambda: net(numpy_part), lambda: net(plain_numpy_part), layer="conv1", or_refused="outside of torch's functions"
    ),
    "value read by item": Situation(lambda: net(doubled_if(lambda maps: float(maps.max()))), inputs=bright),
    "value read from the storage": Situation(
        lambda: net(doubled_if(by_storage)),
        lambda: net(doubled_if(lambda maps: float(maps.flatten()[:64].max()))),
        bright,
    ),
    "value read by DLPack": Situation(
        lambda: net(doubled_if(lambda maps: np.from_dlpack(maps).max())),
        lambda: net(doubled_if(lambda maps: float(maps.max()))),
        bright,
        layer="conv1",
    ),
    "value read as an array": Situation(
        lambda: net(doubled_if(lambda maps: maps.numpy().max())),
        lambda: net(doubled_if(lambda maps: float(maps.max()))),
        bright,
        layer="conv1",
    ),
    "value read as a list": Situation(
        lambda: net(doubled_if(lambda maps: max(maps.flatten().tolist()))),
        lambda: net(doubled_if(lambda maps: float(maps.max()))),
        bright,
        layer="conv1",
    ),
    "threshold that Python reads": Situation(lambda: net(by_python_threshold), inputs=bright, layer="conv1"),
    "threshold inside the graph": Situation(lambda: net(by_threshold_in_the_graph), inputs=bright, layer="conv1"),
    "writes through views": Situation(lambda: net(written_through_views), layer="conv1"),
    "one channel pasted into a canvas": Situation(lambda: net(one_channel_pasted), inputs=bright, layer="conv1"),
    "Function that returns its input": Situation(
        lambda: net(lambda self, x: self.finish(Identity.apply(self.early(x)))), net, layer="conv1", or_refused=SEEN
    ),
    "Function computed in NumPy": Situation(
        lambda: net(lambda self, x: self.classify(NumpyTanh.apply(self.conv2(self.early(x))))),
        lambda: net(lambda self, x: self.classify(torch.tanh(self.conv2(self.early(x))))),
        layer="conv1",
        or_refused=SEEN,
    ),
    "list of features that grows": Situation(lambda: net(growing_list, kept=list), net, layer="conv1"),
    "skip connection in an attribute": Situation(lambda: net(skip_in_an_attribute), layer="conv1"),
    "buffer that counts passes": Situation(
        lambda: net(counts_passes, passes=lambda: nn.Buffer(torch.zeros(()))), net, layer="conv1"
    ),
    "grid cached in a global": Situation(cached_ramps, layer="conv1"),
    "vmap inside": Situation(
        lambda: net(lambda self, x: Net.forward(self, torch.func.vmap(lambda e: e * 1.5 - e.mean())(x))),
        lambda: net(lambda self, x: Net.forward(self, x * 1.5 - x.mean((1, 2, 3), keepdim=True))),
        layer="conv1",
        or_refused="torch.func",
    ),
    "weights made of the input": Situation(lambda: net(hypernetwork), layer="conv1"),
    "kernel made of the input": Situation(lambda: net(dynamic_filters), layer="conv1", or_refused=SEEN),
    "gradient inside of forward": Situation(lambda: net(energy_model), or_refused=SEEN),
}


@pairs(SITUATIONS)
def test_the_quick_answer_is_the_slow_one(situation: Situation, name: str) -> None:
    check(situation, name)


@pytest.mark.parametrize("channel", range(8))
def test_a_channel_masked_through_data_counts(channel: int) -> None:
    situation = Situation(lambda: masked_by_data(channel), layer="conv1", how={"memory": 1})
    check(situation, "ablation_cam")


def test_each_input_of_a_batch_has_evidence_of_its_own() -> None:
    """A scripted branch is silent for the first picture and speaks for the second."""
    x = torch.cat([-bright(), bright()])
    model = net(brightness_beside(scripted_brightness))
    twin = net(brightness_beside(lambda x: torch.relu(x.mean(1, keepdim=True) - 0.2)))
    found = explain(model, x, "occlusion", target=CLASS, window=4, stride=4)
    for item in range(2):
        check_alone = explain(twin, x[item : item + 1], "occlusion", target=CLASS, window=4, stride=4)
        close(found.values[item : item + 1], check_alone.values)


def test_pictures_are_repeatable() -> None:
    assert torch.equal(pictures(), pictures())
