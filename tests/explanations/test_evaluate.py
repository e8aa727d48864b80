"""Metrics give the numbers of their definitions, from annotations as people have them. What can't be scored says so."""

from __future__ import annotations

import copy
import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import AveragingNet
from PIL import Image
from torch import Tensor

import cnnviz
from cnnviz import (
    ExplainOptions,
    Explanation,
    Preprocessing,
    Run,
    Trial,
    attributions,
    demo,
    evaluate,
    explain,
    gradient,
    load_model,
    metric,
    metrics,
)
from cnnviz.__main__ import main
from cnnviz.explanations import evidence
from cnnviz.images import read_annotations, read_mask
from cnnviz.objectives import class_score
from cnnviz.testing import SmallNet, check_metric

SIZES = {1: (17,), 2: (6, 7), 3: (4, 3, 5)}
ANNOTATED = ("mask_iou", "mass_inside", "pointing_game", "roc_auc")  # what asks for masks, and not the model
PLAIN = Preprocessing((0.5,) * 3, (0.5,) * 3)

# networks this small end in the layer that gives their scores
pytestmark = pytest.mark.filterwarnings("ignore:layer .* holds the scores themselves:UserWarning")


def scored(values: Any, mask: Any, name: str, **settings: Any) -> float:
    """Of one map of positive values (*spatial), as a class activation map has it."""
    values, mask = torch.as_tensor(values), torch.as_tensor(mask)
    one = evaluate(explained(values[None, None]), name, masks=mask[None], **settings)
    assert one.shape == (1,)
    return float(one[0])


def explained(values: Tensor) -> Explanation:
    inputs = torch.zeros(len(values), 3, *values.shape[2:])
    return Explanation(
        values.float(), inputs, torch.zeros(len(values), dtype=torch.int64), torch.ones(len(values)), "m"
    )


def some_map(rank: int, seed: int, ties: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    size = SIZES[rank]
    values = torch.randint(0, 4, size, generator=generator).float() if ties else torch.rand(size, generator=generator)
    return values, torch.rand(size, generator=generator) < 0.35


def places(mask: Tensor) -> list[tuple[int, ...]]:
    return [place for place in product(*map(range, mask.shape)) if mask[place]]


# Slow references


def auc_of_pairs(inside: list[float], outside: list[float]) -> float:
    """Every pair of one inside and one outside, a tie counting half."""
    won = sum((a > b) + (a == b) / 2 for a, b in product(inside, outside))
    return won / (len(inside) * len(outside))


def parts(mask: Tensor) -> list[list[tuple[int, ...]]]:
    """Connected parts by walking from place to place, corners included."""
    left, found = set(places(mask)), []
    while left:
        waiting = [left.pop()]
        part = []
        while waiting:
            place = waiting.pop()
            part.append(place)
            near = {tuple(np.add(place, step)) for step in product((-1, 0, 1), repeat=mask.ndim)} & left
            left -= near
            waiting += near
        found.append(part)
    return found


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("ties", [False, True])
def test_roc_auc_counts_pairs(rank: int, ties: bool) -> None:
    for seed in range(5):
        values, mask = some_map(rank, seed, ties)
        expected = auc_of_pairs(values[mask].tolist(), values[~mask].tolist())
        assert scored(values, mask, "roc_auc") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_roc_auc_of_sections_compares_the_peak_of_each_part(rank: int) -> None:
    for seed in range(5):
        values, mask = some_map(rank, seed)
        peaks = [[max(float(values[place]) for place in part) for part in parts(side)] for side in (mask, ~mask)]
        expected = auc_of_pairs(*peaks)
        assert scored(values, mask, "roc_auc", per="section") == pytest.approx(expected, abs=1e-6)


def test_roc_auc_of_intervals_compares_the_peak_of_each() -> None:
    values, mask = torch.rand(20, generator=torch.Generator().manual_seed(1)), torch.zeros(20, dtype=torch.bool)
    mask[3:5] = mask[16] = True
    cuts = [range(0, 5), range(5, 10), range(10, 15), range(15, 20)]
    peaks = [[max(values[list(cut)].tolist()) for cut in cuts if any(mask[n] for n in cut) == side]
             for side in (True, False)]  # fmt: skip
    assert scored(values, mask, "roc_auc", per="interval", count=4) == pytest.approx(auc_of_pairs(*peaks), abs=1e-6)
    wide = torch.zeros(2, 20).index_put((torch.tensor(1), torch.tensor(17)), torch.tensor(1.0))
    assert scored(wide, mask.expand(2, 20), "roc_auc", per="interval", count=4) == 0.75  # across the longest side


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_mass_inside_is_a_share_of_the_positive_evidence(rank: int) -> None:
    values, mask = some_map(rank, seed=4)
    values = values - 0.5
    inside = sum(max(float(values[place]), 0) for place in places(mask))
    whole = inside + sum(max(float(values[place]), 0) for place in places(~mask))
    assert scored(values, mask, "mass_inside") == pytest.approx(inside / whole, rel=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2, 3.9, 100])
def test_pointing_game_allows_so_many_pixels(rank: int, tolerance: float) -> None:
    for seed in range(4):
        values, _ = some_map(rank, seed)
        mask = torch.zeros_like(values, dtype=torch.bool)
        mask[(0,) * rank] = mask[(2,) * rank] = True
        peak = max(places(torch.ones_like(mask)), key=lambda place: float(values[place]))
        hit = any(np.hypot.reduce(np.subtract(peak, place).astype(float)) <= tolerance for place in places(mask))
        assert scored(values, mask, "pointing_game", tolerance=tolerance) == float(hit)


@pytest.mark.parametrize("peak", [(5,), (3, 4), (0, 3, 4)])
def test_pointing_game_counts_a_peak_that_misses_by_exactly_the_tolerance(peak: tuple[int, ...]) -> None:
    values = torch.zeros([place + 1 for place in peak])
    mask = torch.zeros_like(values, dtype=torch.bool)
    values[peak] = 1
    mask[(0,) * len(peak)] = True  # 5 pixels away, along a straight line
    assert scored(values, mask, "pointing_game", tolerance=5) == 1
    assert scored(values, mask, "pointing_game", tolerance=4.99) == 0


def test_tied_peaks_share_the_hit() -> None:
    values = torch.tensor([0.0, 2.0, 2.0, 1.0, 2.0, 2.0])
    assert scored(values, torch.tensor([1, 1, 0, 0, 0, 0]), "pointing_game") == 0.25


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("threshold", [0.15, 0.5, 1.0])
def test_mask_iou_compares_two_sets_of_places(rank: int, threshold: float) -> None:
    values, mask = some_map(rank, seed=6)
    region = {place for place in places(values > 0) if values[place] >= threshold * float(values.max())}
    truth = set(places(mask))
    expected = len(region & truth) / len(region | truth)
    assert scored(values, mask, "mask_iou", threshold=threshold) == pytest.approx(expected)


def test_mask_iou_of_the_segmentation() -> None:
    drawn = demo.pictures()
    answer = explain(load_model("demo"), demo.as_inputs(drawn.pictures[:3]), "grad_cam")
    found, masks = cnnviz.segment(answer).masks.numpy(), drawn.masks[:3]
    expected = [(a & b).sum() / (a | b).sum() for a, b in zip(found, masks, strict=True)]
    assert evaluate(answer, "mask_iou", masks=masks, by="segmentation").tolist() == pytest.approx(expected)


def test_a_blank_map_scores_as_one_that_knows_nothing() -> None:
    mask = torch.tensor([[True, False], [False, False]])
    found = {name: scored(torch.zeros(2, 2), mask, name) for name in ANNOTATED}
    assert found == {"mask_iou": 0, "mass_inside": 0, "pointing_game": 0, "roc_auc": 0.5}


# The map that is scored


def test_evidence_is_positive_of_coarse_maps_and_magnitude_of_fine_ones() -> None:
    fine = torch.tensor([[[1.0, -2.0], [0.0, 3.0]], [[-1.0, 1.0], [0.5, -4.0]], [[2.0, 0.0], [0.0, 1.0]]])[None]
    answer = explained(torch.zeros(1, 1, 2, 2))
    of = {sign: evidence(replace(answer, values=fine), sign)[0] for sign in ("auto", "positive", "signed")}  # type: ignore[arg-type]
    torch.testing.assert_close(of["auto"], fine[0].abs().sum(0))
    torch.testing.assert_close(of["signed"], fine[0].sum(0))
    torch.testing.assert_close(of["positive"], fine[0].sum(0).clamp(min=0))
    coarse = replace(answer, values=torch.tensor([-1.0, 1.0]).reshape(1, 1, 1, 2), inputs=torch.zeros(1, 3, 1, 8))
    # cut off before it is enlarged, as Grad-CAM does: what speaks against does not eat into what speaks for
    assert evidence(coarse)[0, 0].tolist() == pytest.approx([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])
    assert evidence(coarse, "signed")[0, 0].tolist() == pytest.approx([-1, -1, -0.75, -0.25, 0.25, 0.75, 1, 1])
    assert evidence(replace(answer, values=fine.bfloat16())).dtype == torch.float32


# Asking


@pytest.fixture
def answer() -> Explanation:
    return explained(torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(2)))


@pytest.fixture
def masks() -> Tensor:
    masks = torch.zeros(2, 4, 5, dtype=torch.bool)
    masks[0, 1:3, 1:3] = masks[1, 2:, 3:] = True
    return masks


def test_several_metrics_are_told_by_name_with_the_settings_they_know(answer: Explanation, masks: Tensor) -> None:
    found = evaluate(answer, ["roc_auc", "pointing_game"], masks=masks.numpy().astype(int), tolerance=2, per="section")
    assert list(found) == ["roc_auc", "pointing_game"]
    assert torch.equal(found["pointing_game"], evaluate(answer, "pointing_game", masks=masks, tolerance=2))
    assert torch.equal(found["roc_auc"], evaluate(answer, metrics["roc_auc"](per="section"), masks=masks))
    built = evaluate(answer, [metrics["roc_auc"](per="section"), metrics["roc_auc"]()], masks=masks)
    assert list(built) == ["roc_auc(per='section')", "roc_auc()"]


def test_what_is_not_there_is_told_with_the_nearest_name(answer: Explanation, masks: Tensor) -> None:
    with pytest.raises(LookupError, match=r"there is no metric 'roc_acu'; did you mean 'roc_auc'\?"):
        evaluate(answer, "roc_acu", masks=masks)
    with pytest.raises(TypeError, match=r"pointing_game has no setting 'tolerence'; did you mean 'tolerance'\?"):
        evaluate(answer, "pointing_game", masks=masks, tolerence=1)
    with pytest.raises(TypeError, match="there is no setting 'steps' in roc_auc, mass_inside"):
        evaluate(answer, ["roc_auc", "mass_inside"], masks=masks, steps=1)
    with pytest.raises(ValueError, match="no metric was asked for; name at least one"):
        evaluate(answer, [], masks=masks)
    with pytest.raises(TypeError, match="3 is no metric; give a metric's name, or a callable of a trial"):
        evaluate(answer, [3], masks=masks)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="two metrics are called '<lambda>'; ask for them one by one"):
        evaluate(answer, [lambda trial: trial.explanation.score, lambda trial: trial.explanation.score])


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("roc_auc", {"per": "patch"}, "there is no per='patch'; use 'pixel', 'section' or 'interval'"),
        ("roc_auc", {"per": "interval", "count": 1}, "count=1 intervals are not to be compared; use 2 or more"),
        ("roc_auc", {"per": "interval", "count": 9}, "a side of 5 places has no 9 intervals; use fewer"),
        ("roc_auc", {"per": "interval", "count": 2, "all": True}, "all 2 intervals hold annotated places"),
        ("pointing_game", {"tolerance": -1}, "tolerance=-1 is no distance; use 0 or more pixels"),
        ("mask_iou", {"threshold": 0}, "threshold=0 is no share of the peak; use more than 0, and up to 1"),
        ("mask_iou", {"by": "box"}, "there is no by='box'; use 'threshold' or 'segmentation'"),
    ],
)
def test_settings_that_cannot_be_meant(
    answer: Explanation, masks: Tensor, name: str, settings: dict[str, Any], told: str
) -> None:
    if settings.pop("all", False):
        masks[:, 0, ::4] = True
    with pytest.raises(ValueError, match=told):
        evaluate(answer, name, masks=masks, **settings)


def test_masks_are_checked(answer: Explanation, masks: Tensor) -> None:
    with pytest.raises(ValueError, match="the metric compares maps with annotated places, and there are none"):
        evaluate(answer, "roc_auc")
    with pytest.raises(ValueError, match=r"masks are \(2, 5, 4\) where \(2, 4, 5\) is needed"):
        evaluate(answer, "roc_auc", masks=masks.transpose(1, 2))
    with pytest.raises(ValueError, match="masks hold other numbers than 0 and 1; compare them first"):
        evaluate(answer, "roc_auc", masks=masks * 255)
    masks[1] = False
    for name in ANNOTATED:
        with pytest.raises(ValueError, match="input 1 has no annotated place, and can't be scored; leave it out"):
            evaluate(answer, name, masks=masks)
    masks[1] = True
    with pytest.raises(ValueError, match="input 1 is annotated everywhere, with nothing to compare; leave it out"):
        evaluate(answer, "roc_auc", masks=masks)


def test_what_a_metric_gives_is_checked(answer: Explanation) -> None:
    def said(metric: Callable[[Trial], Any]) -> Callable[[], Any]:
        return lambda: evaluate(answer, metric)

    with pytest.raises(TypeError, match=r"gave a float; a metric gives a tensor \(2,\)"):
        said(lambda trial: 0.5)()
    with pytest.raises(ValueError, match=r"gave \(1,\); a metric gives one number for each input, \(2,\)"):
        said(lambda trial: torch.ones(1))()
    with pytest.raises(ValueError, match="what <lambda> gives has 2 values that are not finite"):
        said(lambda trial: torch.full((2,), torch.nan))()


# Asking the model again


def test_a_trial_asks_the_question_that_was_answered() -> None:
    model, inputs = AveragingNet(2), torch.randn(2, 2, 5, 6, dtype=torch.float64)
    target = torch.tensor([2, 0])
    answer = explain(model, inputs, gradient(), target=target)

    def first_class_lost(trial: Trial) -> Tensor:
        return trial.run.score - trial.run.scores(trial.run.inputs * 0.5)

    with torch.no_grad():
        expected = model(inputs)[[0, 1], target] - model(inputs * 0.5)[[0, 1], target]
    torch.testing.assert_close(evaluate(answer, first_class_lost, model=model), expected)
    with pytest.raises(ValueError, match=r"the metric asks the model, and there is none; give evaluate\(..., model="):
        evaluate(answer, first_class_lost)
    with pytest.raises(ValueError, match="the model gives these inputs other scores than the explanation tells of"):
        evaluate(answer, first_class_lost, model=AveragingNet(2).apply(_doubled))


def _doubled(module: torch.nn.Module) -> None:
    for weight in module.parameters(recurse=False):
        weight.data *= 2


def test_a_trial_explains_again_elsewhere_and_with_another_model() -> None:
    model, other = SmallNet(2), SmallNet(2, seed=1)
    inputs = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(1))
    formula = gradient() * cnnviz.image()
    objective = class_score(1) - class_score(2)
    for target in (None, torch.tensor([3, 1]), objective, lambda output: output[:, 0] ** 2):
        answer = explain(model, inputs, formula, target=target)
        kept: list[Tensor] = []

        def again(trial: Trial, kept: list[Tensor] = kept) -> Tensor:
            kept += [trial.again(), trial.again(trial.run.inputs + 1), trial.again(model=other)]
            return trial.explanation.score

        how: dict[str, Any] = {"target": target} if answer.target is None else {}
        evaluate(answer, again, model=model, **how)
        same = target if answer.target is None else answer.target
        torch.testing.assert_close(kept[0], answer.values)
        torch.testing.assert_close(kept[1], explain(model, inputs + 1, formula, target=same).values)
        torch.testing.assert_close(kept[2], explain(other, inputs, formula, target=same).values)
    with pytest.raises(ValueError, match="what was explained is a function of the output; give it again, as target="):
        evaluate(answer, again, model=model, attribution=formula)
    with pytest.raises(ValueError, match="the metric explains again, and the attribution is not known; give evaluate"):
        evaluate(replace(explain(model, inputs, formula), attribution=None), again, model=model)


@pytest.mark.parametrize("name", ["feature_ablation", "lime", "occlusion"])
def test_a_trial_explains_again_in_the_same_pictures(name: str) -> None:
    """Superpixels are cut from pictures, and "black" is one: both need the preprocessing."""
    seen = Preprocessing((0.4, 0.5, 0.45), (0.05, 0.25, 0.5))
    drawn = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(3))
    pictures = torch.nn.functional.interpolate(drawn, (24, 24), mode="bilinear")
    inputs = (pictures - torch.tensor(seen.mean).view(3, 1, 1)) / torch.tensor(seen.std).view(3, 1, 1)
    settings = {"baseline": "black"} if name == "occlusion" else {"pieces": 6}
    method, model = attributions[name](**settings), SmallNet(2)
    answer = explain(model, inputs, method, target=1, preprocessing=seen)
    found = evaluate(answer, "max_sensitivity", model=model, attribution=method, radius=1e-9, samples=1)
    assert float(found) < 1e-4


@pytest.mark.parametrize("given", ["module", "automatic"])
def test_layers_stay_the_same_ones_in_another_model(given: str) -> None:
    model = SmallNet(2)
    other, inputs = copy.deepcopy(model), torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(1))
    for weight in other.parameters():
        weight.data.mul_(0.5)
    method = attributions["grad_cam"](**({"layer": model.first} if given == "module" else {}))
    answer = explain(model, inputs, method, target=1)
    kept: list[Tensor] = []

    def again(trial: Trial) -> Tensor:
        kept.append(trial.again(model=other))
        return trial.explanation.score

    evaluate(answer, again, model=model, attribution=method)
    layer = "first" if given == "module" else answer.recipe.split("'")[1]
    torch.testing.assert_close(kept[0], explain(other, inputs, "grad_cam", layer=layer, target=1).values)


def test_another_attribution_than_the_explanations_is_told() -> None:
    class Doubled:
        def __call__(self, run: Run) -> Tensor:
            return 2 * run.inputs

    model = SmallNet(2)
    inputs = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(1))
    answer = explain(model, inputs, "gradient")
    told = (
        r"^the explanation is of gradient\(\), and the attribution given is smoothgrad\(\); give the one that was used"
    )
    with pytest.raises(ValueError, match=told):
        evaluate(answer, "max_sensitivity", model=model, attribution=attributions["smoothgrad"]())
    answer = explain(model, inputs, Doubled())
    evaluate(answer, "max_sensitivity", model=model, attribution=Doubled(), samples=1)  # wherever it is in memory


def test_a_model_that_ends_in_softmax_is_asked_as_it_was() -> None:
    model = torch.nn.Sequential(SmallNet(2), torch.nn.Softmax(1)).eval()
    inputs = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(1))
    answer = explain(model, inputs, gradient(), before_softmax=True)
    found = evaluate(answer, lambda trial: trial.run.scores(trial.run.inputs), model=model)
    torch.testing.assert_close(found, answer.score)
    with pytest.raises(ValueError, match="other scores than the explanation tells of"):
        evaluate(answer, lambda trial: trial.run.score, model=model, options=ExplainOptions())


class NormedNet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(1, 2, 1, bias=False), torch.nn.BatchNorm2d(2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.00390625, 1.0]).view(2, 1, 1, 1))  # 1 + 2**-8: 1 in bfloat16
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).mean((2, 3))


def test_metrics_ask_the_model_with_the_options_of_the_explanation() -> None:
    """In bfloat16 the first weight is 1; folded, there is no batch norm; compiled, another module is called."""
    model, inputs = NormedNet(), torch.ones(1, 1, 2, 2)

    def doubled(trial: Trial) -> Tensor:
        return trial.run.scores(2 * trial.run.inputs)

    plain = explain(model, inputs, gradient(), target=0)
    assert float(evaluate(plain, doubled, model=model)) == pytest.approx(2.0078125 / math.sqrt(1 + 1e-5))
    half = explain(model, inputs, cnnviz.image(), target=0, precision="bfloat16")
    assert float(evaluate(half, doubled, model=model)) == pytest.approx(2 / math.sqrt(1 + 1e-5), rel=1e-4)
    options: list[Any] = []

    def asked(trial: Trial) -> Tensor:
        run, values = trial.run, [trial.again(), trial.again(model=NormedNet())]
        options.append((run.options.folded is not None, run.options.compiled is not None))
        torch.testing.assert_close(values[0], values[1])
        return doubled(trial)

    for given in ({}, {"fold": True}, {"compile": "eager"}, {"fold": True, "compile": "eager"}):
        answer = explain(model, inputs, attributions["grad_cam"](layer=model.norm), target=0, **given)
        torch.testing.assert_close(evaluate(answer, asked, model=model), evaluate(plain, doubled, model=model))
    assert options == [(False, False), (True, False), (False, True), (True, True)]


def test_options_are_kept_in_files_and_the_attribution_is_not(tmp_path: Path) -> None:
    model, inputs = SmallNet(2), torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(1))
    answer = explain(model, inputs, "smoothgrad", samples=2, seed=3, memory=10**6)
    (file,) = answer.save(tmp_path / "a.safetensors")
    loaded = Explanation.load(file)
    assert loaded.options == answer.options == ExplainOptions(seed=3, memory=10**6)
    assert (answer.attribution, loaded.attribution) == (attributions["smoothgrad"](samples=2), None)

    def distance(trial: Trial) -> Tensor:
        return (trial.again() - trial.explanation.values).flatten(1).norm(dim=1)

    expected = torch.zeros(2)
    assert torch.equal(evaluate(answer, distance, model=model), expected)
    assert torch.equal(evaluate(loaded, distance, model=model, attribution=answer.attribution), expected)
    assert evaluate(answer, distance, model=model, options=replace(answer.options, seed=4)).min() > 1e-3


def test_a_metric_of_ones_own_is_used_by_name() -> None:
    @metric
    def share_above(limit: float = 0.5) -> Callable[[Trial], Tensor]:
        """Which share of places has more than so much evidence (nobody, 2025)."""
        return lambda trial: (trial.evidence > limit).flatten(1).double().mean(1)

    metrics.register(share_above)
    try:
        answer = explained(torch.tensor([[0.2, 0.6, 0.9, 0.1]])[None])
        assert evaluate(answer, "share_above").tolist() == [0.5]
        assert evaluate(answer, "share_above", limit=0.1).tolist() == [0.75]
        check_metric("share_above")
    finally:
        metrics.plugins.unregister(name="share_above")
        del metrics._methods["share_above"], metrics._origins["share_above"]


# Annotations


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures a.png and b.png, 20 wide and 10 high, and their masks in masks/."""
    (tmp_path / "masks").mkdir()
    for name in "ab":
        Image.new("RGB", (20, 10), "gray").save(tmp_path / f"{name}.png")
    return tmp_path


def boxed(left: int, top: int, right: int, bottom: int, size: tuple[int, int] = (10, 20)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize("high", [1, 38, 255])
@pytest.mark.parametrize("suffix", [".png", ".npy", ".bmp"])
def test_a_mask_is_what_is_brighter_than_half(folder: Path, high: int, suffix: str) -> None:
    mask = boxed(3, 2, 9, 7)
    drawn = (mask * high).astype(np.uint8)
    if suffix == ".npy":
        np.save(folder / "masks" / "a.npy", drawn)
    else:
        Image.fromarray(drawn).save(folder / "masks" / f"a{suffix}")
    found = read_mask(read_annotations(folder / "masks"), folder / "a.png", PLAIN, (10, 20))
    assert np.array_equal(found.numpy(), mask)


def test_a_mask_is_resized_and_cropped_as_its_picture(folder: Path) -> None:
    mask = boxed(6, 2, 12, 8)
    Image.fromarray(mask).save(folder / "masks" / "a.png")
    Image.fromarray(np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, -1)).save(folder / "a.png")
    seen = Preprocessing((0.5,) * 3, (0.5,) * 3, resize=20, crop=(18, 24), interpolation="nearest")
    found = read_mask(read_annotations(folder / "masks"), folder / "a.png", seen, (18, 24))
    picture = seen(Image.open(folder / "a.png"))
    assert found.shape == (18, 24)
    assert torch.equal(found, picture[0] > 0)
    assert 0 < int(found.sum()) == (picture[0] > 0).sum()
    filled = replace(seen, fit="contain", fill=(1.0, 1.0, 1.0))  # what is filled up is no evidence
    assert not read_mask(read_annotations(folder / "masks"), folder / "a.png", filled, (18, 24))[0].any()


def test_boxes_are_in_the_pictures_own_pixels(folder: Path) -> None:
    table = folder / "boxes.csv"
    table.write_text("file,x0,y0,x1,y1\na.png, 3,2,9,4\n\nb.png,0,0,1,1\n./a.png,3,4,9,7\nelsewhere/a.png,15,8,20,10\n")
    found = read_annotations(table)
    expected = boxed(3, 2, 9, 7)  # the last line is of a picture elsewhere
    assert np.array_equal(read_mask(found, folder / "a.png", PLAIN, (10, 20)).numpy(), expected)
    assert int(read_mask(found, folder / "b.png", PLAIN, (10, 20)).sum()) == 1


def test_spans_mark_a_signal(folder: Path) -> None:
    (folder / "spans.csv").write_text("file,start,stop\nbeat.npy,2,4\nbeat.npy,7,8\n")
    found = read_mask(read_annotations(folder / "spans.csv"), folder / "beat.npy", PLAIN, (9,))
    assert found.tolist() == [0, 0, 1, 1, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no table of boxes or spans; a table begins with the line file,x0,y0,x1,y1"),
        ("a.png,1,2,3,4\n", "is no table of boxes or spans; a table begins with the line"),
        ("file,x0,y0,x1,y1\na.png,1,2,3\n", "line 2: there are 4 values where file,x0,y0,x1,y1 are needed"),
        ("file,x0,y0,x1,y1\na.png,1,2,3,x\n", "line 2: 1,2,3,x are not whole numbers of pixels or places"),
        ("file,x0,y0,x1,y1\na.png,3,2,3,4\n", "line 2: 3,2,3,4 hold no place; they start at 0 or later"),
        ("file,x0,y0,x1,y1\na.png,-1,2,3,4\n", "line 2: -1,2,3,4 hold no place"),
        ("file,x0,y0,x1,y1\na.png,1,2,21,4\n", "a region of a.png ends beyond it, which is 10 x 20"),
        ("file,x0,y0,x1,y1\nc.png,1,2,21,4\n", "'.*a.png' has no annotation: there is no line for a.png in"),
        ("file,start,stop\na.png,1,2\n", "holds spans of signals, and '.*a.png' is 10 x 20; give a folder of masks"),
    ],
)
def test_a_table_that_annotates_nothing_says_where(folder: Path, text: str, told: str) -> None:
    (folder / "table.csv").write_text(text)
    with pytest.raises((ValueError, LookupError), match=told):
        read_mask(read_annotations(folder / "table.csv"), folder / "a.png", PLAIN, (10, 20))


def test_masks_that_do_not_fit_are_named(folder: Path) -> None:
    found = read_annotations(folder / "masks")
    with pytest.raises(LookupError, match=r"a.png' has no mask: there is no a.png or a.npy in .*masks"):
        read_mask(found, folder / "a.png", PLAIN, (10, 20))
    Image.new("L", (10, 10)).save(folder / "masks" / "a.png")
    with pytest.raises(ValueError, match=r"mask '.*a.png' is 10 x 10, and '.*a.png' 10 x 20; they need one size"):
        read_mask(found, folder / "a.png", PLAIN, (10, 20))
    (folder / "masks" / "b.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"mask '.*b.npy' is not an array of numbers in .npy"):
        read_mask(found, folder / "b.png", PLAIN, (10, 20))
    np.save(folder / "masks" / "b.npy", np.array([["a"]]))
    with pytest.raises(ValueError, match=r"mask '.*b.npy' holds <U1, not numbers"):
        read_mask(found, folder / "b.png", PLAIN, (10, 20))
    with pytest.raises(ValueError, match=r"'.*a.png' would be its own mask; keep masks in a folder of their own"):
        read_mask(read_annotations(folder), folder / "a.png", PLAIN, (10, 20))
    with pytest.raises(FileNotFoundError, match=r"no folder of masks or table '.*nowhere'"):
        read_annotations(folder / "nowhere")
    with pytest.raises(ValueError, match="is no table that can be read; a table begins with the line"):
        read_annotations(folder / "a.png")


# The command


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four drawn pictures in pictures/ and their masks in masks/, beside which commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    known = demo.pictures()
    for kind, arrays in (("pictures", known.pictures), ("masks", known.masks)):
        Path(kind).mkdir()
        for name, array in list(zip(demo.CATEGORIES, arrays, strict=True))[:4]:
            Image.fromarray(array).save(f"{kind}/{name}.png")
    return tmp_path


def test_a_row_for_each_method_and_each_picture(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods, asked = ["grad_cam", "gradient"], ["roc_auc", "pointing_game"]
    how = ["--method", ",".join(methods), "--metric", ",".join(asked), "--tolerance", "3", "--batch", "3"]
    assert main(["evaluate", "pictures", "--annotations", "masks", *how, "-o", "scores.csv", "--each", "each.csv"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    known = demo.pictures()
    order = sorted(range(4), key=lambda n: demo.CATEGORIES[n])
    answers = explain(load_model("demo"), demo.as_inputs(known.pictures[order]), methods)
    rows, each = (list(csv.DictReader(Path(name).read_text().splitlines())) for name in ("scores.csv", "each.csv"))
    assert [row["method"] for row in rows] == methods
    assert len(each) == 8
    for row in rows:
        found = evaluate(answers[row["method"]], asked, masks=known.masks[order], tolerance=3)
        for name, values in found.items():
            assert float(row[name]) == pytest.approx(float(values.mean()), abs=1e-5)
            assert float(row[f"{name}_error"]) == pytest.approx(float(values.std() / 2), abs=1e-5)
            one = [float(line[name]) for line in each if line["method"] == row["method"]]
            assert one == pytest.approx(values.tolist(), abs=1e-4)
            assert f"{float(row[name]):.3f} ± {float(row[name + '_error']):.3f}" in said.out
        assert (row["pictures"], row["blank"]) == ("4", "0")


def test_blank_maps_count_unless_they_are_dropped(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    @cnnviz.attribution
    def half_blank() -> cnnviz.Expr:
        """The gradient, of every second class (nobody, 2025)."""
        return cnnviz.procedure(lambda run: run.gradient() * (run.target % 2).reshape(-1, 1, 1, 1))

    cnnviz.attributions.register(half_blank)
    try:
        command = [
            "evaluate",
            "pictures",
            "--annotations",
            "masks",
            "-m",
            "half_blank",
            "--metric",
            "mass_inside",
            "-q",
        ]
        for dropped, name in (([], "all.json"), (["--drop-blank"], "some.json")):
            assert main([*command, *dropped, "-o", name]) == 0
    finally:
        cnnviz.attributions.plugins.unregister(name="half_blank")
        del cnnviz.attributions._methods["half_blank"], cnnviz.attributions._origins["half_blank"]
    (every,), (some,) = (json.loads(Path(name).read_text()) for name in ("all.json", "some.json"))
    assert (every["pictures"], every["blank"], some["pictures"], some["blank"]) == (4, 2, 2, 2)
    assert every["mass_inside"] == pytest.approx(some["mass_inside"] / 2)


def test_a_table_in_markdown(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["evaluate", "pictures/star.png", "--annotations", "masks", "--metric", "mask_iou", "-o", "scores.md"])
        == 0
    )
    lines = Path("scores.md").read_text().splitlines()
    assert lines[:2] == ["| method | pictures | blank | mask_iou |", "| --- | ---: | ---: | ---: |"]
    assert lines[2].startswith("| grad_cam | 1 | 0 | 0.")


def test_a_picture_without_mask_costs_only_itself(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("masks/square.png").unlink()
    Image.new("L", (96, 96)).save("masks/star.png")
    Path("pictures/text.png").write_text("no picture")
    assert main(["evaluate", "pictures", "--annotations", "masks"]) == 1
    said = capsys.readouterr()
    told = said.err.splitlines()
    assert "cnnviz: 'pictures/square.png' has no mask: there is no square.png or square.npy in masks" in told
    assert "cnnviz: pictures/star.png: input 0 has no annotated place, and can't be scored; leave it out" in told
    assert any(line.startswith("cnnviz: 'pictures/text.png' is not a picture") for line in told)
    assert len(told) == 3
    assert "grad_cam" in said.out


class Fragile(torch.nn.Module):
    """Has no scores for inputs beyond its range."""

    def __init__(self) -> None:
        super().__init__()
        self.net = SmallNet(2)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + torch.where(x.flatten(1).amax(1) > 1e3, torch.nan, 0.0)[:, None]


@pytest.mark.parametrize("batch", ["1", "2", "8"])
@pytest.mark.parametrize("bad", ["a", "bc", "d"])
def test_a_picture_without_a_score_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], batch: str, bad: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("inputs").mkdir()
    generator = np.random.default_rng(0)
    for name in "abcd":
        np.save(f"inputs/{name}.npy", (1e6 if name in bad else 1) * generator.random((3, 8, 9)).astype("float32"))
    as_they_are = Preprocessing((0.0,) * 3, (1.0,) * 3)
    loaded = cnnviz.LoadedModel("fragile", Fragile(), as_they_are, None)
    monkeypatch.setattr("cnnviz.cli.prepared.loaded", lambda options: loaded)
    command = ["evaluate", "inputs", "--metric", "sparseness", "--method", "gradient", "--batch", batch]
    assert main([*command, "--each", "each.csv"]) == 1
    said = capsys.readouterr()
    told = [f"cnnviz: inputs/{name}.npy: the model's score has 1 values that are not finite" for name in bad]
    assert [line.partition(", the first")[0] for line in said.err.splitlines()] == told
    rows = list(csv.DictReader(Path("each.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == [f"inputs/{name}.npy" for name in "abcd" if name not in bad]
    for name in "abcd":
        np.save(f"inputs/{name}.npy", np.full((3, 8, 9), 1e6, dtype="float32"))
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cnnviz: the model's score has 1 values that are not finite")
    assert main(["evaluate", "inputs/a.npy", "--metric", "sparseness", "--method", "gradient"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("bad", ["a", "bc", "d"])
def test_a_picture_without_a_score_costs_only_its_own_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("inputs").mkdir()
    for name in "abcd":
        np.save(f"inputs/{name}.npy", np.full((3, 8, 9), 1e6 if name in bad else 0.5, dtype="float32"))
    as_they_are = Preprocessing((0.0,) * 3, (1.0,) * 3)
    loaded = cnnviz.LoadedModel("fragile", Fragile(), as_they_are, None)
    monkeypatch.setattr("cnnviz.cli.prepared.loaded", lambda options: loaded)
    command = ["explain", "inputs", "--method", "gradient", "--output"]
    assert main([*command, "maps"]) == 1
    told = [f"cnnviz: inputs/{name}.npy: the model's score has 1 values that are not finite" for name in bad]
    assert [line.partition(", the first")[0] for line in capsys.readouterr().err.splitlines()] == told
    assert [each.name[0] for each in sorted(Path("maps").iterdir())] == [name for name in "abcd" if name not in bad]
    for name in "abcd":
        np.save(f"inputs/{name}.npy", np.full((3, 8, 9), 1e6, dtype="float32"))
    assert main([*command, "none"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(Path("none").glob("*"))


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["pictures"], "the metric compares maps with annotated places, and there are none"),
        (["pictures/star.png", "--annotations", "pictures"], "'pictures/star.png' would be its own mask"),
        (["pictures", "--annotations", "nowhere"], "no folder of masks or table 'nowhere'"),
        (
            ["pictures", "--annotations", "masks", "--metric", "roc"],
            "there is no metric 'roc'; did you mean 'roc_auc'?",
        ),
        (
            ["pictures", "--annotations", "masks", "-o", "scores.txt"],
            "scores.txt has no suffix of a table; use .csv, .md",
        ),
        (["pictures", "--annotations", "masks", "-o", "no/scores.md"], "the folder no does not exist; make it first"),
        (
            ["pictures", "--annotations", "masks", "--tolerance", "3"],
            "there is no option --tolerance for grad_cam and roc_auc",
        ),
        (
            ["pictures", "--annotations", "masks", "--per", "all"],
            "--per of roc_auc is pixel or section or interval, not 'all'",
        ),
        (["pictures", "--annotations", "masks", "-m", "saliency_confusion"], "has 4 maps for each input"),
    ],
)
def test_one_line_tells_what_is_wrong(
    drawn: Path, capsys: pytest.CaptureFixture[str], command: list[str], told: str
) -> None:
    before = sorted(Path().rglob("*"))
    assert main(["evaluate", *command]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(told in line for line in lines)
    assert sorted(Path().rglob("*")) == before
