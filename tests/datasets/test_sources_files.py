"""Folders, lists and tables as sources: the items that a plain walk and plain parsing give, in one order."""

from __future__ import annotations

import csv
import json
import os
import pickle
import random
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from picture_tree import put
from PIL import Image

from cnnviz.datasets import Item, checked_items, mask_file, source_from_described, source_of
from cnnviz.images.reading import read_picture
from cnnviz.images.writing import encoded

GRAY = Image.new("RGB", (4, 3), "gray")


def ids(source: Any) -> list[str]:
    return [item.id for item in source.items()]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    put(folder, "b/2.png", "b/10.png", "a/x/1.png", "a.png", "B/1.png", "a-b/1.png", "z.png", "ä.png")
    return folder


def test_a_tree_gives_all_its_pictures_in_the_order_of_their_parts(tree: Path) -> None:
    walked = [Path(above, name).relative_to(tree) for above, _, names in os.walk(tree) for name in names]
    expected = [path.as_posix() for path in sorted(walked, key=lambda path: path.parts)]
    assert len(expected) == 8
    assert ids(source_of(tree)) == expected
    assert ids(source_of(tree, recursive=False)) == ["a.png", "z.png", "ä.png"]


def test_ids_do_not_tell_where_the_data_lies_nor_in_which_order_it_was_written(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "deeper"
    files = [path for path in tree.rglob("*") if path.is_file()]
    random.Random(0).shuffle(files)
    for file in files:
        place = copy / file.relative_to(tree)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    assert list(source_of(copy).items()) == list(source_of(tree).items())


def test_an_item_opens_as_its_file_in_any_thread_and_in_another_process(tree: Path) -> None:
    source = pickle.loads(pickle.dumps(source_of(tree)))
    items = list(source.items())
    with ThreadPoolExecutor(4) as threads:
        opened = list(threads.map(source.open, items * 5))
    assert opened == [tree / item.id for item in items] * 5


def test_what_is_no_question_is_left_out_and_told(tree: Path) -> None:
    (tree / ".hidden.png").write_bytes((tree / "a.png").read_bytes())
    (tree / "notes.md").write_text("text")
    (tree / "b" / "answer.png").write_bytes(encoded(np.zeros((3, 4, 3), np.uint8), ".png"))
    (tree / "b" / "answer.webp").write_bytes(encoded(np.zeros((3, 4, 3), np.uint8), ".webp"))
    (tree / "gone.png").symlink_to(tree / "nowhere.png")
    (tree / "circle").symlink_to(tree)
    put(tree / "out" / "shards", "1.png")
    (tree / "out" / "batch.json").write_text("{}")
    source = source_of(tree)
    assert len(ids(source)) == 8
    (note,) = source.notes
    told = ("1 file of another kind (.md)", "1 broken link", "1 folder", "2 pictures that cnnviz made", "1 folder of a")
    assert all(each in note for each in told), note
    with pytest.raises(ValueError, match="holds the answers of a batch run"):
        source_of(tree / "out")


def test_many_files_of_a_folder_are_looked_into_by_threads(tmp_path: Path) -> None:
    answer, question = encoded(np.zeros((3, 4, 3), np.uint8), ".png"), b"no picture, which its turn tells"
    for number in range(600):
        (tmp_path / f"{number:03d}.png").write_bytes(answer if number % 3 == 0 else question)
    assert ids(source_of(tmp_path)) == [f"{number:03d}.png" for number in range(600) if number % 3]


def test_a_name_that_is_no_text_is_left_out_and_told(tree: Path) -> None:
    shutil.copy(tree / "a.png", os.fsencode(tree) + b"/\xff.png")
    source = source_of(tree)
    assert len(ids(source)) == 8
    assert "1 whose names are no UTF-8" in source.notes[0]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.tar").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"holds no pictures .*left out: 1 file of another kind.*\*.tar"):
        ids(source_of(tmp_path))
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        source_of(tmp_path / "not there")


@pytest.mark.parametrize("given", ["s3://bucket/train", "https://host/a.tar", ["a.png", "gs://bucket/b.png"]])
def test_a_url_is_refused(given: str | list[str]) -> None:
    with pytest.raises(FileNotFoundError, match="is a URL, and URLs are not fetched; download it first"):
        source_of(given)


def test_ids_of_a_list_are_relative_to_the_folder_of_all(tree: Path) -> None:
    paths = [tree / "b" / "2.png", str(tree / "b" / "10.png"), tree / "a.png"]
    source = source_of(paths)
    assert ids(source) == ["b/2.png", "b/10.png", "a.png"]
    assert [source.open(item) for item in source.items()] == [Path(path) for path in paths]
    assert ids(source_of(paths[:2])) == ["2.png", "10.png"]
    assert ids(source_of([tree / "b", tree / "a.png"])) == ["b/10.png", "b/2.png", "a.png"]
    assert ids(source_of(str(tree / "b" / "*.png"))) == ["10.png", "2.png"]
    assert ids(source_of(tree / "a.png")) == ["a.png"]
    with pytest.raises(ValueError, match=r"'2.png' is there twice, in places 0 and 2; keep one of them"):
        ids(source_of([*paths[:2], paths[0]]))
    assert ids(source_of(["b/2.png", tree / "a.png"], root=tree)) == ["b/2.png", "a.png"]
    assert ids(source_of(["2.png"], root=tree / "b")) == ["2.png"]
    with pytest.raises(ValueError, match="tars are named beside other files"):
        source_of([tree / "a.png", "b.tar"])
    with pytest.raises(ValueError, match="no pictures given"):
        source_of([])
    with pytest.raises(TypeError, match="this one is of both"):
        source_of([paths[0], GRAY])


def test_a_list_in_a_file_is_relative_to_the_file(tree: Path) -> None:
    (tree / "list.txt").write_text("b/2.png\n\n./a.png\r\nb//10.png\nnot there.png\n", encoding="utf-8-sig")
    source = source_of(tree / "list.txt")
    items = list(source.items())
    assert [item.id for item in items] == ["b/2.png", "a.png", "b/10.png", "not there.png"]
    assert read_picture(source.open(items[0])).getpixel((0, 0)) == (0, 7, 9)
    with pytest.raises(FileNotFoundError, match=r"not there.png"):  # costs its row, when its turn comes
        read_picture(source.open(items[3]))


def test_a_list_of_another_folder_is_refused_before_all_rows_fail(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("b/2.png\na.png\n")
    with pytest.raises(FileNotFoundError, match=r"none of the first 2 files is there, such as '.*b/2.png'; say which"):
        ids(source_of(tmp_path / "list.txt"))
    assert ids(source_of(tmp_path / "list.txt", root=tree)) == ["b/2.png", "a.png"]
    (tree / "val.txt").write_text("b/2.png 65\n")
    with pytest.raises(ValueError, match=r"'b/2.png 65' is more than a path; write a .csv with the columns path,label"):
        ids(source_of(tree / "val.txt"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".csv", ";"), (".tsv", "\t")])
def test_a_table_is_read_as_it_was_written(tree: Path, encoding: str, suffix: str, separator: str) -> None:
    put(tree, 'odd, "name".png', "two\nlines.png")
    rows = [
        ("b/2.png", "tabby, cat", "masks/2.png"),
        ('odd, "name".png', "7", ""),
        ("two\nlines.png", "", ""),
        ("ä.png", "é", ""),
    ]
    with (tree / f"table{suffix}").open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerows([("Path", "other", "Label", "mask"), *((path, "x", *rest) for path, *rest in rows), ()])
    source = source_of(tree / f"table{suffix}")
    expected = [Item(path, None, label or None, mask or None) for path, label, mask in rows]
    assert list(source.items()) == expected
    assert mask_file(source, expected[0]) == tree / "masks" / "2.png"
    assert mask_file(source, expected[1]) is None
    assert [item.label for item in source_of(tree / f"table{suffix}", labels=None).items()] == [None] * 4


def test_a_parquet_table_has_the_same_items(tree: Path) -> None:
    columns: dict[str, Sequence[Any]] = {
        "file": ["b/2.png", "a.png", "z.png"],
        "label": [3, None, 0],
        "mask": [None, "m.png", None],
        "n": [1, 2, 3],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tree / "t.parquet", row_group_size=2)
    expected = [Item("b/2.png", None, 3), Item("a.png", None, None, "m.png"), Item("z.png", None, 0)]
    assert list(source_of(tree / "t.parquet").items()) == expected
    floats = pyarrow.table(columns | {"label": [3.0, float("nan"), 0.0]})  # as pandas keeps missing numbers
    pyarrow.parquet.write_table(floats, tree / "t.parquet")
    assert list(source_of(tree / "t.parquet").items()) == expected
    for column, values, told in (
        ("label", [0.5, 1.0, 2.0], "row 1: 0.5 is no label"),
        ("file", ["a.png", None, "z.png"], "row 2: it names no picture"),
        ("file", [b"1", b"2", b"3"], "row 1: a bytes is no path"),
    ):
        pyarrow.parquet.write_table(pyarrow.table(columns | {column: values}), tree / "t.parquet")
        with pytest.raises(ValueError, match=told):
            ids(source_of(tree / "t.parquet"))
    (tree / "t.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="is no Parquet that can be read"):
        source_of(tree / "t.parquet")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pth,label\na.png,1\n", "has no column 'path'; its first line names pth, label; is it 'pth'"),
        ("path,label\na.png,1\n,2\n", "line 3: it names no picture"),
        ("path,label\n", "has no rows"),
        ("", "has no column 'path'; its first line names nothing"),
        ("path,label\na.png,1\n./b/../a.png,2\n", "'a.png' is there twice, in lines 2 and 3"),
        ("path\na.png\ns3://bucket/x.png\n", "line 3: 's3://bucket/x.png' is a URL"),
        ("path,label\na.png,\xff\n", "is no text in UTF-8"),
    ],
)
def test_what_is_wrong_with_a_table_is_told_with_its_line(tree: Path, text: str, told: str) -> None:
    (tree / "t.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises((ValueError, OSError), match=told) as raised:
        ids(source_of(tree / "t.csv"))
    assert "\n" not in str(raised.value)


def test_a_column_that_is_hardly_misspelled_is_told(tree: Path) -> None:
    (tree / "t.csv").write_text("path,Lable,n\nb/2.png,cat,1\n")
    source = source_of(tree / "t.csv")
    assert list(source.items()) == [Item("b/2.png", None, "b")]  # the folder, which may be a class
    assert source.notes == (f"table '{tree}/t.csv': its column 'Lable' is not read; labels are in a column 'label'",)
    for head in ("path,other,n", "path,class,lable"):
        (tree / "t.csv").write_text(f"{head}\nb/2.png,cat,1\n")
        source = source_of(tree / "t.csv")
        assert len(ids(source)) == 1
        assert source.notes == ()


def test_a_table_of_two_columns_needs_no_names(tree: Path) -> None:
    (tree / "t.csv").write_text("b/2.png,3\na.png,\n")
    assert list(source_of(tree / "t.csv").items()) == [Item("b/2.png", None, "3"), Item("a.png")]


def test_ids_of_absolute_paths_are_relative_to_the_folder_of_all(tree: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "tables" / "t.csv"
    elsewhere.parent.mkdir()
    elsewhere.write_text(f"path\n{tree}/b/2.png\n{tree}/a.png\n")
    source = source_of(elsewhere)
    assert ids(source) == ["b/2.png", "a.png"]
    assert [source.open(item) for item in source.items()] == [tree / "b/2.png", tree / "a.png"]
    elsewhere.write_text("path\n../photos/b/2.png\n..\\photos\\a.png\n")
    assert ids(source_of(elsewhere)) == ["b/2.png", "a.png"]
    (tree / "t.csv").write_text(f"path\n{tree}/b/2.png\na.png\n")
    assert ids(source_of(tree / "t.csv")) == ["b/2.png", "a.png"]


def test_pages_and_items_of_files_are_named_by_their_numbers(tree: Path) -> None:
    GRAY.save(tree / "scan.tif", save_all=True, append_images=[Image.new("RGB", (5, 3), "red")])
    (tree / "t.csv").write_text("path,label\nscan.tif#0,a\nscan.tif#1,b\n")
    source = source_of(tree / "t.csv")
    assert ids(source) == ["scan.tif#0", "scan.tif#1"]
    assert [read_picture(source.open(item)).size for item in source.items()] == [(4, 3), (5, 3)]


def test_masks_are_found_by_the_names_of_their_pictures(tree: Path) -> None:
    put(tree / "masks", "b/2.png", "b/10.png", "a/x/1.png")
    source = source_of(tree, masks=tree / "masks")
    found = {item.id: item.mask for item in source.items() if item.mask is not None}
    assert found == {"b/2.png": "b/2.png", "b/10.png": "b/10.png", "a/x/1.png": "a/x/1.png"}
    assert not [id for id in ids(source) if id.startswith("masks")]
    assert mask_file(source, Item("b/2.png", None, None, "b/2.png")) == tree / "masks" / "b" / "2.png"
    assert "5 of 8 pictures have no mask" in " ".join(source.notes)
    np.save(tree / "masks" / "b" / "2.npy", np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"'b/2.png' has two masks"):
        ids(source)


def test_masks_of_a_folder_take_the_place_of_those_of_a_table(tree: Path) -> None:
    put(tree / "masks", "b/2.png")
    (tree / "t.csv").write_text("path,mask\nb/2.png,z.png\na.png,z.png\n")
    source = source_of(tree / "t.csv", masks=tree / "masks")
    assert [mask_file(source, item) for item in source.items()] == [tree / "masks" / "b" / "2.png", None]
    own = source_of(tree / "t.csv")
    assert [mask_file(own, item) for item in own.items()] == [tree / "z.png"] * 2


def test_a_mask_of_two_pictures_and_masks_of_none_are_refused(tree: Path, tmp_path: Path) -> None:
    put(tmp_path / "masks", "1.png")
    with pytest.raises(ValueError, match=r"mask '1' fits 'B/1.png' and 'a/x/1.png'; put it into folders"):
        ids(source_of(tree, masks=tmp_path / "masks"))
    put(tmp_path / "others", "unlike.png")
    with pytest.raises(ValueError, match="none of 8 pictures has a mask in"):
        ids(source_of(tree, masks=tmp_path / "others"))
    with pytest.raises(FileNotFoundError, match="no folder of masks"):
        source_of(tree, masks=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is both the pictures and their masks"):
        ids(source_of(tree, masks=tree))


def test_what_a_source_tells_makes_it_again(tree: Path, tmp_path: Path) -> None:
    put(tmp_path / "masks", "b/2.png")
    (tree / "t.csv").write_text("path,label,mask\nb/2.png,cat,masks/2.png\n")
    for source in (
        source_of(tree, masks=tmp_path / "masks", labels="folder"),
        source_of([tree / "b" / "2.png", tree / "a.png"]),
        source_of(tree / "t.csv"),
    ):
        items = list(source.items())
        again = source_from_described(json.loads(json.dumps(source.described())))
        assert again is not None
        assert [again.open(item) for item in items] == [source.open(item) for item in items]
        assert [mask_file(again, item) for item in items] == [mask_file(source, item) for item in items]
    assert source_from_described({"kind": "dataset", "items": 3}) is None
    assert source_from_described({"kind": "table", "root": "/x"}) is None


def test_the_items_of_any_source_are_checked() -> None:
    class Twice:
        def __init__(self, *ids: Any):
            self.ids = ids

        def items(self) -> Any:
            return map(Item, self.ids)

        def open(self, item: Item) -> Image.Image:
            return GRAY

        def described(self) -> dict[str, Any]:
            return {}

    source = Twice("a", "b")
    assert source_of(source) is source
    assert [item.id for item in checked_items(source)] == ["a", "b"]
    with pytest.raises(ValueError, match="'a' is there twice, in items 0 and 2"):
        list(checked_items(Twice("a", "b", "a")))
    with pytest.raises(ValueError, match="the source has no items"):
        list(checked_items(Twice()))
    with pytest.raises(TypeError, match="whose id is a text"):
        list(checked_items(Twice(3)))
