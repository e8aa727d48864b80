"""An item that is unlike all others costs its own row, and never those of its neighbours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cnnviz
from cnnviz.datasets import Batch, Item, MapStorage, RunError
from cnnviz.datasets.plan import read_plan
from cnnviz.datasets.shards.item_answers import Answering


class Inputs:
    """A source of small inputs; ``odd`` is called instead for the items it has."""

    def __init__(self, count: int, odd: Mapping[int, Callable[[], Any]] | None = None):
        self.count, self.odd = count, odd or {}

    def items(self) -> Iterator[Item]:
        return (Item(f"item {number}\n☃") for number in range(self.count))

    def open(self, item: Item) -> Tensor:
        number = int(item.id.split()[1])
        if number in self.odd:
            made: Tensor = self.odd[number]()
            return made
        return torch.full((1, 4, 4), 1.0 + number)

    def described(self) -> dict[str, Any]:
        return {"kind": "inputs"}


class Mean(nn.Module):
    """Two classes."""

    def forward(self, inputs: Tensor) -> Tensor:
        mean = inputs.mean((1, 2, 3))
        return torch.stack([mean, -mean], 1)


def ran(out: Path, source: Inputs, method: Any = "gradient", **more: Any) -> Batch:
    return cnnviz.batch(Mean().eval(), source, method, out, **{"workers": 0, "shard_size": 4, "batch_size": 2, **more})


def failed(batch: Batch) -> dict[int, str]:
    return {row["item"]: row["error"] for row in batch.failed}


def raising(error: BaseException) -> Callable[[], Any]:
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), GeneratorExit(), RecursionError("deep")])
def test_whatever_a_source_raises_costs_a_row(tmp_path: Path, error: BaseException) -> None:
    found = failed(ran(tmp_path, Inputs(5, {2: raising(error)})))
    assert list(found) == [2]
    assert found[2].startswith(type(error).__name__)


def test_a_method_that_leaves_the_program_costs_rows(tmp_path: Path) -> None:
    def leaving(run: Any) -> Tensor:
        if bool((run.inputs == 3).any()):
            raise SystemExit("no more")
        return run.inputs * 1.0

    assert failed(ran(tmp_path, Inputs(5), leaving)) == {2: "SystemExit: no more"}


def test_a_map_that_is_infinite_as_it_is_kept_costs_its_row(tmp_path: Path) -> None:
    def huge(run: Any) -> Tensor:
        return torch.where(run.inputs == 2, 3e38, 1.0).expand(-1, 3, -1, -1)

    batch = ran(tmp_path, Inputs(5), huge, storage=MapStorage(channels="sum"))
    assert failed(batch) == {1: "what is kept of the map of huge is infinite in torch.float32"}
    assert torch.equal(batch[0]["huge"].values, torch.full((1, 1, 4, 4), 3.0))
    halves = ran(tmp_path / "halves", Inputs(5), huge, storage=MapStorage("float16"))
    assert failed(halves) == {}
    torch.testing.assert_close(halves[1]["huge"].values, torch.full((1, 3, 4, 4), 3e38), rtol=1e-3, atol=0)


def test_maps_of_another_kind_cost_their_rows(tmp_path: Path) -> None:
    def changing(run: Any) -> Tensor:
        double = bool((run.inputs == 4).any())
        return run.inputs.double() if double else run.inputs * 1.0

    batch = ran(tmp_path, Inputs(5), changing, batch_size=1)
    told = "the map of changing is torch.float64 in 3 dimensions; of the items before it, torch.float32 in 3"
    assert failed(batch) == {3: told}
    assert batch.verify() == []


def test_one_item_that_no_memory_is_enough_for_costs_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = Answering._together

    def greedy(self: Any, batch: Any, inputs: Tensor, why: Any) -> Any:
        if bool((inputs == 2).any()):
            raise MemoryError
        return together(self, batch, inputs, why)

    monkeypatch.setattr(Answering, "_together", greedy)
    batch = ran(tmp_path, Inputs(8))
    assert list(failed(batch)) == [1]
    assert failed(batch)[1].startswith("memory ran out, also for it alone in chunks of ")
    head = (tmp_path / "shards" / "000000.safetensors").read_bytes()[:2000].decode("latin-1")
    assert '\\"disturbed\\":{\\"halved\\":true,\\"left_out\\":{\\"1\\":\\"memory ran out' in head


def test_memory_that_is_short_for_all_items_commits_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="was given up: MemoryError: memory ran out when it was read"):
        ran(tmp_path, Inputs(3, dict.fromkeys(range(3), raising(MemoryError()))))
    assert list((tmp_path / "shards").iterdir()) == []
    assert failed(ran(tmp_path, Inputs(3))) == {}


def test_a_picture_that_memory_was_short_for_once_is_read_again(tmp_path: Path) -> None:
    times: list[int] = []

    def short() -> Tensor:
        times.append(1)
        if len(times) == 1:
            raise MemoryError
        return torch.ones(1, 4, 4)

    assert failed(ran(tmp_path, Inputs(3, {1: short}))) == {}


def test_a_first_picture_that_is_damaged_does_not_end_a_run_of_small_shards(tmp_path: Path) -> None:
    source = Inputs(6, {number: raising(OSError("torn")) for number in range(3)})
    assert list(failed(ran(tmp_path, source, shard_size=1))) == [0, 1, 2]
    source = Inputs(6, {number: raising(OSError("torn")) for number in range(4)})
    with pytest.raises(RunError, match="none of the first 4 items could be explained: torn"):
        ran(tmp_path / "more", source, shard_size=1)
    assert len(failed(ran(tmp_path / "more", source, shard_size=1))) == 4  # the same again goes on


def test_ids_of_any_letters_are_rows(tmp_path: Path) -> None:
    batch = ran(tmp_path, Inputs(2))
    assert batch.ids == ["item 0\n☃", "item 1\n☃"]
    assert json.loads((tmp_path / read_plan(tmp_path).parts[0].file).read_text().splitlines()[1])["id"] == batch.ids[1]


def test_metric_that_cannot_be_measured_tells_why_in_the_row(tmp_path: Path) -> None:
    def third(trial: cnnviz.Trial) -> Tensor:
        if bool((trial.explanation.inputs == 3.0).any()):  # item 2
            raise ValueError("three is too much")
        return torch.tensor([1 / 3] * len(trial), dtype=torch.float64)

    batch = ran(tmp_path / "out", Inputs(6), metrics=third)
    rows = batch.table()
    assert [row["third"] for row in rows] == [1 / 3, 1 / 3, None, 1 / 3, 1 / 3, 1 / 3]  # in all digits
    assert [row["error"] for row in rows] == [None, None, "third: three is too much", None, None, None]
    assert [row["status"] for row in rows] == ["ok"] * 6
    assert not batch.failed
    assert [dict(row) for row in batch[1:].unmeasured] == [
        {"item": 1, "id": "item 2\n☃", "error": "third: three is too much"}
    ]


def test_metric_without_masks_ends_the_run_once_and_can_be_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^none of the first 4 items could be measured: roc_auc: the metric compares"):
        ran(tmp_path / "out", Inputs(12), metrics="roc_auc")
    batch = ran(tmp_path / "out", Inputs(12), metrics="roc_auc")
    assert len(batch.answered) == len(batch.unmeasured) == 12
    assert {row["roc_auc"] for row in batch.table()} == {None}


def test_batch_that_was_just_run_has_the_inputs_of_its_source(tmp_path: Path) -> None:
    batch = ran(tmp_path / "out", Inputs(4))
    assert torch.equal(batch["gradient"][2].inputs, torch.full((1, 1, 4, 4), 3.0))
    with pytest.raises(ValueError, match="can't be opened again by itself"):
        _ = cnnviz.open_batch(tmp_path / "out")["gradient"][2].inputs
