"""Whole passes or regions: decided by counted work and measured constants, and right either way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from nets import AveragingNet, randomized, tiny_inputs
from synchronizations import Synchronizations
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cnnviz import Run, explain
from cnnviz.engine import device_policy
from cnnviz.engine.costs import Costs, Work
from cnnviz.engine.device_policy import CPU, CUDA, DevicePolicy
from cnnviz.engine.layers import INPUT
from cnnviz.engine.model_facts import facts_of
from cnnviz.engine.pass_size import PassSize
from cnnviz.incremental.boxes import Boxes
from cnnviz.incremental.change import Change
from cnnviz.incremental.choice import Choice
from cnnviz.incremental.evaluator import Evaluator
from cnnviz.run.plan import Plan

MEASURED, ON_A_GPU = CPU, CUDA.costs  # before the suite sets the CPU's aside
LARGE_GPU = replace(CUDA, budget=80 * 2**30)
RESNET50 = PassSize(total=150_849_440, largest=3_211_264, operations=176)
"""As a pass of 224 x 224 is measured."""
SIDE = 28
WINDOWS = {"window": 4, "stride": 2}
"""169 of them."""


class Passes:
    """How many inputs each forward pass holds."""

    def __init__(self, net: nn.Module):
        self.held: list[int] = []
        net.register_forward_pre_hook(lambda module, args: self.held.append(len(args[0])))


@pytest.fixture
def net() -> AveragingNet:
    return AveragingNet()


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    return torch.randn(2, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.fixture(scope="module")
def by_loops(inputs: Tensor) -> Tensor:
    """Occlusion by one pass for each of the 13 x 13 windows of 4 x 4, (N, 1, 28, 28)."""
    net, target = AveragingNet(), 1
    drops = torch.empty(len(inputs), 13, 13, dtype=torch.float64)
    with torch.no_grad():
        for item, one in enumerate(inputs):
            for y in range(13):
                for x in range(13):
                    hidden = one.clone()
                    hidden[:, 2 * y : 2 * y + 4, 2 * x : 2 * x + 4] = 0
                    drops[item, y, x] = net(one[None])[0, target] - net(hidden[None])[0, target]
    return spread(drops)


def spread(drops: Tensor) -> Tensor:
    """At each place the mean over the windows that cover it, (N, 1, 28, 28)."""
    summed, count = torch.zeros(len(drops), SIDE, SIDE, dtype=torch.float64), torch.zeros(SIDE, SIDE)
    for y in range(13):
        for x in range(13):
            place = (..., slice(2 * y, 2 * y + 4), slice(2 * x, 2 * x + 4))
            summed[place] += drops[:, y, x, None, None]
            count[place] += 1
    return (summed / count)[:, None]


# On a device that says it is a large GPU


@pytest.mark.parametrize("items", [1, 2])
def test_all_windows_go_in_one_pass_where_they_fit(
    net: AveragingNet,
    inputs: Tensor,
    by_loops: Tensor,
    items: int,
    monkeypatch: pytest.MonkeyPatch,
    evaluators: list[Evaluator],
) -> None:
    monkeypatch.setattr(device_policy, "CPU", LARGE_GPU)
    passes = Passes(net)
    found = explain(net, inputs[:items], "occlusion", target=1, **WINDOWS).values
    question, windows, independence = [items], [169 * items], [items]
    assert passes.held == [*question, *windows, *independence]
    assert not evaluators, "nothing is recorded"
    torch.testing.assert_close(found, by_loops[:items], rtol=1e-9, atol=1e-12)


def test_windows_go_in_as_many_passes_as_the_budget_implies(
    net: AveragingNet, inputs: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = 3 * SIDE * SIDE * 8
    monkeypatch.setattr(device_policy, "CPU", replace(LARGE_GPU, budget=4 * largest * 50))
    passes = Passes(net)
    explain(net, inputs[:1], "occlusion", target=1, **WINDOWS)
    assert sorted(passes.held, reverse=True) == [43, 43, 43, 40, *[1] * 3], "4 x 50 would fit; evenly 43; two sizes"


def test_windows_are_drawn_and_passed_without_waiting_for_the_gpu(
    net: AveragingNet, inputs: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_policy, "CPU", LARGE_GPU)
    with Synchronizations([*net.parameters(), *net.buffers(), inputs]) as waits:
        explain(net, inputs, "occlusion", target=1, **WINDOWS)
    places = [site.partition(":")[0] for site in waits.sites.elements()]
    assert places.count("/engine/deferred.py") == 1, "values are read once, at the end"
    assert {place for place in places if "/explanations/" not in place} == {"/engine/deferred.py"}


# On a CPU, with what was measured


def test_a_tiny_network_is_passed_whole(
    net: AveragingNet, inputs: Tensor, by_loops: Tensor, monkeypatch: pytest.MonkeyPatch, evaluators: list[Evaluator]
) -> None:
    monkeypatch.setattr(device_policy, "CPU", MEASURED)
    found = explain(net, inputs, "occlusion", target=1, **WINDOWS).values
    assert not evaluators
    torch.testing.assert_close(found, by_loops, rtol=1e-9, atol=1e-12)


def test_a_larger_network_is_answered_by_regions(monkeypatch: pytest.MonkeyPatch, evaluators: list[Evaluator]) -> None:
    monkeypatch.setattr(device_policy, "CPU", MEASURED)
    net = nn.Sequential(
        *(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3)),
    )
    randomized(net).float()
    inputs, passes = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1)), Passes(net)
    explain(net, inputs, "occlusion", target=1)
    (evaluator,) = evaluators
    assert evaluator.trusted
    assert evaluator.pays
    assert sum(passes.held) < 2 * 169, "each variant is computed once, on a region"
    assert max(passes.held) <= evaluator.at_once


def test_regions_pay_for_a_resnet50_on_a_cpu_and_not_on_a_gpu() -> None:
    for policy, costs, pays in ((MEASURED, MEASURED.costs, True), (LARGE_GPU, ON_A_GPU, False)):
        assert costs is not None
        chunks = -(-169 // policy.items_without_graph(RESNET50.largest))
        choice = Choice(costs, RESNET50, items=1, count=169, passes=chunks)
        assert choice.may_pay() is pays
    assert MEASURED.costs is not None
    few = Choice(MEASURED.costs, RESNET50, items=1, count=2, passes=1)
    assert not few.may_pay(), "two whole passes cost less than recording one and rehearsing"


def test_regions_are_left_where_the_rehearsal_shows_that_they_take_longer(
    net: AveragingNet, inputs: Tensor, by_loops: Tensor, monkeypatch: pytest.MonkeyPatch, evaluators: list[Evaluator]
) -> None:
    dear = Costs(launch=1e-6, byte=1e-9, region_launch=1e-6, region_byte=1e-6)  # before the rehearsal none is known
    monkeypatch.setattr(device_policy, "CPU", DevicePolicy("cpu", budget=2**40, costs=dear))
    passes = Passes(net)
    found = explain(net, inputs, "occlusion", target=1, **WINDOWS).values
    (evaluator,) = evaluators
    assert not evaluator.pays
    assert passes.held.count(2 * 169) == 1, "the windows of both inputs together"
    torch.testing.assert_close(found, by_loops, rtol=1e-9, atol=1e-12)


def test_where_the_size_of_a_pass_is_not_known_one_more_measures_it(
    net: AveragingNet, inputs: Tensor, monkeypatch: pytest.MonkeyPatch, evaluators: list[Evaluator]
) -> None:
    boxes, passes = torch.tensor([[[0, 4], [0, 4]], [[5, 9], [6, 10]]]), Passes(net)
    by_regions = Run(net, inputs[:1], torch.tensor([1])).scores_of_boxes(boxes, blank)
    assert len(evaluators) == 1
    monkeypatch.setattr(device_policy, "CPU", LARGE_GPU)
    passes.held.clear()
    for plan, question in ((Plan(), [1, 1]), (Plan(variants=True), [1])):
        passes.held.clear()
        again = Run(net, inputs[:1] + 0, torch.tensor([1]), plan=plan).scores_of_boxes(boxes, blank)
        assert passes.held == [*question, 2, 1], "the windows, and the first of them alone"
        assert len(evaluators) == 1, "whole passes"
        torch.testing.assert_close(again, by_regions, rtol=1e-9, atol=1e-12)
        facts_of(net).clear()


def blank(number: int, item: int) -> Tensor:
    return torch.zeros(2, 4, 4, dtype=torch.float64)


# What is counted


def test_time_is_the_sum_of_what_is_counted() -> None:
    costs, work = Costs(2.0, 3.0, 5.0, 7.0), Work(1, 10, 100, 1000)
    assert costs.seconds(work) == 2 + 30 + 500 + 7000
    assert work + Work(1, 1, 1, 1) == Work(2, 11, 101, 1001)
    assert work * 3 == Work(3, 30, 300, 3000)


def test_a_choice_counts_passes_recordings_and_chunks() -> None:
    choice = Choice(Costs(1, 1, 1, 1), PassSize(100, 40, 7), items=3, count=20, passes=4, groups=5)
    assert choice.whole == Work(operations=4 * 7, bytes=3 * 20 * 100)
    # three recordings, each with five chunks; a rehearsal, and a whole pass that it is compared with
    assert choice.least() == Work(operations=7, bytes=100 + 3 * 100, region_operations=7 + 3 * 7 + 3 * 5 * 7)
    assert choice.rest(operations=6, chunks=2, bytes_of_variant=5) == Work(
        bytes=2 * 100, region_operations=2 * 7 + 3 * 2 * 6, region_bytes=3 * 20 * 5
    )


@pytest.mark.parametrize("name", [field.name for field in fields(Costs)])
def test_what_costs_more_is_chosen_less(name: str) -> None:
    """Each constant moves the estimates one way, and at most once from one answer to the other."""
    costs = Costs(launch=1e-5, byte=1e-9, region_launch=1e-4, region_byte=3.75e-9)
    answers, times = [], []
    for factor in (0.0, 0.1, 1.0, 10.0, 100.0, 1e4, 1e6):
        dearer = replace(costs, **{name: factor * getattr(costs, name)})
        choice = Choice(dearer, RESNET50, items=2, count=169, passes=70)
        times.append([dearer.seconds(choice.whole), dearer.seconds(choice.rest(175, 20, 4 * 10**7))])
        answers.append(choice.pays(175, 20, 4 * 10**7))
    for earlier, later in pairwise(times):
        assert earlier[0] <= later[0]
        assert earlier[1] <= later[1]
    assert times[0] != times[-1]
    toward = name.startswith("region")
    assert answers == sorted(answers, reverse=toward)
    assert len(set(answers)) == 2, "it decides"


def test_a_pass_tells_how_many_operations_it_has(net: AveragingNet) -> None:
    counted: list[Any] = []
    for copies in (1, 3):
        run = Run(net, tiny_inputs(items=copies), torch.zeros(copies, dtype=torch.long), plan=Plan(variants=True))
        counted.append(run.trace.size)
    # a copy of the input, two convolutions, a norm, two rectifiers, a pool, the mean and the linear layer
    assert [size.operations for size in counted] == [9, 9]
    assert counted[0].total == counted[1].total


# Variants are drawn in a few steps


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_variants_have_the_bits_that_a_loop_gives_them(rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    before = torch.randn(1, 3, *(9, 7, 6)[:rank], generator=generator)
    begins = torch.stack([torch.randint(0, side - 3, (20,), generator=generator) for side in before.shape[2:]], 1)
    ends = begins + torch.randint(1, 4, begins.shape, generator=generator)
    boxes = Boxes.of(torch.stack([begins, ends], 2), before.shape[2:])
    held = [torch.randn(3, *(ends - begins)[n].tolist(), generator=generator, dtype=torch.float64) for n in range(20)]
    change = Change(INPUT, 20, lambda numbers: (held[number] for number in numbers), boxes)
    numbers = [3, 17, 0, 5, 5, 11, 19]
    expected = []
    for number in numbers:
        one = before[0].clone()
        one[(slice(None), *map(slice, begins[number].tolist(), ends[number].tolist()))] = held[number].float()
        expected.append(one)
    assert torch.equal(change.drawn(numbers, before), torch.stack(expected))


class Kernels(TorchDispatchMode):
    """What is handed to a device, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_drawing_many_variants_takes_as_many_steps_as_drawing_few() -> None:
    before, content = torch.randn(1, 3, 20, 20), torch.zeros(3, 4, 4)
    corners = torch.cartesian_prod(torch.arange(15), torch.arange(15))
    change = Change(INPUT, 225, lambda numbers: [content] * len(numbers), boxes=boxes_at(corners))

    def steps() -> Iterator[int]:
        for count in (5, 200):
            with Kernels() as kernels:
                change.drawn(range(count), before)
            yield len([name for name in kernels.names if "expand" not in name])

    few, many = steps()
    assert few == many


def boxes_at(corners: Tensor) -> Boxes:
    return Boxes.of(torch.stack([corners, corners + 4], 2), (20, 20))
