"""The batch axis is followed through operations: what is proven to keep the inputs apart does so, for each input."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models

from cnnviz.engine.batch_axis.calls import Place
from cnnviz.engine.batch_axis.proof import BatchAxis
from cnnviz.engine.batch_axis.rules import RULES
from cnnviz.engine.nested import tensors
from cnnviz.engine.trace import Trace, TraceRequest

ITEMS = 3
Operation = Callable[[Tensor], Any]


class Watched(TorchFunctionMode):
    def __init__(self, axis: BatchAxis):
        super().__init__()
        self.axis = axis
        self.called: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.axis.before(func, args, kwargs or {})
        output = func(*args, **(kwargs or {}))
        self.axis.after(func, args, kwargs or {}, output)
        self.called.append(func)
        return output


def watched(operation: Operation, x: Tensor) -> tuple[Any, BatchAxis]:
    axis = BatchAxis(nn.Identity(), len(x), {weight: weight._version for weight in (WEIGHT, SQUARE)})
    axis.begin([x])
    with torch.no_grad(), Watched(axis):
        output = operation(x)
    return output, axis


def picture(*shape: int) -> Tensor:
    return torch.randn(ITEMS, *(shape or (4, 6, 5)), generator=torch.Generator().manual_seed(3), dtype=torch.float64)


WEIGHT = torch.randn(7, 4, 3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
SQUARE = torch.randn(5, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def attended(x: Tensor) -> Any:
    tokens = x.flatten(2).permute(2, 0, 1)
    weights = torch.randn(12, 4, generator=torch.Generator().manual_seed(6)).to(x)
    identity = torch.eye(4).to(x)
    return F.multi_head_attention_forward(
        *(tokens, tokens, tokens, 4, 2, weights, None, None, None, False, 0.0, identity, None), training=False
    )


def canvas(x: Tensor) -> Tensor:
    copy = x.clone()
    copy[:, 1:3] = x[:, :2] * 2
    copy[:, 0].mul_(3)
    return copy + 1


APART: dict[str, Operation] = {
    "arithmetic": lambda x: (x * 2 + x.sin() - 1) / (x.abs() + 1),
    "a constant that is broadcast": lambda x: x + SQUARE[0] * torch.arange(6).view(6, 1),
    "in place": lambda x: x.clone().relu_().mul_(2).add_(x),
    "where": lambda x: torch.where(x > 0, x, x.new_zeros(())),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "max of two": lambda x: torch.max(x, -x),
    "convolution": lambda x: F.conv2d(x, WEIGHT, padding=1),
    "transposed convolution": lambda x: F.conv_transpose2d(x, WEIGHT.transpose(0, 1)),
    "pools": lambda x: F.max_pool2d(F.avg_pool2d(x, 2), 2),
    "adaptive pool": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
    "pool with indices": lambda x: F.max_pool2d(x, 2, return_indices=True),
    "batch norm": lambda x: F.batch_norm(x, torch.zeros(4).to(x), torch.ones(4).to(x)),
    "layer norm": lambda x: F.layer_norm(x, (5,)),
    "group norm": lambda x: F.group_norm(x, 2),
    "instance norm": lambda x: F.instance_norm(x),
    "linear": lambda x: F.linear(x, SQUARE),
    "product with weights": lambda x: x @ SQUARE,
    "product with weights on the left": lambda x: torch.ones(2, 6).to(x) @ x,
    "product of two": lambda x: x @ x.transpose(2, 3),
    "einsum": lambda x: torch.einsum("nchw,wv->ncv", x, SQUARE),
    "softmax": lambda x: x.softmax(1),
    "means": lambda x: x.mean((2, 3)) - x.amax((1, 2), keepdim=True)[..., 0, 0],
    "a maximum with its place": lambda x: x.max(2),
    "standard deviation": lambda x: x.std(1),
    "norm": lambda x: F.normalize(x, dim=1) * x.norm(2, 3, keepdim=True),
    "cosine": lambda x: F.cosine_similarity(x, x * 2 + 1, dim=1),
    "order": lambda x: x.permute(2, 0, 3, 1).transpose(0, 1).movedim(1, -1),
    "matrix order": lambda x: x.mT,
    "channels last and back": lambda x: F.linear(x.permute(0, 3, 2, 1), SQUARE[:4, :4]).permute(0, 3, 1, 2),
    "time first": lambda x: x.transpose(0, 1).softmax(-1).transpose(0, 1),
    "frames in the batch": lambda x: F.conv1d(x.flatten(0, 1), torch.ones(2, 6, 3).to(x)).view(ITEMS, 4, 2, 3).mean(1),
    "windows": lambda x: (
        x.view(ITEMS, 4, 2, 3, 5).permute(0, 2, 1, 3, 4).reshape(ITEMS * 2, 4, 15).softmax(2).view(ITEMS, 2, 4, 15)
    ),
    "two batches in one": lambda x: torch.cat([x, x * 2]).exp().chunk(2)[1],
    "stacked": lambda x: torch.stack([x, x + 1], 1).flatten(0, 1).view(ITEMS, 2, 4, 6, 5),
    "stacked in front": lambda x: torch.stack([x, x + 1]).flatten(0, 1).view(2, ITEMS, 4, 6, 5).transpose(0, 1),
    "channels joined": lambda x: torch.cat([x, x[:, :2]], 1),
    "a class token": lambda x: torch.cat([torch.ones(1, 1, 5).to(x).expand(ITEMS, -1, -1), x.flatten(1, 2)], 1),
    "pieces": lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1) + x.chunk(2, 1)[0].repeat(1, 2, 1, 1),
    "unbound": lambda x: x.unbind(1)[2] * x.select(1, 0) + x.narrow(1, 1, 1).squeeze(1),
    "indices": lambda x: x[:, [2, 0]][..., 1:, None, :2].index_select(1, torch.tensor([1])),
    "shapes": lambda x: x.unsqueeze(0).squeeze(0).unflatten(1, (2, 2)).flatten(1, 2).expand(ITEMS, 4, 6, 5),
    "rolled": lambda x: x.roll((1, 2), (2, 3)).flip(1).cumsum(3),
    "sorted": lambda x: x.sort(1)[0].topk(2, 2)[0],
    "padded": lambda x: F.pad(x, (1, 2, 0, 1)),
    "resized": lambda x: F.pixel_shuffle(F.interpolate(x, scale_factor=2.0), 2),
    "unfolded": lambda x: F.unfold(x, 2),
    "cut into windows": lambda x: x.unfold(2, 3, 2),
    "sampled": lambda x: F.grid_sample(x, torch.zeros(1, 2, 2, 2).to(x).expand(ITEMS, -1, -1, -1), align_corners=False),
    "frequencies": lambda x: torch.fft.irfft(torch.fft.rfft(x)),
    "attention": lambda x: F.scaled_dot_product_attention(x, x * 2, x + 1),
    "attention of a module": lambda x: [
        part.transpose(0, 1) if part.shape[1] == ITEMS else part for part in attended(x)
    ],
    "written in part": canvas,
    "repeated": lambda x: x.repeat_interleave(2, 1).repeat(1, 1, 2, 1),
    "half and back": lambda x: x.to(torch.float32).double().contiguous().clone().detach(),
}

MIXING: dict[str, Operation] = {
    "mean of all": lambda x: x - x.mean(),
    "mean of the batch": lambda x: x - x.mean(0),
    "mean of two dimensions": lambda x: x - x.mean((0, 2), keepdim=True),
    "norm of the batch": lambda x: F.batch_norm(x, None, None, training=True),
    "norm in training": lambda x: F.batch_norm(x, torch.zeros(4).to(x), torch.ones(4).to(x), training=True),
    "softmax": lambda x: x.softmax(0),
    "sorted": lambda x: x.sort(0)[0],
    "rolled": lambda x: x.roll(1, 0),
    "rolled flat": lambda x: x.roll(1),
    "flipped": lambda x: x.flip(0),
    "exchanged": lambda x: x[[1, 0, 2]],
    "one of the batch": lambda x: x + x[:1],
    "one of the batch, by number": lambda x: x + x[0],
    "product": lambda x: x.flatten(1) @ x.flatten(1).T,
    "einsum": lambda x: torch.einsum("nchw,mchw->nm", x, x),
    "maximum": lambda x: (x / (x.abs().max() / 127)).round(),
    "time first": lambda x: x.transpose(0, 1).softmax(1).transpose(0, 1),
    "frames in the batch": lambda x: x.flatten(0, 1).mean(0, keepdim=True) + x[:, 0],
    "standard deviation": lambda x: x + x.std(0, unbiased=False).mean(),
    "by the order": lambda x: x[x[:, 0, 0, 0].argsort()],
    "pieces": lambda x: torch.cat(x.split([1, 2])[::-1]),
    "distances": lambda x: torch.cdist(x.flatten(1), x.flatten(1)),
    "frequencies": lambda x: torch.fft.fftn(x).real,
    "a view in the wrong order": lambda x: x.permute(1, 0, 2, 3).reshape(ITEMS, 4, 6, 5),
    "written into all": lambda x: x.clone().index_copy_(0, torch.tensor([0]), x[1:2]),
    "written through a view": lambda x: written_through_a_view(x),
    "decided in Python": lambda x: x * 2 if x.mean() > 0 else x * 3,
    "read by NumPy": lambda x: x * float(np.asarray(x).max()),
    "read as numbers": lambda x: x + max(x.flatten().tolist()),
    "unknown to torch": lambda x: torch.from_numpy(x.numpy()[::-1].copy()),
}


def written_through_a_view(x: Tensor) -> Tensor:
    total = torch.zeros(4, 6, 5).to(x)
    total[:2].add_(x.sum(0)[:2])
    return x + total


def rows_of(place: Place, tensor: Tensor, item: int) -> Tensor:
    """Which entries of the dimension of the batch are those of an item."""
    number = torch.arange(tensor.shape[place.dim])
    return number // place.inner % ITEMS == item


def assert_apart(operation: Operation, x: Tensor) -> None:
    """Each value of the output changes at most with the input in whose rows it is."""
    output, axis = watched(operation, x)
    assert axis.verdict is True
    for item in range(len(x)):
        changed = x.clone()
        changed[item] += torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(9), dtype=x.dtype)
        with torch.no_grad():
            other = operation(changed)
        for before, after in zip(tensors(output), tensors(other), strict=True):
            place = axis.places.get(before)
            if place is None:
                assert torch.equal(before, after)
                continue
            rows = rows_of(place, before, item)
            assert torch.equal(before.movedim(place.dim, 0)[~rows], after.movedim(place.dim, 0)[~rows])
            assert not torch.equal(before, after) or not before.is_floating_point()


@pytest.mark.parametrize("name", APART)
def test_what_is_proven_to_be_apart_is_apart(name: str) -> None:
    assert_apart(APART[name], picture())


def test_most_known_operations_are_met_by_these_tests() -> None:
    called: set[Any] = set()
    for operation in (*APART.values(), *MIXING.values()):
        mode = Watched(BatchAxis(nn.Identity(), ITEMS, {}))
        with torch.no_grad(), mode:
            operation(picture())
        called |= {RULES.get(func) for func in mode.called}
    rules = set(RULES.values())
    assert len(rules - called) <= 8, sorted(str(rule) for rule in rules - called)


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_the_inputs_is_not_said_to_be_apart(name: str) -> None:
    output, axis = watched(MIXING[name], picture())
    assert not axis.finish(output)


@pytest.mark.parametrize("items", [1, ITEMS])
@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "mobilenet_v3_small", "squeezenet1_0", "shufflenet_v2_x0_5", "convnext_tiny"]
)
def test_common_networks_are_proven(name: str, items: int) -> None:
    model = getattr(models, name)(weights=None).eval()
    trace = Trace(model, [torch.randn(items, 3, 64, 64)], TraceRequest(size=True))
    assert trace.apart is True


def transformers() -> Iterator[tuple[str, nn.Module]]:
    yield "vit", models.VisionTransformer(32, 16, 2, 2, 8, 16, num_classes=3)
    yield "swin", models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=3)


@pytest.mark.parametrize(("name", "model"), [*transformers()])
def test_transformers_are_proven_in_batches(name: str, model: nn.Module) -> None:
    trace = Trace(model.eval(), [torch.randn(2, 3, 32, 32)], TraceRequest(size=True))
    assert trace.apart is True


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def written_over(x: Tensor) -> Tensor:
    x.mul_(x.mean())
    return x


def number(x: Tensor) -> float:
    return float(x.max())


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch.jit is deprecated, and models still use it
    scripted, scripted_in_place, scripted_number = map(torch.jit.script, (swish, written_over, number))


class Unseen(nn.Module):
    def __init__(self, act: Operation):
        super().__init__()
        self.act, self.memo, self.plain = act, None, torch.full((1, 3, 1, 1), 2.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x * 2) + 1


@pytest.mark.parametrize("act", [scripted, lambda x: [scripted_in_place(x), x][1], lambda x: x * scripted_number(x)])
def test_nothing_is_proven_of_what_is_not_seen(act: Operation) -> None:
    assert Trace(Unseen(act).eval(), [torch.rand(2, 3, 4, 4)], TraceRequest(size=True)).apart is not True


def test_a_tensor_that_is_the_same_in_two_passes_is_a_constant() -> None:
    class Scaled(Unseen):
        def forward(self, x: Tensor) -> Tensor:
            return x * self.plain

    model, inputs = Scaled(scripted).eval(), [torch.rand(2, 3, 4, 4)]
    assert Trace(model, inputs, TraceRequest(size=True)).apart is None
    assert Trace(model, inputs, TraceRequest(size=True)).apart is True
    model.plain.mul_(2)
    assert Trace(model, inputs, TraceRequest(size=True)).apart is None
    assert Trace(model, inputs, TraceRequest(size=True)).apart is True
    model.plain = model.plain.clone()
    assert Trace(model, inputs, TraceRequest(size=True)).apart is None


def test_features_kept_from_another_pass_are_no_constants_at_first() -> None:
    class Remembers(Unseen):
        def forward(self, x: Tensor) -> Any:
            before, self.memo = self.memo, x * 2
            return x if before is None else x + before

    model = Remembers(scripted).eval()
    for _ in range(3):
        trace = Trace(model, [torch.rand(2, 3, 4, 4)], TraceRequest(size=True))
    assert trace.apart is None
