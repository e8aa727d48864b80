"""How long reading a large batch takes: opening it, and single explanations at random.

``python -m benchmarks.open_batch`` writes a run of 100,000 maps of 7 x 7 (30 MB) into a temporary folder, and prints
times in milliseconds: of opening; of building the explanation of an item chosen at random, in all shards; of reading
its map as well; and of all maps at 16 x 16. No pictures are needed: the plan and the shards are written as a run does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import cnnviz
from cnnviz.datasets.items import Item
from cnnviz.datasets.plan import BatchPlan, make_plan
from cnnviz.datasets.shards.shard_file import ShardContent, pack

PREPROCESSING = cnnviz.Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 256, (224, 224))


def write_run(out: Path, items: int, shard_size: int = 256, side: int = 7) -> BatchPlan:
    """A run of that many items by Grad-CAM, of random maps."""
    identity = {"methods": {"grad_cam": {}}, "metrics": {}, "preprocessing": PREPROCESSING.as_dict()}
    listed = (Item(f"n{number // 1000:08d}/{number:08d}.JPEG", label=number // 1000) for number in range(items))
    plan, _ = make_plan(out, identity, shard_size, listed, {"kind": "drawn"})
    draws = torch.Generator().manual_seed(0)
    told: dict[str, object] = {
        "recipe": "grad_cam()",
        "renderer": None,
        "options": {},
        "computed_in": "float32",
        "fine": False,
    }
    for shard in range(plan.shards):
        count, first = plan.size_of(shard), plan.first_of(shard)
        content = ShardContent(
            rows=[{"id": item.id, "status": "ok", "label": item.label} for item in plan.items_of(shard)],
            maps={"grad_cam": torch.randn(count, 1, side, side, generator=draws)},
            target=torch.arange(first, first + count) // 1000,
            score=torch.rand(count, generator=draws),
            input_shape=torch.tensor([[3, 224, 224]] * count),
        )
        about = {"run": plan.digest, "shard": shard, "first": first, "explanations": {"grad_cam": told}}
        plan.shard_path(shard).write_bytes(pack(content, about))
    return plan


def milliseconds(work: Callable[[], object]) -> float:
    """How long it takes once."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def measured(out: Path, tries: int = 5, picks: int = 2000) -> dict[str, float]:
    """Medians by what is done, in milliseconds."""
    opening = [milliseconds(lambda: cnnviz.open_batch(out)) for _ in range(tries)]
    batch = cnnviz.open_batch(out)
    chosen = np.random.default_rng(0).integers(0, len(batch), picks).tolist()
    building = [milliseconds(lambda number=number: batch[number]) for number in chosen]  # type: ignore[misc]  # bound now
    reading = [milliseconds(lambda number=number: batch[number]["grad_cam"].values) for number in chosen]  # type: ignore[misc]
    return {
        "opening": statistics.median(opening),
        "first explanation of a fresh batch": milliseconds(lambda: cnnviz.open_batch(out)[len(batch) // 2]),
        "an explanation at random": statistics.median(building),
        "an explanation at random, 99 of 100": sorted(building)[int(0.99 * picks)],
        "an explanation at random with its map": statistics.median(reading),
        "all maps at 16 x 16": milliseconds(lambda: batch.maps(size=(16, 16))),
        "the table": milliseconds(batch.table),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_run(Path(folder) / "out", given.items)
        for name, value in measured(Path(folder) / "out").items():
            print(f"{name:40} {value:10.3f} ms")


if __name__ == "__main__":
    main()
