"""FullGrad: the shares of the input and of every bias add up to the score, their magnitudes to its map."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import CONV, NORM, AveragingNet, FlatteningNet, randomized, scores, slopes, tiny_inputs
from struck import interrupted
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import _cur_sdpa_kernel_backends
from torchvision import models

import cnnviz
from cnnviz import Run, explain

TARGET = [2, 0]


def corner(length: int, size: int) -> Tensor:
    """Linear interpolation from ``length`` values to ``size``, ends on ends, as a matrix."""
    matrix = torch.zeros(size, length, dtype=torch.float64)
    for place in range(size):
        where = place * (length - 1) / (size - 1)
        low = min(int(where), length - 1)
        matrix[place, low] += 1 - (where - low)
        if low + 1 < length:
            matrix[place, low + 1] += where - low
    return matrix


def stretched(maps: Tensor, size: torch.Size) -> Tensor:
    for dim, length in enumerate(size, 2):
        if maps.shape[dim] != length:
            maps = torch.tensordot(maps, corner(maps.shape[dim], length), ([dim], [1])).movedim(-1, dim)
    return maps


def magnitudes(term: Tensor, scaled: bool) -> Tensor:
    found = torch.zeros_like(term[:, :1])
    for item, values in enumerate(term.abs()):
        low, high = float(values.min()), float(values.max())
        for channel in values:
            found[item, 0] += (channel - low) / (high - low) if scaled else channel
    return found


def shares_by_hand(net: AveragingNet, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Input x gradient and gradient x bias where an operation adds one, as maps; and the head's own bias, (N,)."""
    with torch.no_grad():

        def after_first(maps: Tensor) -> Tensor:
            return after_norm(net.norm(maps))

        def after_norm(maps: Tensor) -> Tensor:
            return after_second(net.second(net.pool(maps.clamp(min=0))))

        def after_second(maps: Tensor) -> Tensor:
            return net.classify(maps.clamp(min=0))

        spread = (-1, *(1,) * (x.ndim - 2))
        shift = net.norm.bias - net.norm.weight * net.norm.running_mean / (net.norm.running_var + net.norm.eps).sqrt()
        first = net.first(x)
        normed = net.norm(first)
        second = net.second(net.pool(normed.clamp(min=0)))
        rests = (after_first, after_norm, after_second)
        biases = (net.first.bias, shift, net.second.bias)
    shares = [x * slopes(scores(net, TARGET), x)]
    steps = zip(rests, (first, normed, second), biases, strict=True)
    shares += [slopes(scores(rest, TARGET), maps) * bias.detach().view(spread) for rest, maps, bias in steps]
    return shares, net.head.bias.detach()[TARGET]


@pytest.mark.parametrize("scaled", [True, False], ids=("scaled", "raw"))
def test_the_map_is_the_sum_of_all_magnitudes(rank: int, inputs: Tensor, scaled: bool) -> None:
    net = AveragingNet(rank)
    found = explain(net, inputs, "fullgrad", target=TARGET, scaled=scaled)
    shares, _ = shares_by_hand(net, inputs)
    by_hand = sum(stretched(magnitudes(share, scaled), inputs.shape[2:]) for share in shares)
    torch.testing.assert_close(found.values, by_hand, rtol=1e-6, atol=1e-6)
    assert found.values.shape == (2, 1, *inputs.shape[2:])
    assert shares[-1].shape != shares[0].shape  # so that stretching is tested


def test_the_shares_by_hand_are_the_score(rank: int, inputs: Tensor) -> None:
    net = AveragingNet(rank)
    shares, head = shares_by_hand(net, inputs)
    total = sum(share.flatten(1).sum(1) for share in shares) + head
    torch.testing.assert_close(total, scores(net, TARGET)(inputs), rtol=1e-7, atol=1e-7)
    found = Run(net, inputs, torch.tensor(TARGET)).bias_gradients()
    torch.testing.assert_close(sum(each.flatten(1).sum(1) for each in found), total - shares[0].flatten(1).sum(1))
    assert len(found) == 4


class Curved(nn.Module):
    """Operations whose biases only their derivative tells."""

    def __init__(self, rank: int, curve: Callable[[Tensor], Tensor]):
        super().__init__()
        self.first = CONV[rank](2, 3, 3, padding=1)
        self.norm = NORM[rank](3)
        self.curve = curve
        self.head = nn.Linear(3, 3)
        randomized(self, seed=40 + rank)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.curve(self.norm(self.first(x))).flatten(2).mean(2))


CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "silu": F.silu,
    "silu-inplace": lambda x: F.silu(x, inplace=True),
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "relu6": lambda x: F.relu6(3 * x),
    "hardswish": F.hardswish,
    "add": lambda x: x + 0.7,
    "add-inplace": lambda x: x.add_(0.7),
    "augmented-add": lambda x: x.__iadd__(0.7),
    "subtract-from": lambda x: 1 - x,
    "multiply": lambda x: x * x.sigmoid(),
    "square": lambda x: x**2,
    "residual": lambda x: x + F.relu(x * 2 - 1),
    "gate": lambda x: x * x.flatten(2).mean(2).sigmoid().view(*x.shape[:2], *(1,) * (x.ndim - 2)),
    "softmax": lambda x: x.softmax(1),
    "layer-norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "threshold": lambda x: F.threshold(x, 0.1, 0.3),
}


@pytest.mark.parametrize("name", CURVES)
def test_what_any_operation_adds_is_y_less_its_linear_part(rank: int, inputs: Tensor, name: str) -> None:
    curve = CURVES[name]
    net = Curved(rank, curve)
    found = explain(net, inputs, "fullgrad", target=TARGET)
    torch.testing.assert_close(found.notes["completeness_gap"], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-10)
    direct = inputs * slopes(scores(net, TARGET), inputs)
    terms = Run(net, inputs, torch.tensor(TARGET)).bias_gradients()
    total = sum(each.flatten(1).sum(1) for each in terms) + direct.flatten(1).sum(1)
    torch.testing.assert_close(total, scores(net, TARGET)(inputs), rtol=0, atol=1e-6)


SINGLE = ("silu", "silu-inplace", "gelu", "sigmoid", "hardswish", "square", "softmax", "threshold")


@pytest.mark.parametrize("name", SINGLE)
def test_the_share_of_a_curve_is_where_the_curve_is(rank: int, inputs: Tensor, name: str) -> None:
    curve, net = CURVES[name], Curved(rank, CURVES[name])
    with torch.no_grad():
        z = net.norm(net.first(inputs))
        linear = (curve(z * (1 + 1e-6)) - curve(z * (1 - 1e-6))) / 2e-6
        adds = curve(z.clone()) - linear
    weight = net.head.weight.detach()[TARGET].view(2, 3, *(1,) * (inputs.ndim - 2))
    share = adds * weight / z[0, 0].numel()
    terms = Run(net, inputs, torch.tensor(TARGET)).bias_gradients()
    found = [each for each in terms if each.shape == share.shape]
    assert min(float((each - share).abs().max()) for each in found) < 1e-7


def test_the_gap_tells_what_is_missing() -> None:
    net, inputs = FlatteningNet(), tiny_inputs()

    class Hidden(nn.Module):
        """Adds to the score what no operation on the input adds."""

        def forward(self, x: Tensor) -> Tensor:
            scores = net(x)
            scores.data.add_(5.0)
            return scores

    found = explain(Hidden().eval(), inputs, "fullgrad", target=TARGET)
    torch.testing.assert_close(found.notes["completeness_gap"], torch.full((2,), -5.0, dtype=torch.float64))


def test_a_hook_of_the_users_may_watch_gradients() -> None:
    net, inputs, seen = AveragingNet(), tiny_inputs(), []
    expected = explain(net, inputs, "fullgrad", target=TARGET).values
    net.second.register_forward_hook(lambda module, args, output: output.register_hook(seen.append) and None)
    torch.testing.assert_close(explain(net, inputs, "fullgrad", target=TARGET).values, expected)
    assert seen


def test_a_network_without_biases_is_input_x_gradient(rank: int, inputs: Tensor) -> None:
    net = nn.Sequential(CONV[rank](2, 3, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3, bias=False))
    net.double()(inputs)
    randomized(net)
    found = explain(net, inputs, ("fullgrad", "input_x_gradient"), target=TARGET, scaled=False)
    by_hand = found["input_x_gradient"].values.abs().sum(1, keepdim=True)
    torch.testing.assert_close(found["fullgrad"].values, by_hand)
    assert found["fullgrad"].notes["completeness_gap"].abs().max() < 1e-12


@pytest.mark.parametrize("name", ["squeezenet", "mobilenet"])
def test_completeness_of_trained_networks(name: str, photographs: Tensor, request: pytest.FixtureRequest) -> None:
    found = explain(request.getfixturevalue(name), photographs, "fullgrad", target=[56, 243])
    assert (found.notes["completeness_gap"].abs() <= 1e-3 * found.score.abs()).all()


ZOO = (
    *("resnet18", "vgg11_bn", "densenet121", "googlenet", "efficientnet_b0", "convnext_tiny"),
    *("shufflenet_v2_x0_5", "regnet_y_400mf", "mobilenet_v3_small", "mnasnet0_5", "inception_v3", "swin_t"),
)


@cache
def noise() -> Tensor:
    return torch.randn(2, 3, 75, 75, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ZOO)
def test_completeness_of_torchvisions_networks(name: str) -> None:
    torch.manual_seed(0)
    settings = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    settings |= {"init_weights": False} if name in ("googlenet", "inception_v3", "vgg11_bn") else {}
    net = models.get_model(name, weights=None, num_classes=10, **settings)
    batch_norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in batch_norms:
        module.momentum = None  # statistics of the one batch, else signals fade in untrained networks
        nn.init.uniform_(module.bias, -0.5, 0.5)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        net.train()(noise())
    images = noise()
    if name == "inception_v3":  # statistics of two values a channel at its end: float32 rounds to 1e-3 of the score
        net, images = net.double(), images.double()
    found = explain(net.eval(), images, ("fullgrad", "input_x_gradient"), target=[3, 7])
    assert (found["fullgrad"].notes["completeness_gap"].abs() <= 1e-3 * found["fullgrad"].score.abs()).all()
    direct = found["input_x_gradient"].values.flatten(1).sum(1)
    assert ((direct - found["fullgrad"].score).abs() > 1e-2 * found["fullgrad"].score.abs()).any()  # biases matter


def test_bias_maps_of_another_magnitude() -> None:
    net, inputs = AveragingNet(), tiny_inputs()
    signed = cnnviz.formulas.bias_maps(lambda term: term.sum(1, keepdim=True))
    found = explain(net, inputs, signed, target=TARGET).values
    shares, _ = shares_by_hand(net, inputs)
    by_hand = sum(stretched(share.sum(1, keepdim=True), inputs.shape[2:]) for share in shares[1:])
    torch.testing.assert_close(found, by_hand, rtol=1e-6, atol=1e-6)


class Dynamic(nn.Module):
    """A convolution whose kernel is made of its input; ``apply(values, kernel)`` computes it."""

    def __init__(self, apply: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
        randomized(self, 1)
        self.apply_kernel = apply
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        values = self.stem(x)
        kernel = values.mean((2, 3)).sigmoid()[..., None, None].expand(-1, -1, 3, 3)
        return self.head(self.apply_kernel(values, kernel).relu().mean((2, 3)))


def _grouped(values: Tensor, kernel: Tensor) -> Tensor:
    items, channels = values.shape[:2]
    batch = values.reshape(1, items * channels, *values.shape[2:])
    found = F.conv2d(batch, kernel.reshape(-1, 1, 3, 3), groups=items * channels)
    return found.reshape(items, channels, *found.shape[2:])


def _one_kernel(values: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(values, kernel[0][:, None], groups=4)


def _by_loops(values: Tensor, kernel: Tensor) -> Tensor:
    height, width = (size - 2 for size in values.shape[2:])
    places = [(row, column) for row in range(3) for column in range(3)]
    parts = [kernel[:, :, r, c][..., None, None] * values[:, :, r : r + height, c : c + width] for r, c in places]
    return torch.stack(parts).sum(0)


@pytest.mark.parametrize("apply", [_grouped, _one_kernel])
def test_a_kernel_that_is_made_of_the_input(apply: Callable[[Tensor, Tensor], Tensor]) -> None:
    def by_loops(values: Tensor, kernel: Tensor) -> Tensor:
        return _by_loops(values, kernel[:1].expand_as(kernel) if apply is _one_kernel else kernel)

    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    found, expected = (explain(Dynamic(each), x, "fullgrad", target=1, scaled=False) for each in (apply, by_loops))
    for each in (found, expected):
        gap = each.notes["completeness_gap"]
        # one input's kernel acts on the other input, too
        assert (gap.sum().abs() if apply is _one_kernel else gap.abs().max()) < 1e-12
    biases = [
        sum(t.sum() for t in Run(Dynamic(each), x, torch.tensor([1, 1])).bias_gradients()) for each in (apply, by_loops)
    ]
    torch.testing.assert_close(biases[0], biases[1], rtol=0, atol=1e-12)


def test_a_model_that_takes_gradients_of_itself_is_refused_in_one_line() -> None:
    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = AveragingNet()

        def forward(self, x: Tensor) -> Tensor:
            (grad,) = torch.autograd.grad(x.pow(3).sum(), x, create_graph=True)
            return self.net(grad)

    with pytest.raises(LookupError, match=r"^the implicit bias of grad is not known: [^\n]*$"):
        explain(Slope().eval(), tiny_inputs(), "fullgrad", target=TARGET)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeoutError])
def test_an_exception_inside_of_torchs_contexts_leaves_no_forward_derivatives(kind: type[BaseException]) -> None:
    """One level of them, and one choice of attention kernels, is all that a process has."""
    net, inputs = nn.Sequential(CONV[2](2, 3, 3), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), tiny_inputs()
    net = net.double().eval()
    expected, kernels = explain(net, inputs, "fullgrad", target=1).values, _cur_sdpa_kernel_backends()

    def in_contexts(frame: Any) -> bool:
        named: str = frame.f_code.co_filename
        return named.endswith(("forward_ad.py", "attention/__init__.py"))

    line = 1
    while interrupted(lambda: explain(net, inputs, "fullgrad", target=1), line, kind, in_contexts):
        assert forward_ad._current_level == -1, line
        assert _cur_sdpa_kernel_backends() == kernels, line
        line += 1 + line // 30
    assert line > 50
    assert torch.equal(explain(net, inputs, "fullgrad", target=1).values, expected)
