"""The situations of attributions, for syntheses and metrics: a right result, or one line that says what to do."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from faults.references import Net, pictures
from faults.situations import ERRORS, close, cross, each
from torch import Tensor, nn

from cnnviz import Explanation, Synthesized, attributions, evaluate, explain, metrics, syntheses, synthesize
from cnnviz.testing.state_snapshot import state, unchanged

SETTINGS: dict[str, dict[str, Any]] = {
    "class_image": {"target": 1, "steps": 2},
    "deep_dream": {"layer": "conv2", "channel": 1, "steps": 2, "octaves": 1},
    "feature_image": {"layer": "conv2", "channel": 1, "steps": 2},
    "inversion": {"of": pictures(size=(16, 16)).float(), "layer": "conv2", "steps": 2},
    "multiscale_ascent": {"layer": "conv2", "channel": 1, "steps": 2},
}


def made(name: str, model: nn.Module, **how: Any) -> Synthesized:
    return synthesize(model, name, **{"size": 16} | SETTINGS[name] | how)


class WithNorm(Net):
    """A Net with a batch norm and modules for its rectifiers."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)
        self.first = nn.ReLU(inplace)
        self.eval()

    def early(self, x: Tensor) -> Tensor:
        return self.first(self.norm(self.conv1(x)))


def partly_training() -> nn.Module:
    model = WithNorm()
    model.norm.train()
    return model


def scripted_part() -> nn.Module:
    model = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and in use
        model.late = torch.jit.script(nn.ReLU())
    return model


def born_in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return Net()


MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "in training": (lambda: Net().train(), r"call model.eval\(\) first"),
    "a batch norm in training": (partly_training, "'norm' is in training mode"),
    "made in inference mode": (born_in_inference_mode, r"made inside torch.inference_mode\(\)"),
    "on the meta device": (lambda: Net().to("meta"), "is on the meta device"),
    "no model": (lambda: "resnet50", "the model is a str; cnnviz explains"),
}


@cross(MODELS, syntheses)
def test_a_synthesis_refuses_the_model(case: str, name: str) -> None:
    make, words = MODELS[case]
    with pytest.raises(ERRORS, match=words) as caught:
        made(name, make())
    assert "\n" not in str(caught.value)


ASKED: dict[str, tuple[dict[str, Any], str]] = {
    "a layer that never runs": ({"layer": "unused"}, "layer 'unused' did not run"),
    "a layer that is not there": ({"layer": "conv9"}, "has no layer 'conv9'; did you mean 'conv"),
    "a channel too high": ({"channel": 16}, "there is no channel 16"),
    "a channel below zero": ({"channel": -1}, "there is no channel -1"),
    "a size of nothing": ({"size": 0}, "size=0"),
    "no steps but fewer": ({"steps": -1}, "steps=-1"),
    "an unknown setting": ({"stepz": 1}, "has no setting 'stepz'; did you mean 'steps'"),
}


def has(case: str, name: str) -> bool:
    return {*ASKED[case][0]} <= {*syntheses[name].settings, "size", "stepz"}


@pytest.mark.parametrize(
    ("case", "name"),
    [pytest.param(case, name, id=f"{case}: {name}") for case in ASKED for name in syntheses if has(case, name)],
)
def test_a_synthesis_refuses_what_is_not_there(case: str, name: str) -> None:
    chosen, words = ASKED[case]
    if not {*chosen} <= {*syntheses[name].settings, "size", "stepz"} or (
        case == "a size of nothing" and name == "inversion"
    ):
        pytest.skip(f"{name} has no such setting")
    model = Net()
    model.unused = nn.Conv2d(8, 8, 1)
    with pytest.raises(ERRORS, match=words) as caught:
        made(name, model, **chosen)
    assert "\n" not in str(caught.value)


GIVEN: dict[str, tuple[Callable[[Tensor], Any], str | None]] = {
    "a picture without a batch dimension": (lambda x: x[0], None),
    "of a channel too few": (lambda x: x[:, :2], r"takes \(N, 3, H, W\)"),
    "channels last": (lambda x: x.movedim(1, -1), "channels last|takes|what is given is"),
    "NaN": (lambda x: x.where(x < 0.5, torch.nan), "not finite"),
    "bytes": (lambda x: (x * 9).byte(), "torch.uint8"),
    "float64 for float32": (lambda x: x.double(), None),
    "with a graph": (lambda x: x.clone().requires_grad_() * 1, None),
    "strided": (lambda x: x.flip(3).flip(3), None),
    "of inference mode": (torch.inference_mode()(lambda x: x.clone()), None),
}


@cross(GIVEN, ["inversion", "deep_dream"])
def test_a_synthesis_takes_the_picture_or_says_why_not(case: str, name: str) -> None:
    change, words = GIVEN[case]
    key, plain = "of" if name == "inversion" else "start", pictures(size=(16, 16)).float()
    if words is None:
        close(made(name, Net(), **{key: change(plain)}).inputs, made(name, Net(), **{key: plain}).inputs, 0)
    else:
        with pytest.raises(ERRORS, match=words) as caught:
            made(name, Net(), **{key: change(plain)})
        assert "\n" not in str(caught.value)


def with_gradients() -> nn.Module:
    model = Net()
    model(pictures().float()).sum().backward()
    return model


def with_hook() -> nn.Module:
    model = Net()
    model.conv1.register_forward_hook(lambda module, args, output: None)
    return model


class Functional(Net):
    def behind(self, early: Tensor) -> Tensor:
        return F.relu(self.conv2(early), inplace=True)


SAME: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], AbstractContextManager[Any]]] = {
    "rectifiers in place": (lambda: WithNorm(True), WithNorm, nullcontext()),
    "functional rectifiers in place": (Functional, Net, nullcontext()),
    "frozen weights": (lambda: Net().requires_grad_(False), Net, nullcontext()),
    "gradients of a training run": (with_gradients, Net, nullcontext()),
    "a hook of the user's": (with_hook, Net, nullcontext()),
    "DataParallel": (lambda: nn.DataParallel(Net()).eval(), Net, nullcontext()),
    "inside no_grad": (Net, Net, torch.no_grad()),
    "inside inference_mode": (Net, Net, torch.inference_mode()),
}


@cross(SAME, syntheses)
def test_a_synthesis_makes_the_same_of_the_same_network(case: str, name: str) -> None:
    make, twin, entered = SAME[case]
    model, nothing = make(), torch.zeros(0)
    with unchanged("the call", lambda: state(model, nothing)), entered:
        found = made(name, model)
    close(found.inputs.clone(), made(name, twin()).inputs, 1e-5)


# Metrics


@pytest.fixture(scope="module")
def explained() -> tuple[Net, Explanation]:
    model = Net()
    return model, explain(model, pictures(2, (8, 8)).float(), "integrated_gradients", target=1, steps=2)


MASKS = torch.zeros(2, 8, 8, dtype=torch.bool)
MASKS[:, 2:5, 1:6] = True


def scored(name: str, explanation: Explanation, model: Any, masks: Any = MASKS) -> Tensor:
    few = {key: 2 for key in ("samples", "steps") if key in metrics[name].settings}
    method = attributions["integrated_gradients"](steps=2) if name in {"max_sensitivity", "randomization"} else None
    return evaluate(explanation, name, masks=masks, model=model, attribution=method, **few)


@cross(MODELS, metrics)
def test_a_metric_refuses_the_model_that_it_asks(case: str, name: str, explained: tuple[Net, Explanation]) -> None:
    make, words = MODELS[case]
    try:
        found = scored(name, explained[1], make())
    except ERRORS as error:
        text = str(error)
    else:
        assert torch.equal(found, scored(name, explained[1], None))  # the metric needs no model
        return
    assert re.search(words, text)
    assert "\n" not in text


PARTS: dict[str, tuple[Callable[[Explanation], Explanation], str]] = {
    "without a batch dimension": (
        lambda each: replace(each, values=each.values[0], inputs=each.inputs[0], score=each.score[0]),
        "^its score is",
    ),
    "values without a batch dimension": (lambda each: replace(each, values=each.values[0]), "^its values are"),
    "an empty batch": (lambda each: each[:0], "nothing is in them"),
    "complex values": (lambda each: replace(each, values=each.values + 1j), "^its values are torch.complex64"),
    "a score too many": (lambda each: replace(each, score=torch.ones(3)), "^its score is"),
    "a target too few": (lambda each: replace(each, target=torch.tensor([1])), "^its target is"),
    "a negative target": (lambda each: replace(each, target=torch.tensor([-2, 1])), "^its target is"),
}


@cross(PARTS, metrics)
def test_a_metric_refuses_an_explanation_whose_parts_do_not_fit(
    case: str, name: str, explained: tuple[Net, Explanation]
) -> None:
    change, words = PARTS[case]
    with pytest.raises(ERRORS, match=words) as caught:
        scored(name, change(explained[1]), explained[0])
    assert "\n" not in str(caught.value)


BAD_MASKS: dict[str, tuple[Callable[[], Any], str]] = {
    "sparse": (lambda: MASKS.float().to_sparse(), "what is given as masks is a tensor of the layout"),
    "nested": (lambda: torch.nested.as_nested_tensor([MASKS[0].float()]), "given as masks is a nested tensor"),
    "meta": (lambda: MASKS.to("meta"), "given as masks is on the meta device"),
    "NaN": (lambda: MASKS.float().where(MASKS, torch.nan), "other numbers than 0 and 1"),
    "of bytes up to 255": (lambda: MASKS.byte() * 255, "other numbers than 0 and 1"),
    "without a batch dimension": (lambda: MASKS[0], r"masks are \(8, 8\)"),
    "of another size": (lambda: MASKS[:, 1:], r"masks are \(2, 7, 8\)"),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@cross(BAD_MASKS, metrics)
def test_masks_that_are_none(case: str, name: str, explained: tuple[Net, Explanation]) -> None:
    make, words = BAD_MASKS[case]
    with pytest.raises(ERRORS, match=words) as caught:
        scored(name, explained[1], explained[0], make())
    assert "\n" not in str(caught.value)


@each(metrics)
def test_a_metric_scores_an_input_alone_as_in_a_batch(name: str, explained: tuple[Net, Explanation]) -> None:
    model, both = explained
    together = scored(name, both, model)
    for item in range(2):
        alone = scored(name, both[item], model, MASKS[item : item + 1])
        torch.testing.assert_close(alone, together[item : item + 1], rtol=1e-4, atol=1e-5)
