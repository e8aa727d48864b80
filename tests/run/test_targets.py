"""What is explained: a class in every spelling, or any number made of the output; what is no class is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from quick import OF_ANY_NETWORK, quick
from torch import Tensor, nn

from cnnviz import Run, attributions, explain
from cnnviz.testing import SmallNet

NAMES = OF_ANY_NETWORK
CATEGORIES = ("tench, Tinca tinca", "tabby, tabby cat", "tiger cat", "Egyptian cat", "lynx")
LAST = lambda output: output[:, 4]  # noqa: E731, a target as users write it


def batch() -> Tensor:
    return torch.randn(3, 3, 12, 10, generator=torch.Generator().manual_seed(4))


def ask(model: nn.Module, target: Any, name: str = "gradient", **how: Any) -> Any:
    logit = {"score": "logit"} if "score" in attributions[name].settings else {}
    return explain(model, batch(), name, target=target, **(quick(name) | logit | how))


class Wrapped(nn.Module):
    """A network whose output is something else than scores."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.change = SmallNet(), change
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.change(self.net(x))


@pytest.mark.parametrize(
    "target",
    [
        *(1, "1", np.int64(1), np.uint8(1), torch.tensor(1), torch.tensor([1, 1, 1]), torch.tensor([[1], [1], [1]])),
        *([1, 1, 1], (1, 1, 1), np.array([1, 1, 1]), [np.int32(1)] * 3, torch.tensor([1, 1, 1], dtype=torch.uint8)),
        *("tabby", "Tabby, Tabby Cat", "tabby cat", ["tabby", 1, "1"]),
    ],
    ids=repr,
)
def test_a_class_is_a_class_however_it_is_given(target: Any) -> None:
    found = ask(SmallNet(), target, categories=CATEGORIES)
    torch.testing.assert_close(found.values, ask(SmallNet(), of_class(1)).values)
    assert found.target.tolist() == [1, 1, 1]
    assert found.target.dtype == torch.int64
    torch.testing.assert_close(found.score, SmallNet()(batch())[:, 1].detach())


def of_class(index: int) -> Callable[[Tensor], Tensor]:
    return lambda output: output[:, index]


def test_each_input_has_its_own_class() -> None:
    mixed = ask(SmallNet(), [2, 0, 4])
    for item, index in enumerate([2, 0, 4]):
        torch.testing.assert_close(mixed.values[item], ask(SmallNet(), index).values[item])
    assert mixed.target.tolist() == [2, 0, 4]


def test_none_is_the_predicted_class() -> None:
    predicted = SmallNet()(batch()).argmax(1)
    found = ask(SmallNet(), None)
    assert found.target.tolist() == predicted.tolist()
    torch.testing.assert_close(found.values, ask(SmallNet(), predicted).values)


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "too high": (5, ValueError, "there is no class 5; the model has 5, numbered 0 to 4"),
    "negative": (-1, ValueError, "there is no class -1; the model has 5"),
    "negative in text": ("-1", ValueError, "there is no class -1"),
    "negative in a tensor": (torch.tensor([0, -1, 2]), ValueError, "there is no class -1"),
    "too few": ([0, 1], ValueError, "there are 2 targets for 3 inputs; give one, or one for each"),
    "too many": (torch.zeros(4, dtype=torch.int64), ValueError, "there are 4 targets for 3 inputs"),
    "a list of one": ([1], ValueError, "there are 1 targets for 3 inputs"),
    "none in a list": ([0, None, 1], TypeError, "the target None is no class"),
    "true": (True, TypeError, "the target True is no class"),
    "a truth for each": ([True, False, True], TypeError, "the target True is no class"),
    "a half": (0.5, TypeError, "the target 0.5 is no class; give a number, a name, or a function of the output"),
    "floats": (torch.tensor([0.0, 1.0, 2.0]), TypeError, "the target is a torch.float32 tensor; classes are whole"),
    "truths": (torch.tensor([True, False, True]), TypeError, "the target is a torch.bool tensor"),
    "a NumPy truth": (np.True_, TypeError, "is no class"),
    "NumPy floats": (np.array([0.0, 1.0, 2.0]), TypeError, "is no class|classes are whole numbers"),
    "one-hot": (torch.eye(5, dtype=torch.int64)[:3], ValueError, "targets for 3 inputs"),
    "near a name": ("tabbi", LookupError, "there is no class 'tabbi'; did you mean 'tabby'"),
    "near nothing": ("zebra crossing", LookupError, "there is no class 'zebra crossing'; there are 5 classes: "),
    "empty": ("", LookupError, "there is no class ''"),
    "a set": ({0}, TypeError, "is no class"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_class_is_refused(case: str) -> None:
    target, error, message = REFUSED[case]
    with pytest.raises(error, match=message) as caught:
        ask(SmallNet(), target, categories=CATEGORIES)
    assert "\n" not in str(caught.value)


def test_a_name_needs_names() -> None:
    with pytest.raises(
        LookupError, match="no class names are known, so 'tabby' can't be found; give the class by number"
    ):
        ask(SmallNet(), "tabby")


def test_a_name_of_several_classes_is_asked_by_number() -> None:
    names = ("a", "crane", "b", "crane", "C")
    with pytest.raises(LookupError, match=r"^the classes 1, 3 are all named 'crane'; give the number of one$"):
        ask(SmallNet(), "crane", categories=names)
    with pytest.raises(LookupError, match="the classes 1, 3 are all named 'CRANE'"):
        ask(SmallNet(), "CRANE", categories=names)
    assert ask(SmallNet(), 3, categories=names).target.tolist() == [3, 3, 3]
    assert ask(SmallNet(), "c", categories=names).target.tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("cardigan", 3),  # as it is spelled, though the other comes first
        ("Cardigan", 1),
        ("bull", 2),  # the whole name before a word group of an earlier one
        ("Ox", 0),
        ("OX", 0),
        ("jersey", 4),
    ],
)
def test_the_nearest_spelling_of_a_name_is_meant(name: str, number: int) -> None:
    names = ("Ox, bull", "Cardigan", "bull", "cardigan", "knitwear, jersey")
    assert ask(SmallNet(), name, categories=names).target.tolist() == [number] * 3


# Outputs that are not scores

OUTPUTS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "dict": (lambda scores: {"out": scores, "aux": scores * 2}, lambda output: output["out"][:, 4]),
    "tuple": (lambda scores: (scores.sum(1), scores), lambda output: output[1][:, 4]),
    "segmentation": (
        lambda scores: scores[..., None, None] * torch.ones(3, 4),
        lambda output: output[:, 4].mean((1, 2)),
    ),
    "tokens": (lambda scores: scores[:, None].expand(-1, 6, -1), lambda output: output[:, 2, 4]),
    "margin": (lambda scores: scores, LAST),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_function_reads_any_output(name: str, kind: str) -> None:
    change, read = OUTPUTS[kind]
    if name == "saliency_confusion":
        with pytest.raises(ValueError, match="the predicted class is asked for, and a function of the output has none"):
            ask(Wrapped(change), read, name)
        return
    found = ask(Wrapped(change), read, name)
    # a mask is learnt of a class's probability, and of a function as it is; only a class has others to set it against
    as_function = name in ("meaningful_perturbation", "relevance_cam")
    expected = ask(Wrapped(lambda scores: scores), LAST if as_function else 4, name)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.score, expected.score)
    assert found.target is None
    assert found.titles()[0].startswith("score ")


@pytest.mark.parametrize("shape", [(3, 1), (3,)], ids=str)
@pytest.mark.parametrize("target", [None, 0])
def test_a_regression_has_one_number_to_explain(shape: tuple[int, ...], target: Any) -> None:
    found = ask(Wrapped(lambda scores: scores[:, 4].reshape(shape)), target)
    torch.testing.assert_close(found.values, ask(SmallNet(), 4).values)
    with pytest.raises(ValueError, match="there is no class 1; the model has 1, numbered 0 to 0"):
        ask(Wrapped(lambda scores: scores[:, 4].reshape(shape)), 1)


def test_scores_with_ones_behind_are_scores() -> None:
    found = ask(Wrapped(lambda scores: scores[..., None, None]), 4)
    torch.testing.assert_close(found.values, ask(SmallNet(), 4).values)


NOT_SCORES: dict[str, tuple[Callable[[Tensor], Any], type[Exception], str]] = {
    "a dict": (
        lambda scores: {"out": scores},
        TypeError,
        r"gives a dict with 'out'.*target=lambda output: output\['out'\]",
    ),
    "a tuple": (lambda scores: (scores, scores), TypeError, r"gives a tuple.*target=lambda output: output\[0\]"),
    "none": (lambda scores: None, TypeError, r"gives a NoneType, not scores \(N, K\)"),
    "maps": (
        lambda scores: scores[..., None, None] * torch.ones(2, 2),
        ValueError,
        r"gives \(3, 5, 2, 2\), not scores",
    ),
    "one number": (lambda scores: scores.sum(), ValueError, r"gives \(\), not scores"),
    "another batch": (lambda scores: scores[:2], ValueError, "gives 2 rows of scores for 3 inputs"),
    "whole numbers": (
        lambda scores: scores.argmax(1, keepdim=True),
        TypeError,
        "gives torch.int64; scores are floating",
    ),
}


@pytest.mark.parametrize("kind", NOT_SCORES)
@pytest.mark.parametrize("target", [None, 0])
def test_outputs_that_are_no_scores_need_a_function(kind: str, target: Any) -> None:
    change, error, message = NOT_SCORES[kind]
    with pytest.raises(error, match=message) as caught:
        ask(Wrapped(change), target)
    assert "\n" not in str(caught.value)


NOT_READ: dict[str, tuple[Callable[[Tensor], Any], type[Exception], str]] = {
    "all scores": (lambda output: output, ValueError, r"the target function gave \(3, 5\); it returns.*\(3,\)"),
    "a mean": (lambda output: output.mean(), ValueError, r"the target function gave \(\)"),
    "a number": (lambda output: 1.0, ValueError, "the target function gave float"),
    "its own error": (lambda output: output["no"], (IndexError, TypeError), "too many indices|only integers|str"),
    "detached": (lambda output: output[:, 0].detach(), ValueError, "does not depend on the input"),
    "not finite": (lambda output: output[:, 0] / 0, ValueError, "score has 3 values that are not finite"),
}


@pytest.mark.parametrize("kind", NOT_READ)
def test_functions_that_do_not_give_a_score_each_are_refused(kind: str) -> None:
    read, error, message = NOT_READ[kind]
    with pytest.raises(error, match=message):
        ask(SmallNet(), read)


# Several inputs


class Two(nn.Module):
    """An image and a vector that scales its scores."""

    def __init__(self) -> None:
        super().__init__()
        self.net = SmallNet()
        self.eval()

    def forward(self, image: Tensor, scale: Tensor) -> Tensor:
        scores: Tensor = self.net(image) * scale.mul_(1.0)
        return scores


@pytest.mark.parametrize("name", NAMES)
def test_the_first_of_several_inputs_is_explained(name: str) -> None:
    scale = torch.tensor([[1.0], [2.0], [3.0]])
    found = explain(Two(), (batch(), scale), name, target=1, **quick(name))
    if name == "integrated_gradients":
        assert found.notes["completeness_gap"].abs().max() < 0.1 * found.score.abs().max()
    if name in ("gradient", "smoothgrad", "input_x_gradient", "hires_cam", "integrated_gradients"):
        alone = explain(SmallNet(), batch(), name, target=1, **quick(name))
        torch.testing.assert_close(found.values, alone.values * scale.view(3, 1, 1, 1), rtol=1e-4, atol=1e-6)
    assert len(found) == 3
    assert scale.flatten().tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("scale", "error", "message"),
    [
        (torch.ones(2, 1), ValueError, r"input 1 is \(2, 1\), the first \(3, 3, 12, 10\); they need one batch size"),
        (torch.tensor(1.0), ValueError, r"input 1 is \(\), the first"),
        (3, TypeError, "int"),
    ],
)
def test_further_inputs_must_fit(scale: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        explain(Two(), (batch(), scale), "gradient")


# Probabilities


class Given(nn.Module):
    """Gives what it is given, (N, K) of (N, K, 1): scores of any kind."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.end = end
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.end(x[:, :, 0].clone())


def probabilities(end: Callable[[Tensor], Tensor], first: Tensor, later: Tensor) -> Tensor:
    """Of the first class of other inputs, asked about a first one."""
    run = Run(Given(end), first[None, :, None], torch.tensor([0])).as_probability()
    with torch.no_grad():
        return run.scores_of(len(later), lambda start, stop: later[start:stop, None, :, None])[:, 0]


def test_scores_that_happen_to_add_up_to_one_are_no_probabilities() -> None:
    scores = torch.stack([torch.linspace(0, 2, 41), torch.linspace(0.5, 0.6, 41)], 1)
    for first in (scores[-1], scores[3]):  # the second one could be of a sigmoid, and is not
        found = probabilities(lambda x: x, first, scores)
        torch.testing.assert_close(found, scores.softmax(1)[:, 0])


@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize(
    "end", [torch.sigmoid, nn.Sigmoid(), lambda x: x.sigmoid_(), lambda x: x[..., None].sigmoid().squeeze(2)]
)
def test_what_a_sigmoid_gave_is_a_probability(end: Callable[[Tensor], Tensor], classes: int) -> None:
    scores = torch.randn(8, classes, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(probabilities(end, scores[0], scores), scores.sigmoid()[:, 0])


def test_what_a_softmax_gave_is_a_probability() -> None:
    scores = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    for end in (nn.Softmax(1), lambda x: (x.softmax(1) + x.softmax(1)) / 2, lambda x: x.log_softmax(1).exp()):
        torch.testing.assert_close(probabilities(end, scores[0], scores), scores.softmax(1)[:, 0])
    half = probabilities(lambda x: x.bfloat16().softmax(1), scores[0], scores)
    torch.testing.assert_close(half.float(), scores.softmax(1)[:, 0], rtol=1e-2, atol=1e-2)


def test_no_pass_more_is_taken_where_scores_tell() -> None:
    passes: list[Tensor] = []
    for end, expected in ((lambda x: x, 1), (nn.Softmax(1), 1), (nn.Sigmoid(), 2)):
        model = Given(end)
        model.register_forward_hook(lambda module, args, output: passes.append(output))
        passes.clear()
        assert Run(model, torch.randn(2, 5, 1), torch.tensor([0, 1])).as_probability().score.shape == (2,)
        assert len(passes) == expected
