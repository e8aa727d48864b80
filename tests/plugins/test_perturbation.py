"""Every perturbation method beside a slow reference: loops, exact enumeration, peers where both define the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations, permutations, product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import AveragingNet, FlatteningNet, LinearNet, randomized, scores, tiny_inputs
from quick import LEARNING, PERTURBING, quick
from torch import Tensor, nn

from cnnviz import Explanation, attributions, demo, explain
from cnnviz.engine import device_policy
from cnnviz.formulas import backgrounds, between, noisy, path
from cnnviz.images import blurred
from cnnviz.run.options import RunOptions
from cnnviz.run.run import Run

TARGET = [2, 0]
CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def ask(net: nn.Module, inputs: Tensor, method: str, **settings: Any) -> Explanation:
    return explain(net, inputs, method, target=TARGET[: len(inputs)], **settings)


def near(found: Tensor, expected: Tensor, **how: float) -> None:
    torch.testing.assert_close(found, expected, **(CLOSE | how))


# Occlusion


def window_by_window(
    net: nn.Module, inputs: Tensor, window: Sequence[int], stride: Sequence[int], baseline: Tensor
) -> Tensor:
    """The mean of what is lost over the windows that cover a place; windows as far as the border, the last cut off."""
    score, rank = scores(net, TARGET), len(window)
    sides = inputs.shape[-rank:]
    begins = []
    for side, length, step in zip(sides, window, stride, strict=True):
        places = [0]
        while places[-1] + length < side:
            places.append(places[-1] + step)
        begins.append(places)
    lost, times = torch.zeros_like(inputs), torch.zeros_like(inputs)
    for corner in product(*begins):
        covered = inputs.clone()
        area = (..., *(slice(begin, begin + length) for begin, length in zip(corner, window, strict=True)))
        covered[area] = baseline[area]
        change = score(inputs) - score(covered)
        for item in range(len(inputs)):
            lost[item][area] += change[item]
            times[item][area] += 1
    assert (times > 0).all()
    mean = lost / times
    return mean if rank == inputs.ndim - 1 else mean[:, :1]


OCCLUSIONS: dict[str, tuple[int, Any, Any, list[int], list[int]]] = {  # rank, asked for, by hand
    "signal": (1, 3, 1, [3], [1]),
    "signal-cut-off": (1, 3, 2, [3], [2]),
    "signal-of-channels": (1, (1, 3), 2, [1, 3], [1, 2]),
    "image": (2, 2, 1, [2, 2], [1, 1]),
    "image-cut-off": (2, "3,4", "2,3", [3, 4], [2, 3]),
    "image-side-by-side": (2, 2, 2, [2, 2], [2, 2]),
    "image-whole-side": (2, (5, 2), (1, 2), [5, 2], [1, 2]),
    "image-default-stride": (2, 4, None, [4, 4], [2, 2]),
    "image-of-channels": (2, (1, 2, 3), (1, 1, 2), [1, 2, 3], [1, 1, 2]),
    "image-of-both-channels": (2, (2, 3, 3), 2, [2, 3, 3], [1, 2, 2]),
    "volume": (3, 2, 1, [2, 2, 2], [1, 1, 1]),
    "volume-cut-off": (3, (3, 2, 3), (2, 2, 3), [3, 2, 3], [2, 2, 3]),
}


@pytest.mark.parametrize("case", OCCLUSIONS)
@pytest.mark.parametrize("baseline", ["zero", "mean", "tensor"])
def test_occlusion_window_by_window(case: str, baseline: str) -> None:
    rank, window, stride, lengths, steps = OCCLUSIONS[case]
    net, inputs = FlatteningNet(rank), tiny_inputs(rank)
    means = inputs.mean(tuple(range(2, inputs.ndim)), keepdim=True).expand_as(inputs)
    tensor = tiny_inputs(rank, seed=7)
    given, by_hand = {
        "zero": (0.0, torch.zeros_like(inputs)),
        "mean": ("mean", means),
        "tensor": (tensor, tensor),
    }[baseline]
    found = ask(net, inputs, "occlusion", window=window, stride=stride, baseline=given).values
    near(found, window_by_window(net, inputs, lengths, steps, by_hand))


def test_occlusion_takes_a_seventh_of_each_side() -> None:
    net = nn.Sequential(nn.AdaptiveAvgPool2d((4, 5)), nn.Flatten(), LinearNet(2).head.__class__(40, 3)).double().eval()
    inputs = torch.randn(1, 2, 14, 21, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = explain(net, inputs, "occlusion", target=1).values
    near(found, explain(net, inputs, "occlusion", target=1, window=(2, 3), stride=(1, 1)).values)


@pytest.mark.parametrize("case", [name for name in OCCLUSIONS if "default" not in name])
def test_captums_occlusion(case: str) -> None:
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    rank, window, stride, lengths, steps = OCCLUSIONS[case]
    net, inputs = FlatteningNet(rank), tiny_inputs(rank)
    channels = inputs.shape[1]
    whole = len(lengths) == rank
    theirs = attr.Occlusion(net).attribute(
        inputs,
        target=torch.tensor(TARGET),
        sliding_window_shapes=(channels, *lengths) if whole else tuple(lengths),
        strides=(channels, *steps) if whole else tuple(steps),
    )
    found = ask(net, inputs, "occlusion", window=window, stride=stride).values
    near(found.expand_as(theirs), theirs.double(), atol=1e-6)  # it counts windows in float32


# Pieces that are taken away


def pieces_of(rank: int, count: int) -> Tensor:
    """Pieces that are not connected, with numbers that do not follow each other."""
    size = tiny_inputs(rank).shape[2:]
    return (torch.arange(math.prod(size)) * 11 % count * 5 - 3).view(size)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_feature_ablation_piece_by_piece(rank: int) -> None:
    net, inputs, ids = FlatteningNet(rank), tiny_inputs(rank), pieces_of(rank, 5)
    score = scores(net, TARGET)
    expected = torch.zeros_like(inputs[:, :1])
    for number in ids.unique():
        without = torch.where(ids == number, 0.3, inputs)
        change = score(inputs) - score(without)
        for item in range(2):
            expected[item, 0][ids == number] = change[item]
    near(ask(net, inputs, "feature_ablation", segments=ids, baseline=0.3).values, expected)


@pytest.mark.parametrize("kind", ["of-places", "of-channels", "of-each-input"])
def test_captums_feature_ablation(kind: str) -> None:
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    net, inputs = FlatteningNet(2), tiny_inputs(2)
    generator = torch.Generator().manual_seed(2)
    shape = {"of-places": (1, 1, 5, 6), "of-channels": (1, 2, 5, 6), "of-each-input": (2, 2, 5, 6)}[kind]
    ids = torch.randint(0, 4, shape, generator=generator)
    theirs = torch.cat(
        [
            attr.FeatureAblation(net).attribute(one, target=target, feature_mask=mask, baselines=0.5)
            for one, mask, target in zip(inputs.split(1), ids.expand(2, *shape[1:]).split(1), TARGET, strict=True)
        ]
    )
    found = ask(net, inputs, "feature_ablation", segments=ids, baseline=0.5).values
    near(found.expand_as(theirs), theirs.double(), atol=1e-6)


@pytest.mark.parametrize(("method", "how"), [("feature_ablation", {}), ("shapley_sampling", {"permutations": 2})])
def test_inputs_of_a_batch_may_have_other_pieces_each(method: str, how: dict[str, Any]) -> None:
    net, inputs = FlatteningNet(2), tiny_inputs(2)
    ids = torch.stack([pieces_of(2, 3), pieces_of(2, 7)])[:, None]
    both = ask(net, inputs, method, segments=ids, **how).values
    for item in range(2):
        alone = explain(
            net, inputs[item : item + 1], method, target=TARGET[item], segments=ids[item : item + 1], **how
        ).values
        near(both[item : item + 1], alone)


# Shapley values


def exact_shapley(net: nn.Module, inputs: Tensor, ids: Tensor, baseline: Tensor) -> Tensor:
    """Every subset of the pieces that a piece can join, weighed as in every order: (N, M), by number."""
    numbers, score = ids.unique().tolist(), scores(net, TARGET)
    worth = {}
    for count in range(len(numbers) + 1):
        for subset in combinations(numbers, count):
            there = torch.isin(ids, torch.tensor(subset))
            worth[frozenset(subset)] = score(torch.where(there, inputs, baseline))
    found = torch.zeros(len(inputs), len(numbers), dtype=torch.float64)
    for place, number in enumerate(numbers):
        others = [each for each in numbers if each != number]
        for count in range(len(numbers)):
            weight = math.factorial(count) * math.factorial(len(others) - count) / math.factorial(len(numbers))
            for subset in combinations(others, count):
                found[:, place] += weight * (worth[frozenset((*subset, number))] - worth[frozenset(subset)])
    return found


def of_pieces(values: Tensor, ids: Tensor) -> Tensor:
    """(N, M), each piece's value, which is the same at all of its places."""
    columns = []
    for number in ids.unique():
        there = values[:, 0].flatten(1)[:, ids.flatten() == number]
        assert (there == there[:, :1]).all()
        columns.append(there[:, 0])
    return torch.stack(columns, 1)


def filled(inputs: Tensor, ids: Tensor) -> Tensor:
    """Every piece's mean, channel by channel."""
    means = torch.zeros_like(inputs)
    for number in ids.unique():
        for item, channel in product(*map(range, inputs.shape[:2])):
            means[item, channel][ids == number] = inputs[item, channel][ids == number].mean()
    return means


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize("own_means", [False, True])
def test_kernel_shap_is_exact_where_all_subsets_fit(rank: int, count: int, own_means: bool) -> None:
    net, inputs, ids = FlatteningNet(rank), tiny_inputs(rank), pieces_of(rank, count)
    baseline = filled(inputs, ids) if own_means else torch.full_like(inputs, 0.2)
    answer = ask(
        net, inputs, "kernel_shap", segments=ids, baseline=None if own_means else 0.2, samples=max(2, 2**count - 2)
    )
    near(of_pieces(answer.values, ids), exact_shapley(net, inputs, ids, baseline))
    assert not answer.notes["standard_error"].any()


@pytest.mark.parametrize("method", ["kernel_shap", "shapley_sampling"])
@pytest.mark.parametrize("few", [False, True])
def test_estimates_of_shapley_values_are_as_far_off_as_they_say(method: str, few: bool) -> None:
    count = 9
    net, inputs, ids = FlatteningNet(2), tiny_inputs(2), pieces_of(2, count)
    exact = exact_shapley(net, inputs, ids, torch.zeros_like(inputs))
    how = {"samples": 60 if few else 120} if method == "kernel_shap" else {"permutations": 3 if few else 20}
    off, told = [], []
    whole = scores(net, TARGET)
    for seed in range(12):
        answer = ask(net, inputs, method, segments=ids, baseline=0.0, seed=seed, **how)
        values = of_pieces(answer.values, ids)
        near(values.sum(1), whole(inputs) - whole(torch.zeros_like(inputs)))
        off.append(values - exact)
        told.append(of_pieces(answer.notes["standard_error"], ids))
    errors, deviations = torch.stack(off), torch.stack(told)
    ratio = errors.square().mean().sqrt() / deviations.square().mean().sqrt()
    assert 0.6 < ratio < 1.6
    within = (errors.abs() < 3 * deviations.square().mean(0).sqrt()).double().mean()
    assert within > 0.95
    assert errors.mean(0).abs().max() < 4 * errors.std(0).max() / 12**0.5, "nothing pulls them to one side"


@pytest.mark.parametrize(("pieces", "samples"), [(4, 9), (4, 11), (4, 12), (8, 16), (8, 24), (8, 30)])
def test_too_few_subsets_tell_no_error_rather_than_a_wrong_one(pieces: int, samples: int) -> None:
    """As far off as they say, or infinitely: pairs drawn twice, alone, or that leave pieces apart tell nothing."""
    net, inputs, ids = FlatteningNet(2), tiny_inputs(2), pieces_of(2, pieces)
    exact = exact_shapley(net, inputs, ids, torch.zeros_like(inputs))
    off, told = [], []
    for seed in range(20):
        answer = ask(net, inputs, "kernel_shap", segments=ids, baseline=0.0, seed=seed, samples=samples)
        off.append((of_pieces(answer.values, ids) - exact).square().mean(1).sqrt())
        told.append(of_pieces(answer.notes["standard_error"], ids).square().mean(1).sqrt())
    errors, deviations = torch.cat(off), torch.cat(told)
    unknown = deviations.isinf()
    assert not deviations.isnan().any()
    assert unknown.any()
    assert samples != 11 or unknown.all(), "of one pair"
    assert (errors[~unknown] < 4 * deviations[~unknown]).all()


def test_shapley_sampling_is_the_mean_over_the_orders_drawn() -> None:
    net, inputs, ids = FlatteningNet(2), tiny_inputs(2), pieces_of(2, 4)
    run, score, numbers = Run(net, inputs), scores(net, TARGET), pieces_of(2, 4).unique().tolist()
    gains = torch.zeros(3, 2, 4, dtype=torch.float64)
    for number in range(3):
        steps = run.draws(number).permutation(4).tolist()
        there, before = torch.zeros_like(ids, dtype=torch.bool), score(torch.zeros_like(inputs))
        for piece in sorted(range(4), key=lambda piece: steps[piece]):
            there |= ids == numbers[piece]
            after = score(torch.where(there, inputs, 0.0))
            gains[number, :, piece] = after - before
            before = after
    answer = ask(net, inputs, "shapley_sampling", segments=ids, baseline=0.0, permutations=3)
    near(of_pieces(answer.values, ids), gains.mean(0))
    near(of_pieces(answer.notes["standard_error"], ids), gains.std(0) / 3**0.5)


def test_all_orders_together_give_shapley_values() -> None:
    """What is sampled is right: the mean over every order is the exact value."""
    net, inputs, ids = FlatteningNet(1), tiny_inputs(1), pieces_of(1, 3)
    score, numbers = scores(net, TARGET), ids.unique().tolist()
    gains = torch.zeros(2, 3, dtype=torch.float64)
    for order in permutations(range(3)):
        there = torch.zeros_like(ids, dtype=torch.bool)
        for piece in order:
            without = score(torch.where(there, inputs, 0.0))
            there = there | (ids == numbers[piece])
            gains[:, piece] += (score(torch.where(there, inputs, 0.0)) - without) / 6
    near(exact_shapley(net, inputs, ids, torch.zeros_like(inputs)), gains)


# LIME


def stacked_least_squares(there: Tensor, found: Tensor, weights: Tensor, ridge: float) -> Tensor:
    """The penalty as further rows of a plain least squares problem, the constant as a further column."""
    rows, count = there.shape
    design = torch.cat([torch.ones(rows, 1, dtype=torch.float64), there], 1) * weights.sqrt()[:, None]
    penalty = torch.cat([torch.zeros(count, 1, dtype=torch.float64), ridge**0.5 * torch.eye(count).double()], 1)
    values = torch.cat([found * weights.sqrt(), torch.zeros(count, dtype=torch.float64)])
    return torch.linalg.lstsq(torch.cat([design, penalty]), values[:, None], driver="gelsd").solution[1:, 0]


@pytest.mark.parametrize(("ridge", "width"), [(1.0, 0.25), (0.01, 0.25), (3.0, 1.5)])
def test_lime_is_a_weighted_ridge_regression_of_its_samples(ridge: float, width: float) -> None:
    net, inputs, ids = FlatteningNet(2), tiny_inputs(2), pieces_of(2, 5)
    run, score = Run(net, inputs), scores(net, TARGET)
    there = [[True] * 5]
    for sample in range(1, 40):
        there.append((run.draws(sample).uniform((5,)) < 0.5).tolist())
    found, weights, hidden = [], [], filled(inputs, ids)
    for row in there:
        kept = torch.isin(ids, ids.unique()[torch.tensor(row)])
        found.append(score(torch.where(kept, inputs, hidden)))
        cosine = sum(row) / math.sqrt(sum(row) * 5) if any(row) else 0.0
        weights.append(math.sqrt(math.exp(-((1 - cosine) ** 2) / width**2)))
    values = ask(net, inputs, "lime", segments=ids, samples=40, ridge=ridge, kernel_width=width).values
    for item in range(2):
        expected = stacked_least_squares(
            torch.tensor(there).double(), torch.stack(found)[:, item], torch.tensor(weights, dtype=torch.float64), ridge
        )
        near(of_pieces(values, ids)[item], expected)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_lime_recovers_the_coefficients_of_a_linear_model(rank: int) -> None:
    net, inputs, ids = LinearNet(rank), tiny_inputs(rank), pieces_of(rank, 6)
    answer = ask(net, inputs, "lime", segments=ids, baseline=0.0, samples=60, ridge=0.0)
    products = net.head.weight[TARGET].view_as(inputs) * inputs
    expected = torch.stack([products.sum(1)[:, ids == number].sum(1) for number in ids.unique()], 1)
    near(of_pieces(answer.values, ids), expected.detach())
    assert answer.notes["standard_error"].max() < 1e-9, "no draw changes it"


@pytest.mark.parametrize(("pieces", "samples"), [(6, 100), (12, 16), (15, 40)])
def test_limes_coefficients_spread_as_they_say(pieces: int, samples: int) -> None:
    net, inputs, ids = FlatteningNet(2), tiny_inputs(2), pieces_of(2, pieces)
    spread_as_told(net, inputs, "lime", segments=ids, baseline=0.0, samples=samples)


def spread_as_told(net: nn.Module, inputs: Tensor, method: str, **settings: Any) -> None:
    """Over seeds values differ as much as the note says."""
    answers = [ask(net, inputs, method, seed=seed, **settings) for seed in range(20)]
    spread = torch.stack([each.values for each in answers]).var(0).mean().sqrt()
    told = torch.stack([each.notes["standard_error"] for each in answers]).square().mean().sqrt()
    assert 0.7 < spread / told < 1.35


# RISE


def enlarged(grid: list[list[bool]], length: tuple[int, int], place: tuple[int, int], size: Sequence[int]) -> Tensor:
    """One mask, each value by hand: between the four nearest cells' centres, the border continued."""
    cells = len(grid)
    mask = torch.zeros(*size, dtype=torch.float64)
    for row, column in product(*map(range, size)):
        value = 0.0
        at = []
        for place_of, move, side in zip((row, column), place, length, strict=True):
            large = (cells + 1) * side
            centre = min(max((place_of + move + 0.5) * cells / large - 0.5, 0.0), cells - 1.0)
            low = min(int(centre), cells - 1)
            at.append([(low, 1 - (centre - low)), (min(low + 1, cells - 1), centre - low)])
        for (first, down), (second, right) in product(*at):
            value += down * right * grid[first][second]
        mask[row, column] = value
    return mask


def risen(net: nn.Module, inputs: Tensor, count: int, cells: int, p: float, baseline: float) -> tuple[Tensor, Tensor]:
    run, size = Run(net, inputs), inputs.shape[2:]
    lengths = tuple(math.ceil(side / cells) for side in size)
    terms = []
    for number in range(count):
        grid = (run.draws(number).uniform((cells, cells)) < p).tolist()
        moves = tuple(int(share * side) for share, side in zip(run.draws(number, 1).floats(2), lengths, strict=True))
        mask = enlarged(grid, lengths, moves, size)
        with torch.no_grad():
            shares = net(mask * inputs + (1 - mask) * baseline).softmax(1)
        terms.append(torch.stack([shares[item, TARGET[item]] * (mask / p - 1) for item in range(len(inputs))]))
    values = torch.stack(terms)
    return values.mean(0)[:, None], (values.std(0) / count**0.5)[:, None]


@pytest.mark.parametrize(("cells", "p", "baseline"), [(2, 0.5, 0.0), (3, 0.3, 0.7)])
def test_rise_is_the_mean_of_masks_drawn_by_hand(cells: int, p: float, baseline: float) -> None:
    net, inputs = FlatteningNet(2), tiny_inputs(2)
    values, errors = risen(net, inputs, 25, cells, p, baseline)
    answer = ask(net, inputs, "rise", masks=25, cells=cells, p=p, baseline=baseline)
    near(answer.values, values, rtol=1e-5, atol=1e-6)
    near(answer.notes["standard_error"], errors, rtol=1e-4, atol=1e-6)


def test_rises_expectation_on_a_linear_score_is_known() -> None:
    """The mean of (M / p - 1) (w . (x M)) needs only how two places of a mask go together: exact, over all moves."""
    net, inputs, cells, p = LinearNet(2), tiny_inputs(2, items=1), 2, 0.4
    with torch.no_grad():
        net.head.bias.zero_()
    size, lengths = inputs.shape[2:], (3, 3)
    units = [
        [[(row, column) == cell for column in range(cells)] for row in range(cells)]
        for cell in product(range(2), repeat=2)
    ]
    together = torch.zeros(30, 30, dtype=torch.float64)
    for moves in product(range(3), range(3)):
        shares = torch.stack([enlarged(unit, lengths, moves, size).flatten() for unit in units])  # of each cell
        whole = shares.sum(0)
        together += (p**2 * whole[:, None] * whole + p * (1 - p) * shares.T @ shares) / 9
    products = (net.head.weight[TARGET[0]].detach() * inputs.flatten()).view(2, 30).sum(0)
    expected = together @ products / p - p * products.sum()
    answer = ask(net, inputs, "rise", masks=2500, cells=cells, p=p, score="logit")
    off = (answer.values.flatten() - expected) / answer.notes["standard_error"].flatten()
    assert off.abs().max() < 4
    assert off.square().mean().sqrt() < 2


@pytest.mark.parametrize("masks", [20, 150])
def test_rise_spreads_as_it_says(masks: int) -> None:
    spread_as_told(FlatteningNet(2), tiny_inputs(2), "rise", masks=masks, cells=3)


# Class activation maps without gradients


def score_cam_by_channel(
    net: AveragingNet,
    inputs: Tensor,
    *,
    score: str = "logit",
    channel_softmax: bool = True,
    norm_before: bool = False,
    align_corners: bool = False,
) -> Tensor:
    maps = net.maps(inputs).detach()
    found = torch.zeros_like(maps[:, :1])
    for item, channels in enumerate(maps):
        weights = []
        for channel in channels:
            if norm_before and channel.max() > channel.min():
                channel = (channel - channel.min()) / (channel.max() - channel.min())
            elif norm_before:
                channel = 0 * channel
            larger = F.interpolate(channel[None, None], inputs.shape[2:], mode="bilinear", align_corners=align_corners)[
                0, 0
            ]
            if not norm_before:
                reach = larger.max() - larger.min()
                larger = (larger - larger.min()) / reach if reach > 0 else 0 * larger
            with torch.no_grad():
                logits = net(inputs[item : item + 1] * larger)[0]
            weights.append((logits.softmax(0) if score == "probability" else logits)[TARGET[item]])
        shares = torch.stack(weights).softmax(0) if channel_softmax else torch.stack(weights)
        for share, channel in zip(shares, channels, strict=True):
            found[item, 0] += share * channel
    return found


SCORE_CAMS: list[dict[str, Any]] = [
    {},
    {"align_corners": True},
    {"norm_before": True},
    {"score": "probability", "channel_softmax": False},
    {"score": "probability", "norm_before": True, "align_corners": True},
    {"channel_softmax": False},
]


class WideNet(AveragingNet):
    """More channels, of which some are dead; ends in a ReLU that is a module."""

    def __init__(self) -> None:
        super().__init__(2)
        self.second = nn.Conv2d(3, 7, 3, padding=1)
        self.head = nn.Linear(7, 3)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            for each in (self.second, self.head):
                nn.init.normal_(each.weight)
                nn.init.normal_(each.bias)
            nn.init.constant_(self.second.bias[2:4], -100.0)
        self.double().eval()


@pytest.mark.parametrize("settings", SCORE_CAMS)
def test_score_cam_channel_by_channel(settings: dict[str, Any]) -> None:
    net, inputs = WideNet(), tiny_inputs(2)
    assert (net.maps(inputs).flatten(2).amax(2) == 0).any(), "some channels are dead"
    found = ask(net, inputs, "score_cam", layer="late", **settings).values
    near(found, score_cam_by_channel(net, inputs, **settings))
    assert torch.equal(ask(net, inputs, "score_cam", layer="late", relu=True, **settings).values, found.relu())


def test_score_cam_may_ask_about_a_few_channels() -> None:
    net, inputs = WideNet(), tiny_inputs(2)
    maps = net.maps(inputs).detach()
    reach = maps.flatten(2).amax(2) - maps.flatten(2).amin(2)
    expected = []
    for item in range(2):
        best = reach[item].argsort(descending=True)[:2]
        few = WideNet()
        with torch.no_grad():
            few.second.weight, few.second.bias, few.head.weight = (
                nn.Parameter(each) for each in (net.second.weight, net.second.bias, net.head.weight)
            )
            weights = []
            for channel in maps[item, best]:
                larger = F.interpolate(channel[None, None], inputs.shape[2:], mode="bilinear")
                larger = (larger - larger.min()) / (larger.max() - larger.min())
                weights.append(net(inputs[item : item + 1] * larger)[0, TARGET[item]])
            shares = torch.stack(weights).softmax(0)
        expected.append(sum(share * maps[item, place] for share, place in zip(shares, best, strict=True)))
    near(ask(net, inputs, "score_cam", layer="late", channels=2).values[:, 0], torch.stack(expected))


def pytorch_grad_cam(name: str, net: nn.Module, layer: nn.Module, inputs: Tensor) -> Tensor:
    """Its maps before it clips, resizes and normalizes them."""
    pgc = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    kept: list[Any] = []
    with getattr(pgc, name)(net, [layer]) as cam:
        whole = cam.get_cam_image
        cam.get_cam_image = lambda *args, **kwargs: kept.append(whole(*args, **kwargs)) or kept[-1]
        cam(inputs.clone(), [ClassifierOutputTarget(index) for index in TARGET[: len(inputs)]])
    return torch.as_tensor(kept[0])[:, None]


def test_pytorch_grad_cams_score_cam() -> None:
    net, inputs = WideNet(), tiny_inputs(2)
    theirs = pytorch_grad_cam("ScoreCAM", net, net.late, inputs)
    found = ask(net, inputs, "score_cam", layer="late", align_corners=True).values
    near(found, theirs.double(), rtol=1e-5, atol=1e-6 * float(found.abs().max()))


def test_torchcams_score_cam() -> None:
    methods = pytest.importorskip("torchcam.methods", reason="torchcam is not installed")
    net, inputs = WideNet(), tiny_inputs(2)
    with methods.ScoreCAM(net, "late", 32, (2, 5, 6)) as extractor:
        logits = net(inputs)
        theirs = extractor(TARGET, logits, normalized=False)[0][:, None]
    found = ask(net, inputs, "score_cam", layer="late", norm_before=True, relu=True).values
    near(found, theirs.detach(), rtol=1e-5, atol=1e-6 * float(found.abs().max()))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_ablation_cam_channel_by_channel(rank: int) -> None:
    net, inputs = AveragingNet(rank), tiny_inputs(rank)
    maps = net.maps(inputs).detach()
    expected = torch.zeros_like(maps[:, :1])
    for item, target in enumerate(TARGET):
        with torch.no_grad():
            whole = net.classify(maps[item : item + 1])[0, target]
            for channel in range(maps.shape[1]):
                without = maps[item : item + 1].clone()
                without[:, channel] = 0
                weight = (whole - net.classify(without)[0, target]) / whole.abs()
                expected[item, 0] += weight * maps[item, channel]
    near(ask(net, inputs, "ablation_cam", layer="late").values, expected)
    near(ask(net, inputs, "ablation_cam", layer="late", relu=True).values, expected.relu())


def test_ablation_cam_may_ask_about_a_few_channels() -> None:
    net, inputs = WideNet(), tiny_inputs(2)
    maps = net.maps(inputs).detach()
    expected = torch.zeros_like(maps[:, 0])
    for item, target in enumerate(TARGET):
        whole = net.classify(maps)[item, target].detach()
        for channel in maps[item].flatten(1).amax(1).argsort(descending=True)[:2]:
            without = maps[item : item + 1].index_fill(1, channel, 0)
            expected[item] += (whole - net.classify(without)[0, target].detach()) / whole.abs() * maps[item, channel]
    near(ask(net, inputs, "ablation_cam", layer="late", channels=2).values[:, 0], expected)


def test_pytorch_grad_cams_ablation_cam() -> None:
    """Equal where the score is positive and the layer's lowest value zero."""
    net, inputs = WideNet(), tiny_inputs(2)
    with torch.no_grad():
        net.head.bias.add_(50)  # it divides by the score as it is
    theirs = pytorch_grad_cam("AblationCAM", net, net.late, inputs)
    found = ask(net, inputs, "ablation_cam", layer="late").values
    near(found, theirs.double(), rtol=1e-4, atol=1e-5 * float(found.abs().max()))


# Masks that are learned


@pytest.fixture(scope="module")
def drawn() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """The bundled network, drawn pictures (N, 3, 96, 96), their classes, where the shapes are (N, 1, 96, 96)."""
    pictures = demo.pictures()
    some = [0, 3, 4, 6]  # which lose much of their score without the shape
    return (
        demo.network("demo"),
        demo.as_inputs(pictures.pictures)[some],
        torch.from_numpy(pictures.labels)[some],
        torch.from_numpy(pictures.masks)[some, None].float(),
    )


def smooth_random(share: float, count: int) -> Iterator[Tensor]:
    """Smooth masks of that size, each somewhere else."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        field = F.interpolate(torch.randn(1, 1, 6, 6, generator=generator), (96, 96), mode="bicubic")
        yield (field > field.flatten().quantile(1 - share)).float()


def test_extremal_perturbation_keeps_what_the_class_needs(drawn: Any) -> None:
    net, inputs, classes, shapes = drawn
    answer = explain(net, inputs, "extremal_perturbation", target=classes, area=0.1, steps=60)
    mask, kept = answer.values, answer.notes["masked_score"]
    assert (mask >= 0).all()
    assert (mask <= 1).all()
    assert ((mask > 0.5).float().mean((1, 2, 3)) - 0.1).abs().max() < 0.03, "the size asked for"
    assert (((mask > 0.1) & (mask < 0.9)).float().mean()) < 0.2, "little is half there"
    larger = F.interpolate(mask, (96, 96), mode="bilinear")
    assert (larger.diff(dim=2).abs().max() < 0.5) & (larger.diff(dim=3).abs().max() < 0.5), "smooth"
    rows, hidden = torch.arange(len(inputs)), blurred(inputs, 96 * 20 / 224)
    with torch.no_grad():
        blind = torch.stack(
            [net(each * inputs + (1 - each) * hidden)[rows, classes] for each in smooth_random(0.1, 12)]
        )
    assert (kept > blind.amax(0)).all(), "better than any random mask of that size"
    inside = (larger * shapes).sum((1, 2, 3)) / larger.sum((1, 2, 3))
    assert (inside / shapes.mean((1, 2, 3))).mean() > 2, "the shape is where it looks"


def test_the_size_is_kept_where_the_whole_input_scores_as_its_baseline_does(drawn: Any) -> None:
    net, inputs, *_ = drawn
    hidden = torch.zeros_like(inputs)
    with torch.no_grad():
        whole, nothing = net(inputs), net(hidden)

    def even(output: Tensor) -> Tensor:
        """Scores of which the input and the baseline have the same."""
        weights = torch.stack([nothing[:, 1] - whole[:, 1], whole[:, 0] - nothing[:, 0]], 1)
        return (output[:, :2] * weights.repeat(len(output) // len(weights), 1)).sum(1)

    answer = explain(net, inputs, "extremal_perturbation", target=even, area=0.1, baseline=0.0, steps=60)
    assert (answer.values.mean((1, 2, 3)) - 0.1).abs().max() < 0.1


def test_meaningful_perturbation_destroys_what_the_class_needs(drawn: Any) -> None:
    net, inputs, classes, shapes = drawn
    answer = explain(net, inputs, "meaningful_perturbation", target=classes, steps=60, baseline=0.0)
    mask = answer.values  # 1 where it is replaced
    assert (mask >= 0).all()
    assert (mask <= 1).all()
    larger = F.interpolate(mask, (96, 96), mode="bilinear")
    rows = torch.arange(len(inputs))
    with torch.no_grad():
        left = net(inputs * (1 - larger)).softmax(1)[rows, classes]
        share = float(larger.mean())
        blind = torch.stack([net(inputs * (1 - each)).softmax(1)[rows, classes] for each in smooth_random(share, 12)])
    assert (left < 0.2).all(), "the class is gone"
    assert left.mean() < blind.mean()
    inside = (larger * shapes).sum((1, 2, 3)) / larger.sum((1, 2, 3))
    assert (inside > shapes.mean((1, 2, 3))).all()


@pytest.mark.parametrize("method", sorted(LEARNING))
def test_the_masked_score_is_that_of_what_the_mask_leaves(method: str) -> None:
    net, inputs = FlatteningNet(2), tiny_inputs(2)
    answer = ask(net, inputs, method, steps=20, baseline=0.25)
    mask = answer.values if method == "extremal_perturbation" else 1 - answer.values
    left = F.interpolate(mask, inputs.shape[2:], mode="bilinear")
    near(answer.notes["masked_score"], scores(net, TARGET)(left * inputs + (1 - left) * 0.25))
    assert (answer.notes["masked_score"] - answer.score).abs().max() > 1e-3


@pytest.mark.parametrize("baseline", [None, "blur", 0.0])
def test_masks_that_learn_nothing_are_as_they_began(baseline: Any) -> None:
    net, inputs = FlatteningNet(2), tiny_inputs(2)
    whole = ask(net, inputs, "extremal_perturbation", steps=0, baseline=baseline)
    near(whole.values, torch.ones_like(whole.values), atol=1e-6)
    near(whole.notes["masked_score"], whole.score, rtol=1e-6, atol=1e-6)


# Randomness

DRAWING = ("lime", "kernel_shap", "shapley_sampling", "rise", "meaningful_perturbation")


@pytest.mark.parametrize("method", sorted(PERTURBING | LEARNING))
def test_a_seed_gives_the_same_whatever_is_evaluated_together(method: str) -> None:
    net, inputs = FlatteningNet(2), tiny_inputs(2)
    how = quick(method) | (
        {"samples": 20, "segments": "equal", "pieces": 9} if method in ("lime", "kernel_shap") else {}
    )
    how |= {"steps": 8} if method in LEARNING else {}
    torch.manual_seed(1)
    first = ask(net, inputs, method, seed=5, **how)
    state = torch.get_rng_state()
    for memory, seed in ((1, 2), (3000, 3), (10**9, 4)):
        torch.manual_seed(seed)  # the draws of the user are no matter
        again = ask(net, inputs, method, seed=5, memory=memory, **how)
        near(again.values, first.values, rtol=1e-7, atol=1e-9)
    torch.manual_seed(1)
    ask(net, inputs, method, seed=5, **how)
    assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(1).get_state()), "nothing is drawn from it"
    assert state.numel()
    for item in range(2):
        alone = explain(net, inputs[item : item + 1], method, target=TARGET[item], seed=5, **how).values
        near(alone, first.values[item : item + 1], rtol=1e-7, atol=1e-9)
    flipped = explain(net, inputs.flip(0), method, target=TARGET[::-1], seed=5, **how).values
    near(flipped.flip(0), first.values, rtol=1e-7, atol=1e-9)


def check_chunks(draw: Callable[[int, int], Tensor], count: int) -> None:
    """The same bits however variants are chunked."""
    whole = draw(0, count)
    for size in (1, 2, 5):
        chunks = [draw(start, min(start + size, count)) for start in range(0, count, size)]
        assert torch.equal(torch.cat(chunks), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", sorted((PERTURBING | LEARNING) - {"occlusion", "ablation_cam"}))
def test_a_variant_is_the_same_to_the_bit_however_variants_are_chunked(
    method: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, scores_of = [], Run.scores_of

    def checked(run: Run, count: int, draw: Callable[[int, int], Tensor]) -> Tensor:
        check_chunks(draw, count)
        counts.append(count)
        return scores_of(run, count, draw)

    monkeypatch.setattr(Run, "scores_of", checked)
    how = quick(method) | ({"segments": "equal", "pieces": 9} if "pieces" in attributions[method].settings else {})
    how |= {"samples": 20} if "samples" in how else {}
    net = nn.Sequential(nn.Conv2d(2, 12, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))
    ask(randomized(net).to(dtype), tiny_inputs(2).to(dtype), method, **how)
    assert max(counts) > 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "points", [noisy(9), path(9, "blur"), between(backgrounds(torch.zeros(2, 2, 5, 6)), 9, sigma=0.1)], ids=repr
)
def test_a_sample_point_is_the_same_to_the_bit_however_points_are_chunked(points: Any, dtype: torch.dtype) -> None:
    run = Run(FlatteningNet(2).to(dtype), tiny_inputs(2).to(dtype))

    def draw(start: int, stop: int) -> Tensor:
        drawn = points.draw(run, start, stop)
        return torch.stack(drawn, 1) if isinstance(drawn, tuple) else drawn  # of ``between``: where a path begins, too

    check_chunks(draw, 9)


@pytest.mark.parametrize("method", DRAWING)
def test_another_seed_draws_something_else(method: str) -> None:
    net, inputs = FlatteningNet(2), tiny_inputs(2).repeat_interleave(12, 2).repeat_interleave(12, 3)
    net = nn.Sequential(nn.AvgPool2d(12), net).eval()
    how = quick(method) | ({"samples": 20} if method in ("lime", "kernel_shap") else {})
    how |= {"segments": "equal", "pieces": 9} if "pieces" in how else {}  # two orders of two pieces may be the same
    one, other = (ask(net, inputs, method, seed=seed, **how).values for seed in (0, 1))
    assert not torch.allclose(one, other)


def test_masks_are_drawn_by_number() -> None:
    from cnnviz_plugins.attributions.rise import Masks

    run, masks = Run(FlatteningNet(3), tiny_inputs(3), options=RunOptions(seed=3)), Masks(2, 0.5)
    whole = masks.draw(run, 0, 9)
    assert torch.equal(torch.cat([masks.draw(run, 0, 4), masks.draw(run, 4, 5), masks.draw(run, 5, 9)]), whole)
    assert whole.shape == (9, 1, 1, *tiny_inputs(3).shape[2:])
    assert (whole >= 0).all()
    assert (whole <= 1).all()
    assert len(whole.unique(dim=0)) == 9


# Passes, counted


def counted(net: nn.Module, action: Callable[[], Any]) -> list[int]:
    """How many items each forward pass had, where it is known that the network's items don't change each other."""
    batches: list[int] = []
    handle = net.register_forward_pre_hook(lambda module, args: batches.append(len(args[0])))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cnnviz.run.perturbation.is_independent", lambda passes: True)
            action()
    finally:
        handle.remove()
    return batches


def sizes_of_chunks(batches: list[int], items: int) -> int:
    """How many sizes of chunks there are: of each, the first variant is passed by itself too."""
    return len({size for size in batches if size > items})


def test_rise_asks_once_for_each_mask_and_memory_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    # a network this small would take thousands at once
    monkeypatch.setattr(device_policy, "CPU", replace(device_policy.CPU, output_bytes=2048))
    largest = []
    for masks, items in ((100, 2), (500, 2), (4000, 2)):
        net, inputs = FlatteningNet(1), tiny_inputs(1)[:items]
        batches = counted(net, lambda masks=masks, net=net, inputs=inputs: ask(net, inputs, "rise", masks=masks))
        assert sum(batches) == items * (1 + masks + sizes_of_chunks(batches, items))
        largest.append(max(batches))
    assert max(largest) - min(largest) <= 2, "chunks are even"


PASSES: dict[str, tuple[dict[str, Any], int]] = {
    "lime": ({"samples": 30}, 30),
    "kernel_shap": ({"samples": 24}, 24 + 2),
    "shapley_sampling": ({"permutations": 6}, 6 * 6 + 2),
    "feature_ablation": ({}, 7),
}


@pytest.mark.parametrize("method", PASSES)
def test_forward_passes_are_as_many_as_told(method: str) -> None:
    net, inputs = FlatteningNet(2), tiny_inputs(2)
    how, expected = PASSES[method]
    batches = counted(net, lambda: ask(net, inputs, method, segments=pieces_of(2, 7), **how))
    assert sum(batches) == 2 * (1 + expected + sizes_of_chunks(batches, 2))


def test_dead_channels_are_asked_about_once() -> None:
    net, inputs = WideNet(), tiny_inputs(2)
    alive = int((net.maps(inputs).flatten(2).amax(2) > 0).sum(1).max())
    batches = counted(net, lambda: ask(net, inputs, "score_cam", layer="late"))
    assert sum(batches) == 2 * (1 + 1 + alive + 1 + sizes_of_chunks(batches, 2)), "the layer's flow is a pass, once"
    assert alive + 1 < 7
    few = counted(net, lambda: ask(net, inputs, "score_cam", layer="late", channels=2))
    assert sum(few) == 2 * (1 + 2 + sizes_of_chunks(few, 2))


# Bad input


class TurnsNaN(FlatteningNet):
    """Gives NaN for whatever holds a zero."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.where((x == 0).flatten(1).any(1), torch.nan, 0.0)[:, None]


@pytest.mark.parametrize("method", ["occlusion", "feature_ablation", "kernel_shap", "lime", "shapley_sampling"])
def test_nan_for_a_changed_input_is_told(method: str) -> None:
    with pytest.raises(ValueError, match=r"the model's score of a changed input has [0-9]+ values that are") as told:
        ask(TurnsNaN(2), tiny_inputs(2), method, baseline=0.0, **quick(method))
    assert "\n" not in str(told.value)


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "window-too-large": ("occlusion", {"window": 9}, "a window of 9 does not fit a side of 5; make it smaller"),
    "window-empty": ("occlusion", {"window": 0}, "window=0 does not fit 2 dimensions; give 1 or more pixels for each"),
    "window-of-words": ("occlusion", {"window": "3,x"}, "window is a length or several, such as 16,32, not '3,x'"),
    "window-of-many": ("occlusion", {"window": (1, 2, 2, 2)}, "does not fit 2 dimensions; give 1 or more pixels"),
    "stride-passes": ("occlusion", {"window": 2, "stride": 3}, "a stride of 3 passes over places with a window of 2"),
    "strides-more": ("occlusion", {"window": 2, "stride": (1, 1, 1)}, "there are 3 strides for windows of 2 dim"),
    "mask-shape": ("feature_ablation", {"segments": torch.zeros(4, 6, dtype=torch.long)}, "segments are .4, 6., which"),
    "mask-batch": ("lime", {"segments": torch.zeros(3, 1, 5, 6, dtype=torch.long)}, "segments are .3, 1, 5, 6., which"),
    "mask-of-floats": ("kernel_shap", {"segments": torch.rand(5, 6)}, "segments are torch.float32; a piece is a whole"),
    "way": ("lime", {"segments": "slics"}, "there is no way 'slics' to cut; there are auto, slic, quickshift, equal"),
    "pieces": ("shapley_sampling", {"pieces": 0}, "an input can't be cut into 0 pieces; say 1 or more"),
    "samples-lime": ("lime", {"samples": 1}, "samples=1, .* can't be; say 2 samples or more"),
    "samples-shap": ("kernel_shap", {"samples": 9, "segments": "equal", "pieces": 9}, "9 samples can't tell 9 pieces"),
    "permutations": ("shapley_sampling", {"permutations": 1}, "permutations=1 don't tell how much they differ; take 2"),
    "masks": ("rise", {"masks": 1}, "masks=1, cells=7, p=0.5 can't be; say 2 masks"),
    "p": ("rise", {"p": 1.0}, "p=1.0 can't be; say 2 masks, 1 cell or more, and p within 0..1"),
    "score": ("rise", {"score": "loggit"}, "there is no score 'loggit'; it is 'probability' or 'logit'"),
    "score-cam": (
        "score_cam",
        {"score": "x", "layer": "late"},
        "there is no score 'x'; it is 'probability' or 'logit'",
    ),
    "channels": ("score_cam", {"channels": 0}, "channels=0 asks about nothing; say 1 or more, or none for all"),
    "channels-ablation": ("ablation_cam", {"channels": -1}, "channels=-1 asks about nothing; say 1 or more"),
    "area": ("extremal_perturbation", {"area": 1.0}, "area is 1.0; a share of the input is within 0 and 1"),
    "steps": ("meaningful_perturbation", {"steps": -1}, "steps=-1 is no number of steps; use 0 or more"),
    "baseline": ("occlusion", {"baseline": "grey"}, "there is no baseline 'grey'; it is a number, a tensor, or black"),
    "baseline-shape": ("rise", {"masks": 4, "baseline": torch.zeros(3)}, "the baseline is .3,., which does not fit"),
    "budget": ("rise", {"masks": 4, "memory": 0}, "a memory budget of 0 bytes holds nothing; None takes a share"),
    "budget-replay": ("ablation_cam", {"layer": "late", "memory": 0}, "a memory budget of 0 bytes holds nothing"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_can_not_be_is_one_clear_line(case: str) -> None:
    method, settings, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as told:
        ask(FlatteningNet(2), tiny_inputs(2), method, **settings)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("method", sorted(LEARNING))
def test_there_is_nothing_to_cover_in_a_vector(method: str) -> None:
    net = nn.Sequential(nn.Linear(4, 3)).eval()
    with pytest.raises(ValueError, match="without spatial extent") as told:
        explain(net, torch.randn(2, 4), method, target=0)
    assert "\n" not in str(told.value)


def test_a_budget_below_one_item_asks_one_after_the_other() -> None:
    net, inputs = FlatteningNet(2), tiny_inputs(2, items=1)
    batches = counted(net, lambda: ask(net, inputs, "rise", masks=10, cells=2, memory=1))
    assert batches == [1] * 11
