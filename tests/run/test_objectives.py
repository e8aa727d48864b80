"""Objectives: read from a layer or the output, combined with arithmetic, explained as targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnviz import attributions, explain, gradient, toward
from cnnviz.engine.feature_extraction import FeatureExtractor, gradients_of
from cnnviz.objectives import (
    Objective,
    Seen,
    alpha_norm,
    channel,
    class_score,
    closeness,
    direction,
    diversity,
    feature_distance,
    feature_map,
    l2,
    layer_energy,
    neuron,
    output_of,
    strongest,
    total_variation,
)


class Steps(nn.Module):
    """A convolution whose output an in-place ReLU writes over, a second one, and scores."""

    def __init__(self, rank: int = 2):
        super().__init__()
        torch.manual_seed(rank)
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        self.first = convolution(2, 4, 3, padding=1)
        self.second = convolution(4, 3, 3, padding=1)
        self.head = nn.Linear(3, 5)
        self.calls = {"second": 0, "head": 0}
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x), inplace=True)
        self.calls["second"] += 1
        x = torch.tanh(self.second(x))
        self.calls["head"] += 1
        scores: Tensor = self.head(x.flatten(2).mean(2))
        return scores


SIZES = {1: (7,), 2: (5, 6), 3: (3, 4, 5)}


@pytest.fixture
def steps(rank: int) -> Steps:
    return Steps(rank).eval()


@pytest.fixture
def batch(rank: int) -> Tensor:
    return torch.randn(2, 2, *SIZES[rank], generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def maps(model: Steps, batch: Tensor, layer: str) -> Tensor:
    """A layer's output, by the formula instead of by watching."""
    first = model.first(batch)
    return first if layer == "first" else model.second(first.clamp(min=0))


def seen(model: nn.Module, batch: Tensor, *layers: str) -> Seen:
    return FeatureExtractor(model, layers)(batch)


def test_a_channel_is_its_mean_over_space_before_what_is_written_over_it(steps: Steps, batch: Tensor) -> None:
    shown = channel("first", 2)(seen(steps, batch, "first"))
    expected = [sum(item[2].flatten().tolist()) / item[2].numel() for item in maps(steps, batch, "first")]
    assert shown.tolist() == pytest.approx(expected)
    assert min(maps(steps, batch, "first")[:, 2].flatten().tolist()) < 0  # which the in-place ReLU removes


def test_units_maps_and_energies_are_what_they_say(steps: Steps, batch: Tensor, rank: int) -> None:
    shown, whole = seen(steps, batch, "second"), maps(steps, batch, "second")
    middle = tuple(size // 2 for size in SIZES[rank])
    corner = (0,) * (rank - 1) + (1,)
    for item in range(2):
        units = whole[item, 1]
        assert neuron("second", 1)(shown)[item].item() == pytest.approx(units[middle].item())
        assert neuron("second", 1, corner)(shown)[item].item() == pytest.approx(units[corner].item())
        assert strongest("second", 1)(shown)[item].item() == pytest.approx(max(units.flatten().tolist()))
        squares = [value * value for value in units.flatten().tolist()]
        assert feature_map("second", 1)(shown)[item].item() == pytest.approx(sum(squares) / 2)
        every = [value * value for value in whole[item].flatten().tolist()]
        assert layer_energy("second")(shown)[item].item() == pytest.approx(sum(every) / len(every))


def test_a_direction_weighs_channels_and_may_prefer_small_angles(steps: Steps, batch: Tensor) -> None:
    vector = torch.tensor([1.0, -2.0, 0.5])
    shown, whole = seen(steps, batch, "second"), maps(steps, batch, "second")
    for item in range(2):
        mean = [sum(each.flatten().tolist()) / each.numel() for each in whole[item]]
        along = mean[0] - 2 * mean[1] + 0.5 * mean[2]
        cosine = along / math.sqrt(sum(each * each for each in mean)) / math.sqrt(5.25)
        assert direction("second", vector)(shown)[item].item() == pytest.approx(along)
        expected = along * max(cosine, 0.1) ** 2
        assert direction("second", vector, power=2)(shown)[item].item() == pytest.approx(expected)


def test_features_are_compared_by_their_relative_squared_distance(steps: Steps, batch: Tensor) -> None:
    shown, whole = seen(steps, batch, "second"), maps(steps, batch, "second")
    other = whole[:1] + 0.1
    found = feature_distance("second", other)(shown)
    expected = [((item - other[0]) ** 2).sum() / (other[0] ** 2).sum() for item in whole]
    torch.testing.assert_close(found, torch.stack(expected))


def test_what_is_said_of_the_input_itself(batch: Tensor, rank: int) -> None:
    shown = Seen(batch, None, {})
    values = batch[0].flatten().tolist()
    assert alpha_norm(6.0)(shown)[0].item() == pytest.approx(sum(abs(v) ** 6 for v in values) / len(values))
    assert l2()(shown)[0].item() == pytest.approx(sum(v * v for v in values) / len(values))
    for beta in (2.0, 1.5):
        total = 0.0
        for number in range(2):
            for place in torch.cartesian_prod(*(torch.arange(size) for size in SIZES[rank])).reshape(-1, rank).tolist():
                steps = 0.0
                for dim in range(rank):
                    there = list(place)
                    there[dim] += 1
                    if there[dim] < SIZES[rank][dim]:
                        steps += (batch[0, number][tuple(there)] - batch[0, number][tuple(place)]).item() ** 2
                total += steps ** (beta / 2)
        assert total_variation(beta)(shown)[0].item() == pytest.approx(total / len(values), rel=1e-6)


def test_diversity_is_minus_the_mean_likeness_to_the_others() -> None:
    generator = torch.Generator().manual_seed(2)
    layer = torch.randn(3, 4, 5, 2, generator=generator, dtype=torch.float64)
    found = diversity("any")(Seen(layer, None, {"any": layer}))
    grams = [torch.einsum("chw,dhw->cd", item, item) for item in layer]
    for item in range(3):
        likeness = [(grams[item] * grams[other]).sum() / grams[item].norm() / grams[other].norm() for other in range(3)]
        assert found[item].item() == pytest.approx(-(sum(likeness) - likeness[item]).item() / 2)
    assert diversity("any")(Seen(layer[:1], None, {"any": layer[:1]})).item() == 0


def test_objectives_combine_and_print_as_they_were_written(steps: Steps, batch: Tensor) -> None:
    shown = FeatureExtractor(steps, ["first", "second"])(batch)
    one, other = channel("first", 0), channel("second", 1)
    combined = 2 * one - (other + 1) / 4 + class_score(3) * -l2()
    expected = 2 * one(shown) - (other(shown) + 1) / 4 + steps(batch)[:, 3] * -(batch.flatten(1) ** 2).mean(1)
    torch.testing.assert_close(combined(shown), expected)
    assert combined.layers == {"first", "second"}
    assert combined.reads_output
    assert not (one - other).reads_output
    assert repr(3 - one) == "3 - channel(layer='first', index=0)"
    assert repr(-(one + 1) * 2) == "-(channel(layer='first', index=0) + 1) * 2"
    assert repr(one - (one - 1)) == "channel(layer='first', index=0) - (channel(layer='first', index=0) - 1)"
    assert repr(one / (one / 2)) == "channel(layer='first', index=0) / (channel(layer='first', index=0) / 2)"
    assert hash(combined) == hash(2 * one - (other + 1) / 4 + class_score(3) * -l2())
    with pytest.raises(TypeError, match="an objective is combined with objectives and numbers, not with 'x'"):
        one + "x"  # type: ignore[operator]


@pytest.mark.parametrize(
    "objective",
    [
        channel("second", 1),
        neuron("first", 3),
        strongest("second", 0),
        feature_map("first", 1),
        channel("second", 0) * 2 - class_score(4),
        closeness(0.3),
    ],
    ids=repr,
)
def test_explained_as_targets_their_gradients_are_those_by_differences(
    objective: Objective, steps: Steps, batch: Tensor
) -> None:
    answer = explain(steps, batch, "gradient", target=objective)

    def score(inputs: Tensor) -> Tensor:
        return objective(FeatureExtractor(steps, objective.layers)(inputs)).detach()

    torch.testing.assert_close(answer.score, score(batch))
    torch.testing.assert_close(answer.values, nets.slopes(score, batch), rtol=1e-5, atol=1e-7)
    assert answer.target is None
    assert answer.titles()[0].startswith(repr(objective))


def test_a_class_score_is_the_class(steps: Steps, batch: Tensor) -> None:
    as_class = explain(steps, batch, "grad_cam", target=2, layer="second")
    as_objective = explain(steps, batch, "grad_cam", target=class_score(2), layer="second")
    torch.testing.assert_close(as_class.values, as_objective.values, rtol=0, atol=0)
    as_function = explain(steps, batch, "grad_cam", target=output_of(lambda output: output[:, 2]), layer="second")
    torch.testing.assert_close(as_class.values, as_function.values, rtol=0, atol=0)


def test_regression_is_explained_toward_higher_lower_or_given_values(steps: Steps, batch: Tensor) -> None:
    values = (0.1, 0.2, 0.3, 0.4, 0.5)
    higher = explain(steps, batch, "gradient", target=class_score(0)).values
    lower = explain(steps, batch, "gradient", target=-class_score(0)).values
    torch.testing.assert_close(lower, -higher)
    score = explain(steps, batch, "gradient", target=closeness(values)).score
    mean = [
        -sum((found - asked) ** 2 for found, asked in zip(row, values, strict=True)) / 5
        for row in steps(batch).tolist()
    ]
    assert score.tolist() == pytest.approx(mean)
    one = nn.Sequential(steps, nn.Linear(5, 1).double(), nn.Flatten(0)).eval()  # gives (N,)
    by_hand = explain(one, batch, "gradient", target=lambda output: output).values
    torch.testing.assert_close(explain(one, batch, "gradient", target=class_score(0)).values, by_hand)


def test_several_channels_are_explained_from_one_forward_pass(steps: Steps, batch: Tensor) -> None:
    both = toward(gradient(), channel("second", 0)) - toward(gradient(), channel("first", 1))
    found = explain(steps, batch, both, target=1).values
    assert steps.calls["head"] == 1
    apart = [explain(steps, batch, "gradient", target=channel(*each)).values for each in (("second", 0), ("first", 1))]
    torch.testing.assert_close(found, apart[0] - apart[1])


def test_class_maps_of_a_channel_read_a_layer_before_it(steps: Steps, batch: Tensor) -> None:
    found = explain(steps, batch, "grad_cam", target=channel("second", 2), layer="first").values
    weights = explain(steps, batch, "gradient", target=channel("second", 2)).values
    assert found.shape[1] == 1
    assert weights.shape == batch.shape
    before = maps(steps, batch, "first").detach().requires_grad_()
    (slope,) = torch.autograd.grad(steps.second(before.relu())[:, 2].flatten(1).mean(1).sum(), before)
    expected = (slope.flatten(2).mean(2)[..., None] * before.flatten(2)).sum(1).view_as(found[:, 0])
    torch.testing.assert_close(found[:, 0], expected.detach())
    with pytest.raises(ValueError, match="the score does not depend on layer 'second'"):
        explain(steps, batch, "grad_cam", target=channel("first", 2), layer="second")


def test_a_view_ends_where_everything_was_seen() -> None:
    model, batch = Steps().eval(), torch.randn(1, 2, 5, 5, dtype=torch.float64)
    extractor = FeatureExtractor(model, ["first"], output=False)
    for expected in (1, 1, 1):
        shown = extractor(batch)
        assert model.calls == {"second": expected, "head": expected}
        torch.testing.assert_close(shown.layer("first"), maps(model, batch, "first"))
    assert shown.output is None
    assert not model.first._forward_hooks
    whole = FeatureExtractor(model, ["first"])
    whole(batch)
    assert whole(batch).output is not None


def test_a_view_of_a_layer_that_is_called_twice_shows_the_last_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Conv2d(1, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            inner: Tensor = self.part(self.part(x))
            return inner.flatten(1)

    model, batch = Twice().eval(), torch.randn(1, 1, 2, 2)
    extractor = FeatureExtractor(model, ["part"], output=False)
    for _ in range(3):
        torch.testing.assert_close(extractor(batch).layer("part"), model.part(model.part(batch)))


def test_slopes_are_gradients_and_zero_where_nothing_depends(steps: Steps, batch: Tensor) -> None:
    inputs, unused = batch.clone().requires_grad_(), torch.zeros(2, requires_grad=True)
    total = channel("second", 1)(FeatureExtractor(steps, ["second"])(inputs)).sum()
    found = gradients_of(total, [inputs, unused])
    torch.testing.assert_close(found[0], explain(steps, batch, "gradient", target=channel("second", 1)).values)
    assert found[1].tolist() == [0, 0]
    assert all(weight.grad is None for weight in steps.parameters())
    with pytest.raises(ValueError, match="the objective does not depend on the input"):
        gradients_of(total.detach(), [inputs])


BAD: list[tuple[Objective, str]] = [
    (channel("second", 3), "there is no channel 3 in layer 'second'; it has 3, numbered 0 to 2"),
    (channel("second", -1), "there is no channel -1 in layer 'second'"),
    (neuron("second", 0, (9, 9)), r"layer 'second' is \(5, 6\) in space; there is no unit at \(9, 9\)"),
    (channel("secnod", 0), "Steps has no layer 'secnod'; did you mean 'second'?"),
    (direction("second", torch.ones(4)), r"layer 'second' has 3 channels; a direction of \(4,\) does not fit"),
    (feature_distance("second", torch.ones(1, 3, 2, 2)), "they are compared for inputs of one size"),
    (class_score(5), "there is no class 5; the model has 5, numbered 0 to 4"),
    (closeness((1.0, 2.0)), "there are 2 values for an output of 5"),
]


@pytest.mark.parametrize(("objective", "says"), BAD, ids=[says[:30] for _, says in BAD])
def test_what_cannot_be_read_is_refused_in_one_line(objective: Objective, says: str) -> None:
    batch = torch.randn(1, 2, 5, 6, dtype=torch.float64)
    with pytest.raises((ValueError, LookupError), match=says):
        explain(Steps().eval(), batch, "gradient", target=objective)


def test_a_layer_that_does_not_run_is_told() -> None:
    class Idle(Steps):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Conv2d(2, 2, 1)

    batch = torch.randn(1, 2, 5, 6, dtype=torch.float64)
    with pytest.raises(LookupError, match="layer 'idle' did not run for this input"):
        explain(Idle().eval(), batch, "gradient", target=channel("idle", 0))


class Softened(nn.Module):
    """Scores of any kind, made probabilities."""

    def __init__(self, end: Callable[[Tensor], Any]):
        super().__init__()
        self.scores, self.end = Steps(), end

    def forward(self, x: Tensor) -> Any:
        return self.end(self.scores(x))


ENDS: dict[str, Callable[[Tensor], Any]] = {
    "functional": lambda scores: F.softmax(scores, 1),
    "module": nn.Softmax(1),
    "method": lambda scores: scores.softmax(-1),
    "torch": lambda scores: torch.softmax(scores, 1),
    "logarithm": lambda scores: F.log_softmax(scores, 1),
    "reshaped": lambda scores: F.softmax(scores[:, :, None, None], 1).squeeze(-1).squeeze(-1),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_probabilities_are_explained_before_the_softmax(end: Callable[[Tensor], Any]) -> None:
    batch = torch.randn(2, 2, 5, 6, dtype=torch.float64)
    model = Softened(end).eval()
    asked = ["gradient", "guided_backprop", "grad_cam", "saliency_confusion"]
    before = explain(model, batch, asked, before_softmax=True, target=3)
    plain = explain(model.scores, batch, asked, target=3)
    for name in asked:
        torch.testing.assert_close(before[name].values, plain[name].values)
        torch.testing.assert_close(before[name].score, plain[name].score)
    after = explain(model, batch, "gradient", target=3)
    assert not torch.allclose(after.values, before["gradient"].values)


def test_a_softmax_that_is_not_the_end_is_told() -> None:
    batch = torch.randn(2, 2, 5, 6, dtype=torch.float64)
    says = "the output of Softened is not what a softmax gave"
    for end in (lambda scores: F.softmax(scores, 1) * 2, lambda scores: scores):
        with pytest.raises(LookupError, match=says):
            explain(Softened(end).eval(), batch, "gradient", before_softmax=True)


def test_the_command_line_takes_channels_values_and_probabilities(tmp_path: Path) -> None:
    from cnnviz.__main__ import main
    from cnnviz.cli.targets import read_target

    assert read_target("channel:layer3:5") == channel("layer3", 5)
    assert read_target("strongest:features.3:5") == strongest("features.3", 5)
    assert read_target("higher") == class_score(0)
    assert read_target("lower:2") == -class_score(2)
    assert read_target("near:0.5,1") == closeness((0.5, 1.0))
    assert read_target("king snake") == "king snake"
    with pytest.raises(ValueError, match="ends in the channel's number, not in 'x'"):
        read_target("channel:layer3:x")
    with pytest.raises(ValueError, match="takes a number, or several with commas, not 'high'"):
        read_target("near:high")
    with pytest.raises(ValueError, match="--target channel:3 is not whole; it is a class, or higher, lower"):
        read_target("channel:3")
    picture = tmp_path / "star.png"
    from PIL import Image

    from cnnviz import demo

    Image.fromarray(demo.pictures().pictures[4]).save(picture)
    asked = ["explain", str(picture), "-m", "guided_backprop", "--target", "channel:layer3:5"]
    assert main([*asked, "-o", str(tmp_path / "out.png")]) == 0
    assert (tmp_path / "out.png").is_file()
    assert main([*asked[:-1], "channel:layer3:500", "-o", str(tmp_path / "none.png")]) == 2
    assert main([*asked[:2], "--before-softmax", "-o", str(tmp_path / "none.png")]) == 2
    assert not (tmp_path / "none.png").exists()


def test_every_attribution_by_its_rule_starts_at_the_channel(steps: Steps, batch: Tensor) -> None:
    relu_net = nn.Sequential(steps.first, nn.ReLU(inplace=True), steps.second, nn.ReLU(), nn.Flatten(2)).eval()
    found = explain(relu_net, batch, attributions["deconvnet"](), target=feature_map("3", 1)).values
    layer = relu_net[:4](batch)
    start = torch.zeros_like(layer)
    start[:, 1] = layer[:, 1]
    rank = batch.ndim - 2
    back = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    # upward again: rectify, the same weights transposed, rectify, transposed
    middle = back(start.clamp(min=0), steps.second.weight, padding=1)
    expected = back(middle.clamp(min=0), steps.first.weight, padding=1)
    torch.testing.assert_close(found, expected.detach())


def test_an_objective_with_a_tensor_has_a_short_title() -> None:
    vector = torch.randn(512)
    assert repr(direction("features", vector)) == "direction(layer='features', vector=tensor(512,), power=0.0)"
    assert repr(2 * direction("features", vector)).count("tensor(512,)") == 1
    distance = feature_distance("features", torch.randn(1, 64, 7, 7))
    assert repr(distance) == "feature_distance(layer='features', features=tensor(1, 64, 7, 7))"
    assert repr(channel("features", 5)) == "channel(layer='features', index=5)"
