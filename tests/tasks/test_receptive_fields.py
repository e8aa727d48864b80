"""What a unit can see of the input is found exactly, for networks of any make."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import CONV, POOL
from struck import interrupted
from torch import Tensor, nn

from cnnviz.tasks import receptive_field
from cnnviz.tasks.receptive_fields import Unit, receptive_fields

Steps = list[tuple[int, int, int, int]]  # kernel, stride, padding, dilation


def by_hand(steps: Steps, at: int, length: int) -> slice:
    """The interval that a unit of a stack of windows sees along one axis, from the last window to the first."""
    lengths = [length]
    for kernel, stride, padding, dilation in steps:
        lengths.append((lengths[-1] + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)
    first = last = at
    for (kernel, stride, padding, dilation), most in zip(reversed(steps), reversed(lengths[:-1]), strict=True):
        first, last = first * stride - padding, last * stride - padding + dilation * (kernel - 1)
        first, last = max(first, first % dilation), min(last, most - 1)  # what is padding is not seen
    return slice(first, last + 1)


def stack(rank: int, steps: Steps) -> nn.Sequential:
    """Convolutions, with every third window a max-pool, and rectifiers between."""
    layers: list[nn.Module] = []
    for number, (kernel, stride, padding, dilation) in enumerate(steps):
        pools = number % 3 == 2
        made = POOL[rank](kernel, stride, padding, dilation) if pools else None
        layers += [made or CONV[rank](2, 2, kernel, stride, padding, dilation), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers).eval()


STACKS: list[tuple[int, Steps, tuple[int, ...]]] = [
    (1, [(5, 2, 1, 1), (3, 1, 2, 2), (3, 2, 1, 1), (7, 1, 0, 1)], (150,)),
    (2, [(7, 2, 3, 1), (3, 1, 1, 1), (3, 2, 0, 1), (3, 1, 1, 1)], (61, 47)),
    (2, [(3, 1, 0, 3), (1, 2, 0, 1), (2, 2, 0, 1), (5, 1, 2, 1)], (57, 64)),
    (3, [(3, 2, 1, 1), (2, 1, 0, 1), (2, 2, 0, 1)], (19, 24, 17)),
]


@pytest.mark.parametrize(("rank", "steps", "size"), STACKS)
def test_fields_of_stacked_windows_are_those_worked_out_by_hand(rank: int, steps: Steps, size: tuple[int, ...]) -> None:
    net, inputs = stack(rank, steps), torch.randn(2, 2, *size)
    for name, parts in ((str(2 * len(steps) - 1), steps), ("1", steps[:1])):
        shape = inputs.shape[2:]
        with torch.no_grad():
            for layer in net[: int(name) + 1]:
                shape = layer(torch.zeros(1, 2, *shape)).shape[2:]
        corners = [tuple(0 for _ in shape), tuple(each - 1 for each in shape), tuple(each // 2 for each in shape)]
        expected = [tuple(by_hand(parts, *each) for each in zip(at, size, strict=True)) for at in corners]
        assert receptive_fields(net, inputs, name, [Unit(at) for at in corners]) == expected
        assert receptive_field(net, inputs, name, corners[2], channel=1) == expected[2]


class Written(nn.Module):
    """Residual, functional, with branches of different reach and a gate that sees everything."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.wide = nn.Conv2d(8, 4, (1, 5), padding=(0, 2))
        self.narrow = nn.Conv2d(8, 4, 1)
        self.joined, self.gated, self.head = nn.Identity(), nn.Identity(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + F.hardswish(self.inner(x)).clamp(max=2)
        x = self.joined(torch.cat([self.narrow(x), self.wide(x)], 1))
        x = self.gated(x * torch.sigmoid(x.mean((2, 3), keepdim=True)))
        return self.head(x.amax((2, 3)))


@pytest.fixture
def written() -> nn.Module:
    torch.manual_seed(0)
    return Written().eval()


def test_branches_are_told_apart_and_gates_see_everything(written: nn.Module) -> None:
    inputs, at = torch.randn(1, 3, 40, 40), (9, 8)
    narrow = (slice(16, 23), slice(14, 21))  # 3 x 3 at stride 2, then 3 x 3 beside it
    wide = (slice(16, 23), slice(10, 25))
    assert receptive_field(written, inputs, "joined", at, channel=2) == narrow
    assert receptive_field(written, inputs, "joined", at, channel=6) == wide
    assert receptive_field(written, inputs, "joined", at) == wide
    everything = (slice(0, 39), slice(0, 39))  # the last row and column are left over by the stride
    assert receptive_field(written, inputs, "gated", at) == everything
    assert receptive_field(written, inputs, "head", ()) == everything


def test_resnet18() -> None:
    from torchvision.models import resnet18

    net, size = resnet18().eval(), 97
    stem: Steps = [(7, 2, 3, 1), (3, 2, 1, 1)]
    plain: Steps = [(3, 1, 1, 1)] * 4
    fields = {"layer1": stem + plain, "layer2": [*stem, *plain, (3, 2, 1, 1), *plain[1:]]}
    for layer, steps in fields.items():
        at = 6 if layer == "layer2" else 11
        expected = (by_hand(steps, at, size), by_hand(steps, at + 1, size))
        assert receptive_field(net, torch.randn(1, 3, size, size), layer, (at, at + 1)) == expected


@pytest.mark.parametrize(
    "operation",
    [
        *(nn.ReLU6(), nn.Hardswish(), nn.Hardsigmoid(), nn.Hardtanh(), nn.LeakyReLU(), nn.PReLU(), nn.RReLU()),
        *(nn.Threshold(0.1, 0.2), nn.ELU(), nn.SiLU(), nn.GELU(), nn.Softplus(), nn.Hardshrink(), nn.Softshrink()),
        *(nn.BatchNorm2d(4), nn.LocalResponseNorm(3), nn.Dropout(), nn.Softmax(1)),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_operations_on_each_place_let_a_nan_through(operation: nn.Module) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), operation).eval()
    assert receptive_field(net, torch.randn(1, 3, 21, 21), "1", (5, 9)) == (slice(4, 7), slice(8, 11))


def test_every_place_of_the_field_counts_and_nothing_else(written: nn.Module) -> None:
    """Moved by hand: the net made linear and positive, so that no rectifier hides a dependence."""
    with torch.no_grad():
        for weight in written.parameters():
            weight.abs_().mul_(0.3)
    inputs = torch.rand(1, 3, 24, 20, requires_grad=True)
    seen: list[Tensor] = []
    written.joined.register_forward_hook(lambda module, args, output: seen.append(output))
    written(inputs)
    for at in ((0, 0), (4, 3), (10, 8)):
        (slope,) = torch.autograd.grad(seen[0][0, :, *at].sum(), inputs, retain_graph=True)
        rows, columns = (slope.abs().sum((0, 1)) > 0).nonzero(as_tuple=True)
        expected = (slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1))
        assert receptive_field(written, inputs, "joined", at) == expected


class Hiding(nn.Module):
    """Replaces NaN on one way through it, or on all."""

    def __init__(self, everywhere: bool):
        super().__init__()
        self.everywhere = everywhere
        self.near, self.far = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 5, padding=2)
        self.sum = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        near = self.near(x)
        return self.sum((torch.nan_to_num(near) if self.everywhere else near) + torch.nan_to_num(self.far(x)))


def test_a_model_that_hides_nan_is_not_believed() -> None:
    inputs = torch.randn(1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"a NaN in the input does not reach the unit at \(4, 4\) of layer 'sum'"):
        receptive_field(Hiding(everywhere=True).eval(), inputs, "sum", (4, 4))
    with pytest.raises(ValueError, match=r"the unit at \(4, 4\) of layer 'sum' depends on more than a NaN tells of"):
        receptive_field(Hiding(everywhere=False).eval(), inputs, "sum", (4, 4))
    assert receptive_field(Hiding(everywhere=True).eval(), inputs, "far", (4, 4)) == (slice(2, 7), slice(2, 7))


def test_what_there_is_not_is_told(written: nn.Module) -> None:
    inputs = torch.randn(1, 3, 40, 40)
    with pytest.raises(ValueError, match=r"layer 'joined' is \(19, 19\) in space; there is no unit at \(19, 0\)"):
        receptive_field(written, inputs, "joined", (19, 0))
    with pytest.raises(ValueError, match="there is no channel 8 in layer 'joined'; it has 8, numbered 0 to 7"):
        receptive_field(written, inputs, "joined", (0, 0), channel=8)
    with pytest.raises(LookupError, match="Written has no layer 'jonied'; did you mean 'joined'"):
        receptive_field(written, inputs, "jonied", (0, 0))


def test_passes_end_at_the_layer_and_build_no_graph(written: nn.Module) -> None:
    met: list[bool] = []
    written.head.register_forward_hook(lambda module, args, output: met.append(output.requires_grad))
    receptive_field(written, torch.randn(1, 3, 40, 40), "stem", (3, 3))
    assert met == [False]  # the first pass counts the layer's calls


@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeoutError])
def test_an_exception_while_kernels_are_chosen_leaves_the_choice(written: nn.Module, kind: type[BaseException]) -> None:
    """It is one for the whole process."""

    def chosen() -> tuple[bool, bool]:
        return torch._C._get_nnpack_enabled(), torch._C._get_cudnn_enabled()

    def choosing(frame: Any) -> bool:
        names = ("_direct_kernels", "_enable", "flags", "set_flags", "__enter__", "__exit__")
        files = ("receptive_fields.py", "nnpack/__init__.py", "contextlib.py")
        return frame.f_code.co_name in names and frame.f_code.co_filename.endswith(files)

    before, line = chosen(), 1
    while interrupted(lambda: receptive_field(written, torch.zeros(1, 3, 9, 9), "stem", (2, 2)), line, kind, choosing):
        assert chosen() == before, line
        line += 1
    assert line > 10
