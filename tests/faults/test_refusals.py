"""Inputs, models, outputs and targets that can't be explained: one line that names the thing and the way out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from faults.references import Net, net, pictures
from faults.situations import ERRORS, LAYERED, NAMES, cross, each, settings
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cnnviz import explain, synthesize
from cnnviz.cli.targets import read_target
from cnnviz.cli.value_parsing import byte_count, lengths
from cnnviz.run.targets import class_index
from cnnviz.testing.state_snapshot import state, unchanged

Make = Callable[[], Any]


def x() -> Tensor:
    return pictures(size=(8, 8)).float()


def refusal(ask: Callable[[], Any]) -> str:
    """The text of cnnviz's refusal, which is one line."""
    with pytest.raises(ERRORS) as caught:
        ask()
    text = str(caught.value)
    assert "\n" not in text
    for words in ("Internal error", "aten::", "not implemented", "invalid literal", "unpacking", "backend"):
        assert words not in text
    return text


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.LazyConv2d(8, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(x).mean((2, 3))


def broken(value: float = float("nan")) -> Net:
    model = Net()
    with torch.no_grad():
        model.conv1.weight[3] = value
    return model


def with_nan_statistics() -> nn.Module:
    model = net(lambda self, x: self.finish(self.norm(self.early(x))), norm=lambda: nn.BatchNorm2d(8)).float()
    model.norm.running_mean.fill_(float("nan"))
    return model


INPUTS: dict[str, tuple[Make, str]] = {
    "sparse": (lambda: x().to_sparse(), r"layout torch.sparse_coo; make it dense with .to_dense\(\)"),
    "sparse by rows": (lambda: x().to_sparse_csr(), r"layout torch.sparse_csr; make it dense"),
    "mkldnn": (lambda: x().to_mkldnn(), r"layout torch._mkldnn; make it dense"),
    "nested": (lambda: torch.nested.nested_tensor([x()[0], x()[0]]), "is a nested tensor.*torch.stack"),
    "nested, jagged": (
        lambda: torch.nested.nested_tensor([x()[0], x()[0]], layout=torch.jagged),
        "is a nested tensor.*torch.stack",
    ),
    "masked": (lambda: torch.masked.masked_tensor(x(), x() > 0), r"is a masked tensor; fill.*to_tensor\(0.0\)"),
    "meta": (lambda: x().to("meta"), "is on the meta device, where tensors have no values"),
    "fake": (lambda: FakeTensorMode().from_tensor(x()), "FakeTensor whose values can't be read"),
    "float8": (lambda: x().to(torch.float8_e4m3fn), r"float8_e4m3fn.*convert it with .float\(\)"),
    "float8 with a longer exponent": (lambda: x().to(torch.float8_e5m2), r"float8_e5m2.*convert it"),
    "exponents alone": (lambda: x().to(torch.float8_e8m0fnu), r"float8_e8m0fnu.*convert it"),
    "packed 4 bits": (lambda: torch.zeros(1, 3, 8, 8).byte().view(torch.float4_e2m1fn_x2), r"float4_e2m1fn_x2"),
    "complex": (lambda: x().to(torch.complex64), "the input is torch.complex64"),
    "quantized": (lambda: torch.quantize_per_tensor(x(), 0.1, 0, torch.quint8), "the input is torch.quint8"),
    "whole numbers": (lambda: (x() * 9).int(), "the input is torch.int32"),
    "truth values": (lambda: x() > 0, "the input is torch.bool"),
    "of no height": (lambda: torch.zeros(1, 3, 0, 16), "there is nothing in it to explain"),
    "an empty batch": (lambda: x()[:0], "there is nothing in it to explain"),
    "one number": (lambda: torch.tensor(1.0), "they need one batch size|needs a batch dimension"),
    "nothing": (lambda: None, "NoneType"),
}


@pytest.mark.filterwarnings("ignore")  # of torch, about what its odd tensors are
@cross(INPUTS)
def test_an_input_without_plain_values(case: str, name: str) -> None:
    make, words = INPUTS[case]
    model, nothing = Net(), torch.zeros(0)
    with unchanged("the call", lambda: state(model, nothing)):
        text = refusal(lambda: explain(model, make(), name, target=1, **settings(name, "conv2")))
    assert re.search(words, text), text


def test_an_input_inside_of_a_transform() -> None:
    model = Net()

    def asked(each: Tensor) -> Tensor:
        return explain(model, each, "gradient", target=1).values.sum()

    with pytest.raises(TypeError, match=r"inside a transform of torch\.func, .* call cnnviz outside of it"):
        torch.func.grad(asked)(x())
    with pytest.raises(TypeError, match="inside a transform"):
        torch.vmap(asked)(x()[None])


MODELS: dict[str, tuple[Make, str]] = {
    "lazy": (Lazy, "conv1.weight' of a lazy module has no shape yet; run the model once"),
    "on the meta device": (
        lambda: Net().to("meta"),
        "conv1.weight' is on the meta device, where tensors have no values",
    ),
    "one weight on the meta device": (
        lambda: nn.Sequential(Net(), nn.Linear(5, 5, device="meta")).eval(),
        "'1.weight' is on the meta device",
    ),
    "NaN weights": (broken, "'conv1.weight' of the network has 27 values that are NaN or infinite"),
    "infinite weights": (lambda: broken(float("inf")), "'conv1.weight' of the network has 27 values"),
    "NaN statistics": (with_nan_statistics, "'norm.running_mean' of the network has 8 values"),
}


@cross(MODELS)
def test_a_model_without_values(case: str, name: str) -> None:
    make, words = MODELS[case]
    text = refusal(lambda: explain(make(), x(), name, target=1, **settings(name, "conv2")))
    assert re.search(words, text), text


SYNTHESES: dict[str, dict[str, Any]] = {
    "class_image": {"target": 1, "steps": 1},
    "deep_dream": {"layer": "conv2", "channel": 1, "steps": 1, "octaves": 1},
    "feature_image": {"layer": "conv2", "channel": 1, "steps": 1},
    "inversion": {"of": x(), "layer": "conv2", "steps": 1},
    "multiscale_ascent": {"layer": "conv2", "channel": 1, "steps": 1},
}


@cross(MODELS, SYNTHESES)
def test_a_synthesis_of_a_model_without_values(case: str, name: str) -> None:
    make, words = MODELS[case]
    text = refusal(lambda: synthesize(make(), name, size=8, **SYNTHESES[name]))
    assert re.search(words, text), text


GIVEN = [case for case in INPUTS if case not in {"fake", "nothing", "of no height", "one number"}]


@pytest.mark.filterwarnings("ignore")
@cross(GIVEN, ["inversion", "deep_dream"])
def test_a_synthesis_that_begins_with_such_a_picture(case: str, name: str) -> None:
    given = {"of" if name == "inversion" else "start": INPUTS[case][0]()}
    text = refusal(lambda: synthesize(Net(), name, **SYNTHESES[name] | given))
    assert text.startswith("what is given is")


OUTPUTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "one number": (lambda scores: scores.sum(), r"not scores \(N, K\)"),
    "no classes": (lambda scores: scores[:, :0], "scores of no class"),
    "no classes, with space": (lambda scores: scores[:, :0, None, None], "scores of no class"),
    "no places": (lambda scores: scores[:, :, None, None][..., :0], r"not scores \(N, K\)"),
    "no rows": (lambda scores: scores[:0], "gives 0 rows of scores for 1 inputs"),
    "sparse": (lambda scores: scores.to_sparse(), r"the model's output is a tensor of the layout torch.sparse_coo"),
    "nested": (lambda scores: torch.nested.as_nested_tensor([scores[0]]), "the model's output is a nested tensor"),
    "meta": (lambda scores: scores.to("meta"), "the model's output is on the meta device"),
    "complex": (lambda scores: scores.to(torch.complex64), "the model gives torch.complex64; scores are floating"),
    "whole numbers": (lambda scores: scores.long(), "the model gives torch.int64; scores are floating"),
    "truth values": (lambda scores: scores > 0, "the model gives torch.bool; scores are floating"),
    "float8": (lambda scores: scores.to(torch.float8_e4m3fn), "the model gives torch.float8_e4m3fn"),
    "nothing": (lambda scores: None, "the model gives a NoneType"),
    "text": (lambda scores: "snake", "the model gives a str"),
}


@pytest.mark.filterwarnings("ignore")
@cross(OUTPUTS)
def test_an_output_that_is_no_scores(case: str, name: str) -> None:
    change, words = OUTPUTS[case]
    model = type("Changed", (Net,), {"forward": lambda self, x: change(Net.forward(self, x))})()
    text = refusal(lambda: explain(model, x(), name, target=1, **settings(name, "conv2")))
    # FullGrad asks for the bias of each operation, and meets the one that makes such an output first
    assert re.search(words, text) or (name == "fullgrad" and "implicit bias of" in text), text


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "sparse": (lambda output: output[:, 1].to_sparse(), "what the target function gave is a tensor of the layout"),
    "nested": (
        lambda output: torch.nested.as_nested_tensor([output[0, 1]]),
        "gave is a nested tensor|no forward derivative",
    ),
    "meta": (lambda output: output[:, 1].to("meta"), "gave is on the meta device"),
    "complex": (lambda output: output[:, 1].to(torch.complex64), "gave torch.complex64; a score is a real number"),
    "truth values": (lambda output: output[:, 1] > 0, "gave torch.bool; a score is a real number"),
    "float8": (lambda output: output[:, 1].to(torch.float8_e5m2), "gave torch.float8_e5m2; a score is a real number"),
    "a float": (lambda output: float(output.detach()[0, 1]), "gave float; it returns one score for each input"),
    "an array": (lambda output: output[:, 1].detach().numpy(), "gave ndarray; it returns one score for each input"),
    "all classes": (lambda output: output, r"gave \(1, 5\); it returns one score for each input"),
    "NaN": (lambda output: output[:, 1] * float("nan"), "score has 1 values that are not finite"),
}


@pytest.mark.filterwarnings("ignore")
@cross(FUNCTIONS)
def test_a_target_function_without_a_score(case: str, name: str) -> None:
    function, words = FUNCTIONS[case]
    text = refusal(lambda: explain(Net(), x(), name, target=function, **settings(name, "conv2")))
    assert re.search(words, text) or (name == "fullgrad" and "implicit bias of" in text), text


@each()
@pytest.mark.parametrize(
    "target",
    [1, [1], torch.tensor([1]), [0, 1, 2], "1", lambda output: output[:, 1]],
    ids=["class", "list", "tensor", "three", "text", "function"],
)
def test_a_picture_without_a_batch_dimension(name: str, target: Any) -> None:
    text = refusal(lambda: explain(Net(), x()[0], name, target=target, **settings(name, "conv2")))
    assert re.search(r"without a batch dimension.*inputs\[None\]", text), text


BEYOND = (10**30, -(10**30), 2**63, "9" * 30, [10**30], torch.tensor([2**63], dtype=torch.uint64), np.uint64(2**63))


@pytest.mark.parametrize("target", BEYOND, ids=str)
def test_a_class_beyond_64_bits(target: Any) -> None:
    assert re.search(r"^there is no class -?\d{19,}; ", refusal(lambda: explain(Net(), x(), "gradient", target=target)))


# Superscripts, fractions, Roman, Arabic, Devanagari, Thai, fullwidth, circled, mathematical, and Python's own forms
FOREIGN = ("²", "½", "Ⅷ", "٣", "३", "๓", "\N{FULLWIDTH DIGIT THREE}", "③", "\N{MATHEMATICAL BOLD DIGIT THREE}", "1²")
OTHER_NUMBERS = (*FOREIGN, "1_0", " 1", "1.0", "1e0", "0x1", "--1", "-", "")


@pytest.mark.parametrize("text", OTHER_NUMBERS, ids=ascii)
def test_digits_of_other_alphabets_are_no_numbers(text: str) -> None:
    assert repr(text) in refusal(lambda: explain(Net(), x(), "gradient", target=text))
    assert repr(text) in refusal(lambda: class_index(text, ("cat", "dog")))
    assert repr(text) in refusal(lambda: explain(Net(), x(), "grad_cam", target=1, layer=text))
    assert repr(text) in refusal(lambda: synthesize(Net(), "class_image", size=8, steps=1, target=text))
    for form in ("channel:conv1:", "strongest:conv1:", "neuron:conv1:", "feature_map:conv1:"):
        assert repr(text) in refusal(lambda form=form: read_target(form + text))
    assert "--target" in refusal(lambda: read_target(f"higher:{text}"))
    if text not in (" 1", "0x1"):  # a size may be 0x1, and stand behind a space
        assert "--size" in refusal(lambda: lengths(text))
    if text not in (" 1", "1.0"):
        assert "--memory" in refusal(lambda: byte_count(text + "MB"))


@pytest.mark.parametrize("name", LAYERED)
@pytest.mark.parametrize("layer", [b"conv1", b"", 1.5, True, "", (), 10**30, "9" * 30], ids=str)
def test_what_is_no_layer(name: str, layer: Any) -> None:
    assert (
        "layer" in (text := refusal(lambda: explain(Net(), x(), name, target=1, layer=layer))) or "convolution" in text
    )


@pytest.mark.parametrize(
    "target",
    [b"1", bytearray(b"1"), 1.5, True, np.float32(1), [None], object()],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_class(target: Any) -> None:
    assert "is no class; give a number" in refusal(lambda: explain(Net(), x(), "gradient", target=target))


@pytest.mark.parametrize("seed", [10**30, -(10**30), 1.5, "1", None], ids=repr)
def test_what_is_no_seed(seed: Any) -> None:
    assert "the seed" in refusal(lambda: explain(Net(), x(), "smoothgrad", target=1, seed=seed))
    assert "the seed" in refusal(lambda: synthesize(Net(), "class_image", target=1, steps=1, size=8, seed=seed))


def test_numbers_of_numpy_are_seeds_and_classes() -> None:
    found = explain(Net(), x(), "smoothgrad", target=np.int64(1), samples=2, seed=np.int64(3))
    assert torch.equal(found.values, explain(Net(), x(), "smoothgrad", target=1, samples=2, seed=3).values)


def test_every_attribution_is_asked() -> None:
    assert len(NAMES) >= 35
