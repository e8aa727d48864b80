"""Networks with one score, and such that end in sigmoids: which class is meant, and what goes into the sigmoid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import AveragingNet, randomized, tiny_inputs
from quick import PERTURBING, quick
from torch import Tensor, nn

from cnnviz import Explanation, evaluate, explain
from cnnviz.targets import top

METHODS = sorted(PERTURBING | {"gradient", "grad_cam", "integrated_gradients", "deeplift", "fullgrad"})


class One(nn.Module):
    """One logit, shifted; with ``end`` behind it."""

    def __init__(self, shift: float = 0.0, end: Callable[[Tensor], Tensor] = lambda logit: logit, classes: int = 1):
        super().__init__()
        self.net = AveragingNet(classes=classes)
        self.end = end
        with torch.no_grad():
            self.net.head.bias += shift
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.net(x))


def settings(method: str) -> dict[str, Any]:
    logit = {"score": "logit"} if method == "rise" else {}
    return quick(method) | logit | ({"segments": "equal"} if "pieces" in quick(method) else {})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shift", [-50.0, 50.0])
def test_without_a_target_what_the_network_says_is_explained(method: str, shift: float) -> None:
    net, inputs = One(shift), tiny_inputs()
    sign = 1 if shift > 0 else -1
    found = explain(net, inputs, method, **settings(method))
    expected = explain(net, inputs, method, target=lambda out: sign * out[:, 0], **settings(method))
    torch.testing.assert_close(found.values, expected.values)
    torch.testing.assert_close(found.score, sign * net(inputs)[:, 0].detach())
    assert found.target is not None
    assert found.target.tolist() == [0 if shift > 0 else -1] * 2
    assert found.titles()[0].startswith("class 0 " if shift > 0 else "not class 0 ")
    assert float(found.score.min()) > 0


def test_inputs_of_one_batch_may_be_told_apart() -> None:
    inputs = tiny_inputs(items=6)
    logits = One()(inputs)[:, 0].detach()
    net = One(-float(logits.median()) - 1e-3)
    logits = net(inputs)[:, 0].detach()
    assert (logits > 0).any()
    assert (logits < 0).any()
    found = explain(net, inputs, "gradient")
    torch.testing.assert_close(found.score, logits.abs())
    for item in range(6):
        torch.testing.assert_close(found[item].values, explain(net, inputs[item : item + 1], "gradient").values)


@pytest.mark.parametrize("end", [lambda logit: logit, torch.sigmoid, nn.Sigmoid()])
@pytest.mark.parametrize("shift", [-3.0, 3.0])
def test_two_names_are_those_of_both_sides(end: Any, shift: float) -> None:
    net, inputs, names = One(shift, end), tiny_inputs(), ("healthy", "ill")
    ill = net(inputs)[:, 0].detach()
    healthy = -ill if bool((ill < 0).any() | (ill > 1).any()) else 1 - ill
    for target, score in (("ill", ill), (1, ill), ("healthy", healthy), (0, healthy), (["ill", 0], None)):
        found = explain(net, inputs, "gradient", target=target, categories=names)
        expected = torch.stack([ill[0], healthy[1]]) if score is None else score
        torch.testing.assert_close(found.score, expected)
    leaf = inputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(net(leaf).sum(), leaf)
    torch.testing.assert_close(explain(net, inputs, "gradient", target="healthy", categories=names).values, -slope)
    said = explain(net, inputs, "gradient", categories=names)
    assert said.target is not None
    assert said.target.tolist() == (ill > healthy).long().tolist()
    assert said.titles()[0].startswith(names[int(ill[0] > healthy[0])])
    logits = One(shift)(inputs)[:, 0].detach()
    assert said.probability is not None
    torch.testing.assert_close(said.probability, logits.where(said.target == 1, -logits).sigmoid())
    ranks = explain(net, inputs, "gradient", target=top(2), categories=names)
    torch.testing.assert_close(ranks[0].probability, said.probability)
    torch.testing.assert_close(ranks[1].probability, 1 - said.probability)


def test_one_name_or_three_are_judged_as_before() -> None:
    found = explain(One(-50.0), tiny_inputs(), "gradient", categories=("ill",))
    assert found.titles()[0].startswith("not ill ")
    with pytest.raises(ValueError, match="there are 3 names for the model's 1 classes"):
        explain(One(), tiny_inputs(), "gradient", categories=("a", "b", "c"))


def test_a_metric_asks_for_the_same_side() -> None:
    net, inputs = One(-50.0), tiny_inputs()
    found = explain(net, inputs, "gradient")
    expected = explain(net, inputs, "gradient", target=lambda out: -out[:, 0])
    read = lambda out: -out[:, 0]  # noqa: E731
    score = evaluate(found, "infidelity", model=net)
    torch.testing.assert_close(score, evaluate(expected, "infidelity", model=net, target=read))


def test_a_class_by_number_is_the_score_as_it_is() -> None:
    found = explain(One(-50.0), tiny_inputs(), "gradient", target=0)
    assert float(found.score.max()) < 0
    with pytest.raises(ValueError, match="the top 2 classes are asked for, and the model has 1"):
        explain(One(), tiny_inputs(), "gradient", target=top(2))


# What goes into the sigmoid


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("end", [torch.sigmoid, nn.Sigmoid(), lambda x: torch.special.expit(x)])
def test_before_the_sigmoid_is_the_network_without_it(method: str, end: Any) -> None:
    inputs = tiny_inputs()
    net, plain = One(40.0, end, classes=3), One(40.0, classes=3)
    found = explain(net, inputs, method, target=1, before_sigmoid=True, **settings(method))
    expected = explain(plain, inputs, method, target=1, **settings(method))
    torch.testing.assert_close(found.values, expected.values)
    assert found.values.abs().max() > 0
    torch.testing.assert_close(found.score, expected.score)
    assert found.probability is not None
    torch.testing.assert_close(found.probability, expected.score.sigmoid())
    assert found.titles()[0] == f"class 1 {found.score[0]:.2f} (100 %)"


def test_a_metric_asks_before_the_sigmoid_too(tmp_path: Any) -> None:
    net, plain, inputs = One(4.0, torch.sigmoid, classes=3), One(4.0, classes=3), tiny_inputs()
    explain(net, inputs, "gradient", target=1, before_sigmoid=True).save(tmp_path / "kept.safetensors")
    kept = Explanation.load(tmp_path / "kept.safetensors")
    expected = evaluate(explain(plain, inputs, "gradient", target=1), "infidelity", model=plain)
    torch.testing.assert_close(evaluate(kept, "infidelity", model=net), expected)
    assert kept.titles()[0].endswith(" %)")


def test_the_other_head_is_named() -> None:
    with pytest.raises(LookupError, match=r"not what a softmax gave.*; say before_sigmoid=True"):
        explain(One(0.0, torch.sigmoid, 3), tiny_inputs(), before_softmax=True)
    with pytest.raises(LookupError, match=r"not what a sigmoid gave.*; say before_softmax=True"):
        explain(One(0.0, nn.Softmax(1), 3), tiny_inputs(), before_sigmoid=True)
    with pytest.raises(LookupError, match=r"not what a sigmoid gave.*; leave before_sigmoid out"):
        explain(One(classes=3), tiny_inputs(), before_sigmoid=True)
    with pytest.raises(ValueError, match="say before_softmax or before_sigmoid, not both"):
        explain(One(classes=3), tiny_inputs(), before_sigmoid=True, before_softmax=True)


# Probabilities


@pytest.mark.parametrize(
    ("net", "probability"),
    [
        (One(classes=3), lambda scores: scores.softmax(1)[:, 1]),
        (One(0.0, nn.Softmax(1), 3), lambda scores: scores[:, 1]),
        (One(0.0, torch.sigmoid, 3), lambda scores: scores[:, 1]),
    ],
)
def test_the_probability_of_a_class_is_told(net: nn.Module, probability: Callable[[Tensor], Tensor]) -> None:
    inputs = tiny_inputs()
    found = explain(net, inputs, "gradient", target=1)
    assert found.probability is not None
    torch.testing.assert_close(found.probability, probability(net(inputs).detach()))
    assert found[0].probability.tolist() == found.probability[:1].tolist()  # type: ignore[union-attr]


def test_where_it_is_not_known_no_probability_is_told() -> None:
    assert explain(One(3.0), tiny_inputs(), "gradient").probability is None, "it may be a regressed value"
    assert explain(One(classes=3), tiny_inputs(), "gradient", target=lambda out: out[:, 0]).probability is None
    said = explain(One(-3.0, torch.sigmoid), tiny_inputs(), "gradient")
    assert said.probability is not None
    torch.testing.assert_close(said.probability, 1 - One(-3.0, torch.sigmoid)(tiny_inputs())[:, 0].detach())


def test_a_mixed_network_is_the_same_in_every_batch() -> None:
    """Whether a sigmoid gave the score is asked of the network, not of the values that it happened to give."""
    net = randomized(nn.Sequential(nn.Conv2d(2, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with torch.no_grad():
        net[0].weight *= 0.01  # type: ignore[union-attr,index]
        net[0].bias.fill_(0.3)  # type: ignore[union-attr,index]
    found = explain(net, tiny_inputs(), "gradient", target="no", categories=("no", "yes"))
    torch.testing.assert_close(found.score, -net(tiny_inputs())[:, 0].detach())


def test_an_output_without_a_dimension_for_classes_is_a_value_and_explained_as_it_is() -> None:
    class Similarity(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return -(x * torch.arange(x[0].numel()).view(x.shape[1:])).flatten(1).sum(1)

    x = torch.ones(2, 1, 2, 3)
    found = explain(Similarity().eval(), x, "gradient")
    assert found.score.tolist() == [-15.0, -15.0]
    torch.testing.assert_close(found.values, -torch.arange(6.0).view(1, 1, 2, 3).expand(2, -1, -1, -1))
