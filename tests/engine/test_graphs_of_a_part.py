"""A graph that begins at a layer gives the gradients of a whole pass, whatever the model does with modes and memory.

The reference is plain autograd: a hook keeps what the layer returns in a pass with gradients.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import randomized, tiny_inputs
from torch import Tensor, nn

from cnnviz import attributions, explain
from cnnviz.run.run import Run
from cnnviz.testing import SmallNet


class Net(nn.Module):
    """Two ways behind ``layer``; ``way`` is how a model runs the second."""

    def __init__(self, way: Callable[[Net, Tensor, bool], Tensor]) -> None:
        super().__init__()
        self.first, self.layer = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.one, self.two, self.head = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        self.way = way
        randomized(self, seed=5)

    def forward(self, x: Tensor) -> Tensor:
        on = torch.is_grad_enabled()
        maps = self.layer(self.first(x).relu())
        other = self.way(self, maps, on)
        return self.head(self.one(maps).sigmoid().mean((2, 3)) + other.mean((2, 3)))


def plain(net: Net, maps: Tensor, on: bool) -> Tensor:
    return net.two(maps).sigmoid()


def under_the_mode_it_began_with(net: Net, maps: Tensor, on: bool) -> Tensor:
    with torch.set_grad_enabled(on):
        return net.two(maps).sigmoid()


def by_a_function(net: Net, maps: Tensor, on: bool) -> Tensor:
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(on)
    other: Tensor = net.two(maps).sigmoid()
    torch.set_grad_enabled(before)
    return other


WAYS = (plain, under_the_mode_it_began_with, by_a_function)


def grad_cam_by_autograd(net: nn.Module, inputs: Tensor, layer: str, target: int) -> Tensor:
    kept: list[Tensor] = []
    handle = net.get_submodule(layer).register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.enable_grad():
        scores = net(inputs.clone().requires_grad_())[:, target]
        (gradient,) = torch.autograd.grad(scores.sum(), kept[-1])
    handle.remove()
    return (gradient.mean((2, 3), keepdim=True) * kept[-1].detach()).sum(1, keepdim=True)


def check_grad_cam(net: nn.Module, inputs: Tensor, layer: str = "layer") -> None:
    found = explain(net, inputs, "grad_cam", layer=layer, target=1, relu=False).values
    torch.testing.assert_close(found, grad_cam_by_autograd(net, inputs, layer, 1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_grad_modes_restored_behind_the_layer_lose_nothing(way: Callable[[Net, Tensor, bool], Tensor]) -> None:
    check_grad_cam(Net(way), tiny_inputs())


class HandsOn(nn.Conv2d):
    """Gives what it returns to others, too."""

    kept: list[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        maps = super().forward(x)
        if self.kept is not None:
            self.kept.append(maps)
        return maps


class ByAList(Net):
    """The second way reads what the layer put into a list that the model forgets in the end."""

    def __init__(self) -> None:
        super().__init__(plain)
        layer = HandsOn(3, 4, 3, padding=1)
        layer.load_state_dict(self.layer.state_dict())
        self.layer = layer.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        self.layer.kept = []
        maps = self.layer(self.first(x).relu())
        other = self.two(self.layer.kept.pop()).sigmoid()
        self.layer.kept = None
        return self.head(self.one(maps).sigmoid().mean((2, 3)) + other.mean((2, 3)))


class InPlace(Net):
    """The layer works in place, and the second way goes on with what the layer was given."""

    def __init__(self) -> None:
        super().__init__(plain)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layer(self.first(x).relu())
        half = maps[:, :2]
        rectified = self.act(maps)
        other = self.two(torch.cat([half, maps[:, 2:]], 1)).sigmoid()
        return self.head(self.one(rectified).sigmoid().mean((2, 3)) + other.mean((2, 3)))


def test_what_a_layer_hands_to_others_is_part_of_the_graph() -> None:
    check_grad_cam(ByAList(), tiny_inputs())


def test_what_an_in_place_layer_was_given_is_part_of_the_graph() -> None:
    net, inputs = InPlace(), tiny_inputs()
    twin = copy.deepcopy(net)

    def out_of_place(x: Tensor) -> Tensor:
        rectified = twin.act(twin.layer(twin.first(x).relu()))
        return twin.head(twin.one(rectified).sigmoid().mean((2, 3)) + twin.two(rectified * 1).sigmoid().mean((2, 3)))

    twin.forward = out_of_place  # type: ignore[method-assign]
    found = explain(net, inputs, "grad_cam", layer="act", target=1, relu=False).values
    torch.testing.assert_close(found, grad_cam_by_autograd(twin, inputs, "act", 1), rtol=1e-9, atol=1e-12)


class Grid(nn.Module):
    """Returns a buffer, a parameter, or what it made for another input before."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        values = torch.linspace(0, 1, 4 * 5 * 6, dtype=torch.float64).view(1, 4, 5, 6)
        self.register_buffer("grid", values)
        self.weight = nn.Parameter(values.clone(), requires_grad=False)
        self.memo = values.clone()

    def forward(self) -> Tensor:
        tensors: dict[str, Tensor] = {"buffer": self.grid, "parameter": self.weight, "memo": self.memo}
        return tensors[self.kind]


class Positioned(Net):
    def __init__(self, kind: str) -> None:
        super().__init__(plain)
        self.place = Grid(kind)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.layer(self.first(x).relu()) * self.place()).sigmoid().mean((2, 3)))


@pytest.mark.parametrize("kind", ["buffer", "parameter", "memo"])
def test_tensors_of_the_model_become_no_part_of_a_graph(kind: str) -> None:
    net = Positioned(kind)
    versions = [each._version for each in (net.place.grid, net.place.weight, net.place.memo)]
    for inputs in (tiny_inputs(), tiny_inputs(items=1)):
        with contextlib.suppress(ValueError, LookupError):
            explain(net, inputs, "grad_cam", layer="place", target=1)
        held = (net.place.grid, net.place.weight, net.place.memo)
        assert not any(each.requires_grad or each.grad_fn for each in held)
        assert versions == [each._version for each in held]
        copy.deepcopy(net)


# Questions inside of questions


ASKED: dict[str, dict[str, Any]] = {
    "grad_cam": {"layer": "second"},
    "guided_backprop": {},
    "occlusion": {"window": 4},
    "ablation_cam": {"layer": "second"},
    "score_cam": {"layer": "second"},
    "activation": {"layer": "second"},
    "integrated_gradients": {"steps": 3},
}


@pytest.mark.parametrize("inner", ["grad_cam", "ablation_cam", "guided_backprop"])
@pytest.mark.parametrize("method", ASKED)
def test_a_hook_of_the_users_may_ask_another_question(method: str, inner: str) -> None:
    net, inputs, other = SmallNet().double(), torch.rand(1, 3, 12, 10).double(), torch.rand(1, 3, 12, 10).double()
    expected = explain(net, inputs, method, target=1, **ASKED[method]).values
    told = explain(net, other, inner, target=2, **ASKED[inner]).values
    busy, answers = [], []

    def ask(*args: Any) -> None:
        if not busy:
            busy.append(True)
            answers.append(explain(net, other, inner, target=2, **ASKED[inner]).values)
            busy.clear()

    net.get_submodule("third").register_forward_hook(ask)
    found = explain(net, inputs, method, target=1, **ASKED[method]).values
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert answers
    for answer in answers:
        torch.testing.assert_close(answer, told, rtol=1e-9, atol=1e-12)


# Threads of the model's own


class Threaded(Net):
    def __init__(self) -> None:
        super().__init__(plain)

    def forward(self, x: Tensor) -> Tensor:
        on = torch.is_grad_enabled()
        maps = self.first(x).relu()

        def work() -> Tensor:
            with torch.set_grad_enabled(on):
                return self.layer(maps)

        with ThreadPoolExecutor(1) as pool:
            return self.head(pool.submit(work).result().mean((2, 3)))


@pytest.mark.parametrize("method", ["grad_cam", "ablation_cam", "activation"])
def test_a_layer_in_a_thread_of_the_models_own_is_refused(method: str) -> None:
    with pytest.raises(LookupError, match="layer 'layer' ran in a thread of Threaded's own, where it can't be"):
        explain(Threaded(), tiny_inputs(), method, layer="layer", target=1)


def test_a_layer_beside_that_thread_is_explained() -> None:
    check_grad_cam(Threaded(), tiny_inputs(), "first")


# Scores that the model writes over


class Preallocated(Net):
    """Returns a part of a buffer of its own."""

    def __init__(self) -> None:
        super().__init__(plain)
        self.register_buffer("out", torch.zeros(64, 3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        scores = super().forward(x)
        if torch.is_grad_enabled():
            return scores
        self.out[: len(scores)] = scores
        return self.out[: len(scores)]


@pytest.mark.parametrize("target", [lambda output: output[:, 1], 1, None], ids=["function", "class", "predicted"])
@pytest.mark.parametrize("memory", [None, 1])
@pytest.mark.parametrize("method", ["occlusion", "rise", "ablation_cam", "score_cam"])
def test_scores_in_a_buffer_of_the_models_are_kept(method: str, memory: int | None, target: Any) -> None:
    settings: dict[str, Any] = {"occlusion": {"window": 2}, "rise": {"masks": 12, "cells": 2}}
    settings = settings.get(method, {"layer": "layer"})
    asked = {"attribution": method, "target": target, "memory": memory, **settings}
    found, expected = (explain(net, tiny_inputs(), **asked) for net in (Preallocated(), Net(plain)))
    torch.testing.assert_close(found.score, expected.score, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-9, atol=1e-12)


# Half of the precision, by an autocast of the model's own


class Half(SmallNet):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x)


@pytest.mark.parametrize("method", ["grad_cam", "layer_cam", "activation", "gradient", "ablation_cam"])
def test_what_is_returned_has_the_dtype_of_the_input(method: str) -> None:
    settings = {} if method == "gradient" else {"layer": "second"}
    inputs = torch.randn(1, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    found, expected = (explain(net, inputs, method, target=2, **settings) for net in (Half(), SmallNet()))
    assert found.values.dtype is found.score.dtype is torch.float32
    assert float(torch.cosine_similarity(found.values.flatten(), expected.values.flatten(), 0)) > 0.99
    run = Run(Half(), inputs, torch.tensor([2]))
    assert run.activation("second").dtype is run.gradient("second").dtype is torch.float32


# Randomness


class Random(SmallNet):
    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.draw(x))


class OwnGenerator(SmallNet):
    def __init__(self) -> None:
        super().__init__()
        self.source = torch.Generator().manual_seed(1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.rand(x.shape, generator=self.source))


@pytest.mark.parametrize("net", [Random(lambda x: F.dropout(x, 0.5, True)), OwnGenerator()], ids=["global", "own"])
def test_randomness_in_forward_is_said_once(net: nn.Module) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        explain(net, torch.rand(1, 3, 12, 10), "occlusion", window=6, target=1)
    assert ["draws random numbers in forward: two passes of one input" in str(each.message) for each in said] == [True]


@pytest.mark.parametrize("net", [Random(lambda x: F.dropout(x, 0.0, True)), SmallNet()], ids=["without effect", "none"])
def test_nothing_is_said_where_passes_are_alike(net: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in ("occlusion", "rise", "grad_cam"):
            settings = {"occlusion": {"window": 6}, "rise": {"masks": 4, "cells": 2}}.get(method, {})
            explain(net, torch.rand(1, 3, 12, 10), attributions[method](**settings), target=1)
