"""``cnnviz batch``: what it prints, writes and refuses, and that it goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnnviz
from cnnviz.__main__ import main
from cnnviz.cli.batch_run import amount, duration, read_shard_of
from cnnviz.datasets import estimate
from cnnviz.datasets.shards.shard_work import ShardWorker


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures in two folders, one of them damaged. Read only."""
    tmp_path = tmp_path_factory.mktemp("batch")
    noise = np.random.default_rng(0)
    for name in ("ring/0.png", "ring/1.png", "star/2.png", "star/3.png", "star/4.png"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 255, (50, 60, 3), np.uint8)).save(file)
    (tmp_path / "photos" / "star" / "3.png").write_bytes(b"torn")
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def run(photos: Path) -> Path:
    """Read only: the run of these pictures by Grad-CAM."""
    assert main(list(asked(photos, photos.parent / "out", "-q"))) == 1
    return photos.parent / "out"


def asked(*words: Any) -> tuple[str, ...]:
    return ("batch", *map(str, words), "--workers", "0", "--shard-size", "2", "--batch", "2")


def ran(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, list[str], list[str]]:
    status = main([str(word) for word in words])
    said = capsys.readouterr()
    return status, said.out.splitlines(), said.err.splitlines()


def test_a_run_goes_on_and_tells_what_there_is(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    status, said, failed = ran(capsys, *asked(photos, out, "-m", "grad_cam,occlusion", "--window", "24"))
    assert status == 1
    assert said[0].startswith(f"{out}: 4 of 5 items explained, 1 failed; 3 shards, ")
    assert len(failed) == 1
    assert failed[0].startswith("cnnviz: star/3.png: 'star/3.png' is not a picture that can be read")
    batch = cnnviz.open_batch(out)
    assert batch.methods == ("grad_cam", "occlusion")
    assert batch[0]["occlusion"].recipe.startswith("occlusion(window=24")
    assert [row["label"] for row in batch.table()] == ["ring", "ring", "star", "star", "star"]
    assert (out / "table.parquet").exists()
    (out / "shards" / "000001.safetensors").unlink()
    status, said, _ = ran(capsys, "batch", out)
    assert (status, said[0].split("; ")[0]) == (1, f"{out}: 3 of 5 items explained, 0 failed, 2 are missing")
    status, said, failed = ran(capsys, *asked(photos, out, "-m", "grad_cam,occlusion", "--window", "24"))
    assert said[0].startswith(f"{out}: 4 of 5 items explained, 1 failed; 3 shards, ")
    assert failed[0] == "cnnviz: 3 of 5 items are done already"


def test_a_line_of_json_for_each_shard(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, said, _ = ran(capsys, *asked(photos, tmp_path / "out", "--log", "json", "-q"))
    lines = [json.loads(line) for line in said]
    assert [(line["shard"], line["items"], line["failed"], line["done"], line["of"]) for line in lines] == [
        (0, 2, 0, 2, 5),
        (1, 2, 1, 4, 5),
        (2, 1, 0, 5, 5),
    ]
    assert lines[-1]["seconds_left"] == 0


def test_the_cost_is_told_before_and_nothing_written(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said, _ = ran(capsys, *asked(photos, tmp_path / "out", "--dry-run", "-m", "gradient", "--store", "float16"))
    assert status == 0
    assert said[0] == "5 items; 3 were measured with one worker, 1 of them failed"
    each = 3 * 96 * 96 * 2 + 220  # float16, and what is told of an item
    assert said[1] == f"{amount(each)} for each item, {amount(5 * each)} in all"
    assert [line.split(":")[0] for line in said[2:]][-2:] == ["8 workers", "64 workers"]
    assert not (tmp_path / "out").exists()


def test_what_takes_long_is_measured_in_part(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a method of 4,000 passes a few are made, and the time of all told from them."""
    monkeypatch.setattr(estimate, "PATIENCE", 0.05)
    status, said, _ = ran(capsys, *asked(photos, tmp_path / "out", "--dry-run", "-m", "rise", "--masks", "4000"))
    assert status == 0
    assert said[0] == "5 items; one batch takes long, and was measured in part; maps count as large as the input"
    assert said[1] == f"{amount(3 * 96 * 96 * 4 + 220)} for each item, {amount(5 * (3 * 96 * 96 * 4 + 220))} in all"
    assert said[2].startswith("1 worker: ")


def test_export_draws_as_explain_does_at_the_pictures_own_size(
    photos: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(photos, moved)
    drawn = ["--at", "original", "--render", "overlay", "--opacity", "0.3"]
    assert ran(capsys, "batch", moved, run, "--export", tmp_path / "a", *drawn)[0] == 0
    assert ran(capsys, "batch", moved, run, "--export", tmp_path / "a", *drawn, "--overwrite")[0] == 0
    assert ran(capsys, "explain", photos / "star", "-m", "grad_cam", "-o", tmp_path / "b", *drawn)[0] == 1
    for name in ("2", "4"):
        ours = np.asarray(Image.open(tmp_path / "a" / "star" / f"{name}.png.png"))
        assert ours.shape[:2] == (50, 60)
        its = np.asarray(Image.open(tmp_path / "b" / f"{name}_grad_cam.png"))
        assert np.abs(ours.astype(int) - its).max() <= 1


def test_a_run_is_read_again_and_drawn(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, "batch", run, "--verify") == (0, [f"{run}: 5 of 5 items are there and whole"], [])
    assert ran(capsys, "batch", run, "--export", tmp_path / "drawn")[0] == 0
    drawn = sorted(path.relative_to(tmp_path / "drawn").as_posix() for path in (tmp_path / "drawn").rglob("*.*"))
    assert len(drawn) == 4
    status, _, failed = ran(capsys, "batch", run, "--export", tmp_path / "drawn")
    assert (status, len(failed)) == (2, 1)
    assert "is there already, and was not replaced" in failed[0]
    out = tmp_path / "out"
    shutil.copytree(run, out)
    shard = out / "shards" / "000000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    status, _, failed = ran(capsys, "batch", out, "--verify")
    assert status == 1
    assert len(failed) == 1
    assert "000000" in failed[0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{photos}", "{out}", "--true-class", "--target", "star"], "say one"),
        (["{photos}", "{out}", "--shard-of", "3/3"], r"--shard-of is I/N"),
        (["{photos}", "{out}", "--shard-of", "x"], r"--shard-of is I/N"),
        (["{photos}", "{out}", "--backend", "locul"], "there is no backend 'locul'; did you mean 'local'"),
        (["{photos}", "{out}", "--workers", "-1"], r"there can't be -1 workers"),
        (["{photos}", "{out}", "--labels", "{photos}/no.csv"], "no.csv"),
        (["{photos}", "{out}", "--seed", "1"], "options.seed is 0 there and 1 now"),
        (["{empty}", "{other}"], "holds no pictures"),
        (["{photos}", "{other}", "--labels", "none", "--true-class"], "no item has a label"),
        (["{photos}", "{photos}/ring/0.png"], "0.png"),
        (["{other}"], "holds no batch run: it has no batch.json; to explain pictures name the folder of the run"),
        (["{out}", "--at", "original"], "--at says how --export draws, and nothing is drawn"),
        (["{photos}", "{other}", "--lier", "3"], "there is no option --lier"),
    ],
)
def test_what_is_wrong_is_one_clear_line(
    words: list[str], told: str, photos: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    before = {path: path.read_bytes() for path in [*run.rglob("*"), *tmp_path.rglob("*")] if path.is_file()}
    places = {"photos": photos, "out": run, "other": tmp_path / "other", "empty": tmp_path / "empty"}
    line = [word.format(**places) for word in words]
    more = [] if "--workers" in line else ["--workers", "0"]
    status, said, failed = ran(capsys, "batch", *line, *more)
    assert (status, said) == (2, [])
    assert re.search(told, failed[-1]), failed
    assert {path: path.read_bytes() for path in [*run.rglob("*"), *tmp_path.rglob("*")] if path.is_file()} == before


def test_ctrl_c_says_how_to_go_on(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = ShardWorker.__call__

    def struck(self: ShardWorker, task: Any) -> Any:
        if task.shard == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return done(self, task)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWorker, "__call__", struck)
        status, _, failed = ran(capsys, *asked(photos, tmp_path / "out"))
    assert status == 130
    assert failed[-1] == "cnnviz: interrupted; 2 of 5 items are done; the same command goes on"
    assert ran(capsys, *asked(photos, tmp_path / "out"))[0] == 1


def test_a_full_disk_says_what_is_needed_and_a_rerun_finishes(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnnviz.datasets.shards import shard_work
    from cnnviz.datasets.shards.commit import DiskFull

    committed, commit = [], shard_work.commit

    def full(path: Path, content: bytes) -> bool:
        if committed:
            raise DiskFull(f"the disk of '{path.parent}' is full: the next file needs {len(content):,} bytes")
        committed.append(path)
        return commit(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(shard_work, "commit", full)
        status, _, failed = ran(capsys, *asked(photos, tmp_path / "out"))
    assert status == 2
    assert "is full: the next file needs" in failed[-1]
    assert ran(capsys, *asked(photos, tmp_path / "out"))[1][0].startswith(f"{tmp_path / 'out'}: 4 of 5 items explained")


def test_amounts_and_durations_are_read_by_people() -> None:
    assert [amount(x) for x in (0, 999, 1000, 123_456, 5e9, 2e12)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "123.5 kB",
        "5.0 GB",
        "2.0 TB",
    ]
    assert [duration(x / 3600) for x in (1, 119, 600, 8000)] == ["1 s", "119 s", "10 minutes", "2.2 hours"]
    assert read_shard_of("2/3") == (2, 3)
    assert read_shard_of(None) is None
