"""What networks are made of: operations that a replay or a rule must know, or leave to whole passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from faults.references import Net, loops_occlusion, net, pictures
from faults.situations import LEARNING, NAMES, Situation, check, close, pairs
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from cnnviz import explain

Body = Callable[[Net, Tensor], Tensor]


def tokens(early: Tensor) -> Tensor:
    """Places as a sequence, (N, places, C)."""
    return early.flatten(2).transpose(1, 2)


def grid(sequence: Tensor) -> Tensor:
    """The sequence as a map again, (N, C, 16, 16)."""
    return sequence.transpose(1, 2).reshape(len(sequence), -1, 16, 16)


def behind_early(body: Body) -> Body:
    """A network with a body between its two halves, which is given the rectified map of the first."""
    return lambda self, x: self.finish(body(self, self.early(x)))


def coordinates(self: Net, x: Tensor) -> Tensor:
    ramp = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)
    return self.finish(F.relu(self.conv1(x) + ramp))


def self_attention(self: Net, early: Tensor) -> Tensor:
    sequence = tokens(early)
    return grid((sequence @ sequence.transpose(1, 2)).softmax(-1) @ sequence)


def multihead(self: Net, early: Tensor) -> Tensor:
    sequence = tokens(early)
    return grid(self.attention(sequence, sequence, sequence)[0])


def lstm_over_columns(self: Net, early: Tensor) -> Tensor:
    rows = self.recurrent(early.mean(2).transpose(1, 2))[0]
    return rows.transpose(1, 2)[:, :, None].expand(-1, -1, 4, -1)


def gru_last_state(self: Net, x: Tensor) -> Tensor:
    states = self.recurrent(self.early(x).mean(2).transpose(1, 2))[1]
    return self.head(states.permute(1, 0, 2).flatten(1))


def spatial_transformer(self: Net, x: Tensor) -> Tensor:
    turned = torch.tensor([[[0.9, 0.1, 0.0], [-0.1, 1.1, 0.1]]], dtype=x.dtype).expand(len(x), 2, 3)
    turned = turned * (1 + 0.1 * x.mean((1, 2, 3))[:, None, None])
    places = F.affine_grid(turned, list(x.shape), align_corners=False)
    return Net.forward(self, F.grid_sample(x, places, align_corners=False))


def deformable(self: Net, x: Tensor) -> Tensor:
    early = deform_conv2d(x, self.offsets(x), self.conv1.weight, self.conv1.bias, padding=1)
    return self.finish(F.relu(early)) + self.conv1(x).mean((1, 2, 3))[:, None]


def two_pools(self: Net, early: Tensor) -> Tensor:
    smaller = F.max_pool2d(early, 3, 2, 1, ceil_mode=True)
    uncounted = F.avg_pool2d(smaller, 3, 2, 1, ceil_mode=True, count_include_pad=False)
    return uncounted + F.avg_pool2d(smaller, 3, 2, 1, ceil_mode=True, divisor_override=5)


def unpooled(self: Net, early: Tensor) -> Tensor:
    smaller, places = F.max_pool2d(early, 2, return_indices=True)
    return F.max_unpool2d(smaller, places, 2)


def odd_pools(self: Net, early: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(F.lp_pool2d(early + 0.01, 2, 2), (5, 7)) + F.adaptive_max_pool2d(early, (5, 7))


def spectral_filter(self: Net, x: Tensor) -> Tensor:
    spectrum = torch.fft.rfft2(self.conv1(x)) * torch.linspace(1, 0, 9, dtype=x.dtype)
    return self.finish(F.relu(torch.fft.irfft2(spectrum, s=(16, 16))))


def graph_head(self: Net, x: Tensor) -> Tensor:
    adjacency = torch.eye(16, dtype=x.dtype).to_sparse()
    return self.head(torch.sparse.mm(adjacency, self.maps(x).mean((2, 3)).T).T)


def generalized_mean(self: Net, x: Tensor) -> Tensor:
    weight = self.conv2.weight
    weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / (weight.std((1, 2, 3), keepdim=True) + 1e-3)
    maps = F.relu(F.conv2d(F.local_response_norm(self.early(x), 3), weight, self.conv2.bias, 2, 1))
    return self.head((maps + 1e-3).pow(3).mean((2, 3)).pow(1 / 3))


def sorted_places(self: Net, x: Tensor) -> Tensor:
    places = self.maps(x).flatten(2)
    return self.head(places.topk(5, -1).values.mean(-1) + places.sort(-1).values[..., -3])


def bilinear(self: Net, x: Tensor) -> Tensor:
    places = self.early(x).cumsum(-1).flatten(2)
    return self.head(torch.einsum("ncx,ndx->ncd", places, places)[:, :2].flatten(1) / 64)


def one_buffer(self: Net, x: Tensor) -> Tensor:
    early, buffer = self.conv1(x), x.new_zeros(len(x), 8, 16, 16)
    buffer.narrow(1, 0, 4).copy_(early[:, :4])
    buffer.narrow(1, 4, 4).copy_(F.relu(early[:, 4:]))
    return self.finish(buffer)


def three_times(self: Net, early: Tensor) -> Tensor:
    for _ in range(3):
        early = F.relu(self.recurrent(early))
    return early


def squeezed(self: Net, early: Tensor) -> Tensor:
    return early * torch.sigmoid(self.gate(early.mean((2, 3))))[:, :, None, None]


def conv(*args: Any, **settings: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(8, 8, *args, **settings)


def made(forward: Body, **parts: Callable[[], Any]) -> Situation:
    return Situation(lambda: net(forward, **parts), layer="conv1", or_refused="not known|seen")


def between(body: Body, **parts: Callable[[], Any]) -> Situation:
    return made(behind_early(body), **parts)


def of_size(*size: int) -> Situation:
    """The plain network; windows do not divide the input, so occlusion is left to other tests."""
    names = [name for name in NAMES if name not in {"occlusion", *LEARNING}]
    return Situation(net, inputs=lambda: pictures(size=size), layer="conv1", names=names)


SITUATIONS = {
    "coordinates joined to the input": made(coordinates),
    "self-attention over places": between(self_attention),
    "MultiheadAttention": between(multihead, attention=lambda: nn.MultiheadAttention(8, 2, batch_first=True)),
    "TransformerEncoderLayer": between(
        lambda self, early: grid(self.block(tokens(early))),
        block=lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
    ),
    "LSTM": between(lstm_over_columns, recurrent=lambda: nn.LSTM(8, 8, batch_first=True)),
    "GRU in two directions": made(gru_last_state, recurrent=lambda: nn.GRU(8, 8, batch_first=True, bidirectional=True)),
    "roll, flip, transpose": replace(
        made(lambda self, x: self.finish(F.relu(self.conv1(x.roll(3, -1).flip(-2))).transpose(-1, -2))),
        back=lambda maps: maps.flip(-2).roll(-3, -1),
    ),
    "turned by a quarter, then mirrored": replace(
        made(lambda self, x: self.finish(F.relu(self.conv1(x.rot90(1, (2, 3)).fliplr().flip(3))))),
        back=lambda maps: maps.flip(3).rot90(-1, (2, 3)),
    ),
    "spatial transformer": made(spatial_transformer),
    "deformable convolution": made(deformable, offsets=lambda: nn.Conv2d(3, 18, 3, padding=1)),
    "pixel shuffle": between(
        lambda self, early: F.pixel_shuffle(F.relu(self.middle(F.pixel_unshuffle(early, 2))), 2),
        middle=lambda: nn.Conv2d(32, 32, 1),
    ),
    "channel shuffle": between(lambda self, early: F.channel_shuffle(early, 2)),
    "interpolation": between(
        lambda self, early: F.interpolate(
            F.interpolate(early, scale_factor=2, mode="bilinear", align_corners=True), size=16, mode="area"
        )
    ),
    "padding modes": between(
        lambda self, early: F.relu(self.reflect(self.circular(self.replicate(early)))),
        reflect=conv(3, padding=1, padding_mode="reflect"),
        circular=conv(3, padding=1, padding_mode="circular"),
        replicate=conv(3, padding=1, padding_mode="replicate"),
    ),
    "even kernel, dilation, groups": between(
        lambda self, early: F.relu(self.even(self.dilated(early))),
        even=conv(4, padding="same"),
        dilated=conv(3, padding=4, dilation=4, groups=4),
    ),
    "asymmetric and negative padding": made(
        lambda self, x: self.finish(F.relu(F.pad(F.pad(self.conv1(x), (3, 0, 1, 2), value=0.3), (-1, 0, 0, -2))))
    ),
    "transposed convolution": between(
        lambda self, early: F.relu(self.up(early)), up=lambda: nn.ConvTranspose2d(8, 8, 3, 2, 1, 1)
    ),
    "pools with ceil_mode and divisors": between(two_pools),
    "unpooling": between(unpooled),
    "pools of odd sizes": between(odd_pools),
    "unfold and fold": between(lambda self, early: F.fold(F.unfold(early, 3, padding=1), (16, 16), 3, padding=1) * 0.1),
    "FFT": made(spectral_filter),
    "sparse adjacency": made(graph_head),
    "squeeze and excitation": between(squeezed, gate=lambda: nn.Linear(8, 8)),
    "group, layer, instance norm": made(
        lambda self, x: self.finish(F.instance_norm(F.group_norm(F.layer_norm(self.conv1(x), (16, 16)), 2)))
    ),
    "weight standardization, generalized mean": made(generalized_mean),
    "top-k and sorting over places": made(sorted_places),
    "dropout in training with p = 0": between(lambda self, early: F.dropout(early, 0.0, True)),
    "cumulative sums and outer products": made(bilinear),
    "one layer three times": between(three_times, recurrent=conv(3, padding=1)),
    "concatenation in one buffer": made(one_buffer),
    "Python's own constant decides": made(lambda self, x: self.finish(self.early(x) if not self.training else x)),
    "13 x 17 pixels": of_size(13, 17),
    "one pixel wide": of_size(16, 1),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's own, of what it costs
@pairs(SITUATIONS)
def test_the_quick_answer_is_the_slow_one(situation: Situation, name: str) -> None:
    check(situation, name)


def test_a_batch_of_300_each_as_alone() -> None:
    x = pictures(300, (8, 8))
    found = explain(net(), x, "occlusion", target=1, window=4, stride=4).values
    chosen = [0, 7, 150, 299]
    close(found[chosen], loops_occlusion(net(), x[chosen]))
