"""What people write first: it works, or one line says what to write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import cnnviz
from cnnviz import Explanation, Run, attributions, demo, evaluate, explain, load_model, toward

STAR = demo.CATEGORIES.index("star")


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    return demo.as_inputs(demo.pictures().pictures)[:2]


# names of classes in formulas


def test_toward_takes_a_name_and_shows_it(inputs: Tensor) -> None:
    model, grad_cam = load_model("demo"), attributions["grad_cam"]()
    named, numbered = explain(model, inputs, toward(grad_cam, "star")), explain(model, inputs, toward(grad_cam, STAR))
    assert torch.equal(named.values, numbered.values)
    assert torch.equal(named.values, explain(model, inputs, grad_cam, target="star").values)
    assert named.recipe == numbered.recipe == "toward(grad_cam(layer='layer3'), 'star')"


def test_toward_without_names_shows_the_number(inputs: Tensor) -> None:
    net, formula = load_model("demo").module, toward(attributions["gradient"](), STAR)
    assert explain(net, inputs, formula).recipe == f"toward(gradient(), {STAR})"
    # of two classes of one name the name would mean the first
    twice = explain(net, inputs, formula, categories=["star"] * len(demo.CATEGORIES))
    assert twice.recipe == f"toward(gradient(), {STAR})"
    with pytest.raises(LookupError, match="no class names are known, so 'star' can't be found"):
        explain(net, inputs, toward(attributions["gradient"](), "star"))


def test_toward_a_name_that_is_near_is_a_hint(inputs: Tensor) -> None:
    with pytest.raises(LookupError, match="there is no class 'stra'; did you mean 'star'"):
        explain(load_model("demo"), inputs, toward(attributions["gradient"](), "stra"))


# methods that nobody has called


def test_an_unbuilt_renderer_has_its_defaults(inputs: Tensor) -> None:
    @cnnviz.renderer
    def level(gray: int = 7) -> Any:
        def draw(explanation: Explanation) -> NDArray[np.uint8]:
            return np.full((len(explanation), 4, 4, 3), gray, np.uint8)

        return draw

    explanation = explain(load_model("demo"), inputs)
    assert np.array_equal(explanation.render(level), np.full((2, 4, 4, 3), 7))
    assert np.array_equal(explanation.render(level, gray=9), np.full((2, 4, 4, 3), 9))
    assert np.array_equal(explanation.render(level()), explanation.render(level))
    with pytest.raises(TypeError, match="level has no setting 'grey'; did you mean 'gray'"):
        explanation.render(level, grey=9)
    with pytest.raises(TypeError, match=r"level\(\) takes no setting 'gray': only renderers given by name do"):
        explanation.render(level(), gray=9)


def test_unbuilt_methods_have_their_defaults(inputs: Tensor) -> None:
    @cnnviz.attribution
    def filled(value: float = 2.0) -> Any:
        return lambda run: torch.full_like(run.inputs, value)

    @cnnviz.metric
    def named(value: float = 3.0) -> Any:
        return lambda trial: torch.full((len(trial),), value)

    @cnnviz.synthesis
    def made(value: float = 4.0) -> Any:
        return lambda ascent: torch.full(ascent.shape((8, 8)), value)

    model = load_model("demo")
    explanation = explain(model, inputs, filled)
    assert torch.equal(explanation.values, torch.full_like(inputs, 2.0))
    assert torch.equal(explain(model, inputs, toward(filled, 1)).values, explanation.values)
    assert evaluate(explanation, named).tolist() == [3.0, 3.0]
    assert evaluate(explanation, "max_sensitivity", model=model, attribution=filled, samples=1).tolist() == [0.0, 0.0]
    assert cnnviz.synthesize(model, made).inputs.unique().tolist() == [4.0]
    with pytest.raises(TypeError, match="filled: value is 'a'; give a number"):
        filled("a")


# rules


@pytest.mark.parametrize(
    ("operation", "hint"),
    [
        (nn.ReLU, "for ReLU say torch.nn.functional.relu, or RECTIFIERS"),
        (nn.ReLU(), "for ReLU say torch.nn.functional.relu, or RECTIFIERS"),
        (nn.Conv2d, "for Conv2d say torch.nn.functional.conv2d"),
        (nn.BatchNorm2d, "for BatchNorm2d say torch.nn.functional.batch_norm"),
        (nn.LeakyReLU, "for LeakyReLU say torch.nn.functional.leaky_relu"),
        ("relu", "for relu say torch.nn.functional.relu, or RECTIFIERS"),
    ],
)
def test_a_rule_of_a_module_says_which_operation(operation: Any, hint: str) -> None:
    with pytest.raises(TypeError, match="a rule names operations, not modules: ") as raised:
        cnnviz.rule(operation)(lambda call, gradient: gradient)
    assert hint in str(raised.value)


# outputs that are no scores


class Gives(nn.Module):
    def __init__(self, output: Any):
        super().__init__()
        self.output = output

    def forward(self, inputs: Tensor) -> Any:
        return self.output(inputs)


OUTPUTS: dict[str, tuple[Any, str, str]] = {
    "detections": (
        lambda x: [{"boxes": x[0, 0, :2, :4], "scores": x[0, 0, 0, :2]} for _ in x],
        "list of dicts with 'boxes', 'scores', not scores (N, K); explain a detection by target=cnnviz.targets.box(0)",
        "torch.stack([each['scores'].sum() for each in output])",
    ),
    "a dict": (
        lambda x: {"loss": x.sum(), "logits": x.mean((2, 3))},
        "a dict with 'loss', 'logits'",
        "output['logits']",
    ),
    "a tuple": (lambda x: (None, x.mean((2, 3))), "a tuple, not scores", "output[1][:, 0]"),
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_that_is_no_score_names_a_target_of_its_form(output: str, inputs: Tensor) -> None:
    gives, told, example = OUTPUTS[output]
    with pytest.raises(TypeError, match="the model gives ") as raised:
        explain(Gives(gives).eval(), inputs, "gradient")
    assert told in str(raised.value)
    assert example in str(raised.value)


def test_the_example_for_detections_is_a_target(inputs: Tensor) -> None:
    gives = OUTPUTS["detections"][0]
    target = lambda output: torch.stack([each["scores"].sum() for each in output])  # noqa: E731
    explanation = explain(Gives(gives).eval(), inputs, "gradient", target=target)
    assert torch.allclose(explanation.score, inputs[0, 0, 0, :2].sum().expand(2))


# sizes


def small_net() -> nn.Module:
    pooled = [layer for _ in range(3) for layer in (nn.Conv2d(3, 3, 3), nn.MaxPool2d(2))]
    return nn.Sequential(*pooled, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).eval()


@pytest.mark.parametrize("size", [10, 17])
@pytest.mark.parametrize("method", ["grad_cam", "gradient", "occlusion"])
def test_an_input_that_is_too_small_is_told_so(size: int, method: str) -> None:
    net = small_net()
    with pytest.raises(ValueError, match=rf"the input is \(1, 3, {size}, {size}\), too small for Sequential: "):
        explain(net, torch.rand(1, 3, size, size), method)


def test_a_known_preprocessing_says_the_usual_size() -> None:
    preprocessing = cnnviz.Preprocessing((0.5,) * 3, (0.5,) * 3, resize=80, crop=(64, 72))
    with pytest.raises(ValueError, match=r"give a larger input; its preprocessing gives 64 x 72$"):
        explain(small_net(), 2 * torch.rand(1, 3, 10, 10) - 1, preprocessing=preprocessing)


def test_another_error_of_the_model_stays_as_it_is() -> None:
    def fails(inputs: Tensor) -> Tensor:
        raise RuntimeError("no such table")

    with pytest.raises(RuntimeError, match=r"^no such table$"):
        explain(Gives(fails).eval(), torch.rand(1, 3, 10, 10))


# passes


def test_several_methods_share_one_forward_pass(inputs: Tensor) -> None:
    """The first call for inputs of a shape makes one more, to look at the layers."""
    model, items = load_model("demo"), []
    model.module.register_forward_hook(lambda module, args, output: items.append(len(args[0])))
    methods = ["grad_cam", "layer_cam", "guided_backprop"]
    explain(model, inputs, methods)
    assert items == [2, 2]
    items.clear()
    explain(model, inputs, methods)
    assert items == [2]


def test_a_run_is_what_methods_are_asked_about() -> None:
    assert all(subject.subject_of_methods for subject in (Run, Explanation, cnnviz.Trial, cnnviz.Ascent))
