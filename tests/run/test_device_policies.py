"""How many passes a question takes on a device, as its policy says: a stand-in for a GPU of 80 GB, counted here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from nets import randomized
from torch import Tensor, nn

from cnnviz import explain
from cnnviz.engine import device_policy
from cnnviz.engine.batching import even
from cnnviz.engine.device_policy import CPU, CUDA, DevicePolicy, kind_of, policy_of
from cnnviz.engine.model_inputs import ModelInputs
from cnnviz.engine.model_version import ModelVersion
from cnnviz.engine.pass_size import PassSize, size_of
from cnnviz.engine.speed.tf32 import Tf32Flags
from cnnviz.run.run import Run

GPU = replace(CUDA, budget=int(80e9 * 0.6), rounding=5e-2)


class RoundsByBatchSize(nn.Module):
    """The scores of an input differ by 1e-2 between batches of two sizes, as if by rounding alone."""

    def __init__(self, channels: int = 8):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        self.head = nn.Linear(channels, 3)
        randomized(self)

    def forward(self, x: Tensor) -> Tensor:
        share = (len(x) * 2654435761 % 997) / 997 - 0.5
        scores: Tensor = self.head(self.features(x).mean((2, 3)))
        return scores * (1 + 1e-2 * share)


@contextmanager
def passes_of(model: nn.Module) -> Iterator[list[int]]:
    """How many inputs each forward pass had."""
    sizes: list[int] = []
    handle = model.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    try:
        yield sizes
    finally:
        handle.remove()


def pictures(items: int, size: int = 12) -> Tensor:
    return torch.rand(items, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


QUESTIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "integrated_gradients": (50, {"steps": 50}),
    "smoothgrad": (25, {"samples": 25}),
    "rise": (1000, {"masks": 1000, "cells": 3, "score": "logit"}),
    "score_cam": (512, {"layer": "features.2", "score": "logit"}),
    "feature_ablation": (9, {"segments": "equal", "pieces": 9}),
    "lime": (40, {"samples": 40, "segments": "equal", "pieces": 9}),
}


@pytest.mark.parametrize("items", [1, 2])
@pytest.mark.parametrize("method", QUESTIONS)
def test_a_large_gpu_takes_all_variants_in_one_pass(method: str, items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_policy, "CPU", GPU)
    count, settings = QUESTIONS[method]
    model, inputs = RoundsByBatchSize(512 if method == "score_cam" else 8), pictures(items, 9)
    explain(model, inputs, "activation", target=1, layer="features.2")  # how layers hang together is found once
    with passes_of(model) as sizes:
        explain(model, inputs, method, target=1, **settings)
    own, *others = sizes
    baseline = [items] if method == "integrated_gradients" else []  # of the note about completeness
    assert own == items, "the question itself"
    assert others == [count * items, items, *baseline], "the variants, and the first of them alone"


@pytest.mark.parametrize(("fitting", "chunks"), [(50, [50]), (49, [25, 25]), (24, [17, 17, 16]), (7, [7] * 7 + [1])])
def test_a_budget_implies_the_number_of_passes(
    fitting: int, chunks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = RoundsByBatchSize(), pictures(1)
    Run(model, inputs, torch.tensor([1])).scores_of(2, lambda start, stop: inputs.expand(stop - start, 1, -1, -1, -1))
    known = size_of(model, ModelInputs((inputs,)), None)
    assert known is not None
    monkeypatch.setattr(device_policy, "CPU", replace(GPU, budget=fitting * known.total))
    with passes_of(model) as sizes:
        explain(model, inputs, "integrated_gradients", target=1, steps=50)
    checked = [each for size in dict.fromkeys(chunks) if size > 1 for each in (size, 1)]
    expected = sorted([1, *chunks, *[1 for each in checked if each == 1], 1])  # question, chunks, checks, baseline
    assert sorted(sizes) == expected


def test_variants_that_python_divides_by_the_size_of_their_batch_are_asked_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Shares(RoundsByBatchSize):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / len(x)

    monkeypatch.setattr(device_policy, "CPU", GPU)
    model, inputs = Shares(), pictures(1)
    found = explain(model, inputs, "integrated_gradients", target=1, steps=5).values
    alone = explain(model, inputs, "integrated_gradients", target=1, steps=5, memory=1).values
    torch.testing.assert_close(found, alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("precision", "rounding"), [("float32", 1e-4), ("tf32", 5e-2)])
def test_rounding_on_cuda_follows_the_flags_in_whatever_names_they_were_set(
    precision: Literal["float32", "tf32"], rounding: float
) -> None:
    """torch refuses to tell a flag by its older name where only the newer one was set."""
    flags = Tf32Flags()
    before = ModelVersion(RoundsByBatchSize())
    flags.set(precision)
    try:
        assert kind_of(torch.device("cuda")).rounding == rounding
        ModelVersion(RoundsByBatchSize())
    finally:
        flags.set(None)
    assert before._settings == ModelVersion(RoundsByBatchSize())._settings


def test_a_known_size_is_measured_no_more_and_a_changed_network_is_measured_again() -> None:
    model, inputs = RoundsByBatchSize(), pictures(1)

    def first_chunk() -> int:
        with passes_of(model) as sizes:
            Run(model, inputs, torch.tensor([1])).scores_of(
                6, lambda start, stop: inputs.expand(6, 1, -1, -1, -1)[start:stop]
            )
        return sizes[0]

    assert [first_chunk(), first_chunk()] == [1, 6]
    model.features.append(nn.Identity())
    assert [first_chunk(), first_chunk()] == [1, 6]


def test_bytes_are_those_of_all_outputs_and_of_the_largest() -> None:
    model, inputs = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 3)).double(), pictures(2)
    run = Run(model.eval(), inputs, torch.tensor([1, 1]))
    run.scores_of(2, lambda start, stop: inputs.expand(stop - start, -1, -1, -1, -1))
    maps, copied = 8 * 10 * 10 * 8, 3 * 12 * 12 * 8
    size = size_of(model, ModelInputs((inputs,)), None)
    assert size is not None
    assert size.largest == maps
    assert size.total == copied + 3 * maps + 3 * 8  # the input, convolution, rectifier, flattened, scores


@pytest.mark.parametrize("count", [1, 2, 7, 50, 169, 1000])
@pytest.mark.parametrize("fitting", [1, 2, 3, 4, 64, 5000])
def test_chunks_are_even_and_as_few_as_can_be(count: int, fitting: int) -> None:
    size = even(count, fitting)
    passes = -(-count // size)
    assert size <= fitting
    assert passes == -(-count // fitting)
    assert size - (count - size * (passes - 1)) < passes, "the last one is nearly as large"
    assert size > 1 or fitting == 1 or count == 1, "no chunk of one where two fit"


def test_a_policy_is_a_pure_function_of_its_limits() -> None:
    assert GPU.items_with_graph(200_000_000) == 240
    assert GPU.items_without_graph(3_211_264) == 48 * 10**9 // (4 * 3_211_264)
    assert CPU.items_with_graph(1) == 4
    assert CPU.items_without_graph(2**22) == 4
    assert CPU.items_replayed(2**20) == 8
    assert DevicePolicy("cpu", 10).items_with_graph(100) == 1
    assert policy_of(torch.device("cpu"), 5).budget == 5
    with pytest.raises(ValueError, match="a memory budget of 0 bytes holds nothing"):
        policy_of(torch.device("cpu"), 0)
    assert PassSize(3, 2) == PassSize(3, 2)
