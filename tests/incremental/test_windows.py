"""What a changed box of the input does is computed where it reaches, and is what whole passes give."""

from __future__ import annotations

import operator
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import CONV, NORM, POOL, randomized
from torch import Tensor, nn
from torchvision import models

import cnnviz
from cnnviz import Run
from cnnviz.formulas import baseline_input
from cnnviz.incremental import region_rules as local
from cnnviz.incremental.evaluator import Evaluator
from cnnviz.run.options import RunOptions
from cnnviz_plugins.attributions.occlusion import occlusion

Asked = dict[str, Any]


def random_boxes(count: int, size: tuple[int, ...], seed: int = 0) -> Tensor:
    """(count, rank, 2), of all lengths, at the borders too."""
    generator = torch.Generator().manual_seed(seed)
    ends = [torch.randint(0, side + 1, (count, 2), generator=generator).sort(1).values for side in size]
    boxes = torch.stack(ends, 1)
    room = torch.tensor(size)[None, :, None]
    boxes[..., 1] = torch.maximum(boxes[..., 1], boxes[..., 0] + 1)
    return boxes - (boxes[..., 1:] - room).clamp(min=0)


def small_boxes(count: int, size: tuple[int, ...], side: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    begins = torch.stack([torch.randint(0, length - side + 1, (count,), generator=generator) for length in size], 1)
    begins[0], begins[1] = 0, torch.tensor(size) - side  # two corners
    return torch.stack([begins, begins + side], 2)


def scores_both_ways(run: Run, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """By boxes, and by one whole pass for each variant of each item."""
    noise = torch.randn(len(boxes), *run.inputs.shape, generator=torch.Generator().manual_seed(3)).to(run.inputs)

    def place(number: int) -> tuple[slice, ...]:
        return (slice(None), *(slice(begin, end) for begin, end in boxes[number].tolist()))

    found = run.scores_of_boxes(boxes, lambda number, item: noise[number, item][place(number)])
    plain = torch.empty_like(found)
    for number in range(len(boxes)):
        for item in range(len(run.inputs)):
            one = run.inputs[item].clone()
            one[place(number)] = noise[number, item][place(number)]
            inputs = run.inputs.clone()
            inputs[item] = one
            plain[number, item] = run.at(inputs).score[item]
    return found, plain


def made(name: str, size: int, **settings: Any) -> nn.Module:
    """In eval mode, with weights and statistics with which signals last."""
    torch.manual_seed(0)
    module: nn.Module = models.get_model(name, weights=None, num_classes=10, **settings)
    if name.startswith("vgg"):
        module.classifier = nn.Linear(512 * 49, 10)  # the others are most of the weights, and only cost time
    for each in module.modules():
        if isinstance(each, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(each.weight, nonlinearity="relu")
        if isinstance(each, nn.BatchNorm2d):
            each.momentum = None  # the statistics of the one batch that follows
    with torch.no_grad():
        module.train()(torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0)))
    return module.eval()


class Everything(nn.Module):
    """Every operation that there is a rule for, of any rank: grouped, strided, dilated, padded, pooled, joined."""

    def __init__(self, rank: int):
        super().__init__()
        conv, norm = CONV[rank], NORM[rank]
        self.first = conv(2, 4, 3, stride=2, padding=1)
        self.norm = norm(4)
        self.relu = nn.ReLU(inplace=True)  # used again and again
        self.grouped = conv(4, 4, 3, padding="same", dilation=2, groups=2)
        self.second_norm = norm(4)
        self.even = conv(4, 4, 2, padding="same", bias=False)
        self.slope = nn.PReLU(4)
        self.head = nn.Linear(16, 3)
        self.rank = rank
        self.pool = POOL[rank](3, 2, padding=1, ceil_mode=True)
        randomized(self, seed=rank)

    def forward(self, x: Tensor) -> Tensor:
        average = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[self.rank - 1]
        x = self.relu(self.norm(self.first(x)))
        before = x
        x = x + self.relu(self.second_norm(self.grouped(x)))
        x += 0.5 * self.slope(self.even(x))
        y = average(F.pad(x, (1, 2) * self.rank, value=0.3), 3, 2, 1, count_include_pad=False)
        z = self.pool(torch.cat([x, before.sigmoid_() * 2], 1))
        z = torch.maximum(z, 0.1 * torch.ones_like(z))
        low = tuple(min(a, b) for a, b in zip(y.shape[2:], z.shape[2:], strict=True))
        y, z = (each[(..., *(slice(n) for n in low))] for each in (y, z))
        return self.head(torch.cat([y, z.clamp(max=1.5), F.hardswish(y)], 1).mean(tuple(range(2, x.ndim))))


SIZES = {1: (61,), 2: (37, 42), 3: (19, 21, 17)}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_every_known_operation_gives_what_whole_passes_give(rank: int, evaluators: list[Evaluator]) -> None:
    inputs = torch.randn(2, 2, *SIZES[rank], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    run = Run(Everything(rank), inputs, torch.tensor([2, 0]))
    for boxes in (small_boxes(12, SIZES[rank], 3), random_boxes(10, SIZES[rank])):
        found, plain = scores_both_ways(run, boxes)
        torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)
    assert [each.trusted for each in evaluators] == [True, True]


NETWORKS: dict[str, tuple[int, Asked]] = {
    "resnet18": (64, {}),
    "resnext50_32x4d": (64, {}),
    "vgg11_bn": (48, {}),
    "densenet121": (64, {}),
    "googlenet": (96, {"aux_logits": False, "transform_input": True, "init_weights": False}),
    "inception_v3": (79, {"aux_logits": False, "init_weights": False}),
    "efficientnet_b0": (64, {}),
    "convnext_tiny": (64, {}),
    "shufflenet_v2_x0_5": (64, {}),
    "mobilenet_v3_small": (64, {}),
    "regnet_y_400mf": (64, {}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_of_boxes_are_those_of_whole_passes(name: str, evaluators: list[Evaluator]) -> None:
    size, settings = NETWORKS[name]
    network = made(name, size, **settings).double()  # in which no rounding can hide a mistake
    inputs = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, plain = scores_both_ways(Run(network, inputs, torch.tensor([3])), small_boxes(5, (size, size), 5))
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)
    assert evaluators[0].trusted


def compared_with_captum(network: nn.Module, inputs: Tensor, window: int, stride: int) -> float:
    """How far apart the two maps are, relative to the peak."""
    captum = pytest.importorskip("captum.attr")
    with torch.no_grad():
        target = network(inputs).argmax(1)
        shapes = {"sliding_window_shapes": (3, window, window), "strides": (3, stride, stride)}
        theirs = captum.Occlusion(network).attribute(inputs, target=target, **shapes)[:, :1]
    ours = cnnviz.explain(network, inputs, occlusion(window, stride), target=target).values
    return float((ours - theirs).abs().amax() / theirs.abs().amax())


@pytest.mark.parametrize("name", ["squeezenet", "mobilenet"])
def test_occlusion_of_trained_networks_is_captums(
    name: str, photographs: Tensor, request: pytest.FixtureRequest, evaluators: list[Evaluator]
) -> None:
    assert compared_with_captum(request.getfixturevalue(name), photographs[:1], 28, 21) < 1e-4
    assert evaluators[0].trusted


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_occlusion_of_large_networks_is_captums(name: str, evaluators: list[Evaluator]) -> None:
    inputs = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert compared_with_captum(made(name, 64), inputs, 16, 16) < 1e-4
    assert evaluators[0].trusted


def produced(network: nn.Module, inputs: Tensor) -> int:
    """How many values the operations of modules give in one pass."""
    total = 0

    def count(module: nn.Module, args: Any, output: Tensor) -> None:
        nonlocal total
        total += output.numel()

    handles = [each.register_forward_hook(count) for each in network.modules() if not list(each.children())]
    with torch.no_grad():
        network(inputs)
    for each in handles:
        each.remove()
    return total


@pytest.mark.parametrize(("name", "share"), [("resnet18", 0.35), ("vgg11", 0.15), ("squeezenet1_0", 0.35)])
def test_far_less_is_computed_than_whole_passes_would(name: str, share: float, evaluators: list[Evaluator]) -> None:
    network = made(name, 128)
    inputs = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    cnnviz.explain(network, inputs, occlusion(18, 18), target=1)
    (evaluator,) = evaluators
    assert evaluator.trusted
    assert 0 < evaluator.elements < share * 64 * produced(network, inputs)


class Wild(nn.Module):
    """Writes where others look: into its input, into views, into what it was given before."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2)
        self.head = nn.Linear(4, 3)
        randomized(self)

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        y = self.first(x)
        kept = y.detach()
        y.relu_()
        y[:, 1] = y[:, 0] * 0.5  # an assignment into a part
        half = y.narrow(1, 2, 2)
        half.add_(x)
        z = self.second(y) + kept[:, :, 1:-1:2, 1:-1:2].mean((1, 2, 3), keepdim=True)
        torch.sigmoid(z, out=z)
        return self.head(z.mean((2, 3)))


def test_a_model_that_writes_everywhere_is_answered(evaluators: list[Evaluator]) -> None:
    inputs = torch.randn(2, 2, 25, 23, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before = inputs.clone()
    found, plain = scores_both_ways(Run(Wild(), inputs, torch.tensor([1, 2])), small_boxes(6, (25, 23), 4))
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)
    assert torch.equal(inputs, before)


class Compares(nn.Module):
    """A map that is not changed is compared with one that is."""

    def __init__(self, compare: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.conv, self.head, self.compare = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(3, 3), compare
        self.table = nn.Parameter(torch.zeros(1, 3, 19, 17))
        randomized(self)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        return self.head(torch.where(self.compare(self.table, maps), maps, 0.3 * self.table).mean((2, 3)))


@pytest.mark.parametrize("compare", [operator.gt, operator.ge, operator.lt, operator.le, operator.eq, operator.ne])
def test_python_asks_the_changed_side_of_a_comparison_first(compare: Any, evaluators: list[Evaluator]) -> None:
    inputs = torch.randn(2, 2, 19, 17, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    run = Run(Compares(compare), inputs, torch.tensor([1, 2]))
    found, plain = scores_both_ways(run, small_boxes(7, (19, 17), 3))
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)
    assert [each.trusted for each in evaluators] == [compare is not operator.eq or None]


class Forking(nn.Module):
    """Goes one way or the other by what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        randomized(self)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (y * 3 if y[:, 0].mean() > 0 else -y.relu()).mean((2, 3))


def test_control_flow_by_values_is_followed_for_each_variant(evaluators: list[Evaluator]) -> None:
    inputs = torch.randn(2, 2, 9, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    network = Forking()
    boxes = small_boxes(9, (9, 8), 6)
    run = Run(network, inputs, torch.tensor([1, 2]))
    noise = torch.randn(9, *inputs.shape, dtype=torch.float64)

    def inside(number: int, item: int) -> Tensor:
        (top, bottom), (left, right) = boxes[number].tolist()
        return noise[number, item, :, top:bottom, left:right]

    found = run.scores_of_boxes(boxes, inside)
    ways = set()
    for number, ((top, bottom), (left, right)) in enumerate(boxes.tolist()):
        for item in range(2):
            one = inputs[item : item + 1].clone()
            one[0, :, top:bottom, left:right] = inside(number, item)
            with torch.no_grad():
                ways.add(bool(network.conv(one)[:, 0].mean() > 0))
                expected = network(one)[0, run.target[item]]
            torch.testing.assert_close(found[number, item], expected)
    assert ways == {True, False}
    assert evaluators[0].trusted is None  # nothing is shared


def wrong(chunk: Any, op: Any, func: Any, args: Any, kwargs: Any) -> Tensor:
    return chunk.region(op, args[0].boxes, func(args[0].inside) * 1.01)


def failing(chunk: Any, op: Any, func: Any, args: Any, kwargs: Any) -> Tensor:
    raise RuntimeError("shapes do not match")


@pytest.mark.parametrize("rule", [wrong, failing])
def test_a_rule_that_is_wrong_is_found_out(
    rule: Any, flattening: nn.Module, evaluators: list[Evaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(local.RULES, F.relu, rule)
    inputs = torch.randn(2, 2, 17, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, plain = scores_both_ways(Run(flattening, inputs, torch.tensor([1, 2])), small_boxes(7, (17, 13), 4))
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)
    assert evaluators[0].trusted is False


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"window": 3, "stride": 2}, (1, 17, 13)),
        ({"window": (4, 13), "stride": (3, 13)}, (1, 17, 13)),
        ({"window": (1, 5, 3), "stride": (1, 5, 2)}, (2, 17, 13)),
        ({"window": 7, "stride": 5, "baseline": "blur"}, (1, 17, 13)),
    ],
)
def test_occlusion_is_the_mean_loss_of_the_windows_over_a_place(
    settings: Asked, shape: tuple[int, ...], flattening: nn.Module
) -> None:
    inputs = torch.randn(2, 2, 17, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = cnnviz.explain(flattening, inputs, "occlusion", target=1, **settings).values
    baseline = settings.get("baseline", 0.0)
    replacement = torch.zeros_like(inputs) if baseline == 0.0 else baseline_input(baseline)(Run(flattening, inputs))
    window, stride = (
        [each] * 2 if isinstance(each, int) else [*each] for each in (settings["window"], settings["stride"])
    )
    window, stride = ([2] * (3 - len(each)) + each for each in (window, stride))
    lost, seen = torch.zeros_like(inputs), torch.zeros_like(inputs)
    with torch.no_grad():
        before = flattening(inputs)[:, 1]
        for c in range(0, 2, stride[0]):
            for y in begins(17, window[1], stride[1]):
                for x in begins(13, window[2], stride[2]):
                    where = (slice(None), slice(c, c + window[0]), slice(y, y + window[1]), slice(x, x + window[2]))
                    covered = inputs.clone()
                    covered[where] = replacement[where]
                    lost[where] += (before - flattening(covered)[:, 1]).view(2, 1, 1, 1)
                    seen[where] += 1
    torch.testing.assert_close(found, (lost / seen)[:, : shape[0]], rtol=1e-7, atol=1e-9)


def begins(side: int, window: int, stride: int) -> list[int]:
    found = [0]
    while found[-1] + window < side:
        found.append(found[-1] + stride)
    return found


@pytest.fixture
def flattening() -> nn.Module:
    layers = (nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3), nn.ReLU())
    return randomized(nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 6 * 4, 3)))


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (torch.tensor([[[0, 0], [1, 2]]]), "boxes are .* give"),
        (torch.tensor([[[0, 3], [5, 14]]]), "outside of an input of"),
        (torch.tensor([[0, 3]]), "boxes are"),
    ],
)
def test_boxes_that_cannot_be_are_refused(boxes: Tensor, message: str, flattening: nn.Module) -> None:
    run = Run(flattening, torch.zeros(1, 2, 17, 13, dtype=torch.float64), torch.tensor([0]))
    with pytest.raises(ValueError, match=message):
        run.scores_of_boxes(boxes, lambda number, item: torch.zeros(2, 1, 1))


@pytest.mark.parametrize(
    "target",
    [
        lambda output: output[:, 0] - output[:, 2],
        cnnviz.objectives.channel("3", 1) + cnnviz.objectives.class_score(1),
        cnnviz.objectives.neuron("0", 2, (4, 5)),
        None,
    ],
)
def test_whatever_can_be_asked_of_scores_can_be_asked_of_boxes(
    target: Callable[..., Any], flattening: nn.Module
) -> None:
    inputs = torch.randn(2, 2, 17, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, plain = scores_both_ways(Run(flattening, inputs, target), small_boxes(7, (17, 13), 4))
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)


# What only some models mind


class Views(nn.Module):
    """Flattens by ``view``, which needs the ordinary order."""

    def __init__(self, looks: bool):
        super().__init__()
        self.looks = looks
        layers = (nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3, padding=1))
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(4 * 10 * 10, 3)
        randomized(self)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.features(x)
        if self.looks:
            assert maps.is_contiguous(), "the kernel wants the ordinary order"
        return self.head(maps.view(x.size(0), -1).relu())


@pytest.mark.parametrize("looks", [False, True])
def test_a_model_that_needs_the_ordinary_order_is_still_quick(looks: bool, evaluators: list[Evaluator]) -> None:
    inputs = torch.randn(2, 2, 20, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, plain = scores_both_ways(Run(Views(looks), inputs, torch.tensor([1, 2])), small_boxes(7, (20, 20), 4))
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)
    assert evaluators[0].trusted


class OnlyAlone(Forking):
    """Refuses to be watched."""

    def forward(self, x: Tensor) -> Tensor:
        if torch._C._len_torch_function_stack() > 0:
            raise RuntimeError("not under a mode")
        return self.conv(x).relu().mean((2, 3))


def test_a_model_that_cannot_be_watched_is_answered_by_whole_passes(evaluators: list[Evaluator]) -> None:
    inputs = torch.randn(2, 2, 9, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, plain = scores_both_ways(Run(OnlyAlone(), inputs, torch.tensor([1, 2])), small_boxes(4, (9, 8), 3))
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)
    assert not evaluators[0].trusted


def squash(x: Tensor) -> Tensor:
    return x / (1 + x.abs())


with warnings.catch_warnings(action="ignore"):  # torch advises others, of which a mode sees what they do
    unseen_squash = torch.jit.script(squash)


class Squashes(nn.Module):
    """What is seen outweighs what is not, and both are little beside the score."""

    def __init__(self, bias: float):
        super().__init__()
        self.conv, self.hidden, self.head = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.Linear(4, 4), nn.Linear(4, 3)
        randomized(self)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.hidden(self.conv(x).relu().mean((2, 3)))
        return self.head(hidden + 3 * unseen_squash(hidden)) + self.bias


@pytest.mark.parametrize("bias", [0.0, 1e4])
@pytest.mark.parametrize("border", [0, 12])
def test_a_small_effect_that_is_not_seen_is_found_out(bias: float, border: int, evaluators: list[Evaluator]) -> None:
    """Also where the windows that are looked at first lie on a border on which they change nothing."""
    inputs = torch.zeros(1, 1, 40, 40, dtype=torch.float64)
    inputs[..., 2 : 12 if border else 38, 26:36] = 1
    net = Squashes(bias)
    found = cnnviz.explain(net, inputs, occlusion(4, 4), target=1).values
    with torch.no_grad():
        for y in range(0, 40, 4):
            for x in range(0, 40, 4):
                covered = inputs.clone()
                covered[..., y : y + 4, x : x + 4] = 0
                expected = float((net(inputs) - net(covered))[0, 1])
                assert float(found[0, 0, y, x]) == pytest.approx(expected, rel=1e-5, abs=1e-8)
    assert not evaluators[0].trusted


def test_where_nothing_changes_the_score_nothing_is_trusted(evaluators: list[Evaluator]) -> None:
    found = cnnviz.explain(Squashes(1.0), torch.zeros(1, 1, 24, 24, dtype=torch.float64), occlusion(4, 4), target=1)
    assert not found.values.any()
    assert evaluators[0].trusted is None


class Dynamic(nn.Module):
    """Each input has filters of its own, and a norm of its own."""

    def __init__(self, normed: bool):
        super().__init__()
        self.conv, self.filters, self.head = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(3, 4 * 3 * 9), nn.Linear(4, 3)
        randomized(self)
        self.normed = normed

    def forward(self, x: Tensor) -> Tensor:
        maps, count = self.conv(x).relu(), len(x)
        means = maps.mean((2, 3))
        filters = self.filters(means).view(count * 4, 3, 3, 3)
        maps = F.conv2d(maps.reshape(1, count * 3, *x.shape[2:]), filters, padding=1, groups=count)
        if self.normed:
            scale = means.repeat(1, 2)[:, :4].reshape(-1)
            maps = F.batch_norm(maps, scale * 0.1, scale.abs() + 1, scale, None, False)
        return self.head(maps.view(count, 4, *x.shape[2:]).relu().mean((2, 3)))


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("budget", [20_000, 40_000, 60_000, None])
def test_filters_made_of_the_input_are_not_taken_from_another(
    budget: int | None, normed: bool, evaluators: list[Evaluator]
) -> None:
    inputs = torch.randn(1, 2, 17, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    run = Run(Dynamic(normed), inputs, torch.tensor([1]), options=RunOptions(memory=budget))
    found, plain = scores_both_ways(run, small_boxes(11, (17, 13), 4))
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)


def test_a_rule_that_fails_in_the_middle_is_made_up_for(
    flattening: nn.Module, evaluators: list[Evaluator], monkeypatch: pytest.MonkeyPatch
) -> None:
    rule, calls = local.RULES[F.relu], 0

    def sometimes(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= 8:
            raise RuntimeError("shapes do not match")
        return rule(*args)

    monkeypatch.setitem(local.RULES, F.relu, sometimes)
    inputs = torch.randn(2, 2, 17, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    run = Run(flattening, inputs, torch.tensor([1, 2]), options=RunOptions(memory=5_000))
    found, plain = scores_both_ways(run, small_boxes(30, (17, 13), 4))
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)
    assert evaluators[0].trusted
    assert calls > 8  # and every part of the variants was asked in whole passes from then on


class ComparesEqualValues(nn.Module):
    """Jumps where two values differ that are equal: they must be of one pass, and of one memory format."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.layer = nn.Identity()
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        maps = self.layer(first + 0.0)
        return self.head(torch.where(maps > first, first, 0.5 * maps).mean((2, 3)))


def test_variants_of_a_layer_differ_from_the_pass_that_they_are_made_for() -> None:
    net = randomized(ComparesEqualValues())
    inputs = torch.randn(1, 3, 20, 11, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    run = Run(net, inputs, torch.tensor([1]))
    kept, boxes = run.activation("layer"), small_boxes(9, (20, 11), 2)
    noise = torch.randn(9, *kept.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def place(number: int) -> tuple[slice, ...]:
        return (slice(None), *(slice(begin, end) for begin, end in boxes[number].tolist()))

    found = run.scores_of_boxes(boxes, lambda number, item: noise[number, item][place(number)], "layer")
    for number, score in enumerate(found[:, 0]):
        variant = kept.clone()
        variant[0][place(number)] = noise[number, 0][place(number)]
        with net.layer.register_forward_hook(lambda module, args, output, variant=variant: variant), torch.no_grad():
            torch.testing.assert_close(score, net(inputs)[0, 1], rtol=1e-9, atol=1e-9)


class ScalesWhatMayBeACopy(nn.Module):
    """With channels last, ``contiguous`` gives a copy, and the input stays as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x.contiguous().mul_(0.9)
        return self.head(self.layer(x).mean((2, 3)))


@pytest.mark.parametrize("layer", [None, "layer"])
def test_a_model_that_writes_a_view_or_a_copy_is_recorded_as_it_is(
    layer: str | None, evaluators: list[Evaluator]
) -> None:
    net = randomized(ScalesWhatMayBeACopy())
    inputs = torch.randn(1, 3, 20, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    run = Run(net, inputs, torch.tensor([1]))
    boxes = small_boxes(9, (18, 10), 2)
    where: Any = () if layer is None else (layer,)
    ones = torch.ones(3 if layer is None else 4, 2, 2, dtype=torch.float64)
    found = run.scores_of_boxes(boxes, lambda number, item: ones, *where)
    for box, score in zip(boxes.tolist(), found[:, 0], strict=True):
        inside = (slice(None), slice(None), *(slice(begin, end) for begin, end in box))

        def put(values: Tensor, inside: Any = inside) -> Tensor:
            variant = values.clone()
            variant[inside] = 1
            return variant

        hook = nn.Identity() if layer is None else net.layer
        with hook.register_forward_hook(lambda module, args, output, put=put: put(output)), torch.no_grad():
            expected = net(put(inputs) if layer is None else inputs.clone())[0, 1]
        torch.testing.assert_close(score, expected, rtol=1e-9, atol=1e-9)
    if layer is not None:  # the input itself is written through another tensor, which is not replayed
        assert evaluators[-1].trusted


def test_of_two_batch_norms_in_a_row_both_count(evaluators: list[Evaluator]) -> None:
    """The first one is folded into the convolution; the second one is not."""
    net = randomized(nn.Sequential(CONV[2](3, 4, 3), NORM[2](4), NORM[2](4), nn.Flatten(), nn.Linear(4 * 9 * 18, 3)))
    inputs = torch.randn(1, 3, 11, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    run = Run(net.eval(), inputs, torch.tensor([1]))
    found, plain = scores_both_ways(run, random_boxes(20, (11, 20)))
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)
    assert evaluators[-1].trusted


class AddsItsShuffle(nn.Module):
    """Torch refuses to add a tensor to a view of it whose strides differ, be it only that of a batch of one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Conv2d(3, 2, 3), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layer(x)
        shuffled = maps.view(len(x), 2, 1, *maps.shape[2:]).transpose(1, 2).reshape(maps.shape)
        return self.head(shuffled.add_(maps).mean((2, 3)))


def test_variants_of_a_layer_lie_in_memory_as_its_output() -> None:
    net = randomized(AddsItsShuffle())
    inputs = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    run = Run(net, inputs, torch.tensor([1, 2]))
    variants = torch.randn(3, *run.activation("layer").shape, dtype=torch.float64)
    found = run.scores_from("layer", 3, lambda start, stop, item: variants[start:stop, item])
    expected = net.head(2 * variants.mean((3, 4)))[:, [0, 1], [1, 2]]
    torch.testing.assert_close(found, expected.detach(), rtol=1e-9, atol=1e-9)


class Output(OrderedDict[str, Tensor]):
    """As Hugging Face's models answer."""

    @property
    def logits(self) -> Tensor:
        return self["logits"]


@dataclass
class Answer:
    logits: Tensor


@pytest.mark.parametrize("kind", [Output, Answer])
def test_outputs_keep_their_type(kind: Callable[..., Any], flattening: nn.Module, evaluators: list[Evaluator]) -> None:
    class Answers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = flattening
            self.eval()

        def forward(self, x: Tensor) -> Any:
            return kind(logits=self.inner(x))

    inputs = torch.randn(2, 2, 17, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    boxes = small_boxes(5, (17, 13), 4)
    found, plain = scores_both_ways(Run(Answers(), inputs, lambda output: output.logits[:, 1]), boxes)
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)
    assert evaluators[0].trusted


def test_another_default_device_is_of_no_matter(flattening: nn.Module, evaluators: list[Evaluator]) -> None:
    inputs = torch.randn(1, 2, 17, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    boxes, held = small_boxes(5, (17, 13), 4), torch.ones(2, 4, 4, dtype=torch.float64)
    run = Run(flattening, inputs, torch.tensor([1]))
    expected = run.scores_of_boxes(boxes, lambda number, item: held)
    with torch.device("meta"):
        found = run.scores_of_boxes(boxes, lambda number, item: held)
    torch.testing.assert_close(found, expected)
    assert evaluators[1].trusted


class TwoParts(nn.Module):
    """One channel makes large changes, which are seen; the other small ones, which are not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 1)
        randomized(self)

    def forward(self, x: Tensor) -> Tensor:
        means = self.layer(x).mean((2, 3))
        return 1000 * means[:, :1] + 3 * unseen_squash(means[:, 1:])


@pytest.mark.parametrize("large", [0, 2])
def test_a_wrong_effect_is_found_out_beside_larger_right_ones(large: int, evaluators: list[Evaluator]) -> None:
    """The variant that moves the score most is right to a thousandth; that of the middle is not."""
    net, inputs = TwoParts(), torch.ones(1, 2, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        run = Run(net, inputs, torch.tensor([0]))
        layer = run.activation("layer")
        variants = torch.stack([layer[0]] * 3)
        variants[large, 0] += 5
        variants[:, 1] += torch.tensor([0.1, 0.5, 0.2]).view(3, 1, 1)
        means = variants.mean((2, 3))
        expected = 1000 * means[:, 0] + 3 * squash(means[:, 1])
        found = run.scores_from("layer", 3, lambda start, stop, item: variants[start:stop])
    torch.testing.assert_close(found[:, 0], expected)
    assert not evaluators[0].trusted


def test_a_box_that_changes_nothing_leaves_the_score_as_it_is_known(evaluators: list[Evaluator]) -> None:
    """In lower precision the known score differs from that of the recorded pass; the difference is in no variant."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    inputs = torch.randn(1, 2, 24, 24, generator=torch.Generator().manual_seed(1))
    boxes = small_boxes(6, (24, 24), 4)
    with torch.no_grad():
        run = Run(net, inputs, torch.tensor([1]), options=RunOptions(precision=torch.bfloat16))
        assert (run.score - net(inputs)[:, 1]).abs() > 1e-5

        def inside(number: int, item: int) -> Tensor:
            (top, bottom), (left, right) = boxes[number].tolist()
            return inputs[item, :, top:bottom, left:right] * (1 if number == 1 else 9)

        found = run.scores_of_boxes(boxes, inside)
    torch.testing.assert_close(found[1], run.score, rtol=0, atol=1e-6)
    assert (found[0] - run.score).abs() > 1e-3
    assert evaluators[0].trusted
