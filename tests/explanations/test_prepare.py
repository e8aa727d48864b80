"""A prepared question answers as ``explain`` does, whatever happens to the model meanwhile."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import AveragingNet, randomized, tiny_inputs
from prepared import same
from quick import ATTENDING, quick
from stand_in_graph import StandInGraph
from torch import Tensor, nn

from cnnviz import attributions, black_box, explain, prepare
from cnnviz.engine import captured, device_policy
from cnnviz.engine.device_policy import CUDA
from cnnviz.explanations import captured_question
from cnnviz.objectives import channel
from cnnviz.run.resolve_target import top

ITEMS = 2


class ReadsValues(AveragingNet):
    """One input decides what is done with itself."""

    def forward(self, x: Tensor) -> Tensor:
        scores = super().forward(x)
        return scores * 2 if float(x.detach().sum()) > 0 else scores


def test_several_methods_and_targets_are_asked_as_explain_does() -> None:
    model, inputs = AveragingNet(), tiny_inputs()
    asked = prepare(model, ["grad_cam", "gradient"], like=inputs, target=1)
    for target in (None, 0, [2, 1], torch.tensor([0, 2]), channel("second", 1)):
        found = asked(inputs, target)
        wanted = explain(model, inputs, ["grad_cam", "gradient"], target=1 if target is None else target)
        assert found.keys() == wanted.keys()
        for name, each in wanted.items():
            assert torch.equal(found[name].values, each.values)
    ranks = prepare(model, like=inputs, target=top(2))(inputs)
    for found, wanted in zip(ranks, explain(model, inputs, target=top(2)), strict=True):
        same(found, wanted)


def stepped(model: nn.Module, fused: bool = False) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.1, fused=fused)
    model(tiny_inputs()).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def hooked(model: nn.Module) -> None:
    model.second.register_forward_hook(lambda module, args, output: output * 2)


def exchanged(model: nn.Module) -> None:
    model.late = nn.ELU()


CHANGES: dict[str, Callable[[nn.Module], Any]] = {
    "load_state_dict": lambda model: model.load_state_dict(randomized(AveragingNet(), seed=9).state_dict()),
    "an optimizer's step": stepped,
    "to and back": lambda model: model.float().double(),
    "a weight set in place": lambda model: model.head.weight.data.mul_(2),
    "a folded weight set in place": lambda model: model.first.weight.data.mul_(2),
    "statistics set in place": lambda model: model.norm.running_var.data.mul_(2),
    "a fused optimizer's step": lambda model: stepped(model, fused=True),
    "a new parameter": lambda model: setattr(model.head, "weight", nn.Parameter(model.head.weight * 3)),
    "statistics": lambda model: model.norm.running_mean.add_(1),
    "a hook": hooked,
    "another module": exchanged,
    "another attribute": lambda model: setattr(model.norm, "eps", 0.5),
}


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_noticed(change: str, fold: bool) -> None:
    model, inputs = AveragingNet(), tiny_inputs()
    methods = ["grad_cam", "integrated_gradients", "occlusion"]
    settings = {"steps": 5, "window": 2, "fold": fold, "target": 1}
    asked = prepare(model, methods, like=inputs, **settings)
    before = asked(inputs)
    CHANGES[change](model)
    found, wanted = asked(inputs), explain(model, inputs, methods, **settings)
    for name, each in wanted.items():
        assert torch.equal(found[name].values, each.values)
        assert not torch.equal(before[name].values, each.values), name


def test_a_model_in_training_mode_is_refused_and_taken_again_after_it() -> None:
    model, inputs = AveragingNet(), tiny_inputs()
    asked = prepare(model, like=inputs)
    expected = asked(inputs).values
    model.train()
    with pytest.raises(ValueError, match="the model is in training mode"):
        asked(inputs)
    model.eval()
    assert torch.equal(asked(inputs).values, expected)


def test_what_does_not_depend_on_values_is_found_once() -> None:
    model, sizes = AveragingNet(), list[int]()
    model.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    asked = prepare(model, "smoothgrad", like=tiny_inputs(), target=1, samples=8)
    asked(tiny_inputs(seed=1))
    first = sizes.copy()
    sizes.clear()
    asked(tiny_inputs(seed=2))
    chunks = [size for size in sizes if size > ITEMS]
    assert sum(chunks) == 8 * ITEMS
    assert sizes == [ITEMS, *chunks], "the question and its chunks; no first input alone"
    assert len(first) > len(sizes)


def test_inputs_of_another_shape_or_dtype_are_refused_with_the_way_out() -> None:
    asked = prepare(AveragingNet(), like=tiny_inputs())
    with pytest.raises(ValueError, match=r"is \(1, 2, 5, 6\).*takes \(2, 2, 5, 6\).*prepare another question"):
        asked(tiny_inputs(items=1))
    with pytest.raises(ValueError, match="prepare another question"):
        asked(tiny_inputs()[..., :4])
    with pytest.raises(TypeError, match="convert one with"):
        asked(tiny_inputs().float())
    with pytest.raises(ValueError, match="values that are not finite"):
        asked(tiny_inputs() * torch.inf)


def test_one_thread_asks_at_a_time() -> None:
    inside, go_on, failures = threading.Event(), threading.Event(), list[str]()

    def waits(output: Tensor) -> Tensor:
        inside.set()
        assert go_on.wait(20)
        return output[:, 0]

    asked = prepare(AveragingNet(), "gradient", like=tiny_inputs(), target=waits)
    first = threading.Thread(target=lambda: asked(tiny_inputs()))
    first.start()
    assert inside.wait(20)
    with pytest.raises(RuntimeError, match=r"is being asked, by another thread.*prepare one for each"):
        asked(tiny_inputs())
    go_on.set()
    first.join()
    assert not failures
    assert asked(tiny_inputs()).values.any()


def live() -> int:
    gc.collect()
    return sum(1 for each in gc.get_objects() if isinstance(each, Tensor))


@pytest.mark.parametrize("method", ["grad_cam", "smoothgrad"])
def test_a_thousand_calls_keep_nothing(method: str) -> None:
    model, inputs = AveragingNet(), tiny_inputs(items=1)
    asked = prepare(model, method, like=inputs, target=1, **quick(method))
    for _ in range(3):
        asked(inputs)
    before, objects = live(), len(gc.get_objects())
    for _ in range(1000 if method == "grad_cam" else 100):
        asked(inputs)
    assert live() <= before
    assert len(gc.get_objects()) <= objects + 200


def test_memory_goes_back_when_it_goes() -> None:
    model = AveragingNet()
    asked = prepare(model, "grad_cam", like=tiny_inputs(), fold=True)
    asked(tiny_inputs())
    folded = weakref.ref(next(iter(asked._settled.values())).network)
    assert folded() is not None
    del asked
    gc.collect()
    assert folded() is None


# In a graph: a stand-in that calls the captured operations again, and refuses what a CUDA graph refuses.


@contextmanager
def in_graphs(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[StandInGraph]]:
    """Questions are captured as on a GPU."""
    made: list[StandInGraph] = []
    begin = captured_question.CapturedQuestion.__init__

    def begun(self: Any, graph: StandInGraph, *about: Any) -> None:
        def given() -> list[Tensor]:
            targets = [target for target in self._asked.targets if isinstance(target, Tensor)]
            uploads = [there for _, there in self._rehearsal.uploads]
            network = about[2]
            return [*network.parameters(), *network.buffers(), *self._asked.call.tensors, *targets, *uploads]

        graph.given = given
        made.append(graph)
        begin(self, graph, *about)

    with monkeypatch.context() as patched:
        patched.setattr(device_policy, "CPU", replace(CUDA, budget=2**34))
        patched.setattr(captured, "graph_on", lambda device: StandInGraph(list))
        patched.setattr(captured_question.CapturedQuestion, "__init__", begun)
        yield made


EAGER = {"projections", "feature_ablation", "kernel_shap", "lime", "shapley_sampling"}
"""Methods that read values on their way, and are computed without a graph: of channels, or of superpixels."""


@pytest.mark.parametrize("method", attributions)
def test_a_replayed_graph_answers_as_explain(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, settings = AveragingNet(attention=method in ATTENDING), quick(method)
    expected = [explain(model, tiny_inputs(seed=seed), method, **settings) for seed in (1, 2, 3)]
    with in_graphs(model, monkeypatch) as made, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asked = prepare(model, method, like=tiny_inputs(), **settings)
        found = [asked(tiny_inputs(seed=seed)) for seed in (1, 2, 3)]
    for each, wanted in zip(found, expected, strict=True):
        peak = wanted.values.abs().max()
        torch.testing.assert_close(each.values, wanted.values, rtol=0, atol=1e-12 * float(peak))
        torch.testing.assert_close(each.score, wanted.score)
    without = [str(each.message) for each in told if "without a graph" in str(each.message)]
    assert len(without) == (method in EAGER)
    assert made[0].replays == (0 if method in EAGER else 3)


def test_a_graph_reads_weights_that_were_written_and_is_captured_anew_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for change in CHANGES.values():
        model = AveragingNet()
        with in_graphs(model, monkeypatch), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asked = prepare(model, ["grad_cam", "gradient"], like=tiny_inputs(), target=1)
            asked(tiny_inputs())
            change(model)
            found = asked(tiny_inputs(seed=2))
            wanted = explain(model, tiny_inputs(seed=2), ["grad_cam", "gradient"], target=1)
        for name, each in wanted.items():
            torch.testing.assert_close(found[name].values, each.values, rtol=1e-12, atol=1e-12)


def test_what_is_not_as_when_it_was_captured_is_explained_without_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    model = AveragingNet()
    with in_graphs(model, monkeypatch) as made:
        asked = prepare(model, "grad_cam", like=tiny_inputs(), target=1)
        asked(tiny_inputs())
        with pytest.raises(ValueError, match="not finite"):
            asked(tiny_inputs() * torch.nan)
        with pytest.raises(ValueError, match="there is no class 7"):
            asked(tiny_inputs(), torch.tensor([7, 0]))
        wanted = explain(model, tiny_inputs(seed=4), "grad_cam", target=2).values
        torch.testing.assert_close(asked(tiny_inputs(seed=4), torch.tensor([2, 2])).values, wanted)
        assert made[0].replays >= 2


def drawing(model: nn.Module) -> nn.Module:
    model.late = nn.Module()
    model.late.forward = lambda x: F.dropout(x, 0.5, training=True)  # type: ignore[method-assign]
    return model.eval()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (ReadsValues, "operation not permitted when a stream is capturing"),
        (lambda: drawing(AveragingNet()), "draws random numbers in forward"),
    ],
)
def test_a_model_that_can_not_be_captured_is_explained_without_and_said_so_once(
    make: Callable[[], nn.Module], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = make(), tiny_inputs(items=1)
    with in_graphs(model, monkeypatch), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asked = prepare(model, "gradient", like=inputs, target=1)
        found = [asked(inputs) for _ in range(2)]
    said = [str(each.message) for each in told if "without a graph" in str(each.message)]
    assert len(said) == 1
    assert why in said[0]
    if make is ReadsValues:
        assert torch.equal(found[1].values, explain(model, inputs, "gradient", target=1).values)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"target": lambda output: output[:, 1]}, "the target is a function"),
        ({"arguments": {"scale": torch.tensor(2.0)}}, "called with further arguments"),
    ],
)
def test_what_a_graph_would_not_follow_is_not_captured(
    how: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scaled(AveragingNet):
        def forward(self, x: Tensor, scale: Tensor | float = 1.0) -> Tensor:
            return super().forward(x) * scale

    model = Scaled()
    with in_graphs(model, monkeypatch) as made, pytest.warns(UserWarning, match=why):
        prepare(model, "gradient", like=tiny_inputs(), **how)(tiny_inputs())
    assert not made


def test_a_graph_calls_no_hooks_of_all_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    model = AveragingNet()
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: None)
    try:
        with in_graphs(model, monkeypatch), pytest.warns(UserWarning, match="has hooks"):
            prepare(model, "gradient", like=tiny_inputs(), target=1)(tiny_inputs())
    finally:
        handle.remove()


@pytest.mark.parametrize("method", ["kernel_shap", "vargrad", "feature_ablation"])
def test_what_was_only_assumed_is_not_kept(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class TimesTheBatch(AveragingNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * len(x)

    model, settings = TimesTheBatch(), {"target": 1, **quick(method)}
    expected = explain(model, tiny_inputs(), method, **settings).values
    monkeypatch.setattr(device_policy, "CPU", replace(CUDA, budget=2**34))
    asked = prepare(model, method, like=tiny_inputs(), **settings)
    for _ in range(2):
        torch.testing.assert_close(asked(tiny_inputs()).values, expected, rtol=1e-9, atol=1e-12)


def test_what_was_tried_with_one_input_is_tried_again_with_another() -> None:
    class Unseen(AveragingNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * float(np.abs(x.detach().numpy()).mean()))

    box, zeros, inputs = black_box(Unseen()), torch.zeros(2, 2, 5, 6).double(), tiny_inputs()
    settings: dict[str, Any] = {"target": 1, "window": 2, "stride": 2}
    asked = prepare(box, "occlusion", like=zeros, **settings)
    asked(zeros)
    assert torch.equal(asked(inputs).values, explain(box, inputs, "occlusion", **settings).values)


def test_a_function_that_changes_is_asked_as_it_is() -> None:
    mixes = [False]

    def score(output: Tensor) -> Tensor:
        return output[:, 0] - output[:, 0].mean() * mixes[0]

    model, settings = AveragingNet(), {"target": score, "window": 2, "stride": 2}
    asked = prepare(model, "occlusion", like=tiny_inputs(), **settings)
    for mixes[0] in (False, True):
        wanted = explain(model, tiny_inputs(), "occlusion", **settings)
        assert torch.equal(asked(tiny_inputs()).values, wanted.values)


def test_the_module_in_a_wrapper_may_be_exchanged_and_a_scripted_one_switched() -> None:
    wrapper = nn.DataParallel(AveragingNet())
    asked = prepare(wrapper, "gradient", like=tiny_inputs(), target=1)
    asked(tiny_inputs())
    wrapper.module = randomized(AveragingNet(), seed=5)
    assert torch.equal(asked(tiny_inputs()).values, explain(wrapper, tiny_inputs(), "gradient", target=1).values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(AveragingNet(), tiny_inputs())
    asked = prepare(scripted, "occlusion", like=tiny_inputs(), target=1, window=2)
    asked(tiny_inputs())
    scripted.train()
    with pytest.raises(ValueError, match="training mode"):
        asked(tiny_inputs())


def test_kinds_of_targets_are_not_kept_for_ever() -> None:
    asked = prepare(AveragingNet(), "gradient", like=tiny_inputs())
    for number in range(30):
        asked(tiny_inputs(), lambda output, number=number: output[:, number % 3])
    assert len(asked._settled) <= 8
