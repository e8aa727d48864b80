"""Graphs with parts of their own: threads, checkpoints, hooks, grad modes, and tensors that belong to the model."""

from __future__ import annotations

import copy
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from faults.references import CLASS, Net, net, pictures
from faults.situations import (
    ERRORS,
    LAYERED,
    LEARNING,
    NAMES,
    Situation,
    answer,
    check,
    close,
    cross,
    each,
    pairs,
    settings,
    slow_answer,
)
from quick import PERTURBING
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cnnviz import explain

SCORES_ALONE = PERTURBING | {"activation", "eigen_cam"}


def in_a_thread(part: str) -> Any:
    """A forward that computes one half of the network in a thread of the model's own."""

    def forward(self: Net, x: Tensor) -> Tensor:
        on = torch.is_grad_enabled()

        def half(work: Any, value: Tensor) -> Tensor:
            with torch.set_grad_enabled(on):
                result: Tensor = work(value)
            return result

        with ThreadPoolExecutor(1) as pool:
            early = pool.submit(half, self.early, x).result() if part == "early" else self.early(x)
            late = pool.submit(half, self.behind, early).result() if part == "late" else self.behind(early)
        return self.classify(late)

    return forward


def branch_in_the_mode_of_the_beginning(self: Net, x: Tensor) -> Tensor:
    """The grad mode that forward began with is restored for one of two branches."""
    on, early = torch.is_grad_enabled(), self.early(x)
    with torch.set_grad_enabled(on):
        other = F.relu(self.other(early))
    return self.classify(self.behind(early) + other)


def mode_set_by_hand(self: Net, x: Tensor) -> Tensor:
    on, early = torch.is_grad_enabled(), self.early(x)
    torch.set_grad_enabled(on)
    return self.classify(self.behind(early) + F.relu(self.other(early)))


def other_branch() -> nn.Module:
    return nn.Conv2d(8, 16, 3, padding=1, stride=2)


def two_branches(self: Net, x: Tensor) -> Tensor:
    early = self.early(x)
    return self.classify(self.behind(early) + F.relu(self.other(early)))


def tied() -> nn.Module:
    model = net(
        lambda self, x: self.finish(F.relu(self.second(F.relu(self.first(self.early(x)))))),
        first=lambda: nn.Conv2d(8, 8, 3, padding=1),
        second=lambda: nn.Conv2d(8, 8, 3, padding=1),
    )
    model.second.weight = model.first.weight
    return model


def with_hooks() -> nn.Module:
    model = net()
    model.conv1.register_forward_hook(lambda module, args, output: output * 2)
    model.conv2.register_forward_pre_hook(lambda module, args: (args[0] + 0.1,))
    return model


def hooks_written_out(self: Net, x: Tensor) -> Tensor:
    return self.classify(self.late(self.conv2(F.relu(self.doubled(self.conv1(x))) + 0.1)))


def with_backward_hook() -> nn.Module:
    model = net()
    model.conv2.register_full_backward_hook(lambda module, inward, outward: None)
    return model


SITUATIONS = {
    "the first half in a thread": Situation(lambda: net(in_a_thread("early")), net, or_refused="thread|seen"),
    "a branch in the grad mode of the beginning": Situation(
        lambda: net(branch_in_the_mode_of_the_beginning, other=other_branch),
        lambda: net(two_branches, other=other_branch),
        layer="conv1",
    ),
    "grad mode set by hand": Situation(
        lambda: net(mode_set_by_hand, other=other_branch), lambda: net(two_branches, other=other_branch), layer="conv1"
    ),
    "checkpoint": Situation(
        lambda: net(lambda self, x: self.classify(checkpoint(self.behind, self.early(x), use_reentrant=False))), net
    ),
    "the user's hooks change a layer's output and input": Situation(with_hooks, layer="conv2"),
    "the user's backward hook": Situation(with_backward_hook, net, or_refused="Function"),
    "tied weights": Situation(tied, layer="first"),
}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # the graph begins at the layer asked for
@pairs(SITUATIONS)
def test_the_graph_is_followed(situation: Situation, name: str) -> None:
    check(situation, name)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@each(name for name in NAMES if name != "cam")
def test_the_users_backward_hook_stays(name: str) -> None:
    model = with_backward_hook()
    hooks = dict(model.conv2._backward_hooks)
    answer(name, model, pictures(), "conv2")
    assert model.conv2._backward_hooks == hooks


@each(name for name in LAYERED if name != "cam")
def test_a_layer_that_runs_in_a_thread_is_right_or_says_so(name: str) -> None:
    found = answer(name, net(in_a_thread("late")), pictures(), "conv2")
    if isinstance(found, str):
        assert "thread" in found
    else:
        expected = slow_answer(name, net(), pictures(), "conv2")
        assert not isinstance(expected, str)
        close(found[0], expected[0])


@each()
def test_a_reentrant_checkpoint_is_right_or_says_so(name: str) -> None:
    def forward(self: Net, x: Tensor) -> Tensor:
        early = self.early(x)
        on = torch.is_grad_enabled()
        return self.classify(checkpoint(self.behind, early, use_reentrant=True) if on else self.behind(early))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks to be used otherwise
        try:
            found = answer(name, net(forward), pictures(), "conv2")
        except RuntimeError as error:
            assert "reentrant" in str(error)  # noqa: PT017  # torch's own refusal, as it is
            return
    expected = slow_answer(name, net(), pictures(), "conv2")
    if isinstance(found, str):
        assert found == expected or re.search("checkpoint|reentrant|no_grad", found)
    else:
        assert not isinstance(expected, str)
        close(found[0], expected[0])


class Grid(nn.Module):
    """Gives its buffer, whatever comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(0, 1, 256).view(1, 1, 16, 16).repeat(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.grid


class Memo(nn.Module):
    """Gives the tensor that it made in its first call."""

    def __init__(self) -> None:
        super().__init__()
        self.memo: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.memo is None:
            self.memo = torch.ones(1, 8, 16, 16, dtype=x.dtype)
        return self.memo


class Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 8, 16, 16), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight


OWN = {"its buffer": Grid, "a tensor that it remembers": Memo, "its frozen parameter": Frozen}


@cross(OWN, LAYERED)
def test_what_a_layer_gives_of_its_own_stays_out_of_the_graph(case: str, name: str) -> None:
    def forward(self: Net, x: Tensor) -> Tensor:
        early = self.early(x)
        return self.finish(early * self.positions(early))

    model = net(forward, positions=OWN[case])
    with torch.no_grad():
        model(pictures())
    answer(name, model, pictures(), "positions")
    held = next(
        iter([*model.positions.parameters(), *model.positions.buffers()]), getattr(model.positions, "memo", None)
    )
    assert held is not None
    assert not held.requires_grad
    assert held.grad_fn is None
    copy.deepcopy(model)


@each()
def test_autocast_inside_of_forward(name: str) -> None:
    def forward(self: Net, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            maps = self.maps(x)
        return self.classify(maps.float())

    model, x = net(forward).float(), pictures().float()
    found, expected = answer(name, model, x, "conv2"), answer(name, net().float(), x, "conv2")
    assert not isinstance(found, str)
    assert not isinstance(expected, str)
    likeness = F.cosine_similarity(found[0].flatten().double(), expected[0].flatten().double(), dim=0)
    assert likeness > (0.7 if name in LEARNING else 0.98)  # small differences send what learns another way


@each()
def test_inference_mode_inside_of_forward(name: str) -> None:
    """Scores are all that can be had of it."""

    def forward(self: Net, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return Net.forward(self, x)

    found = answer(name, net(forward), pictures(), "conv2")
    if name in SCORES_ALONE:
        expected = slow_answer(name, net(), pictures(), "conv2")
        assert not isinstance(found, str)
        assert not isinstance(expected, str)
        close(found[0], expected[0])
    else:
        assert isinstance(found, str)
        assert re.search(r"no_grad|detach|inference", found)


def test_old_parametrizations_and_their_cache() -> None:
    def normed() -> nn.Module:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # the old forms are deprecated, and in use
            torch.manual_seed(2)
            model = Net()
            nn.utils.spectral_norm(model.conv1)
            nn.utils.weight_norm(model.conv2)
            nn.utils.parametrizations.orthogonal(model.head)
            model = model.double().eval()
            model(pictures())
        return model

    for name in ("occlusion", "gradient", "integrated_gradients", "ablation_cam", "grad_cam"):
        with nn.utils.parametrize.cached():
            check(Situation(normed, layer="conv1"), name)


@each(name for name in NAMES if name not in LEARNING)
def test_a_question_inside_a_question_changes_neither(name: str) -> None:
    """The user's hook asks about another picture while a question is answered."""
    model, other, inside = net(), pictures(seed=7), []
    expected = answer(name, net(), pictures(), "conv2")
    inner = explain(net(), other, "grad_cam", target=2, layer="conv2").values
    asked: list[Tensor] = []

    def ask(module: Any, args: Any, output: Any) -> None:
        if not inside:
            inside.append(True)
            try:
                asked.append(explain(model, other, "grad_cam", target=2, layer="conv2").values)
            finally:
                inside.pop()

    model.head.register_forward_hook(ask)
    try:
        found = explain(model, pictures(), name, target=CLASS, **settings(name, "conv2")).values
    except (*ERRORS, RuntimeError) as error:
        assert isinstance(expected, str) or re.search("nested|inside|while", str(error))  # noqa: PT017
        return
    assert not isinstance(expected, str)
    close(found, expected[0])
    for values in asked:
        close(values, inner)


FOLDED = {"integrated_gradients": {"steps": 8}, "occlusion": {"window": 14, "stride": 2}, "smoothgrad": {}, "rise": {}}


@pytest.mark.filterwarnings("ignore:.*its batch norms are not folded")
@each(FOLDED)
def test_folding_where_another_way_reads_the_convolution_itself(name: str) -> None:
    def forward(self: Net, x: Tensor) -> Tensor:
        early = self.conv1(x)
        scores = self.finish(F.relu(self.norm(early)))
        return scores + early.mean((1, 2, 3))[:, None] if float(x.detach().abs().mean()) < 0.25 else scores

    def model() -> nn.Module:
        made = net(forward, norm=lambda: nn.BatchNorm2d(8))
        made.norm.running_mean.fill_(0.2)
        made.norm.running_var.fill_(0.4)
        return made

    chosen = settings(name, "conv2") | FOLDED[name] | {"target": CLASS, "memory": 1}
    expected = explain(model(), pictures(), name, **chosen)
    try:
        found = explain(model(), pictures(), name, fold=True, **chosen)
    except ValueError as error:
        assert "leave fold out" in str(error)  # noqa: PT017
        return
    close(found.values, expected.values, 1e-5)
