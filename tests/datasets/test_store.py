"""A batch that was written is the explanations that ``explain`` gives, and nothing of it is loaded before its use."""

from __future__ import annotations

import copy
import pickle
import shutil
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batch_runs import BROKEN, METHODS, Run
from nets import AveragingNet
from PIL import Image

import cnnviz
from benchmarks.open_batch import write_run
from cnnviz import Explanation
from cnnviz.datasets import Batch, Item, MapStorage, StoredExplanation
from cnnviz.datasets.plan import added
from cnnviz.datasets.shards.item_reading import read_ahead
from cnnviz.datasets.shards.open_shard import OpenShard
from cnnviz.explanations import Explanations, evidence

GOOD = [number for number in range(7) if number != BROKEN]


@cache
def explained(file: Path) -> dict[str, Explanation]:
    """What the picture's explanations are, asked for by themselves."""
    answer: dict[str, Explanation] = cnnviz.explain(cnnviz.load_model("demo"), file, list(METHODS))
    return answer


def test_every_explanation_is_that_of_explain(batch: Batch, whole_run: Run) -> None:
    assert batch.methods == METHODS
    assert len(batch) == 7
    for number in GOOD:
        expected = explained(whole_run.files[number])
        assert isinstance(batch[number], Explanations)
        assert list(batch[number]) == list(METHODS)
        for method in METHODS:
            found, wanted = batch[number][method], expected[method]
            assert isinstance(found, StoredExplanation)
            assert torch.allclose(found.values, wanted.values, rtol=1e-3, atol=1e-3 * float(wanted.values.abs().max()))
            assert torch.equal(found.inputs, wanted.inputs)
            assert found.target is not None
            assert wanted.target is not None
            assert torch.equal(found.target, wanted.target)
            assert torch.allclose(found.score, wanted.score, rtol=1e-4)
            for name in ("recipe", "preprocessing", "categories", "renderer", "computed_in", "of", "together", "boxes"):
                assert getattr(found, name) == getattr(wanted, name), name
            assert found.titles() == wanted.titles()
            assert found.usual_renderer == wanted.usual_renderer
            assert found.item_id == whole_run.files[number].relative_to(whole_run.pictures).as_posix()
            assert vars(found.originals[0]) == vars(wanted.originals[0])  # type: ignore[index, arg-type]


def test_items_are_chosen_as_those_of_a_list(batch: Batch) -> None:
    every = batch.ids
    one = batch["gradient"]
    assert one.methods == ("gradient",)
    assert one[1].recipe == batch[1]["gradient"].recipe
    for chosen in (slice(1, 5), slice(None, None, -2), slice(9, 20)):
        assert batch[chosen].ids == every[chosen]
        assert one[chosen].methods == ("gradient",)
    picks = [5, -7, 1, 1]
    for chosen in (picks, tuple(picks), np.array(picks), torch.tensor(picks)):  # type: ignore[assignment]
        assert batch[chosen].ids == [every[number] for number in picks]
        assert batch[::-1][chosen].ids == [every[::-1][number] for number in picks]
    mask = [name.startswith("b") for name in every]
    for chosen in (mask, np.array(mask), torch.tensor(mask)):  # type: ignore[assignment]
        assert batch[chosen].ids == [name for name in every if name.startswith("b")]
    assert batch[[]].ids == []
    assert batch[np.int64(-1)]["grad_cam"].item_id == every[-1]
    assert batch[torch.tensor(1)]["grad_cam"].item_id == every[1]
    assert [each["grad_cam"].item_id for each in batch.answered] == [every[number] for number in GOOD]


@pytest.mark.parametrize(
    ("chosen", "kind", "message"),
    [
        (7, IndexError, "there is no item 7; there are 7"),
        (-8, IndexError, "there is no item -8; there are 7"),
        ([0, 7], IndexError, "there is no item 7 or 0; there are 7"),
        ([True], IndexError, "a mask of 1 chooses from 7 items; give one value for each"),
        ("grad_cm", LookupError, "there is no method 'grad_cm' in .*; there are grad_cam, gradient"),
        (1.5, TypeError, "an item is chosen by its number, not by a float"),
        ([1.5], TypeError, "items are chosen by their numbers or by True and False, not by float64"),
        ([[1]], TypeError, r"not by int64 \(1, 1\)"),
        (BROKEN, LookupError, "'a/6.png' has no explanation: .*is not a picture that can be read"),
    ],
)
def test_what_chooses_nothing_is_told(batch: Batch, chosen: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        batch[chosen]


def test_an_item_that_is_not_computed_yet_is_missing(run: Run) -> None:
    batch = cnnviz.open_batch(run.out)
    (run.out / "shards" / "000001.safetensors").unlink()
    assert batch.missing.ids == batch.ids[3:6]
    assert batch[2:4].missing.ids == batch.ids[3:4]
    assert batch.answered.ids == [*batch.ids[:3], *batch.ids[6:]]
    assert repr(batch).endswith("7 items by grad_cam, gradient, 3 of them not computed yet)")
    assert [row["status"] for row in batch.table()] == ["ok"] * 3 + ["missing"] * 3 + ["ok"]
    with pytest.raises(LookupError, match=r"'b/1.png' has no explanation: it is not computed yet; the same run again"):
        batch[4]
    with pytest.raises(LookupError, match=r"'a/6.png' is not computed yet; batch.answered has maps"):
        batch["grad_cam"].maps()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """What is read of shards: the name of each tensor, and how many of its rows; -1 for all."""
    found: list[tuple[str, int]] = []
    part, whole = OpenShard._part, OpenShard._read

    def counted(self: OpenShard, name: str, start: int, stop: int) -> Any:
        found.append((name, stop - start))
        return part(self, name, start, stop)

    def counted_whole(self: OpenShard, name: str) -> Any:
        found.append((name, -1))
        return whole(self, name)

    monkeypatch.setattr(OpenShard, "_part", counted)
    monkeypatch.setattr(OpenShard, "_read", counted_whole)
    return found  # type: ignore[return-value]


def test_nothing_is_loaded_before_it_is_used(
    whole_run: Run, reads: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(
        "cnnviz.datasets.stored.stored_explanation.read_ahead",
        lambda batches, *rest, **more: opened.append(batches[0][0].id) or read_ahead(batches, *rest, **more),
    )
    batch = cnnviz.open_batch(whole_run.out)
    view = batch[1:]["grad_cam"][::-1]
    assert (len(view), view.methods, view.ids[0]) == (6, ("grad_cam",), "b/5.png")
    assert reads == []
    every = [batch[number] for number in GOOD]
    assert not [name for name, _ in reads if name.partition("/")[0] in ("maps", "flat", "notes", "scale")]
    assert every[0]["gradient"].titles() == explained(whole_run.files[0])["gradient"].titles()
    reads.clear()
    assert len(every[0]["gradient"].values) == 1
    assert reads == [("maps/gradient", 1)]
    every[0]["gradient"].values, every[0]["gradient"].heatmap(), every[0]["gradient"].usual_renderer
    assert [name for name, _ in reads if name == "maps/gradient"] == ["maps/gradient"]
    assert opened == []
    every[0]["grad_cam"].inputs, every[0]["grad_cam"].inputs
    assert opened == ["a/0.png"]


def test_few_shards_are_open_at_once(tmp_path: Path) -> None:
    plan = write_run(tmp_path, 300, shard_size=3, side=2)
    batch = cnnviz.open_batch(tmp_path)
    numbers = np.random.default_rng(0).permutation(300)
    maps = batch[numbers].maps()
    for number in range(0, 300, 7):
        assert torch.equal(batch[int(numbers[number])]["grad_cam"].values[0], maps[number])
        assert batch._folder._opened.cache_info().currsize <= 64
    assert plan.shards == 100


def test_several_threads_read_one_batch(tmp_path: Path) -> None:
    write_run(tmp_path, 300, shard_size=3, side=2)
    batch, whole = cnnviz.open_batch(tmp_path)["grad_cam"], cnnviz.open_batch(tmp_path)["grad_cam"].maps()
    numbers = np.random.default_rng(0).integers(0, 300, 400).tolist()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: batch[number].values[0], numbers))
    assert torch.equal(torch.stack(found), whole[numbers])


def test_parts_that_were_added_follow_each_other(tmp_path: Path) -> None:
    plan = write_run(tmp_path, 8, shard_size=3, side=2)
    added(plan, [Item(f"new/{number}", label="new") for number in range(4)])
    batch = cnnviz.open_batch(tmp_path)
    assert batch.ids == [f"n00000000/{number:08d}.JPEG" for number in range(8)] + [
        f"new/{number}" for number in range(4)
    ]
    places = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (4, 0)]
    assert [batch._folder.place(number) for number in range(12)] == places
    assert list(zip(*(each.tolist() for each in batch._folder.places(range(12))), strict=True)) == places
    assert batch.missing.ids == batch.ids[8:]
    assert [row["label"] for row in batch.table()] == [0] * 8 + ["new"] * 4


def test_maps_are_those_of_the_explanations(batch: Batch) -> None:
    good = batch.answered
    turned = good[[4, 0, 3]]
    for method in METHODS:
        assert torch.equal(good.maps(method), torch.cat([each[method].values for each in good]))
        assert torch.equal(turned[method].maps(), torch.cat([each[method].values for each in turned]))
    small = good.maps("gradient", size=(16, 12))
    assert torch.allclose(
        small.double(), good.maps("gradient").double().reshape(6, 3, 16, 6, 12, 8).mean((3, 5)), atol=1e-7
    )
    large = good.maps("grad_cam", size=(17, 20))
    wanted = torch.nn.functional.interpolate(good.maps("grad_cam"), (17, 20), mode="bilinear")
    assert torch.allclose(large, wanted)
    with pytest.raises(ValueError, match="there are the methods grad_cam, gradient; name one"):
        good.maps()
    with pytest.raises(LookupError, match=r"'a/6.png' failed and has no map; batch.answered has maps"):
        batch.maps("grad_cam")
    with pytest.raises(ValueError, match="there are no maps of no items"):
        good[:0].maps("grad_cam")
    with pytest.raises(ValueError, match="is no size of maps; give"):
        good.maps("grad_cam", size=(0, 3))
    with pytest.raises(ValueError, match="is of 1 dimensions, and the maps are"):
        good.maps("grad_cam", size=(3,))
    with pytest.raises(ValueError, match="there is no sign 'up'; use auto"):
        good.maps("grad_cam", sign="up")  # type: ignore[arg-type]


@pytest.mark.parametrize("sign", ["auto", "positive", "magnitude", "signed"])
def test_maps_with_a_sign_are_the_evidence(batch: Batch, sign: Any) -> None:
    good = batch.answered
    for method in METHODS:
        own = good[method]
        size = own[0].inputs.shape[2:]
        wanted = torch.stack([evidence(own[number], sign) for number in range(len(own))])
        assert torch.allclose(own.maps(size=size, sign=sign), wanted, atol=1e-7)


def test_the_table_has_what_the_explanations_tell(batch: Batch) -> None:
    table = batch.table()
    assert [row["id"] for row in table] == batch.ids
    for number, row in enumerate(table):
        if number == BROKEN:
            unknown = ("class", "target", "score", "probability", "predicted", "grad_cam.sparseness")
            assert all(row[name] is None for name in unknown)
            assert row["status"] == "error"
            assert "is not a picture that can be read" in row["error"]
            continue
        found = batch[number]["grad_cam"]
        assert (row["class"], row["target"], row["status"]) == (found.names()[0], int(found.target), "ok")
        assert (row["score"], row["probability"]) == (float(found.score), float(found.probability))
        assert row["predicted"] == int(found.target)
        for method in METHODS:
            wanted = float(cnnviz.evaluate(batch[number][method], "sparseness"))
            assert row[f"{method}.sparseness"] == pytest.approx(wanted, rel=1e-4)
    assert [row["id"] for row in batch[::-1].table()] == batch.ids[::-1]
    assert "sparseness" in batch["grad_cam"].table()[0]
    assert batch.metrics == ("sparseness",)
    assert batch.failed == [{"item": BROKEN, "id": "a/6.png", "error": table[BROKEN]["error"]}]
    assert batch[BROKEN:].failed[0]["item"] == 0
    assert "a/6.png" in str(batch.failed)


def test_stored_explanations_are_drawn_measured_and_saved(batch: Batch, whole_run: Run, tmp_path: Path) -> None:
    model = cnnviz.load_model("demo")
    found, wanted = batch[1]["gradient"], explained(whole_run.files[1])["gradient"]
    same = replace(wanted, values=found.values)
    assert np.array_equal(found.render(), same.render())
    assert np.array_equal(found.render(at="original")[0], same.render(at="original")[0])
    assert np.array_equal(found.heatmap(at="original")[0], same.heatmap(at="original")[0])
    assert np.array_equal(found.heatmap(), same.heatmap())
    deletion = [cnnviz.evaluate(each, "deletion", model=model, step=0.25) for each in (found, same)]
    assert torch.allclose(*deletion)
    for inputs in (True, False):
        fresh = cnnviz.open_batch(whole_run.out)[1]["gradient"]
        fresh.save(tmp_path / "one.safetensors", inputs=inputs)
        assert ("inputs" in vars(fresh)) == inputs
        again = Explanation.load(tmp_path / "one.safetensors")
        assert torch.equal(again.values, found.values)
        assert again.titles() == found.titles()
        assert again.inputs.is_meta != inputs
    assert found.to(torch.float64).values.dtype == torch.float64
    assert torch.equal(found[0].inputs, wanted.inputs)
    assert (tmp_path / "a.png") in batch[0]["grad_cam"].save(tmp_path / "a.png")


def test_a_grid_shows_the_items_that_were_answered(batch: Batch, whole_run: Run) -> None:
    pictures = {method: cnnviz.explanations.joined([batch[number][method] for number in (2, 4)]) for method in METHODS}
    assert np.array_equal(np.asarray(batch[2:5].grid(columns=2)), cnnviz.grid(pictures, columns=2))
    with pytest.raises(ValueError, match="a grid shows 1 to 64 items, and these are 0; choose some"):
        batch[BROKEN : BROKEN + 1].grid()


def test_a_batch_and_its_explanations_are_pickled(batch: Batch) -> None:
    found = pickle.loads(pickle.dumps(batch["grad_cam"][::2]))
    assert found.ids == batch.ids[::2]
    one = batch[2]["grad_cam"]
    for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
        assert "values" not in vars(again)
        assert torch.equal(again.values, one.values)
        assert torch.equal(again.inputs, one.inputs)


def test_the_way_out_is_told_where_the_pictures_are_gone(run: Run, whole_run: Run, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.move(run.pictures, moved)
    batch = cnnviz.open_batch(run.out, source=moved)
    assert torch.equal(batch[0]["grad_cam"].inputs, explained(whole_run.files[0])["grad_cam"].inputs)
    assert batch[0]["grad_cam"].originals[0].path == str(moved / "a" / "0.png")
    (moved / "a" / "0.png").unlink()
    gone = cnnviz.open_batch(run.out, source=moved)[0]["grad_cam"]
    with pytest.raises(FileNotFoundError, match=r"'a/0.png' can't be read again: .*; open_batch\('.*', source=...\)"):
        gone.render()
    assert gone.heatmap().shape == (1, 96, 96)
    assert gone.titles() == explained(whole_run.files[0])["grad_cam"].titles()
    Image.new("RGB", (56, 40)).save(moved / "a" / "0.png")
    changed = cnnviz.open_batch(run.out, source=moved)[0]["grad_cam"]
    with pytest.raises(
        ValueError, match=r"the picture 'a/0.png' has changed since it was explained; explain it in a new"
    ):
        changed.render()
    with pytest.raises(ValueError, match="has changed since it was explained"):
        changed.render(at="original")


class InMemory(torch.utils.data.Dataset[Any]):
    """Pictures that have no file."""

    def __init__(self, seed: int = 0) -> None:
        noise = np.random.default_rng(seed)
        self.pictures = [Image.fromarray(noise.integers(0, 256, (40, 60, 3), np.uint8)) for _ in range(2)]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> Image.Image:
        return self.pictures[number]


def test_pictures_in_memory_are_given_again(tmp_path: Path) -> None:
    model = cnnviz.load_model("demo")
    cnnviz.batch(model, InMemory(), "grad_cam", tmp_path, labels=None, workers=0)
    batch = cnnviz.open_batch(tmp_path)["grad_cam"]
    with pytest.raises(ValueError, match=r"can't be opened again by itself; give it: open_batch\(..., source=...\)"):
        batch[0].inputs  # noqa: B018  # reading them is the test
    found = cnnviz.open_batch(tmp_path, source=InMemory())["grad_cam"][1]
    wanted = cnnviz.explain(model, InMemory()[1], "grad_cam")
    assert torch.equal(found.inputs, wanted.inputs)
    assert np.array_equal(found.render(at="original")[0], replace(wanted, values=found.values).render(at="original")[0])
    other = cnnviz.open_batch(tmp_path, source=InMemory(seed=1))["grad_cam"][1]
    with pytest.raises(ValueError, match="has changed since it was explained"):
        other.inputs  # noqa: B018
    with pytest.raises(ValueError, match="has changed since it was explained"):
        other.originals  # noqa: B018


def test_a_gradient_of_which_less_is_kept_is_still_read_as_one(whole_run: Run, tmp_path: Path) -> None:
    """Its sign is not for or against, though its shape is no longer that of the input."""
    model = cnnviz.load_model("demo")
    storage = MapStorage("float16", "magnitude", 24)
    cnnviz.batch(
        model, whole_run.files[:1], ["gradient", "grad_cam"], tmp_path / "out", storage=storage, labels=None, workers=0
    )
    found = cnnviz.open_batch(tmp_path / "out")[0]
    whole = explained(whole_run.files[0])["gradient"].values
    wanted = whole.double().abs().sum(1, keepdim=True).reshape(1, 1, 24, 4, 24, 4).mean((3, 5))
    assert torch.allclose(found["gradient"].values.double(), wanted, rtol=2e-3, atol=1e-3 * float(wanted.max()))
    assert (found["gradient"].fine, found["grad_cam"].fine) == (True, False)
    assert found["gradient"].usual_renderer == explained(whole_run.files[0])["gradient"].usual_renderer
    found["gradient"].save(tmp_path / "one.safetensors", inputs=False)
    again = Explanation.load(tmp_path / "one.safetensors")
    assert again.fine
    assert np.array_equal(again.heatmap(), found["gradient"].heatmap())
    signed = replace(found["gradient"], values=-found["gradient"].values)
    assert np.array_equal(signed.heatmap(), found["gradient"].heatmap())  # as of a gradient, the magnitude counts


def test_pictures_in_tars_are_read_again(whole_run: Run, tmp_path: Path) -> None:
    pack = tmp_path / "pictures.tar"
    with tarfile.open(pack, "w") as tar:
        for file in whole_run.files[:2]:
            tar.add(file, file.name)
    cnnviz.batch(cnnviz.load_model("demo"), pack, "grad_cam", tmp_path / "out", labels=None, workers=0)
    found, wanted = cnnviz.open_batch(tmp_path / "out")["grad_cam"][1], explained(whole_run.files[1])["grad_cam"]
    same = replace(wanted, values=found.values)
    assert torch.equal(found.inputs, wanted.inputs)
    assert np.array_equal(found.render(at="original")[0], same.render(at="original")[0])
    (tmp_path / "elsewhere").mkdir()
    pack.rename(tmp_path / "elsewhere" / "pictures.tar")
    gone = cnnviz.open_batch(tmp_path / "out")["grad_cam"][1]
    for read in (lambda: gone.originals, lambda: gone.inputs):
        with pytest.raises(FileNotFoundError, match=r"the picture '2' can't be read again: .*; open_batch\(") as raised:
            read()
        assert "\n" not in str(raised.value)
    moved = cnnviz.open_batch(tmp_path / "out", source=tmp_path / "elsewhere" / "pictures.tar")["grad_cam"][1]
    assert torch.equal(moved.inputs, wanted.inputs)


class Inputs(torch.utils.data.Dataset[Any]):
    """Inputs as the network takes them."""

    def __init__(self, inputs: torch.Tensor) -> None:
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.inputs[number]


def test_inputs_of_every_rank_are_read_as_the_network_took_them(
    rank: int, inputs: torch.Tensor, averaging_net: AveragingNet, tmp_path: Path
) -> None:
    net, dtype, objective = averaging_net, torch.float64, cnnviz.objectives.channel("second", 1)
    cnnviz.batch(net, Inputs(inputs), ["gradient", "grad_cam"], tmp_path, target=objective, workers=0)
    batch = cnnviz.open_batch(tmp_path, source=Inputs(inputs))
    wanted = cnnviz.explain(net, inputs, ["gradient", "grad_cam"], target=objective)
    for number in range(len(inputs)):
        for method, whole in wanted.items():
            found, one = batch[number][method], whole[number]
            assert (found.inputs.dtype, found.values.dtype) == (dtype, dtype)
            assert torch.equal(found.inputs, one.inputs)
            assert torch.allclose(found.values, one.values, rtol=1e-4, atol=1e-6)
            assert (found.target, found.originals, found.titles()) == (None, None, one.titles())
    drawn, wanted_drawn = batch[0]["gradient"], wanted["gradient"][0]
    assert np.array_equal(drawn.render(), replace(wanted_drawn, values=drawn.values).render())
    assert [row["class"] for row in batch.table()] == [wanted["gradient"].names()[0]] * len(inputs)
    size = (2, 3, 2)[:rank]
    assert batch.maps("gradient", size=size).shape == (*inputs.shape[:2], *size)


def test_maps_of_different_sizes_are_told_and_resampled(whole_run: Run, tmp_path: Path) -> None:
    model = cnnviz.load_model("demo")
    assert model.preprocessing is not None
    files = [whole_run.files[number] for number in (0, 1, 2)]  # 40 x 56, 64 x 50, 72 x 48
    cnnviz.batch(model, files, "gradient", tmp_path, preprocessing=model.preprocessing.whole(), labels=None, workers=0)
    batch = cnnviz.open_batch(tmp_path)["gradient"]
    shapes = [tuple(each.values.shape[2:]) for each in batch]
    assert len(set(shapes)) == 3
    assert [tuple(each.inputs.shape[2:]) for each in batch] == shapes
    with pytest.raises(ValueError, match=r"maps differ in shape, .* and .*; give a size, such as size=\(16, 16\)"):
        batch.maps()
    small = batch.maps(size=(8, 8))
    for number in range(3):
        assert torch.allclose(batch[[number]].maps(size=(8, 8)), small[number : number + 1], atol=1e-7)
        assert torch.allclose(batch[number].values.mean((2, 3)), small[number].mean((1, 2)), atol=1e-6)
    with pytest.raises(ValueError, match="the inputs have different sizes"):
        batch.grid()
