"""Nothing is computed twice, memory does not grow with the number of inputs, and running out of it is survived."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from nets import AveragingNet, Cramped, FlatteningNet, tiny_inputs
from torch import Tensor, nn

import cnnviz
from cnnviz import explain
from cnnviz.engine import device_policy
from cnnviz.engine.batching import even
from cnnviz.engine.device_policy import CPU

TARGET = [2, 0]
CAMS = ("grad_cam", "grad_cam_plus_plus", "xgrad_cam", "hires_cam", "layer_cam", "eigen_cam", "eigen_grad_cam")
NOISY = ("smoothgrad", "smoothgrad_squared", "vargrad")


@dataclass
class Passes:
    forward: list[int] = field(default_factory=list)
    """How many items each forward pass had."""
    backward: int = 0
    graph: dict[str, bool] = field(default_factory=dict)
    """Whether a module's output, in the last pass, carried gradients."""
    reached: set[str] | None = None
    """Modules whose output a gradient came to, where a test asks for that by a set."""
    alive: list[int] = field(default_factory=list)
    """How many outputs of earlier passes were still in memory at each forward pass."""


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    """Counts for the network handed to ``watch``, and backward passes of anyone."""
    counted, depth, grad = Passes(), 0, torch.autograd.grad

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal depth
        counted.backward += depth == 0  # a rule calls it from inside of a pass, for one operation
        depth += 1
        try:
            return grad(*args, **kwargs)
        finally:
            depth -= 1

    def backward(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("Tensor.backward would write into the user's parameters")

    # which is asked once for each model, and not for each question
    monkeypatch.setattr("cnnviz.run.perturbation.is_independent", lambda passes: True)
    monkeypatch.setattr(torch.autograd, "grad", counting)
    monkeypatch.setattr(torch.autograd, "backward", backward)
    return counted


@contextmanager
def watched(net: nn.Module, counted: Passes) -> Iterator[nn.Module]:
    outputs: list[weakref.ref[Tensor]] = []

    def observer(name: str) -> Any:
        def observe(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if name:
                counted.graph[name] = output.requires_grad
                reached = counted.reached
                if reached is not None and output.requires_grad:
                    output.register_hook(lambda grad: reached.add(name))
                return
            counted.forward.append(len(output))
            counted.alive.append(sum(each() is not None for each in outputs))
            outputs.append(weakref.ref(output))

        return observe

    handles = [module.register_forward_hook(observer(name)) for name, module in net.named_modules()]
    gc.disable()  # what is freed is to be freed at once
    try:
        yield net
    finally:
        gc.enable()
        for handle in handles:
            handle.remove()


def asked(passes: Passes, *methods: Any, net: nn.Module | None = None, **settings: Any) -> Any:
    """Ask a network whose layers are known, as they are from its second question on."""
    net = net or AveragingNet()
    explain(net, tiny_inputs(), "grad_cam", target=TARGET)
    passes.backward = 0
    with watched(net, passes) as watching:
        return explain(watching, tiny_inputs(), methods[0] if len(methods) == 1 else methods, target=TARGET, **settings)


ONE_QUESTION = {
    "gradient": (("gradient",), 1, {}),
    "input_x_gradient": (("input_x_gradient",), 1, {}),
    "guided_backprop": (("guided_backprop",), 1, {}),
    "all-gradients": (("gradient", "input_x_gradient", "guided_backprop", "deconvnet"), 3, {}),
    "grad_cam": (("grad_cam",), 1, {"layer": "second"}),
    "all-cams": (CAMS, 1, {"layer": "second"}),
    "all-cams-and-cam": ((*CAMS, "cam"), 1, {"layer": "late"}),
    "two-layers": ((cnnviz.attributions["grad_cam"]("first"), cnnviz.attributions["grad_cam"]("second")), 1, {}),
    "guided_grad_cam": (("guided_grad_cam",), 2, {"layer": "second"}),
    "guided_grad_cam-and-parts": (("guided_grad_cam", "guided_backprop", "grad_cam"), 2, {"layer": "second"}),
    "saliency_confusion": (("saliency_confusion",), 2, {"of": cnnviz.attributions["grad_cam"]("second")}),
    "fullgrad": (("fullgrad",), 1, {}),
    "eigen_cam": (("eigen_cam",), 0, {"layer": "second"}),
}


@pytest.mark.parametrize("name", ONE_QUESTION)
def test_one_question_is_one_forward_pass(passes: Passes, name: str) -> None:
    methods, backward, settings = ONE_QUESTION[name]
    asked(passes, *methods, **settings)
    assert passes.forward == [2]
    assert passes.backward == backward


def test_the_layers_of_a_network_cost_one_pass_once(passes: Passes) -> None:
    net = AveragingNet()
    for layer, passed in (("second", [2, 2]), (None, [2]), ("late", [2])):
        passes.forward.clear()
        with watched(net, passes) as watching:
            explain(watching, tiny_inputs(), "grad_cam", target=TARGET, layer=layer)
        assert passes.forward == passed
    assert passes.backward == 4


@pytest.mark.parametrize("methods", [("grad_cam",), CAMS], ids=("grad_cam", "all"))
def test_cams_keep_no_graph_before_their_layer(passes: Passes, methods: tuple[str, ...]) -> None:
    passes.reached = set()
    asked(passes, *methods, layer="second")
    early, late = ("first", "norm", "early", "pool", "second"), ("late", "head")
    assert not any(passes.graph[name] for name in early)
    assert all(passes.graph[name] for name in late)
    assert passes.reached == set(late)


def test_cams_of_two_layers_begin_at_the_first(passes: Passes) -> None:
    asked(passes, *(cnnviz.attributions["grad_cam"](name) for name in ("norm", "late")))
    assert [name for name, grows in passes.graph.items() if not grows] == ["first", "norm"]


def test_eigen_cam_keeps_no_graph_at_all(passes: Passes) -> None:
    asked(passes, "eigen_cam", layer="second")
    assert not any(passes.graph.values())


def test_the_automatic_layer_costs_one_small_pass_once(passes: Passes) -> None:
    net = AveragingNet()
    with watched(net, passes) as watching:
        for _ in range(2):
            explain(watching, tiny_inputs(), "grad_cam", target=TARGET)
    assert passes.forward == [2, 2, 2]
    passes.forward.clear()
    with watched(net, passes) as watching:
        for target in (1, None):
            explain(watching, tiny_inputs().repeat(3, *[1] * (tiny_inputs().ndim - 1)), "grad_cam", target=target)
    assert passes.forward == [6, 6]  # two inputs were enough to know


def sizes_of_chunks(passes: Passes) -> int:
    """How many sizes of chunks there are: of each, the first variant is passed by itself too."""
    return len({size for size in passes.forward if size > 2})


def test_maps_under_noise_share_their_passes(passes: Passes) -> None:
    together = asked(passes, *NOISY, samples=9)
    assert sum(passes.forward) == 2 + 9 * 2 + 2 * sizes_of_chunks(passes)
    assert passes.backward == len(passes.forward) - 1 - sizes_of_chunks(passes)
    for method in NOISY:
        alone = explain(AveragingNet(), tiny_inputs(), method, target=TARGET, samples=9).values
        assert torch.equal(together[method].values, alone)


@pytest.mark.parametrize("at_once", [1, 4, 7, 64])
def test_integrated_gradients_asks_each_point_once(
    passes: Passes, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(device_policy, "CPU", replace(CPU, graph_items=at_once))
    asked(passes, "integrated_gradients", steps=50)
    # the inputs themselves and the baseline too
    assert sum(passes.forward) == (50 + 2 + sizes_of_chunks(passes)) * 2
    assert max(passes.forward) == 2 * even(50, at_once // 2)
    assert passes.backward == len(passes.forward) - 2 - sizes_of_chunks(passes)


def test_a_rule_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    legendre, calls = np.polynomial.legendre.leggauss, []
    monkeypatch.setattr(np.polynomial.legendre, "leggauss", lambda n: calls.append(n) or legendre(n))
    explain(AveragingNet(), tiny_inputs(), "integrated_gradients", target=TARGET, steps=43)
    assert len(calls) <= 2, "for a thousand steps it takes longer than a small network"


@pytest.mark.parametrize("method", ["integrated_gradients", "smoothgrad", "guided", "vargrad", "saliency_confusion"])
def test_memory_does_not_grow_with_the_number_of_points(passes: Passes, method: str) -> None:
    settings: dict[str, Any] = {
        "integrated_gradients": {"steps": 300},
        "guided": {"of": "guided_backprop", "samples": 300},
        "saliency_confusion": {"of": cnnviz.attributions["smoothgrad"](samples=300)},
    }.get(method, {"samples": 300})
    asked(passes, "smoothgrad" if method == "guided" else method, **settings)
    assert sum(passes.forward) >= 600
    assert max(passes.forward) <= (CPU.graph_items or 0)
    assert max(passes.alive) <= 2  # the question's own pass, and the points' last


@pytest.mark.parametrize("method", ["integrated_gradients", *NOISY])
def test_any_budget_gives_the_same_values(monkeypatch: pytest.MonkeyPatch, passes: Passes, method: str) -> None:
    monkeypatch.setattr(device_policy, "CPU", replace(CPU, graph_items=64))
    count = {"steps": 13} if method == "integrated_gradients" else {"samples": 13}
    found, widest = [], []
    for budget in (1, 20_000, 200_000, None):
        passes.forward.clear()
        found.append(asked(passes, method, memory=budget, **count).values)
        widest.append(max(passes.forward))
    assert len(set(widest)) >= 3, widest  # the budgets made a difference
    assert widest[0] == 2
    for each in found[1:]:
        torch.testing.assert_close(each, found[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("most", [2, 6, 10])
@pytest.mark.parametrize("method", ["integrated_gradients", *NOISY])
def test_out_of_memory_is_survived_by_smaller_chunks(
    passes: Passes, monkeypatch: pytest.MonkeyPatch, method: str, most: int
) -> None:
    monkeypatch.setattr(device_policy, "CPU", replace(CPU, graph_items=64))
    count = {"steps": 29} if method == "integrated_gradients" else {"samples": 29}
    roomy = explain(FlatteningNet(), tiny_inputs(), method, target=TARGET, **count).values
    net = Cramped()
    net.most = most
    found = asked(passes, method, net=net, **count).values
    torch.testing.assert_close(found, roomy, rtol=1e-10, atol=1e-12)
    assert max(passes.forward) <= most
    expected = 29 + (2 if method == "integrated_gradients" else 1)
    assert sum(passes.forward) == (expected + sizes_of_chunks(passes)) * 2


def test_out_of_memory_for_a_single_input_is_told() -> None:
    net = Cramped()
    net.most = 1
    with pytest.raises(torch.OutOfMemoryError, match="simulated"):
        explain(net, tiny_inputs(), "integrated_gradients", target=TARGET)


def test_out_of_memory_while_adding_up_counts_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_policy, "CPU", replace(CPU, graph_items=8))
    net, inputs = FlatteningNet(), tiny_inputs()
    methods = {"mean": cnnviz.attributions["smoothgrad"], "variance": cnnviz.attributions["vargrad"]}
    formulas = [method(of, samples=9) for method in methods.values() for of in ("gradient", "input_x_gradient")]
    whole = explain(net, inputs, formulas, target=TARGET)
    tensordot, calls = torch.tensordot, 0

    def failing(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:  # of the second chunk, the second sum
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        return tensordot(*args, **kwargs)

    monkeypatch.setattr(torch, "tensordot", failing)
    again = explain(net, inputs, formulas, target=TARGET)
    assert calls > 4
    for name, found in again.items():
        torch.testing.assert_close(found.values, whole[name].values, rtol=1e-10, atol=1e-12)
