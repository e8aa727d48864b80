"""Metrics of the map and the model give the numbers of their papers: by loops, in closed form, as captum has them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import captum.metrics
import numpy as np
import pytest
import torch
from nets import AveragingNet, tiny_inputs
from scipy.stats import spearmanr
from skimage.feature import hog
from torch import Tensor, nn

import cnnviz
from cnnviz import ExplainOptions, Explanation, Run, attributions, demo, evaluate, explain, gradient
from cnnviz.__main__ import main
from cnnviz.testing import SmallNet

SIZES = {1: (9,), 2: (3, 4), 3: (2, 3, 2)}
RANKS = pytest.mark.parametrize("rank", [1, 2, 3])


class LinearNet(nn.Module):
    """Scores (N, 3), each a weighted sum of the input."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(rank)
        shape = (3, 2, *SIZES[rank])
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(drawn, requires_grad=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nx,kx->nk", x.flatten(1), self.weight.flatten(1))


def asked(rank: int, seed: int = 3) -> tuple[LinearNet, Explanation]:
    """A linear network, and one map for each of two inputs, no two places alike."""
    model, generator = LinearNet(rank), torch.Generator().manual_seed(seed)
    inputs = torch.randn(2, 2, *SIZES[rank], generator=generator, dtype=torch.float64)
    answer = explain(model, inputs, gradient(), target=torch.tensor([1, 2]))
    return model, replace(answer, values=torch.rand(2, 1, *SIZES[rank], generator=generator, dtype=torch.float64))


def ordered(values: Tensor) -> list[tuple[int, ...]]:
    """The places of one map (*spatial), the most evidence first."""
    return sorted(product(*map(range, values.shape)), key=lambda place: -float(values[place]))


def blank(answer: Explanation) -> Explanation:
    return replace(answer, values=torch.zeros_like(answer.values))


# Insertion and deletion


@RANKS
@pytest.mark.parametrize("name", ["insertion", "deletion"])
@pytest.mark.parametrize("step", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("scale", ["probability", "score"])
def test_curves_place_by_place(rank: int, name: str, step: float, scale: str) -> None:
    model, answer = asked(rank)
    steps = math.ceil(1 / step)
    for item, (values, image) in enumerate(zip(answer.values[:, 0], answer.inputs, strict=True)):
        places, target = ordered(values), int(answer.target[item])  # type: ignore[index]
        heights, shares = [], []
        for count in sorted({round(len(places) * number / steps) for number in range(steps + 1)}):
            changed = image.clone() if name == "deletion" else torch.full_like(image, 0.5)
            for place in places[:count]:
                changed[(slice(None), *place)] = 0.5 if name == "deletion" else image[(slice(None), *place)]
            scores = model(changed[None])[0]
            heights.append(float((scores.softmax(0) if scale == "probability" else scores)[target]))
            shares.append(count / len(places))
        area = sum((b - a) * (p + q) / 2 for a, b, p, q in zip(shares, shares[1:], heights, heights[1:], strict=False))
        found = evaluate(answer, name, model=model, baseline=0.5, step=step, scale=scale)
        assert float(found[item]) == pytest.approx(area, rel=1e-9)


def test_the_best_order_is_that_of_what_places_add() -> None:
    model, answer = asked(2)
    shares = (model.weight[answer.target] * answer.inputs).sum(1, keepdim=True).detach()
    best, worst = replace(answer, values=shares), replace(answer, values=-shares)
    how: dict[str, Any] = {"model": model, "scale": "score", "sign": "signed", "baseline": 0.0}
    for name, better in (("insertion", 1), ("deletion", -1)):
        ends = [evaluate(each, name, **how) for each in (best, answer, worst)]
        assert bool((better * (ends[0] - ends[1]) > 0).all())
        assert bool((better * (ends[1] - ends[2]) > 0).all())
    both = evaluate(best, ["insertion", "deletion"], **how)
    torch.testing.assert_close(both["insertion"] + both["deletion"], answer.score)  # one curve is the other's rest


def test_chance_orders_a_blank_map_the_same_for_every_input() -> None:
    model, answer = asked(2)
    twice = replace(answer, inputs=answer.inputs[:1].repeat(2, 1, 1, 1), target=answer.target[:1].repeat(2))  # type: ignore[index]
    twice = replace(blank(twice), score=answer.score[:1].repeat(2))
    for name in ("insertion", "deletion", "road"):
        found, other = (
            evaluate(twice, name, model=model, scale="score", options=ExplainOptions(seed=seed)) for seed in (0, 1)
        )
        assert bool(found.isfinite().all())
        assert found[0] == found[1]
        assert not torch.equal(found, other)


def test_a_baseline_is_any_that_attributions_know() -> None:
    model, answer = asked(2)
    found = {each: float(evaluate(answer, "deletion", model=model, baseline=each)[0]) for each in ("mean", "blur", 0.0)}
    assert len(set(found.values())) == 3
    with pytest.raises(ValueError, match="the baseline 'black' is a colour, and without a preprocessing nobody knows"):
        evaluate(answer, "deletion", model=model, baseline="black")


# ROAD


def filled(image: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """All places of (*spatial) solved together in a dense matrix: each gone place is the mean of its neighbours."""
    places = list(product(*map(range, image.shape)))
    matrix, given = np.eye(len(places)), image.flatten()
    for row, place in enumerate(places):
        if not gone[place]:
            continue
        near = {}
        for step in product((-1, 0, 1), repeat=image.ndim):
            other = tuple(np.add(place, step))
            if any(step) and other in places:
                near[places.index(other)] = 0.5 ** sum(each != 0 for each in step)
        given[row] = 0
        for column, weight in near.items():
            matrix[row, column] = -weight / sum(near.values())
    return np.linalg.solve(matrix, given).reshape(image.shape)


@pytest.mark.parametrize("size", [(9,), (5, 6), (1, 7), (3, 4, 3)])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_imputation_solves_for_the_mean_of_neighbours(size: tuple[int, ...], share: float) -> None:
    from cnnviz_plugins.metrics.road import imputed

    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(2, 2, *size, generator=generator)
    order = torch.rand(2, inputs[0, 0].numel(), generator=generator).argsort(1)
    gone = (order < min(round(share * order.shape[1]), order.shape[1] - 1)).view(2, 1, *size)
    expected = [
        [filled(each.numpy(), mask[0].numpy()) for each in image] for image, mask in zip(inputs, gone, strict=True)
    ]
    found = imputed(inputs, gone, tolerance=1e-6)
    torch.testing.assert_close(found, torch.tensor(np.array(expected)).float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(imputed(inputs[1:], gone[1:], tolerance=1e-6), found[1:])  # whoever is beside it


def test_weights_are_those_of_the_paper() -> None:
    from cnnviz_plugins.metrics.road import imputed

    image, gone = torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    image[0, 0, 0, 1], image[0, 0, 2, 2], gone[0, 0, 1, 1] = 1.0, 10.0, True
    assert float(imputed(image, gone)[0, 0, 1, 1]) == pytest.approx(1 / 6 + 10 / 12)


@RANKS
@pytest.mark.parametrize("order", ["most", "least", "difference"])
def test_road_fills_and_asks(rank: int, order: str) -> None:
    model, answer = asked(rank)
    expected = []
    for item, (values, image) in enumerate(zip(answer.values[:, 0], answer.inputs, strict=True)):
        means = []
        for places in (ordered(values), ordered(values)[::-1]):
            found = []
            for share in (0.25, 0.5, 0.75):
                gone = np.zeros(values.shape, bool)
                for place in places[: round(share * len(places))]:
                    gone[place] = True
                changed = torch.tensor(np.stack([filled(each.numpy(), gone) for each in image]))
                found.append(float(model(changed[None])[0].softmax(0)[answer.target[item]]))  # type: ignore[index]
            means.append(sum(found) / 3)
        expected.append({"most": means[0], "least": means[1], "difference": means[1] - means[0]}[order])
    found = evaluate(answer, "road", model=model, order=order, step=0.25, noise=0.0)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-3, rtol=1e-3)
    noisy = evaluate(answer, "road", model=model, order=order, step=0.25, noise=0.2)
    assert not torch.allclose(noisy, found, atol=1e-3)


# What only the map leaves


def test_drop_and_increase_by_hand() -> None:
    model, answer = asked(2)
    for values in (answer.values, answer.values - 0.5, -answer.values):
        found = evaluate(
            replace(answer, values=values), ["average_drop", "average_increase"], model=model, baseline=0.3
        )
        for item, (each, image) in enumerate(zip(values[:, 0].clamp(min=0), answer.inputs, strict=True)):
            shares = each / each.max() if float(each.max()) > 0 else each
            scores = [model(kept[None])[0].softmax(0) for kept in (image, 0.3 + shares * (image - 0.3))]
            before, after = (float(score[answer.target[item]]) for score in scores)  # type: ignore[index]
            assert float(found["average_drop"][item]) == pytest.approx(max(0.0, before - after) / before)
            assert float(found["average_increase"][item]) == float(after > before)
    whole = evaluate(replace(answer, values=torch.ones_like(answer.values)), "average_drop", model=model)
    assert whole.tolist() == [0, 0]


def test_a_score_that_is_not_above_zero_has_no_share_to_lose() -> None:
    model = LinearNet(2)
    inputs = torch.ones(1, 2, 3, 4, dtype=torch.float64)
    lost: Callable[[Tensor], Tensor] = lambda output: output[:, 0] * 0 - 1  # noqa: E731
    answer = explain(model, inputs, gradient(), target=lost)
    with pytest.raises(ValueError, match="input 0 has the score -1, of which no share can be lost; explain a class"):
        evaluate(answer, "average_drop", model=model, target=lost)


# Infidelity and sensitivity, as captum has them


def draws(inputs: Tensor, samples: int, kind: Literal["normal", "uniform"]) -> Tensor:
    """What the metrics draw, (samples, C, *spatial)."""
    run = Run(nn.Identity(), inputs)
    drawn = [getattr(run.draws(number), kind)(inputs.shape[1:], inputs.dtype) for number in range(samples)]
    return torch.stack(drawn)


@RANKS
@pytest.mark.parametrize("normalize", [True, False])
def test_infidelity_is_captums(rank: int, normalize: bool) -> None:
    model, samples = SmallNet(rank), 12
    size = {1: (20,), 2: (9, 8), 3: (6, 6, 7)}[rank]
    inputs = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    answer = explain(model, inputs, gradient(), target=torch.tensor([0, 3]))
    flat = inputs.flatten(1)
    reach = (flat.amax(1) - flat.amin(1)).view(2, *(1,) * (rank + 1))
    noise = 0.1 * reach[:, None] * draws(inputs, samples, "normal")  # (N, samples, ...), as captum repeats inputs

    def perturbed(repeated: Tensor) -> tuple[Tensor, Tensor]:
        return noise.flatten(0, 1), repeated - noise.flatten(0, 1)

    expected = captum.metrics.infidelity(
        model, perturbed, inputs, answer.values, target=answer.target, n_perturb_samples=samples, normalize=normalize
    )
    found = evaluate(answer, "infidelity", model=model, samples=samples, normalize=normalize)
    torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-7)


@RANKS
def test_nothing_is_foretold_wrongly_of_a_linear_network(rank: int) -> None:
    model, answer = asked(rank)
    slopes = explain(model, answer.inputs, gradient(), target=answer.target)
    shares = explain(model, answer.inputs, "integrated_gradients", target=answer.target, baseline=0.5)
    for how in ({"perturb": "noise"}, {"perturb": "square", "window": 2}):
        for normalize in (True, False):
            kept: dict[str, Any] = {"model": model, "normalize": normalize, "baseline": 0.5} | how
            zero = pytest.approx([0, 0], abs=1e-9)
            assert evaluate(slopes, "infidelity", **kept).tolist() == zero
            assert evaluate(shares, "infidelity", values="shares", **kept).tolist() == zero
            assert min(evaluate(answer, "infidelity", **kept).tolist()) > 1e-3
    scaled = replace(slopes, values=100 * slopes.values)
    assert evaluate(scaled, "infidelity", model=model).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert min(evaluate(scaled, "infidelity", model=model, normalize=False).tolist()) > 1


def test_a_blank_map_foretells_that_nothing_changes() -> None:
    model, answer = asked(2)
    noise = 0.1 * (answer.inputs.flatten(1).amax(1) - answer.inputs.flatten(1).amin(1)).view(2, 1, 1, 1)
    changed = torch.stack([model(noise * each)[[0, 1], answer.target] for each in draws(answer.inputs, 50, "normal")])
    torch.testing.assert_close(evaluate(blank(answer), "infidelity", model=model), (changed**2).mean(0).detach())


@RANKS
def test_max_sensitivity_is_captums(rank: int) -> None:
    model, samples = SmallNet(rank), 6
    size = {1: (20,), 2: (9, 8), 3: (6, 6, 7)}[rank]
    inputs = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2))
    target = torch.tensor([0, 3])
    answer = explain(model, inputs, gradient(), target=target)
    flat = inputs.flatten(1)
    reach = (flat.amax(1) - flat.amin(1)).view(2, *(1,) * (rank + 1))
    moved = inputs[:, None] + 0.05 * reach[:, None] * (2 * draws(inputs, samples, "uniform") - 1)

    def explained(inputs: Any, **kept: Any) -> tuple[Tensor, ...]:
        (single,) = inputs if isinstance(inputs, tuple) else (inputs,)
        return (explain(model, single, gradient(), target=target.repeat_interleave(len(single) // 2)).values,)

    expected = captum.metrics.sensitivity_max(
        explained, inputs, lambda repeated: moved.flatten(0, 1), n_perturb_samples=samples
    )
    found = evaluate(answer, "max_sensitivity", model=model, attribution=gradient(), radius=0.05, samples=samples)
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-6)


def test_a_map_that_never_moves_is_not_sensitive() -> None:
    model, answer = asked(2)
    slopes = explain(model, answer.inputs, gradient(), target=answer.target)  # of a linear network, the same everywhere
    found = evaluate(slopes, "max_sensitivity", model=model, attribution=gradient())
    assert found.tolist() == pytest.approx([0, 0], abs=1e-12)
    against = evaluate(blank(slopes), "max_sensitivity", model=model, attribution=gradient())
    torch.testing.assert_close(against, slopes.values.flatten(1).norm(dim=1))


# Completeness


@pytest.mark.parametrize("method", ["integrated_gradients", "deeplift"])
def test_the_gap_is_the_one_that_methods_note(method: str) -> None:
    model, inputs = AveragingNet(2), tiny_inputs()
    answer = explain(model, inputs, method, target=1, baseline=0.25)
    found = evaluate(answer, "completeness_gap", model=model, baseline=0.25)
    torch.testing.assert_close(found, answer.notes["completeness_gap"])
    difference = (model(inputs) - model(torch.full_like(inputs, 0.25)))[:, 1].detach()
    torch.testing.assert_close(evaluate(blank(answer), "completeness_gap", model=model, baseline=0.25), -difference)


def test_coarse_maps_are_no_shares() -> None:
    model, inputs = AveragingNet(2), tiny_inputs()
    answer = explain(model, inputs, "grad_cam", target=1)
    with pytest.raises(ValueError, match="only values of the input's size are shares that can add up to the score"):
        evaluate(answer, "completeness_gap", model=model)


# Concentration


@RANKS
def test_gini_compares_every_pair_and_entropy_every_share(rank: int) -> None:
    _, answer = asked(rank)
    found = evaluate(answer, ["sparseness", "complexity"])
    for item, values in enumerate(answer.values):
        each = values.flatten().tolist()
        pairs = sum(abs(a - b) for a, b in product(each, each)) / (2 * len(each) * sum(each))
        entropy = -sum(a / sum(each) * math.log(a / sum(each)) for a in each)
        assert float(found["sparseness"][item]) == pytest.approx(pairs)
        assert float(found["complexity"][item]) == pytest.approx(entropy)


def test_the_ends_of_concentration() -> None:
    _, answer = asked(2)
    one = torch.zeros_like(answer.values)
    one[:, :, 1, 2] = 5.0
    ends = {"one": one, "even": torch.ones_like(one), "blank": one * 0}
    found = {name: evaluate(replace(answer, values=each), ["sparseness", "complexity"]) for name, each in ends.items()}
    assert {name: float(each["sparseness"][0]) for name, each in found.items()} == pytest.approx(
        {"one": 11 / 12, "even": 0, "blank": 0}
    )
    assert {name: float(each["complexity"][0]) for name, each in found.items()} == pytest.approx(
        {"one": 0, "even": math.log(12), "blank": math.log(12)}
    )


# Random weights


@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_layers_are_forgotten_from_the_output_down(order: str) -> None:
    model = SmallNet(2)
    layers = ["first", "norm", "second", "third", "classifier"]
    own = {name: [weight.clone() for weight in model.get_submodule(name).parameters()] for name in layers}
    seen: list[set[str]] = []

    def noting(run: Run) -> Tensor:
        assert run.model is not model
        pairs = {name: zip(run.model.get_submodule(name).parameters(), own[name], strict=True) for name in layers}
        seen.append({name for name, each in pairs.items() if any(not torch.equal(*pair) for pair in each)})
        return run.inputs

    inputs = torch.randn(1, 3, 8, 9, generator=torch.Generator().manual_seed(1))
    answer = replace(explain(model, inputs, gradient(), target=0), recipe="noting")
    evaluate(answer, "randomization", model=model, attribution=noting, order=order, stops=None)
    down = layers[::-1]
    assert seen == [set(down[: number + 1] if order == "cascading" else [down[number]]) for number in range(5)]
    seen.clear()
    evaluate(answer, "randomization", model=model, attribution=noting, order=order, stops=2)
    ends = [{"third", "classifier"}, set(layers)] if order == "cascading" else [{"third"}, {"first"}]
    assert seen == ends
    for name in layers:
        assert all(map(torch.equal, model.get_submodule(name).parameters(), own[name]))


def test_random_weights_are_those_of_he_and_seeded() -> None:
    model = nn.Sequential(nn.Conv2d(8, 64, 5), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 4, 3)).eval()
    kept: list[nn.Module] = []

    def keeping(run: Run) -> Tensor:
        kept.append(run.model)
        return run.inputs

    inputs = torch.randn(1, 8, 9, 9)
    answer = explain(model, inputs, gradient(), target=lambda output: output.flatten(1).sum(1))
    answer = replace(answer, recipe="keeping")
    for seed in (0, 0, 1):
        how: dict[str, Any] = {"model": model, "attribution": keeping, "stops": 1, "options": ExplainOptions(seed=seed)}
        evaluate(answer, "randomization", target=lambda output: output.flatten(1).sum(1), **how)
    first, again, other = ([each.detach().clone() for each in model.parameters()] for model in kept)
    assert float(first[0].std()) == pytest.approx(math.sqrt(2 / (8 * 25)), rel=0.02)
    assert float(first[0].mean().abs()) < 0.005
    assert [float(each.abs().max()) for each in (first[1], first[3])] == [0, 0]
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])


class NormalizesInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = SmallNet(2).eval()
        self.eval()

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        scale.add_(1)
        return self.net(x.sub_(0.5).div_(0.25)) * scale


def test_no_metric_writes_into_the_inputs() -> None:
    model, generator = NormalizesInPlace(), torch.Generator().manual_seed(1)
    inputs, scale = torch.rand(2, 3, 8, 9, generator=generator), torch.ones(2, 1)
    answer = explain(model, (inputs, scale), gradient(), target=1)
    before = answer.inputs.clone()
    names = [each for each in cnnviz.metrics if each not in ("mask_iou", "mass_inside", "pointing_game", "roc_auc")]
    for name in names:
        settings = {"stops": 2} if name == "randomization" else {"samples": 2} if name == "max_sensitivity" else {}
        evaluate(answer, name, model=model, others=[scale], attribution=gradient(), **settings)
        assert torch.equal(answer.inputs, before), name
        assert torch.equal(scale, torch.ones(2, 1)), name


def test_similarities_are_those_of_the_libraries() -> None:
    from cnnviz.explanations import map_similarity

    generator = torch.Generator().manual_seed(4)
    one = torch.randint(0, 6, (24, 30), generator=generator).double()
    other = (one + torch.randint(0, 4, (24, 30), generator=generator)).double()
    assert map_similarity("spearman", one, other) == pytest.approx(spearmanr(one.flatten(), other.flatten()).statistic)
    edges = [hog(each.numpy() / float(each.max()), pixels_per_cell=(8, 8)) for each in (one, other)]
    assert map_similarity("hog", one, other) == pytest.approx(np.corrcoef(*edges)[0, 1])
    a, b = one / one.max(), other / other.max()
    scores = []
    for row, column in product(range(18), range(24)):  # every window of 7 x 7
        p, q = (each[row : row + 7, column : column + 7].flatten() for each in (a, b))
        both = ((p - p.mean()) * (q - q.mean())).sum() / 48
        above = (2 * p.mean() * q.mean() + 1e-4) * (2 * both + 9e-4)
        scores.append(float(above / ((p.mean() ** 2 + q.mean() ** 2 + 1e-4) * (p.var() + q.var() + 9e-4))))
    assert map_similarity("ssim", one, other) == pytest.approx(sum(scores) / len(scores))
    for name in ("spearman", "ssim", "hog"):
        assert map_similarity(name, one, one) == pytest.approx(1)
        assert map_similarity(name, one, one * 0) == 0
        assert map_similarity(name, one * 0, one * 0) == 1


def test_weights_separate_grad_cam_from_an_edge_detector() -> None:
    def edges(run: Run) -> Tensor:
        gray = run.inputs.mean(1, keepdim=True)
        return nn.functional.pad(gray.diff(dim=-1).abs(), (1, 0))

    model, inputs = cnnviz.load_model("demo"), demo.as_inputs(demo.pictures().pictures[:4])
    found = {}
    for name, method in {"edges": edges, "grad_cam": attributions["grad_cam"]()}.items():
        answer = explain(model, inputs, method)
        found[name] = evaluate(answer, "randomization", model=model, attribution=method, stops=3)
    assert found["edges"].tolist() == pytest.approx([1] * 4)
    assert float(found["grad_cam"].mean()) < 0.5


# What can't be meant, and what can't be asked


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("deletion", {"step": 0}, "step=0 is no share of the places; use more than 0, and up to 1"),
        ("insertion", {"scale": "logit"}, "there is no scale='logit'; use 'probability' or 'score'"),
        ("insertion", {"baseline": "grey"}, "there is no baseline 'grey'"),
        ("road", {"order": "first"}, "there is no order='first'; use 'difference', 'most' or 'least'"),
        ("road", {"step": 1}, "step=1 leaves nothing to fill places from; use less than 1"),
        ("road", {"noise": -1}, "noise=-1 is no share of the input's range; use 0 or more"),
        ("infidelity", {"perturb": "blur"}, "there is no perturb='blur'; use 'noise' or 'square'"),
        ("infidelity", {"values": "sums"}, "values='sums' are unknown; use 'rates' or 'shares'"),
        ("infidelity", {"samples": 0}, "samples=0, window=None and sigma=0.1 are to be above 0"),
        ("max_sensitivity", {"radius": 0}, "samples=10 and radius=0 are to be above 0"),
        ("randomization", {"order": "up"}, "there is no order='up'; use 'cascading' or 'independent'"),
        ("randomization", {"similarity": "l2"}, "there is no similarity='l2'; use spearman, ssim, hog"),
        ("randomization", {"stops": 0}, "stops=0 leaves no layer to stop at; use 1 or more, or None for all"),
    ],
)
def test_settings_that_cannot_be_meant(name: str, settings: dict[str, Any], told: str) -> None:
    model, answer = asked(2)
    with pytest.raises(ValueError, match=f"^{told}"):
        evaluate(answer, name, model=model, attribution=gradient(), **settings)


class Brittle(LinearNet):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.where((x == 0).flatten(1).any(1), torch.nan, 0.0)[:, None]


@pytest.mark.parametrize("name", ["deletion", "average_drop", "completeness_gap"])
def test_a_network_that_breaks_on_a_changed_input_is_told(name: str) -> None:
    model = Brittle(2)
    answer = explain(model, asked(2)[1].inputs, gradient(), target=0)
    with pytest.raises(ValueError, match=r"^the model's score of a changed input has \d+ values that are not finite"):
        evaluate(blank(answer), name, model=model, baseline=0.0)


def test_a_single_class_is_asked_by_its_sigmoid() -> None:
    model = nn.Sequential(nn.Conv2d(2, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    inputs = torch.randn(2, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    answer = explain(model, inputs, gradient(), target=0)
    ends = model(torch.stack([inputs[0] * 0, inputs[0]])).detach().sigmoid().flatten().tolist()
    found = evaluate(answer, ["insertion", "deletion"], model=model, step=1.0, baseline=0.0)
    for each in found.values():
        assert float(each[0]) == pytest.approx(sum(ends) / 2)


def test_what_randomization_cannot_do_is_told() -> None:
    inputs = torch.randn(1, 3, 6, 7)
    bare = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Flatten()).eval()
    answer = explain(bare, inputs, gradient(), target=1)
    with pytest.raises(ValueError, match="Sequential has no weights to make random; there is nothing to test"):
        evaluate(answer, "randomization", model=bare, attribution=gradient())
    model = SmallNet(2)
    model.kept = iter(())  # type: ignore[assignment]
    model.handle = (each for each in ())  # type: ignore[assignment]
    answer = explain(model, inputs, gradient(), target=1)
    with pytest.raises(ValueError, match="SmallNet can't be copied, and only a copy's weights may be made random"):
        evaluate(answer, "randomization", model=model, attribution=gradient())
    fine = SmallNet(2)
    answer = explain(fine, inputs, gradient(), target=1)
    with pytest.raises(ValueError, match="have no histograms of oriented gradients; use similarity='spearman'"):
        evaluate(answer, "randomization", model=fine, attribution=gradient(), similarity="hog")


def test_scores_are_asked_in_chunks_of_the_budget() -> None:
    model, sizes = SmallNet(2), []
    inputs = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    answer = explain(model, inputs, gradient(), target=1)
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    small = evaluate(answer, ["insertion", "road", "infidelity"], model=model, options=ExplainOptions(memory=1))
    assert max(sizes) == len(inputs)
    large = evaluate(answer, ["insertion", "road", "infidelity"], model=model, options=ExplainOptions(memory=2**30))
    assert max(sizes) > len(inputs)
    for name, each in small.items():
        torch.testing.assert_close(each, large[name], rtol=1e-4, atol=1e-6)


# The command


def test_the_command_needs_no_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "-o", str(tmp_path / "demo")]) == 0
    picture, table = tmp_path / "demo" / "pictures" / "star.png", tmp_path / "scores.csv"
    names = "insertion,deletion,road,average_drop,average_increase,max_sensitivity,randomization,sparseness,complexity"
    status = main(
        ["evaluate", str(picture), "--method", "grad_cam,gradient", "--metric", names, "--metric", "infidelity",
         "--step", "0.25", "--samples", "2", "--stops", "2", "-o", str(table)]
    )  # fmt: skip
    assert status == 0
    assert "grad_cam" in capsys.readouterr().out
    head, *rows = table.read_text().splitlines()
    assert [each for each in head.split(",") if not each.endswith("_error")][3:] == [*names.split(","), "infidelity"]
    assert len(rows) == 2
    assert main(["evaluate", str(picture), "--metric", "insertion,roc_auc", "--step", "0.5"]) != 0
    assert "the metric compares maps with annotated places, and there are none" in capsys.readouterr().err
