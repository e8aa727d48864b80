"""Targets that refer to something found in the plain pass: contrasts, values, similarity, regions; one for each input.

Each is compared with the gradient or the loop that autograd and a few lines of torch give.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import AveragingNet, randomized, tiny_inputs
from quick import ATTENDING, PERTURBING, quick
from torch import Tensor, nn

from cnnviz import Explanation, attributions, evaluate, explain, gradient, synthesize, toward
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.objectives import channel, class_score
from cnnviz.targets import against, box, region, several, similar, top, value

NAMES = ("cat", "dog", "bird")
METHODS = sorted(
    PERTURBING | {"gradient", "integrated_gradients", "smoothgrad", "deeplift", "grad_cam", "guided_backprop"}
)


class Segments(nn.Module):
    """Scores of every place, (N, K, 5, 6), as they are or as torchvision's networks give them."""

    def __init__(self, classes: int = 3, wrapped: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.last, self.wrapped = nn.Conv2d(4, classes, 3, padding=1), wrapped
        randomized(self)

    def forward(self, x: Tensor) -> Any:
        scores = self.last(self.second(self.first(x).relu()).relu())
        return {"out": scores} if self.wrapped else scores


def by_hand(net: nn.Module, inputs: Tensor, read: Callable[[Any], Tensor]) -> tuple[Tensor, Tensor]:
    """The gradient and the score of a number read from the output."""
    leaf = inputs.clone().requires_grad_()
    score = read(net(leaf))
    (slope,) = torch.autograd.grad(score.sum(), leaf)
    return slope, score.detach()


def check(net: nn.Module, target: Any, read: Callable[[Any], Tensor], **how: Any) -> Explanation:
    inputs = tiny_inputs()
    found = explain(net, inputs, "gradient", target=target, **how)
    slope, score = by_hand(net, inputs, read)
    torch.testing.assert_close(found.values, slope)
    torch.testing.assert_close(found.score, score)
    return found


# Contrasts


@pytest.mark.parametrize(
    ("target", "read"),
    [
        (against("dog", "cat"), lambda out: out[:, 1] - out[:, 0]),
        (against(2, "cat"), lambda out: out[:, 2] - out[:, 0]),
        (against("bird", ["cat", "dog"]), lambda out: out[:, 2] - out[:, :2].mean(1)),
        (against([0, 1], 2) * 2 - 1, lambda out: (out[:, :2].mean(1) - out[:, 2]) * 2 - 1),
        (against(0, 1) / class_score(2), lambda out: (out[:, 0] - out[:, 1]) / out[:, 2]),
    ],
)
def test_a_contrast_is_a_difference_of_means(target: Any, read: Callable[[Tensor], Tensor]) -> None:
    found = check(AveragingNet(), target, read, categories=NAMES)
    assert found.target is None
    assert found.objective == repr(target)


def test_a_contrast_is_told_as_it_was_written() -> None:
    found = explain(AveragingNet(), tiny_inputs(), "gradient", target=against("cat", "dog"), categories=NAMES)
    assert found.titles()[0] == f"against('cat', 'dog') {found.score[0]:.2f}"


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (against("cat", "horse"), LookupError, "there is no class 'horse'"),
        (against(0, 3), ValueError, "there is no class 3; the model has 3, numbered 0 to 2"),
        (value(3), ValueError, "there is no value 3; the model gives 3, numbered from 0"),
    ],
)
def test_a_class_that_is_not_there_is_told(target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        explain(AveragingNet(), tiny_inputs(), "gradient", target=target, categories=NAMES)


def test_settings_that_can_not_be_are_refused() -> None:
    for build, message in (
        (lambda: against([], 1), "one side has none"),
        (lambda: value(0, above=1, below=2), "give one of them"),
        (lambda: similar(torch.ones(3), by="cos"), "there is no similarity 'cos'"),  # type: ignore[arg-type]
        (lambda: region(1, where="everywhere"), "there is no region 'everywhere'"),
        (lambda: region(1, of="logits"), "a region has no of 'logits'"),  # type: ignore[arg-type]
        (lambda: top(0), "the top 0 classes can't be"),
        (lambda: several(), "none is given"),
    ):
        with pytest.raises(ValueError, match=message):
            build()


# Values


@pytest.mark.parametrize(
    ("target", "read"),
    [
        (value(1), lambda out: out[:, 1]),
        (value(2, toward=0.3), lambda out: -(out[:, 2] - 0.3).abs()),
        (value(0, above=0.5), lambda out: out[:, 0] - 0.5),
        (value(0, below=0.5), lambda out: 0.5 - out[:, 0]),
    ],
)
def test_a_value_is_explained_as_it_lies_to_a_number(target: Any, read: Callable[[Tensor], Tensor]) -> None:
    check(AveragingNet(), target, read)


# Similarity


def similarity(by: str, reference: Tensor) -> Callable[[Tensor], Tensor]:
    return {
        "cosine": lambda out: torch.stack([F.cosine_similarity(a, b, 0) for a, b in zip(out, reference, strict=True)]),
        "dot": lambda out: torch.stack([a @ b for a, b in zip(out, reference, strict=True)]),
        "distance": lambda out: torch.stack([-(a - b).square().sum() for a, b in zip(out, reference, strict=True)]),
    }[by]


@pytest.mark.parametrize("by", ["cosine", "dot", "distance"])
@pytest.mark.parametrize("kind", ["vector", "vectors", "input", "inputs", "single"])
def test_similarity_is_to_an_embedding_or_another_input(by: Any, kind: str) -> None:
    net, other = AveragingNet(), tiny_inputs(seed=7)
    vectors = net(other).detach()
    given = {"vector": vectors[0], "vectors": vectors, "input": other[:1], "inputs": other, "single": other[0]}[kind]
    reference = vectors if kind in ("vectors", "inputs") else vectors[:1].expand(2, -1)
    check(net, similar(given, by), similarity(by, reference))


def test_similarity_is_to_a_picture_where_the_preprocessing_is_known(tmp_path: Path) -> None:
    from PIL import Image

    preprocessing = Preprocessing(mean=(0.5,) * 3, std=(0.2,) * 3, resize=None, crop=None)
    net = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    picture = Image.new("RGB", (6, 5), "teal")
    inputs = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    expected, _ = by_hand(net, inputs, similarity("dot", net(preprocessing(picture)[None].double()).expand(2, -1)))
    found = explain(net, inputs, "gradient", target=similar(picture, "dot"), preprocessing=preprocessing)
    torch.testing.assert_close(found.values, expected, rtol=1e-5, atol=1e-8)
    with pytest.raises(TypeError, match="without a preprocessing only tensors are taken"):
        explain(net, inputs, "gradient", target=similar(picture))


def test_an_embedding_of_another_length_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"similar is to \(5,\), and the model gives \(2, 3\)"):
        explain(AveragingNet(), tiny_inputs(), "gradient", target=similar(torch.ones(5)))


# Regions


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("of", ["logit", "probability", "margin"])
@pytest.mark.parametrize("read", ["mean", "sum"])
@pytest.mark.parametrize("where", ["predicted", "mask", "own masks", "place", "border"])
def test_a_region_is_a_class_over_some_places(where: str, read: Any, of: Any, wrapped: bool) -> None:
    net, inputs = Segments(wrapped=wrapped), tiny_inputs()
    scores = (net(inputs)["out"] if wrapped else net(inputs)).detach()
    cls = int(scores.argmax(1).flatten().mode().values)
    masks = torch.zeros(2, 5, 6, dtype=torch.bool)
    for item in range(2):
        for y in range(5):
            for x in range(6):
                own = bool(scores[item, :, y, x].argmax() == cls)
                near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
                others = [scores[item, :, a, b].argmax() != cls for a, b in near if 0 <= a < 5 and 0 <= b < 6]
                masks[item, y, x] = {
                    "predicted": own,
                    "mask": y < 2,
                    "own masks": y == item,
                    "place": (x, y) == (4, 2),
                    "border": own and any(others),
                }[where]
    given = {"mask": masks[0], "own masks": masks, "place": (4, 2)}.get(where, where)

    def by_loop(output: Any) -> Tensor:
        output = output["out"] if wrapped else output
        rows = []
        for item in range(2):
            values = []
            for y, x in masks[item].nonzero().tolist():
                z = output[item, :, y, x]
                others = torch.cat([z[:cls], z[cls + 1 :]])
                values.append({"logit": z[cls], "probability": z.softmax(0)[cls], "margin": z[cls] - others.max()}[of])
            total = torch.stack(values).sum()
            rows.append(total if read == "sum" else total / len(values))
        return torch.stack(rows)

    assert masks.flatten(1).any(1).all(), "the test needs places in both inputs"
    check(net, region(cls, given, read, of), by_loop)


def test_the_region_stays_what_the_plain_pass_predicts() -> None:
    """A variant that changes the prediction is read where the class was predicted before."""
    net, inputs = Segments(), tiny_inputs()
    cls = int(net(inputs).argmax(1).flatten().mode().values)
    masks = net(inputs).argmax(1) == cls
    found = explain(net, inputs, "occlusion", target=region(cls), window=2, stride=2).values
    read = lambda output: (output[:, cls] * masks).sum((1, 2)) / masks.sum((1, 2))  # noqa: E731
    torch.testing.assert_close(found, explain(net, inputs, "occlusion", target=read, window=2, stride=2).values)


def test_a_mask_of_the_inputs_size_is_read_at_the_nearest_places() -> None:
    net = nn.Sequential(Segments(), nn.AvgPool2d(2, ceil_mode=True)).eval()  # (N, 3, 3, 3) of (5, 6)
    mask = torch.zeros(5, 6)
    mask[:, 3:] = 1
    check(net, region(1, mask), lambda output: output[:, 1, :, 2].mean(1) / 2 + output[:, 1, :, 1].mean(1) / 2)
    check(net, region(1, (5, 4)), lambda output: output[:, 1, 2, 2])


def test_a_single_class_is_predicted_above_zero() -> None:
    net = Segments(classes=1)
    masks = net(tiny_inputs())[:, 0] > 0
    check(net, region(0), lambda out: (out[:, 0] * masks).sum((1, 2)) / masks.sum((1, 2)))
    check(net, region(0, of="probability"), lambda out: (out[:, 0].sigmoid() * masks).sum((1, 2)) / masks.sum((1, 2)))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (region(1, torch.zeros(5, 6)), "class 1 is asked for at no place in input 0; give where=a mask"),
        (region(1, torch.ones(4, 6)), r"the region's mask is \(1, 4, 6\); it is of the output's size \(5, 6\)"),
        (region(1, (6, 0)), r"there is no place \(6, 0\) in an input of \(5, 6\)"),
        (region(7), "there is no class 7; the model has 3"),
    ],
)
def test_a_region_without_places_is_refused(target: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explain(Segments(), tiny_inputs(), "gradient", target=target)


def test_a_class_that_is_predicted_nowhere_has_no_region() -> None:
    net = Segments()
    with torch.no_grad():
        net.last.bias[1] -= 1000
    with pytest.raises(ValueError, match="class 1 is predicted nowhere in input 0; give where=a mask, or a place"):
        explain(net, tiny_inputs(), "gradient", target=region(1))
    with pytest.raises(
        ValueError,
        match=r"the model gives \(2, 3\), not scores of places .*; a region or a place is of a network for segm",
    ):
        explain(AveragingNet(), tiny_inputs(), "gradient", target=region(1))


# One target for each input


def ask(net: nn.Module, inputs: Tensor, method: str, target: Any, **how: Any) -> Tensor:
    settings = quick(method)
    settings |= {"segments": "equal"} if "pieces" in settings else {}
    settings |= {"layer": "second"} if method.endswith("_cam") else {}
    return explain(net, inputs, method, target=target, **settings, **how).values


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["places", "functions", "objectives", "mixed"])
def test_each_input_has_a_target_of_its_own(method: str, kind: str) -> None:
    net, inputs = Segments(), tiny_inputs(items=3)
    targets: list[Any] = {
        "places": [(0, 1, 2), (2, 4, 5), (1, 0, 0)],
        "functions": [lambda out, c=c: out[:, c].mean((1, 2)) for c in (2, 0, 1)],
        "objectives": [region(2, (1, 1)), region(0, (3, 3)), channel("last", 1)],
        "mixed": [(0, 1, 2), lambda out: out[:, 1].amax((1, 2)), region(0, (3, 3), of="margin")],
    }[kind]
    together = ask(net, inputs, method, targets)
    for item, target in enumerate(targets):
        alone = ask(net, inputs[item : item + 1], method, [target])
        torch.testing.assert_close(together[item : item + 1], alone, rtol=1e-6, atol=1e-9)


def test_a_place_is_that_output() -> None:
    check(Segments(), (2, 4, 5), lambda out: out[:, 2, 4, 5])
    check(Segments(wrapped=True), (1, 0, 3), lambda out: out["out"][:, 1, 0, 3])
    check(
        Segments(),
        [(2, 4, 5), ("dog", 0, 1)],
        lambda out: torch.stack([out[0, 2, 4, 5], out[1, 1, 0, 1]]),
        categories=NAMES,
    )
    found = check(AveragingNet(), (2, 1), lambda out: torch.stack([out[0, 2], out[1, 1]]))
    assert found.target is not None
    assert found.target.tolist() == [2, 1], "of scores (N, K), a tuple of N is a class for each"
    assert explain(AveragingNet(), tiny_inputs(), "gradient", target=(1,)).target.tolist() == [1, 1]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("net", "target", "message"),
    [
        (
            Segments(),
            (2, 5, 0),
            r"\(2, 5, 0\) is no place of the output \(2, 3, 5, 6\); give \(class, \*place\)",
        ),
        (Segments(), (2, 4), r"the target \(2, 4\) is no place of the output"),
        (AveragingNet(), (1, 2, 0), r"there are 3 targets for 2 inputs; give one.*and the model gives \(2, 3\)"),
        (Segments(), [(2, 4, 5)], "there are 1 targets for 2 inputs"),
    ],
)
def test_a_place_that_is_not_there_is_told(net: nn.Module, target: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explain(net, tiny_inputs(), "gradient", target=target)


def test_titles_tell_each_inputs_own_target(tmp_path: Path) -> None:
    found = explain(Segments(), tiny_inputs(), "gradient", target=[(2, 4, 5), region(0, (3, 3))])
    assert [title.rpartition(" ")[0] for title in found.titles()] == ["place (2, 4, 5)", "region(0, (3, 3))"]
    assert found[1].titles()[0].startswith("region(0, (3, 3)) ")
    found.save(tmp_path / "kept.safetensors")
    assert Explanation.load(tmp_path / "kept.safetensors").titles() == found.titles()


def test_one_number_in_a_tensor_is_for_all() -> None:
    for target in (torch.tensor([2]), torch.tensor([2]).numpy()):
        assert explain(AveragingNet(), tiny_inputs(), "gradient", target=target).target.tolist() == [2, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ("²", LookupError, "no class names are known, so '²' can't be found"),
        ("٣", LookupError, "no class names are known, so '٣' can't be found"),
        (2**63, ValueError, "there is no class 9223372036854775808; classes are numbered from 0"),
        ([0, -(2**70)], ValueError, "classes are numbered from 0"),
        ("9" * 30, ValueError, "classes are numbered from 0"),
        (float("nan"), TypeError, "the target nan is no class"),
        (1.5, TypeError, "the target 1.5 is no class; give a number, a name, or a function of the output"),
        ([1.5, 2], TypeError, "the target 1.5 is no class"),
    ],
)
def test_what_is_no_number_of_a_class_is_told_in_one_line(target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        explain(AveragingNet(), tiny_inputs(), "gradient", target=target)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_synthesis_of_a_function_is_told_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"a function is no class.*objective=channel\(LAYER, 5\)") as caught:
        synthesize(AveragingNet().float(), "feature_image", target=lambda output: output[:, 0], size=8, steps=1)  # type: ignore[arg-type]
    assert "0x" not in str(caught.value)
    with pytest.raises(TypeError, match=r"the model gives a dict with 'out'.*give another objective, such as channel"):
        synthesize(Segments(wrapped=True).float(), "feature_image", target=1, size=8, steps=1)


# In every method, metric and formula


TARGETS: dict[str, Any] = {
    "against": against(0, [1, 2]),
    "value": value(2, toward=0.2),
    "similar": similar(torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)),
    "combined": against(0, 1) - 2 * class_score(2),
}


@pytest.mark.parametrize("method", [name for name in attributions if name != "saliency_confusion"])
@pytest.mark.parametrize("name", TARGETS)
def test_every_attribution_explains_it_as_a_function_does(method: str, name: str) -> None:
    class Embedded(AveragingNet):
        pass

    net, inputs, settings = Embedded(attention=method in ATTENDING), tiny_inputs(items=3), quick(method)
    reads: dict[str, Callable[[Tensor], Tensor]] = {
        "against": lambda out: out[:, 0] - out[:, 1:].mean(1),
        "value": lambda out: -(out[:, 2] - 0.2).abs(),
        "similar": lambda out: F.cosine_similarity(out, out.new_tensor([[1.0, -1.0, 2.0]])),
        "combined": lambda out: out[:, 0] - out[:, 1] - 2 * out[:, 2],
    }
    found = explain(net, inputs, method, target=TARGETS[name], **settings)
    expected = explain(net, inputs, method, target=reads[name], **settings)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.score, expected.score)


def test_a_formula_goes_toward_it() -> None:
    net, inputs = AveragingNet(), tiny_inputs()
    found = explain(net, inputs, toward(gradient(), against("cat", "dog")), target=2, categories=NAMES).values
    torch.testing.assert_close(found, by_hand(net, inputs, lambda out: out[:, 0] - out[:, 1])[0])


@pytest.mark.parametrize(
    "metric", ["deletion", "insertion", "infidelity", "max_sensitivity", "average_drop", "randomization"]
)
def test_metrics_ask_with_the_same_reference(metric: str) -> None:
    """The region that was predicted in the explained inputs, not in their variants."""
    net, inputs = Segments(), tiny_inputs()
    cls = int(net(inputs).argmax(1).flatten().mode().values)
    masks = net(inputs).argmax(1) == cls
    read = lambda output: (output[:, cls] * masks).sum((1, 2)) / masks.sum((1, 2))  # noqa: E731
    scores = []
    for target in (region(cls), read):
        explanation = explain(net, inputs, "gradient", target=target)
        scores.append(evaluate(explanation, metric, model=net, target=target))
    torch.testing.assert_close(scores[0], scores[1])


def test_a_synthesis_maximizes_it() -> None:
    net = AveragingNet().float()
    made = synthesize(net, "feature_image", objective=against(0, 1), size=8, steps=16)
    assert made.history[-1] > made.history[0]


# The top classes, and several targets


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion", "integrated_gradients", "rise"])
def test_the_top_classes_are_explained_by_rank(method: str) -> None:
    net, inputs = AveragingNet(), tiny_inputs(items=4)
    scores = net(inputs).detach()
    ranked = scores.argsort(1, descending=True)
    found = explain(net, inputs, method, target=top(3), categories=NAMES, **quick(method))
    assert len(found) == 3
    for rank, each in enumerate(found):
        expected = explain(net, inputs, method, target=ranked[:, rank], categories=NAMES, **quick(method))
        torch.testing.assert_close(each.values, expected.values)
        assert each.target is not None
        assert each.target.tolist() == ranked[:, rank].tolist()
        assert each.titles() == expected.titles()
        assert each.probability is not None
        torch.testing.assert_close(each.probability, scores.softmax(1).gather(1, ranked[:, rank : rank + 1])[:, 0])
    torch.testing.assert_close(torch.stack([each.probability for each in found]).sum(0), torch.ones(4).double())  # type: ignore[misc]


def test_one_forward_pass_serves_all_ranks() -> None:
    net, passes = AveragingNet(), []
    net.register_forward_hook(lambda *args: passes.append(1))
    for count in (2, 1):  # one more finds out what the layer has to do with the score; it is remembered
        passes.clear()
        found = explain(net, tiny_inputs(), ["gradient", "grad_cam"], layer="second", target=top(3))
        assert {name: len(each) for name, each in found.items()} == {"gradient": 3, "grad_cam": 3}
        assert len(passes) == count


def test_more_classes_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="the top 4 classes are asked for, and the model has 3; ask for fewer"):
        explain(AveragingNet(), tiny_inputs(), "gradient", target=top(4))
    with pytest.raises(TypeError, match=r"top\(count=2\) is several questions, and one is asked here"):
        evaluate(
            explain(AveragingNet(), tiny_inputs(), target=value(0)), "deletion", model=AveragingNet(), target=top(2)
        )  # type: ignore[arg-type,call-overload]


def test_several_targets_are_explained_together() -> None:
    net, inputs = Segments(), tiny_inputs()
    targets = [(1, 2, 3), channel("second", 2), region(0, (1, 1)), lambda out: out[:, 2].mean((1, 2))]
    passes: list[int] = []
    net.register_forward_hook(lambda *args: passes.append(1))
    found = explain(net, inputs, "gradient", target=several(*targets))
    assert len(passes) == 1
    for each, target in zip(found, targets, strict=True):
        torch.testing.assert_close(each.values, explain(net, inputs, "gradient", target=target).values)


def test_target_prints_the_same_after_it_was_sent_to_another_process() -> None:
    for target in (region(1), box(0), box((1.0, 2.0, 3.0, 4.0), threshold=0.5), against(1, 2), value(0)):
        sent = pickle.loads(pickle.dumps(target))
        assert repr(sent) == repr(target)
    assert repr(region(1, "".join(["pre", "dicted"]))) == "region(1)"
