"""Damaged and foreign folders: each one clear line, or a fault that verify tells; nothing is believed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batch_runs import METHODS, Run

import cnnviz
from benchmarks.open_batch import write_run
from cnnviz.datasets.plan import digest


def replan(out: Path, change: Callable[[dict[str, Any]], object], signed: bool = False) -> None:
    """Write other words into the plan; ``signed`` as if they were of the run."""
    path = out / "batch.json"
    told = json.loads(path.read_text())
    change(told)
    if signed:
        told["digest"] = digest(told["identity"], told["shard_size"])
    path.write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no plan of a batch run"),
        ("[]", "is no plan of a batch run"),
        ("[" * 100_000, "is no plan of a batch run"),
        ('{"kind": "cnnviz batch"}', "it has no 'format'"),
        ('{"kind": "weights"}', "it is of another kind"),
        ('{"kind": "cnnviz batch", "format": "1"}', "is no plan of a batch run"),
        ('{"kind": "cnnviz batch", "format": 99}', "a later version of cnnviz wrote it, in format 99; update cnnviz"),
    ],
)
def test_a_plan_that_is_none_is_told_in_a_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "batch.json").write_text(content)
    with pytest.raises(ValueError, match=message) as raised:
        cnnviz.open_batch(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told["identity"].update(seed=1),
        lambda told: told["identity"].update(methods={"score_cam": {}}),
        lambda told: told.update(shard_size=4),
        lambda told: told.update(digest="0" * 64),
        lambda told: told.update(categories=["another", "names"]),
        lambda told: told.update(categories=7),
        lambda told: told["parts"][0].update(file="../items-0.jsonl"),
        lambda told: told["parts"][0].update(items=10**12),
        lambda told: told["parts"][0].update(items=0),
        lambda told: told["parts"][0].update(items=2),
        lambda told: told["parts"][0].update(items="7"),
        lambda told: told["parts"][0].update(starts=[9, 3, 0]),
        lambda told: told["parts"][0].update(starts=[0, "1", 2]),
        lambda told: told["parts"][0].update(file=7),
        lambda told: told.update(parts=[]),
        lambda told: told.update(parts={"a": 1}),
    ],
)
def test_a_plan_that_was_changed_is_refused(run: Run, change: Callable[[dict[str, Any]], object]) -> None:
    replan(run.out, change)
    with pytest.raises(ValueError, match="is no plan of a batch run"):
        cnnviz.open_batch(run.out)


@pytest.mark.parametrize("where", ["", "nowhere"])
def test_a_folder_without_a_run_is_told(tmp_path: Path, where: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no batch run: it has no batch.json"):
        cnnviz.open_batch(tmp_path / where)


def shard(out: Path, number: int) -> Path:
    return out / "shards" / f"{number:06d}.safetensors"


def test_a_shard_of_another_run_is_not_believed(run: Run, tmp_path: Path) -> None:
    cnnviz.batch(
        cnnviz.load_model("demo"),
        run.pictures,
        METHODS,
        tmp_path / "other",
        seed=3,
        shard_size=3,
        labels=None,
        workers=0,
    )
    shutil.copy(shard(tmp_path / "other", 0), shard(run.out, 0))
    batch = cnnviz.open_batch(run.out)
    for read in (lambda: batch[0], batch.table, lambda: batch.answered, lambda: batch[:2].maps("grad_cam")):
        with pytest.raises(ValueError, match="is a shard of another run; take it away, and run the same again"):
            read()
    assert len(batch.verify()) == 1
    assert "000000.safetensors is a shard of another run" in batch.verify()[0]
    assert batch[4]["grad_cam"].titles()  # the others are read


def test_a_shard_under_anothers_name_is_not_believed(run: Run) -> None:
    shutil.copy(shard(run.out, 0), shard(run.out, 1))
    batch = cnnviz.open_batch(run.out)
    with pytest.raises(ValueError, match=r"000001.safetensors is shard 0, of 3 items; take it away"):
        batch[3]
    assert len(batch.verify()) == 1


def test_a_shard_of_the_same_question_about_other_items_is_not_believed(tmp_path: Path) -> None:
    """Its identity is the same, so only the ids tell."""
    write_run(tmp_path / "a", 6, shard_size=3, side=2)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    lines = (tmp_path / "b").glob("items-*.jsonl")
    for file in lines:
        file.write_bytes(file.read_bytes().replace(b"00000004", b"00000009"))
    batch = cnnviz.open_batch(tmp_path / "b")
    several = batch[[4, 5, 3]]
    for read in (lambda: batch[4], batch.table, several["grad_cam"].maps, lambda: batch["grad_cam"].maps()):
        with pytest.raises(
            ValueError, match=r"has 'n00000000/00000004.JPEG' where 'n00000000/00000009.JPEG' is planned"
        ):
            read()
    assert [fault.partition(" is damaged")[0] for fault in batch.verify() if "is damaged" in fault]
    assert any("where 'n00000000/00000009.JPEG' is planned" in fault for fault in batch.verify())


def test_every_fault_is_listed_by_verify(run: Run) -> None:
    batch = cnnviz.open_batch(run.out)
    assert batch.verify() == []
    content = bytearray(shard(run.out, 0).read_bytes())
    content[-5] ^= 1
    shard(run.out, 0).write_bytes(content)
    shard(run.out, 1).write_bytes(shard(run.out, 1).read_bytes()[:-9])
    shard(run.out, 2).unlink()  # it is missing, which is no fault
    shard(run.out, 99).write_bytes(b"")
    (run.out / "shards" / ".left-over.tmp").write_bytes(b"x")
    found = cnnviz.open_batch(run.out).verify()
    assert len(found) == 3
    assert "000000.safetensors is damaged: its content is not what its sha256 tells" in found[0]
    assert "000001.safetensors is damaged" in found[1]
    assert "000099.safetensors is no shard of this run, which has 3; take it away" in found[2]
    with pytest.raises(ValueError, match=r"000001.safetensors is damaged, or no shard of a batch"):
        cnnviz.open_batch(run.out)[3]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", ValueError),
        (b"\n" * 7, ValueError),
        (b'{"id":"a"}\n' * 3, ValueError),
        (b'{"id":7}\n' * 7, ValueError),
        (b'{"id":"a","more":1}\n' * 7, ValueError),
        (b'{"id":"a","label":[1]}\n' * 7, ValueError),
        (b"\xff\xfe\n" * 7, ValueError),
        (None, FileNotFoundError),
    ],
)
def test_a_damaged_file_of_items_is_told(run: Run, content: bytes | None, kind: type[Exception]) -> None:
    (file,) = run.out.glob("items-*.jsonl")
    file.unlink()
    if content is not None:
        file.write_bytes(content)
        step = max(1, len(content) // 7)
        replan(run.out, lambda told: told["parts"][0].update(starts=[0, 3 * step, 6 * step]))
    batch = cnnviz.open_batch(run.out)
    with pytest.raises(kind, match=file.name) as raised:
        batch[0]
    assert "\n" not in str(raised.value)
    assert any(file.name in fault for fault in batch.verify())
