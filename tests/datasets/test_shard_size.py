"""How many items a shard has: little disk, little time, whole batches, and nothing computed for long to learn it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor, nn

import cnnviz
from cnnviz.datasets import MapStorage
from cnnviz.datasets.asking import asked
from cnnviz.datasets.question import BatchQuestion
from cnnviz.datasets.shards.shard_size import enough_shards, usual_shard_size


def question(methods: Any, storage: MapStorage | None = None, batch: int = 8, **settings: Any) -> BatchQuestion:
    model = cnnviz.load_model("demo")
    options = cnnviz.ExplainOptions()
    return asked(model, methods, (), options, storage or MapStorage(), None, settings, batch_size=batch)


@pytest.mark.parametrize(
    ("methods", "storage", "size"),
    [
        ("grad_cam", MapStorage(), 256),  # 12 x 12 values; at most so many items
        ("gradient", MapStorage(), 256),  # 110,592 bytes, 303 in 32 MB
        (["gradient", "guided_backprop"], MapStorage(), 144),  # 151, in whole batches
        (["gradient", "guided_backprop"], MapStorage("float16"), 256),
        ("integrated_gradients", MapStorage(), 256),  # 50 steps, as large as the input
    ],
)
def test_shards_take_little_disk_and_time(methods: Any, storage: MapStorage, size: int) -> None:
    assert usual_shard_size(question(methods, storage)) == size


def test_what_takes_long_is_not_computed_to_plan() -> None:
    asking = question("rise", masks=4000)
    passes: list[int] = []

    class Counting(nn.Module):
        def __init__(self, inner: nn.Module):
            super().__init__()
            self.inner = inner

        def forward(self, inputs: Tensor) -> Tensor:
            passes.append(len(inputs))
            scores: Tensor = self.inner(inputs)
            return scores

    counting = replace(asking.model, module=Counting(asking.model.module).eval())
    assert usual_shard_size(replace(asking, model=counting)) == 4
    assert sum(passes) < 100


def test_few_items_make_enough_shards_for_several_workers() -> None:
    assert enough_shards(256, 100_000, 8) == 256
    assert enough_shards(256, 2000, 8) == 64  # 62.5, in whole batches
    assert enough_shards(256, 5, 8) == 8
    assert enough_shards(4, 100_000, 8) == 4


def test_of_inputs_of_unknown_size_nothing_is_tried() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    asking = asked(model, "gradient", (), cnnviz.ExplainOptions(), MapStorage(), None, {}, batch_size=10)
    assert usual_shard_size(asking) == 60
