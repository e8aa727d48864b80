"""A batch run gives what explain gives, once for each item, with the same bytes however it came about."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_inputs
from PIL import Image
from torch import Tensor, nn

import cnnviz
from cnnviz.datasets import Batch, Item, MapStorage, RunError, Task, true_class
from cnnviz.datasets.plan import added, read_plan
from cnnviz.datasets.prepared_run import prepare_run
from cnnviz.datasets.shards.commit import temporary_in
from cnnviz.datasets.shards.item_answers import Answering
from cnnviz.datasets.shards.shard_work import ShardJob


class Inputs:
    """A source of tensors; some can't be read."""

    def __init__(self, inputs: Mapping[str, Tensor | None], labels: Mapping[str, int | str] | None = None):
        self.inputs = dict(inputs)
        self.labels = labels or {}
        self.opened: list[str] = []

    def items(self) -> Iterator[Item]:
        return (Item(name, label=self.labels.get(name)) for name in self.inputs)

    def open(self, item: Item) -> Tensor:
        self.opened.append(item.id)
        tensor = self.inputs[item.id]
        if tensor is None:
            raise OSError("it is torn")
        return tensor

    def described(self) -> dict[str, Any]:
        return {"kind": "inputs"}


class Net(nn.Module):
    """Four classes from 3 x 8 x 8, and it counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 5, 3, padding=1)
        self.head = nn.Linear(5, 4)
        self.passes: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.passes.append(len(inputs))
        scores: Tensor = self.head(torch.relu(self.features(inputs)).mean((2, 3)))
        return scores


def inputs_of(count: int) -> dict[str, Tensor | None]:
    made = torch.randn((count, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    return {f"item-{number}": each for number, each in enumerate(made)}


def ran(out: Path, source: Any, methods: Any = ("grad_cam", "gradient"), model: Any = None, **more: Any) -> Batch:
    more = {"batch_size": 3, "shard_size": 4, "workers": 0, **more}
    return cnnviz.batch(Net().eval() if model is None else model, source, methods, out, **more)


def bytes_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "shards").iterdir())}


@pytest.mark.parametrize("target", [None, 2, true_class], ids=str)
def test_every_item_has_what_explain_gives_for_it_alone(tmp_path: Path, target: Any) -> None:
    inputs = inputs_of(10)
    labels = {name: number % 4 for number, name in enumerate(inputs)}
    batch = ran(tmp_path, Inputs(inputs, labels), target=target, metrics=["sparseness", "average_drop"])
    model = Net().eval()
    assert len(batch) == 10
    for number, (name, tensor) in enumerate(inputs.items()):
        assert tensor is not None
        own = labels[name] if target is true_class else target
        expected = cnnviz.explain(model, tensor[None], ["grad_cam", "gradient"], target=own)
        row = batch.table()[number]
        assert row["id"] == name
        assert row["predicted"] == int(model(tensor[None]).argmax())
        for method, explanation in expected.items():
            found = batch[number][method]
            torch.testing.assert_close(found.values, explanation.values, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(found.score, explanation.score)
            assert found.target == explanation.target
            measured = cnnviz.evaluate(explanation, ["sparseness", "average_drop"], model=model)
            for metric, value in measured.items():
                assert row[f"{method}.{metric}"] == pytest.approx(float(value[0]), rel=1e-3, abs=1e-5)


def test_items_are_read_once_and_pass_once_for_all_methods(tmp_path: Path) -> None:
    methods = ["grad_cam", "gradient", "guided_backprop", "hires_cam"]
    source, model, alone = Inputs(inputs_of(18)), Net().eval(), Net().eval()
    ran(tmp_path / "four", source, methods, model, shard_size=6)
    assert sorted(source.opened) == sorted(source.inputs)
    ran(tmp_path / "one", source, methods[:1], alone, shard_size=6)
    assert model.passes == alone.passes
    assert model.passes.count(3) == 6  # batches; before the first one it is asked whether inputs are independent
    assert sum(model.passes) - 18 <= 2


def test_bytes_are_the_same_after_any_interruption(tmp_path: Path) -> None:
    source = Inputs({**inputs_of(10), "item-5": None})
    ran(tmp_path / "whole", source)
    whole = bytes_of(tmp_path / "whole")
    ran(tmp_path / "parts", source)
    for lost in ("000000.safetensors", "000002.safetensors"):
        (tmp_path / "parts" / "shards" / lost).unlink()
    source.opened.clear()
    ran(tmp_path / "parts", source)
    assert bytes_of(tmp_path / "parts") == whole
    assert len(source.opened) == 6  # of the shards that were lost, and no others
    ranks = [prepared(tmp_path / "ranks", source) for _ in range(2)]
    for rank, run in enumerate(ranks):
        run.compute(cnnviz.backends["local"](workers=0), (rank, 2))
    assert bytes_of(tmp_path / "ranks") == whole


def prepared(out: Path, source: Any) -> Any:
    from cnnviz.datasets.asking import asked

    model = Net().eval()

    def question(there: Any) -> Any:
        return asked(
            model,
            ["grad_cam", "gradient"],
            (),
            cnnviz.ExplainOptions(),
            MapStorage(),
            None,
            {},
            batch_size=3,
            there=there,
        )

    return prepare_run(out, source, question, 4)


def test_a_map_depends_on_no_neighbour_and_no_order(tmp_path: Path) -> None:
    inputs = inputs_of(7)
    forth = ran(tmp_path / "forth", Inputs(inputs), "smoothgrad", samples=3, seed=5)
    back = ran(tmp_path / "back", Inputs(dict(reversed(inputs.items()))), "smoothgrad", samples=3, seed=5)
    for number in range(7):
        ours, theirs = forth[number]["smoothgrad"].values, back[6 - number]["smoothgrad"].values
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_read_or_explained_costs_its_row(tmp_path: Path) -> None:
    inputs = inputs_of(6)
    inputs |= {"item-1": None, "item-3": torch.full((3, 8, 8), float("nan")), "item-4": torch.ones(3, 2)}
    batch = ran(tmp_path, Inputs(inputs))
    errors = {row["id"]: row["error"] for row in batch.failed}
    assert list(errors) == ["item-1", "item-3", "item-4"]
    assert errors["item-1"] == "it is torn"
    assert errors["item-3"] == "it has values that are NaN or infinite"
    model = Net().eval()
    for number in (0, 2, 5):
        tensor = inputs[f"item-{number}"]
        assert tensor is not None
        expected = cnnviz.explain(model, tensor[None], "gradient").values
        torch.testing.assert_close(batch["gradient"][number].values, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(LookupError, match="it is torn"):
        batch[1]


def test_a_bad_item_keeps_its_place_so_that_its_neighbours_keep_their_bytes(tmp_path: Path) -> None:
    """Two runs that differ in what is bad: the others of the batch have equal bits."""
    inputs = inputs_of(3)
    zeros = ran(tmp_path / "zeros", Inputs({**inputs, "item-1": torch.zeros(3, 8, 8)}))
    torn = ran(tmp_path / "torn", Inputs({**inputs, "item-1": None}))
    for number in (0, 2):
        assert torch.equal(zeros["gradient"][number].values, torn["gradient"][number].values)


def test_another_question_is_refused_and_what_differs_is_said(tmp_path: Path) -> None:
    source = Inputs(inputs_of(4))
    ran(tmp_path, source)
    other = Net().eval()
    with torch.no_grad():
        other.head.bias[0] += 1e-3
    for more, told in (
        ({"seed": 3}, r"options\.seed is 0 there and 3 now"),
        ({"model": other}, r"model\.sha256 is"),
        ({"methods": "grad_cam"}, r"methods\.gradient is only there"),
        ({"target": 1}, r"target is the predicted class there and 1 now"),
        ({"batch_size": 2}, r"fixed\.batch is 3 there and 2 now"),
        ({"shard_size": 2}, r"shard_size is 4 there and 2 now"),
        ({"storage": MapStorage("float16")}, r"storage\.kept is full there and float16 now"),
    ):
        with pytest.raises(ValueError, match=f"holds another run: .*{told}.*choose another folder"):
            ran(tmp_path, source, **more)
    assert len(ran(tmp_path, source, batch_size=None, shard_size=None)) == 4  # what the plan has


def test_a_grown_source_is_taken_in_where_that_is_asked(tmp_path: Path) -> None:
    inputs = inputs_of(9)
    first = dict(list(inputs.items())[2:8])
    ran(tmp_path, Inputs(first))
    before = bytes_of(tmp_path)
    with pytest.raises(ValueError, match=r"'item-0' and 2 other items of the source is not in the run .*--add"):
        ran(tmp_path, Inputs(inputs))
    batch = ran(tmp_path, Inputs(inputs), add=True)
    assert batch.ids == [*first, "item-0", "item-1", "item-8"]
    assert before.items() <= bytes_of(tmp_path).items()
    with pytest.raises(ValueError, match=r"'item-2' of the run in .* is not in the source any more"):
        ran(tmp_path, Inputs({name: each for name, each in inputs.items() if name != "item-2"}))
    with pytest.raises(ValueError, match="had another label or mask"):
        ran(tmp_path, Inputs(inputs, dict.fromkeys(inputs, 1)))


def test_two_processes_that_add_at_once_share_one_plan(tmp_path: Path) -> None:
    inputs = inputs_of(9)
    first, second = Inputs(dict(list(inputs.items())[:8])), Inputs(inputs)
    ran(tmp_path, Inputs(dict(list(inputs.items())[:4])))
    plan = read_plan(tmp_path)
    added(plan, list(first.items())[4:])  # by a process that began as the other one, and was quicker
    told = added(plan, list(second.items())[4:])
    assert [part.items for part in told.parts] == [4, 4]  # what was there first stays
    assert ran(tmp_path, second, add=True).ids == [*inputs]
    assert [part.items for part in read_plan(tmp_path).parts] == [4, 4, 1]
    assert cnnviz.open_batch(tmp_path).verify() == []


def test_files_in_work_that_dead_processes_left_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)  # no process has such a number
    left = [temporary_in(folder) for folder in (tmp_path, tmp_path / "shards")]
    monkeypatch.undo()
    (tmp_path / "shards").mkdir()
    for path in left:
        path.write_bytes(b"half")
    ran(tmp_path, Inputs(inputs_of(4)))
    assert not any(path.exists() for path in left)


def test_what_runs_out_of_memory_is_halved_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Inputs(inputs_of(8))
    ran(tmp_path / "whole", source)
    explained = Answering._together

    def small(self: Any, batch: Any, inputs: Tensor, failed: Any) -> Any:
        if len(inputs) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return explained(self, batch, inputs, failed)

    monkeypatch.setattr(Answering, "_together", small)
    ran(tmp_path / "halved", source)
    whole, halved = cnnviz.open_batch(tmp_path / "whole"), cnnviz.open_batch(tmp_path / "halved")
    peak = float(whole.maps("gradient").abs().max())
    torch.testing.assert_close(halved.maps("gradient"), whole.maps("gradient"), rtol=0, atol=1e-2 * peak)
    header = bytes_of(tmp_path / "halved")["000000.safetensors"][:4000].decode("latin-1")
    assert r"\"disturbed\":{\"halved\":true}" in header
    assert "disturbed" not in bytes_of(tmp_path / "whole")["000000.safetensors"][:4000].decode("latin-1")


def test_a_question_that_nothing_answers_ends_at_once(tmp_path: Path) -> None:
    source = Inputs(inputs_of(12))
    with pytest.raises(RunError, match=r"none of the first 4 items could be explained: .*no layer"):
        ran(tmp_path, source, "grad_cam", layer="features.9")
    assert len(source.opened) <= 12
    with pytest.raises(TypeError, match="no setting 'lier'"):
        ran(tmp_path / "other", source, "grad_cam", lier="features")
    with pytest.raises(ValueError, match="true classes are explained, and no item has a label"):
        ran(tmp_path / "labels", source, target=true_class)


def test_no_setting_of_a_method_or_metric_is_taken_for_an_argument_of_the_run() -> None:
    """Such a setting could not be given."""
    own = set(inspect.signature(cnnviz.batch).parameters) - {"settings"}
    for registry in (cnnviz.attributions, cnnviz.metrics):
        for name in registry:
            assert not own & set(registry[name].settings), name


def test_the_model_is_never_changed(tmp_path: Path) -> None:
    model = Net().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    threads = torch.get_num_threads()
    ran(tmp_path, Inputs(inputs_of(4)), model=model, threads=1)
    assert torch.get_num_threads() == threads
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.grad is None and value.requires_grad for value in model.parameters())


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_signals_pictures_and_volumes(tmp_path: Path, rank: int, averaging_net: nn.Module) -> None:
    inputs = tiny_inputs(rank)
    source = Inputs({str(number): each for number, each in enumerate(inputs)})
    batch = ran(tmp_path, source, "gradient", averaging_net)
    expected = cnnviz.explain(averaging_net, inputs, "gradient").values
    torch.testing.assert_close(batch.maps("gradient"), expected, rtol=1e-4, atol=1e-6)


def test_inputs_of_several_sizes_are_explained_each_at_its_own(tmp_path: Path) -> None:
    sizes = (6, 8, 6, 9)
    inputs = {
        str(n): torch.randn((3, side, 8), generator=torch.Generator().manual_seed(n)) for n, side in enumerate(sizes)
    }
    batch = ran(tmp_path, Inputs(inputs), "gradient")
    for number, tensor in enumerate(inputs.values()):
        expected = cnnviz.explain(Net().eval(), tensor[None], "gradient").values
        torch.testing.assert_close(batch["gradient"][number].values, expected, rtol=1e-4, atol=1e-6)


def test_a_probe_commits_nothing_and_an_item_left_out_has_its_reason(tmp_path: Path) -> None:
    source = Inputs(inputs_of(4))
    run = prepared(tmp_path, source)
    assert isinstance(run.job, ShardJob)
    do = run.job.open()
    source.opened.clear()
    do(Task(0, probe=(1, 3)))
    assert sorted(source.opened) == ["item-1", "item-3"]
    assert bytes_of(tmp_path) == {}
    do(Task(0, left_out={2: "it kills the worker: SIGSEGV"}))
    batch = cnnviz.open_batch(tmp_path)
    assert [(row["id"], row["error"]) for row in batch.failed] == [("item-2", "it kills the worker: SIGSEGV")]


def test_a_damaged_plan_is_one_clear_line(tmp_path: Path) -> None:
    ran(tmp_path, Inputs(inputs_of(4)))
    path = tmp_path / "batch.json"
    told = json.loads(path.read_text())
    for changed in (
        "{",
        "[]",
        json.dumps({**told, "kind": "other"}),
        json.dumps({**told, "format": 99}),
        json.dumps({**told, "shard_size": 5}),
        json.dumps({**told, "parts": [{**told["parts"][0], "file": "../items.jsonl"}]}),
    ):
        path.write_text(changed)
        with pytest.raises(ValueError, match="is no plan of a batch run") as raised:
            read_plan(tmp_path)
        assert "\n" not in str(raised.value)


def test_pictures_of_a_folder_with_their_labels(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for name in ("star/b.png", "star/a.png", "ring/c.png"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 255, (96, 96, 3), np.uint8)).save(file)
    model = cnnviz.load_model("demo")
    batch = ran(tmp_path / "out", tmp_path / "photos", "grad_cam", model, target=true_class)
    assert batch.ids == ["ring/c.png", "star/a.png", "star/b.png"]
    assert [row["label"] for row in batch.table()] == ["ring", "star", "star"]
    assert [row["class"] for row in batch.table()] == ["ring", "star", "star"]
    assert model.categories is not None
    assert [row["target"] for row in batch.table()] == [model.categories.index(x) for x in ("ring", "star", "star")]
