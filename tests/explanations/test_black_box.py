"""Models that only answer: functions, arrays, scripted and exported programs, sessions. They are asked for scores."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nets import randomized
from quick import quick
from torch import Tensor, nn

import cnnviz
from cnnviz import attributions, black_box, evaluate, explain, load_model
from cnnviz.objectives import channel

WORKING = ("d_rise", "feature_ablation", "kernel_shap", "lime", "occlusion", "rise", "shapley_sampling")


def net(dtype: torch.dtype = torch.float64) -> nn.Module:
    parts = nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)
    return randomized(nn.Sequential(*parts)).to(dtype)


def pictures(items: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(items, 2, 6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)


def quietly(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and in use
        return make()


def as_function() -> Any:
    model = net()
    return lambda x: model(x)


def of_arrays() -> Any:
    model = net()

    def scores(x: np.ndarray) -> np.ndarray:
        assert isinstance(x, np.ndarray)
        with torch.no_grad():
            return np.asarray(model(torch.from_numpy(x)))

    return black_box(scores, numpy=True)


def to_arrays() -> Any:
    model = net()
    return lambda x: model(x).detach().numpy()


def scripted() -> Any:
    return quietly(lambda: torch.jit.script(net()))


def traced() -> Any:
    return quietly(lambda: torch.jit.trace(net(), pictures()))


def part_scripted() -> Any:
    model: Any = net()
    model[1] = quietly(lambda: torch.jit.script(nn.ReLU()))
    return model


def exported(items: int = 2) -> Any:
    return quietly(lambda: torch.export.export(net(), (pictures(items),)))


def exported_for_any_batch() -> Any:
    sizes = {"input": {0: torch.export.Dim("items")}}
    return quietly(lambda: torch.export.export(net(), (pictures(2),), dynamic_shapes=sizes)).module()


class Session:
    """What ``onnxruntime.InferenceSession`` offers, for batches of one size."""

    def __init__(self, size: int | str, dtype: str = "double") -> None:
        self.model, self.size = net(), size
        self.expected = SimpleNamespace(name="picture", shape=[size, 2, 6, 6], type=f"tensor({dtype})")
        self.batches: list[int] = []

    def get_inputs(self) -> list[Any]:
        return [self.expected]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="scores")]

    def run(self, names: Any, fed: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert names is None
        self.batches.append(len(fed["picture"]))
        assert self.size in (len(fed["picture"]), "items")
        with torch.no_grad():
            return [self.model(torch.from_numpy(fed["picture"])).numpy()]


KINDS: dict[str, Callable[[], Any]] = {
    "a function": as_function,
    "a function of arrays": of_arrays,
    "a function that returns arrays": to_arrays,
    "a bound method": lambda: net().forward,
    "TorchScript": scripted,
    "traced": traced,
    "a part scripted": part_scripted,
    "an exported program for two inputs": exported,
    "its module, for four inputs": lambda: exported(4).module(),
    "an exported module for any batch": exported_for_any_batch,
    "a session for one input": lambda: Session(1),
    "a session for two inputs": lambda: Session(2),
    "a session for any batch": lambda: Session("items"),
    "a module in a box": lambda: black_box(net()),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", WORKING)
def test_scores_alone_explain_it_as_the_module(method: str, kind: str) -> None:
    settings = quick(method) | ({"baseline": 0.2} if method != "rise" else {"score": "logit"})
    expected = explain(net(), pictures(), method, target=1, **settings)
    found = explain(KINDS[kind](), pictures(), method, target=1, **settings)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.score, expected.score)
    for name, note in expected.notes.items():
        torch.testing.assert_close(found.notes[name], note, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["deletion", "insertion", "infidelity", "average_drop", "max_sensitivity"])
def test_metrics_ask_it_as_the_module(metric: str, kind: str) -> None:
    model = KINDS[kind]()
    answer = explain(model, pictures(), "occlusion", target=1, window=3)
    settings = {"scale": "score"} if metric in ("deletion", "insertion") else {}
    expected = evaluate(explain(net(), pictures(), "occlusion", target=1, window=3), metric, model=net(), **settings)
    torch.testing.assert_close(evaluate(answer, metric, model=model, **settings), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("method", sorted(attributions))
@pytest.mark.parametrize("kind", ["a function", "TorchScript", "a part scripted", "an exported program for two inputs"])
def test_what_needs_more_is_refused_with_the_methods_that_work(method: str, kind: str) -> None:
    model, settings = KINDS[kind](), quick(method)
    if method in WORKING:
        assert explain(model, pictures(), method, target=1, **settings).values.isfinite().all()
        return
    with pytest.raises(TypeError, match=f"^{method} needs gradients or layers, and .*: {', '.join(WORKING)}$") as told:
        explain(model, pictures(), method, target=1, **settings)
    assert "\n" not in str(told.value)


def test_a_method_of_ones_own_is_in_the_list() -> None:
    @cnnviz.attribution
    def only_scores() -> Any:
        return cnnviz.procedure(lambda run: run.score.view(-1, 1, 1, 1) * run.inputs)

    attributions.register(only_scores, name="only_scores")
    try:
        with pytest.raises(TypeError, match="only_scores"):
            explain(as_function(), pictures(), "gradient", target=1)
        assert explain(as_function(), pictures(), "only_scores", target=1).values.shape == pictures().shape
    finally:
        del attributions._methods["only_scores"], attributions._origins["only_scores"]


@pytest.mark.parametrize(
    "ask", [lambda run: run.gradient(), lambda run: run.activation("0"), lambda run: run.layer_name(None)]
)
def test_a_callable_that_asks_for_more_is_told(ask: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="gradients or layers are asked for, and <lambda> is no"):
        explain(as_function(), pictures(), ask, target=1)


def test_a_target_that_reads_a_layer_is_told() -> None:
    with pytest.raises(TypeError, match="gradients or layers are asked for"):
        explain(as_function(), pictures(), "occlusion", target=channel("0", 1))


def test_targets_read_whatever_it_returns() -> None:
    model = net()

    def both(x: Tensor) -> dict[str, Any]:
        return {"scores": model(x).detach().numpy(), "sum": [model(x).sum(1)]}

    found = explain(both, pictures(), "occlusion", target=lambda out: out["scores"][:, 2] + out["sum"][0], window=3)
    expected = explain(net(), pictures(), "occlusion", target=lambda out: out[:, 2] + out.sum(1), window=3)
    torch.testing.assert_close(found.values, expected.values)


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_a_batch_is_cut_and_filled_up_to_a_fixed_size(size: int) -> None:
    seen: list[Tensor] = []

    def scores(x: Tensor, row: Tensor, *, scale: float) -> tuple[Tensor, Tensor]:
        assert len(x) == len(row) == size
        seen.append(x)
        return x.mean((2, 3)) * row * scale, torch.tensor(7.0)

    inputs, rows = pictures(5), torch.arange(5.0).double()[:, None]
    output, constant = black_box(scores, batch_size=size)(inputs, rows, scale=2.0)
    torch.testing.assert_close(output, inputs.mean((2, 3)) * rows * 2)
    assert constant == 7
    assert len(seen) == -(-5 // size)
    filled = torch.cat(seen)[5:]
    assert torch.equal(filled, inputs[-1:].expand_as(filled))


def test_what_it_returns_may_be_written_again() -> None:
    model, kept = net(), np.zeros((3, 3))

    def scores(x: Tensor) -> np.ndarray:
        result = kept if len(x) == 3 else np.zeros((len(x), 3))
        result[:] = model(x).detach().numpy()
        return result

    found = explain(scores, pictures(), "occlusion", target=1, window=3)
    torch.testing.assert_close(found.values, explain(net(), pictures(), "occlusion", target=1, window=3).values)


def test_it_is_not_called_for_one_variant_at_a_time() -> None:
    session = Session("items")
    explain(session, pictures(), "occlusion", target=1, window=2, stride=1)
    assert max(session.batches) >= 30
    assert len(session.batches) < 15


def test_a_session_for_one_input_is_asked_once_for_each_variant() -> None:
    session = Session(1)
    explain(session, pictures(1), "occlusion", target=1, window=2, stride=1)
    assert session.batches == [1] * 26  # 25 windows, and the picture as it is


def test_a_box_whose_inputs_mix_is_asked_as_the_batch_is() -> None:
    model = net()

    def mixes(x: Tensor) -> Tensor:
        return model(x - x.mean(0, keepdim=True))

    class Mixes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x - x.mean(0, keepdim=True))

    for method in ("occlusion", "feature_ablation"):
        expected = explain(Mixes().eval(), pictures(), method, target=1, **quick(method))
        found = explain(mixes, pictures(), method, target=1, **quick(method))
        torch.testing.assert_close(found.values, expected.values)


def test_probabilities_that_nobody_can_see_are_asked_for() -> None:
    model = net()
    for function in (
        lambda x: model(x).sigmoid(),
        quietly(lambda: torch.jit.trace(nn.Sequential(net(), nn.Sigmoid()).eval(), pictures())),
    ):
        with pytest.raises(ValueError, match="a black box does not show whether a sigmoid gave them"):
            explain(function, pictures(), "rise", target=1, masks=4)
        by_scores = explain(function, pictures(), "occlusion", target=1, window=4)
        assert by_scores.values.any()
        assert by_scores.probability is None, "its scores may be probabilities, or logits that are small"
    softmax = explain(lambda x: model(x).softmax(1), pictures(), "rise", target=1, **quick("rise"))
    expected = explain(nn.Sequential(net(), nn.Softmax(1)).eval(), pictures(), "rise", target=1, **quick("rise"))
    torch.testing.assert_close(softmax.values, expected.values)
    logits = explain(as_function(), pictures(), "rise", target=1, **quick("rise"))
    torch.testing.assert_close(logits.values, explain(net(), pictures(), "rise", target=1, **quick("rise")).values)


@pytest.mark.parametrize("settings", [{"fold": True}, {"precision": "bfloat16"}, {"compile": True}])
def test_it_is_called_as_it_is(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a black box is called as it is; leave precision, fold and compile out"):
        explain(as_function(), pictures(), "occlusion", target=1, **settings)


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        ({}, TypeError, "the model is a dict; cnnviz explains a torch.nn.Module, or any callable"),
        (nn.Linear, TypeError, "the model is a type; cnnviz explains"),
        (lambda x: 3.0, TypeError, "the model gives a float, not scores"),
        (Session("items", "float"), TypeError, "input 'picture' is torch.float64, the session takes torch.float32"),
    ],
)
def test_what_can_not_be_asked_is_one_clear_line(model: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as told:
        explain(model, pictures(), "occlusion", target=1)
    assert "\n" not in str(told.value)


def test_a_scripted_module_is_checked_as_a_module_is() -> None:
    training = quietly(lambda: torch.jit.script(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()).train()))
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        explain(training, pictures(), "occlusion", target=1)
    with pytest.raises(TypeError, match=r"the input is torch.float32, the model torch.float64"):
        explain(scripted(), pictures().float(), "occlusion", target=1)


def test_a_size_that_holds_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 0 holds no input"):
        black_box(as_function(), batch_size=0)


def test_randomization_has_no_weights_to_change() -> None:
    model = as_function()
    answer = explain(model, pictures(), "occlusion", target=1)
    with pytest.raises(ValueError, match="has no weights to make random"):
        evaluate(answer, "randomization", model=model)


def onnx_program(model: nn.Module, size: int | str) -> Any:
    """The small network as an ONNX model for batches of this size."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    weights = {name: onnx.numpy_helper.from_array(value.numpy(), name) for name, value in model.state_dict().items()}
    nodes = [
        helper.make_node("Conv", ["picture", "0.weight", "0.bias"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Gemm", ["flat", "4.weight", "4.bias"], ["scores"], transB=1),
    ]
    given = [helper.make_tensor_value_info("picture", onnx.TensorProto.FLOAT, [size, 2, 6, 6])]
    gives = [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [size, 3])]
    graph = helper.make_graph(nodes, "net", given, gives, list(weights.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("size", [1, 2, "items"])
def test_an_onnx_session_answers_as_the_network(size: int | str) -> None:
    model, runtime = net(torch.float32), pytest.importorskip("onnxruntime")
    program = onnx_program(model, size)
    session = runtime.InferenceSession(program.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = pictures(3, torch.float32)
    for method in WORKING:
        settings = quick(method) | ({"score": "logit"} if method == "rise" else {})
        expected = explain(model, inputs, method, target=1, **settings)
        found = explain(session, inputs, method, target=1, **settings)
        torch.testing.assert_close(found.values, expected.values, rtol=1e-3, atol=1e-5)
    with pytest.raises(TypeError, match="grad_cam needs gradients or layers, and an ONNX session"):
        explain(session, inputs, target=1)


def test_an_onnx_file_is_a_model(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model, path = net(torch.float32), tmp_path / "net.onnx"
    path.write_bytes(onnx_program(model, 1).SerializeToString())
    loaded = load_model(str(path))
    assert (len(loaded.preprocessing.mean), loaded.preprocessing.crop) == (2, (6, 6))
    inputs = pictures(2, torch.float32)
    found = explain(loaded, inputs, "occlusion", target=1, window=3)
    torch.testing.assert_close(found.values, explain(model, inputs, "occlusion", target=1, window=3).values)
    with pytest.raises(TypeError, match="grad_cam needs gradients or layers, and an ONNX session"):
        explain(loaded, inputs, target=1)


def test_an_onnx_file_that_is_none_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    broken = tmp_path / "net.onnx"
    broken.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"model '.*net\.onnx' can't be read as an ONNX file \("):
        load_model(str(broken))
    with pytest.raises(ValueError, match="an ONNX file, which holds its weights; leave the weights out"):
        load_model(str(broken), weights=tmp_path / "weights.pth")
    with pytest.raises(FileNotFoundError, match=r"no model file '.*other\.onnx'"):
        load_model(str(tmp_path / "other.onnx"))
