"""Several inputs of one model, explained together."""

from __future__ import annotations

from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import randomized, tiny_inputs
from quick import OF_ANY_NETWORK
from torch import Tensor, nn

from cnnviz import Explanation, evaluate, explain, gradient, image, noted, score
from cnnviz.explanations import JointExplanation

# networks this small end in the layer that gives their scores
pytestmark = pytest.mark.filterwarnings("ignore:layer .* holds the scores themselves:UserWarning")


class Mixed(nn.Module):
    """A picture times a table, with a rectifier: no input can be explained as if the other stood still."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU())
        self.read = nn.Linear(4, 3)
        randomized(self)

    def forward(self, picture: Tensor, table: Tensor) -> Tensor:
        return self.maps(picture).mean((2, 3)) * self.read(table).tanh()


def table(items: int = 2) -> Tensor:
    return torch.randn(items, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def both() -> tuple[Tensor, Tensor]:
    return tiny_inputs(), table()


def gradients(net: nn.Module, *inputs: Tensor) -> list[Tensor]:
    leaves = [each.clone().requires_grad_() for each in inputs]
    return list(torch.autograd.grad(net(*leaves)[:, 1].sum(), leaves))


BASELINES = (0.5, torch.tensor([1.0, 0.0, -1.0, 0.25], dtype=torch.float64))


def begins() -> tuple[Tensor, Tensor]:
    picture, row = both()
    return torch.full_like(picture, 0.5), BASELINES[1].expand_as(row)


def test_gradients_are_those_of_each_input() -> None:
    net, inputs = Mixed(), both()
    answer = explain(net, inputs, "gradient", target=1, of="all")
    assert type(answer) is JointExplanation
    for part, expected, own in zip(answer, gradients(net, *inputs), inputs, strict=True):
        torch.testing.assert_close(part.values, expected)
        torch.testing.assert_close(part.inputs, own)
        assert part.together == 2
    assert [part.of for part in answer] == [0, 1]


def test_integrated_gradients_follow_one_path_of_all_inputs() -> None:
    net, inputs = Mixed(), both()
    answer = explain(
        net, inputs, "integrated_gradients", target=1, of="all", baseline=BASELINES, steps=40, quadrature="middle"
    )
    sums = [torch.zeros_like(each) for each in inputs]
    for step in range(40):
        share = (step + 0.5) / 40
        points = [low + share * (high - low) for low, high in zip(begins(), inputs, strict=True)]
        sums = [total + each / 40 for total, each in zip(sums, gradients(net, *points), strict=True)]
    for part, low, high, mean in zip(answer, begins(), inputs, sums, strict=True):
        torch.testing.assert_close(part.values, (high - low) * mean)
    total = sum(part.values.flatten(1).sum(1) for part in answer)
    rise = (net(*inputs) - net(*begins()))[:, 1].detach()
    for part in answer:
        torch.testing.assert_close(part.notes["completeness_gap"], total - rise)


@pytest.mark.parametrize("method", ["deeplift", "integrated_gradients", "kernel_shap", "shapley_sampling"])
def test_values_of_all_inputs_add_up_to_the_score_over_the_baselines(method: str) -> None:
    net, inputs = Mixed(), both()
    settings: dict[str, Any] = {"steps": 2000} if method == "integrated_gradients" else {}
    settings |= {"segments": "equal", "pieces": 4} if "sha" in method else {}
    answer = explain(net, inputs, method, target=1, of="all", baseline=BASELINES, **settings)
    if "sha" in method:  # a segment's value stands at each of its places
        total = torch.zeros(2, dtype=torch.float64)
        for part in answer:
            for item in range(2):
                total[item] += part.values[item].unique().sum()
    else:
        total = sum(part.values.flatten(1).sum(1) for part in answer)
    exact = 1e-4 if method == "integrated_gradients" else 1e-9
    torch.testing.assert_close(total, (net(*inputs) - net(*begins()))[:, 1].detach(), rtol=exact, atol=exact)


def test_deeplift_of_a_product_halves_the_mixed_part() -> None:
    """Of a * b the multiplier of a is the mean of b and its baseline."""

    class Product(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return (a * b).sum(1, keepdim=True)

    a, b, low, high = (torch.randn(2, 3, dtype=torch.float64) for _ in range(4))
    answer = explain(Product().eval(), (a, b), "deeplift", target=0, of="all", baseline=(low, high))
    torch.testing.assert_close(answer[0].values, (a - low) * (b + high) / 2)
    torch.testing.assert_close(answer[1].values, (b - high) * (a + low) / 2)


def test_shapley_values_are_of_segments_of_all_inputs() -> None:
    net, (picture, row) = Mixed(), both()
    cut = torch.zeros(5, 6, dtype=torch.long)
    cut[:, 3:] = 1
    parts = torch.tensor([0, 0, 1, 1])
    low_picture, low_row = begins()
    answer = explain(
        net, (picture, row), "kernel_shap", target=1, of="all", baseline=BASELINES, segments=(cut, parts), samples=14
    )
    for item in range(2):

        def payoff(present: set[int], item: int = item) -> Tensor:
            pixels = torch.isin(cut, torch.tensor(sorted(present)))
            columns = torch.isin(parts + 2, torch.tensor(sorted(present)))
            seen = torch.where(pixels, picture[item], low_picture[item])
            told = torch.where(columns, row[item], low_row[item])
            with torch.no_grad():
                return net(seen[None], told[None])[0, 1]

        gains = torch.zeros(4, dtype=torch.float64)
        for order in permutations(range(4)):
            for place, player in enumerate(order):
                gains[player] += payoff(set(order[: place + 1])) - payoff(set(order[:place]))
        gains /= 24
        torch.testing.assert_close(answer[0].values[item, 0], gains[cut])
        torch.testing.assert_close(answer[1].values[item], gains[2 + parts])


@pytest.mark.parametrize("segments", ["equal", ("equal", torch.tensor([0, 1, 1, 0]))])
def test_feature_ablation_together_is_that_of_each(segments: Any) -> None:
    net, inputs = Mixed(), both()
    answer = explain(
        net, inputs, "feature_ablation", target=1, of="all", segments=segments, pieces=4, baseline=BASELINES
    )
    for number, part in enumerate(answer):
        own = segments if isinstance(segments, str) else segments[number]
        alone = explain(
            net, inputs, "feature_ablation", target=1, of=number, segments=own, pieces=4, baseline=BASELINES[number]
        )
        expected = alone.values.expand_as(part.values)
        torch.testing.assert_close(part.values, expected)


def test_noise_is_a_share_of_the_range_of_its_own_input() -> None:
    picture, row = both()
    row = row * 1000
    seen: list[Tensor] = []

    class Keeps(nn.Module):
        def forward(self, picture: Tensor, row: Tensor) -> Tensor:
            seen.append(row.detach().clone())
            return picture.mean((1, 2, 3))[:, None] + row.mean(1, keepdim=True)

    explain(Keeps().eval(), (picture, row), "smoothgrad", target=0, of="all", samples=200, sigma=0.1)
    noise = torch.cat([each.view(-1, 2, 4) - row for each in seen if len(each) % 2 == 0])
    noise = noise[noise.abs().sum((1, 2)) > 0]
    expected = 0.1 * (row.amax(1) - row.amin(1))
    torch.testing.assert_close(noise.transpose(0, 1).flatten(1).std(1), expected, rtol=0.1, atol=0)


def test_a_set_of_baselines_moves_together() -> None:
    net, (picture, row) = Mixed(), both()
    pictures, rows = torch.randn(3, 2, 5, 6, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    answer = explain(net, (picture, row), "deeplift_shap", target=1, of="all", baselines=(pictures, rows))
    singly = [
        explain(net, (picture, row), "deeplift", target=1, of="all", baseline=(one, other))
        for one, other in zip(pictures, rows, strict=True)
    ]
    for number, part in enumerate(answer):
        torch.testing.assert_close(part.values, torch.stack([each[number].values for each in singly]).mean(0))


def test_formulas_explain_all_inputs_too() -> None:
    net, inputs = Mixed(), both()
    formula = noted(image() * gradient(), "double", 2 * score())
    answer = explain(net, inputs, [formula, "gradient"], target=1, of=(1, 0))
    first, second = answer.values()
    for of, part, slope in zip((1, 0), first, second, strict=True):
        torch.testing.assert_close(part.values, inputs[of] * slope.values)
        torch.testing.assert_close(part.notes["double"], 2 * part.score)
        assert part.of == of


def test_arguments_ride_along() -> None:
    class Scaled(Mixed):
        def forward(self, picture: Tensor, table: Tensor, *, scale: float, rows: Tensor) -> Tensor:
            return super().forward(picture, table) * scale * rows

    net, inputs, rows = Scaled(), both(), torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
    answer = explain(net, inputs, "gradient", target=1, of="all", arguments={"scale": 3.0, "rows": rows})
    for part, expected in zip(answer, gradients(Mixed(), *inputs), strict=True):
        spread = (3 * rows).view(-1, *(1,) * (expected.ndim - 1))
        torch.testing.assert_close(part.values, spread * expected)


REFUSED = {
    *(
        "ablation_cam",
        "activation",
        "cam",
        "d_rise",
        "eigen_cam",
        "eigen_grad_cam",
        "extremal_perturbation",
        "fullgrad",
    ),
    *("grad_cam", "grad_cam_plus_plus", "guided_grad_cam", "hires_cam", "layer_cam", "meaningful_perturbation"),
    *("occlusion", "projections", "rise", "saliency_confusion", "score_cam", "xgrad_cam"),
    *("excitation_backprop", "layer_relevance", "lrp_cam", "relevance_cam"),
}


@pytest.mark.parametrize("method", sorted(OF_ANY_NETWORK))
def test_a_method_of_one_input_refuses_several(method: str) -> None:
    net, inputs = Mixed(), both()
    if method in REFUSED:
        with pytest.raises(ValueError, match=r"together.*explain them one after the other: of=0, of=1") as told:
            explain(net, inputs, method, target=1, of="all")
        assert "\n" not in str(told.value)
    else:
        answer = explain(net, inputs, method, target=1, of="all")
        assert [part.values.shape[2:] for part in answer] == [each.shape[2:] for each in inputs]
        assert [part.values.ndim for part in answer] == [4, 2]


def test_one_input_of_a_model_is_a_tuple_of_one() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()
    (answer,) = explain(net, tiny_inputs(), "grad_cam", target=1, of="all", layer="0")
    torch.testing.assert_close(answer.values, explain(net, tiny_inputs(), "grad_cam", target=1, layer="0").values)
    assert answer.together == 1


def test_one_file_keeps_all(tmp_path: Path) -> None:
    answer = explain(Mixed(), both(), "integrated_gradients", target=1, of="all", seed=3)
    (file,) = answer.save(tmp_path / "both.safetensors")
    read = JointExplanation.load(file)
    assert len(read) == 2
    for part, kept in zip(answer, read, strict=True):
        for name in ("values", "inputs", "target", "score"):
            torch.testing.assert_close(getattr(kept, name), getattr(part, name), rtol=0, atol=0)
        torch.testing.assert_close(kept.notes["completeness_gap"], part.notes["completeness_gap"], rtol=0, atol=0)
        assert (kept.of, kept.together, kept.recipe, kept.options) == (part.of, 2, part.recipe, part.options)
    with pytest.raises(ValueError, match=r"holds explanations of 2 inputs; read it by cnnviz.explanations"):
        Explanation.load(file)
    (one,) = answer[0].save(tmp_path / "one.safetensors")
    assert Explanation.load(one).together == 2
    with pytest.raises(ValueError, match="holds no explanations of several inputs"):
        JointExplanation.load(one)


def test_pictures_of_all_are_drawn(tmp_path: Path) -> None:
    class Pair(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return (a * b).sum((2, 3))

    net, a, b = Pair().eval(), tiny_inputs(seed=1), tiny_inputs(seed=2)
    answer = explain(net, (a, b), "gradient", target=1, of="all")
    files = answer.save(tmp_path / "both.png", "grayscale")
    assert [file.name for file in files] == [f"both-{number}.png" for number in range(4)]
    drawn = np.concatenate([part.render("grayscale") for part in answer])
    assert len(drawn) == 4


def test_metrics_of_one_of_them() -> None:
    net, inputs = Mixed(), both()
    answer = explain(net, inputs, "input_x_gradient", target=1, of="all")
    alone = explain(net, inputs, "input_x_gradient", target=1, of=0)
    expected = evaluate(alone, "deletion", model=net, others=[inputs[1]], scale="score")
    found = evaluate(answer[0], "deletion", model=net, others=[inputs[1]], scale="score")
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="2 inputs were explained together; give an explanation of one, of=0"):
        evaluate(answer[0], "max_sensitivity", model=net, others=[inputs[1]])


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("integrated_gradients", {"baseline": (0.0, 0.0, 0.0)}, "there are 3 baselines for 2 inputs"),
        ("integrated_gradients", {"baseline": ("grey", 0.0)}, "there is no baseline 'grey'"),
        ("integrated_gradients", {"baseline": "blur"}, "give a number or a tensor"),
        ("deeplift_shap", {"baselines": (torch.zeros(2, 2, 5, 6), torch.zeros(3, 4))}, "there are 2 and 3 baselines"),
        ("deeplift_shap", {"baselines": (torch.zeros(2, 2, 5, 6), 0.0)}, "give tensors for all"),
        ("kernel_shap", {"segments": ("equal",)}, "there are 1 segmentations for 2 inputs"),
    ],
)
def test_what_does_not_fit_all_is_refused(method: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explain(Mixed(), both(), method, target=1, of="all", **settings)


def test_all_subsets_of_three_inputs() -> None:
    """Feature ablation of a sum of products: each input's drop is what its products lose."""

    class Products(nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            return sum((one * other).sum(1, keepdim=True) for one, other in combinations(inputs, 2))  # type: ignore[return-value]

    inputs = tuple(torch.randn(2, 3, dtype=torch.float64) for _ in range(3))
    ids = torch.zeros(3, dtype=torch.long)
    answer = explain(Products().eval(), inputs, "feature_ablation", target=0, of="all", segments=ids)
    for number, part in enumerate(answer):
        rest = sum(each for place, each in enumerate(inputs) if place != number)
        drop = (inputs[number] * rest).sum(1, keepdim=True)  # type: ignore[operator]
        torch.testing.assert_close(part.values, drop.expand(2, 3))
