"""The rows of a batch in files for other programs, and pictures of it in a folder."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_runs import METHODS, Run
from PIL import Image

import cnnviz
from benchmarks.open_batch import write_run
from cnnviz import datasets
from cnnviz.datasets import Batch
from cnnviz.datasets.items import Item
from cnnviz.datasets.plan import added
from cnnviz.datasets.stored import rows
from cnnviz.datasets.stored.export import file_name
from cnnviz.datasets.stored.rows import write_table

parquet: Any = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install 'cnnviz[batch]'")


def test_the_table_is_written_as_parquet(run: Run) -> None:
    batch = cnnviz.open_batch(run.out)
    (run.out / "table.jsonl").write_text("of an earlier run")
    path = write_table(run.out)
    assert path == run.out / "table.parquet"
    assert not (run.out / "table.jsonl").exists()
    table = parquet.read_table(path)
    assert table.to_pylist() == [*batch.table()]
    assert table.schema.equals(batch.to_arrow().schema)
    assert batch.to_arrow().to_pylist() == [*batch.table()]
    assert not [file.name for file in run.out.iterdir() if file.name.startswith(".")]


def test_the_table_is_a_data_frame(batch: Batch) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    assert batch.to_dataframe()["id"].tolist() == batch.ids


def test_without_pyarrow_the_table_is_written_in_lines(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = write_table(run.out)
    batch = cnnviz.open_batch(run.out)
    assert path == run.out / "table.jsonl"
    assert [json.loads(line) for line in path.read_text().splitlines()] == [*batch.table()]
    with pytest.raises(ImportError, match=r"an Arrow table needs pyarrow; pip install 'cnnviz\[batch\]', or use table"):
        batch.to_arrow()


@pytest.mark.parametrize("label", ["text", None, 7])
def test_labels_of_one_column_have_one_type(tmp_path: Path, label: str | int | None, monkeypatch: Any) -> None:
    monkeypatch.setattr(rows, "CHUNK", 1)
    plan = write_run(tmp_path, 7, shard_size=3, side=2)
    added(plan, [Item("last", label=label)])
    labels = [0] * 7 + [label]
    expected = list(map(str, labels)) if label == "text" else labels
    table = parquet.read_table(write_table(tmp_path))
    assert table["label"].to_pylist() == expected
    assert table["status"].to_pylist() == ["ok"] * 7 + ["missing"]
    assert table.num_rows == 8
    assert parquet.ParquetFile(tmp_path / "table.parquet").num_row_groups == 3
    assert [row["label"] for row in cnnviz.open_batch(tmp_path).table()] == labels


def test_a_lost_stale_or_damaged_table_changes_nothing(run: Run) -> None:
    wanted = [*cnnviz.open_batch(run.out).table()]
    path = write_table(run.out)
    for damage in (lambda: path.write_bytes(b"x"), lambda: path.write_bytes(path.read_bytes()[:9]), path.unlink):
        damage()
        batch = cnnviz.open_batch(run.out)
        assert ([*batch.table()], batch.verify()) == (wanted, [])
    (run.out / "shards" / "000000.safetensors").unlink()
    assert [row["status"] for row in cnnviz.open_batch(run.out).table()] == ["missing"] * 3 + ["error"] + ["ok"] * 3


def test_a_table_that_can_not_be_written_leaves_the_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(run.out)
    before = path.read_bytes()
    (run.out / "shards" / "000001.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"000001.safetensors is damaged"):
        write_table(run.out)
    assert path.read_bytes() == before
    assert not [file.name for file in run.out.iterdir() if file.name.startswith(".")]


def test_pictures_are_exported_under_their_ids(batch: Batch, tmp_path: Path) -> None:
    good = batch.answered["grad_cam"]
    assert good.export(tmp_path / "one") == 6
    written = sorted(file.relative_to(tmp_path / "one").as_posix() for file in (tmp_path / "one").rglob("*.*"))
    assert written == sorted(f"{name}.png" for name in good.ids)
    for number, name in enumerate(good.ids):
        with Image.open(tmp_path / "one" / f"{name}.png") as picture:
            assert np.array_equal(np.asarray(picture), good[number].render()[0])
    assert batch[:2].export(tmp_path / "two", "grayscale", at="original", suffix=".webp") == 4
    for method in METHODS:
        with Image.open(tmp_path / "two" / method / "a" / "0.png.webp") as picture:
            assert picture.size == (56, 40)


def test_nothing_is_overwritten_silently(batch: Batch, tmp_path: Path) -> None:
    one = batch[:1]["grad_cam"]
    one.export(tmp_path)
    file = tmp_path / "a" / "0.png.png"
    file.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"0.png.png is there already, and was not replaced; .*overwrite=True"):
        one.export(tmp_path)
    assert file.read_bytes() == b"mine"
    assert one.export(tmp_path, overwrite=True) == 1
    with Image.open(file) as picture:
        assert picture.size == (96, 96)
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match="has no suffix of a picture"):
        one.export(tmp_path / "b", suffix=".gif")
    with pytest.raises(ValueError, match="there is no at='whole'"):
        one.export(tmp_path / "b", at="whole")  # type: ignore[arg-type]
    (tmp_path / "c").write_text("a file")
    with pytest.raises(FileExistsError, match="is no folder, and an item needs it to be one; choose another folder"):
        one.export(tmp_path / "c")


HOSTILE = (
    *(
        "../../x",
        "/etc/x",
        "//x",
        "..",
        ".",
        "",
        "a/../b",
        "a//b",
        "a/./b",
        "...",
        "....",
        "C:\\x",
        "a\\..\\b",
        "a\0b",
        "a\nb",
    ),
    *(
        "a%2Eb",
        "a.b",
        "%2E",
        "%",
        "%_",
        "x" * 300,
        "x" * 301,
        "é" * 200,
        "CON",
        "a?b",
        'a"b',
        "a|b",
        "a*",
        "<a>",
        "\udcff",
    ),
)


def test_no_name_leaves_the_folder_and_no_two_are_alike(tmp_path: Path) -> None:
    names = {}
    for hostile in HOSTILE:
        name = file_name(hostile)
        path = Path(os.path.normpath(tmp_path / f"{name}.png"))
        assert path.is_relative_to(tmp_path)
        assert path != tmp_path
        assert all(0 < len(part.encode("utf-8", "surrogatepass")) <= 240 for part in f"{name}.png".split("/"))
        assert not set(name) & set('\0\n\\:*?"<>|')
        assert name not in names, (hostile, names[name])
        names[name] = hostile
    assert file_name("birds/wren.jpg") == "birds/wren.jpg"
    assert file_name("../x") == "%2E%2E/x"


class Hostile:
    """A source whose items have names that lead elsewhere."""

    ids = ("../../x", "/etc/x", "a/../../../b", "..", "C:\\x")

    def items(self) -> Iterator[Item]:
        return (Item(name) for name in self.ids)

    def open(self, item: Item) -> Image.Image:
        return Image.new("RGB", (40, 40), (self.ids.index(item.id) * 50, 90, 10))

    def described(self) -> dict[str, Any]:
        return {"kind": "hostile"}


def test_items_with_hostile_names_stay_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    out, folder = tmp_path / "deep" / "out", tmp_path / "deep" / "er" / "maps"
    cnnviz.batch(cnnviz.load_model("demo"), Hostile(), ["grad_cam", "gradient"], out, labels=None, workers=0)
    before = {file for file in tmp_path.rglob("*") if file.is_file()}
    assert cnnviz.open_batch(out, source=Hostile()).export(folder) == 2 * len(Hostile.ids)
    written = {file for file in tmp_path.rglob("*") if file.is_file()} - before
    assert len(written) == 2 * len(Hostile.ids)
    assert all(file.is_relative_to(folder) for file in written)


def test_a_link_in_the_folder_is_not_followed_out_of_it(batch: Batch, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "a").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match=r"leads out of .* by a link; choose another folder"):
        batch[:1]["grad_cam"].export(tmp_path / "inside")
    assert not [*(tmp_path / "outside").iterdir()]


def test_the_report_is_the_audits(batch: Batch, tmp_path: Path) -> None:
    batch.report(tmp_path / "report.html", method="grad_cam", by="predicted")
    datasets.audit(batch, "grad_cam", by="predicted").report(tmp_path / "other.html")
    assert (tmp_path / "report.html").read_bytes() == (tmp_path / "other.html").read_bytes()
