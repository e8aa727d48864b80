"""Labels of sources: from folders, tables and data sets to the classes of a network, or a line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from picture_tree import put
from PIL import Image
from torchvision.datasets import ImageFolder

from cnnviz.datasets import class_of_labels, source_of

NAMES = ("tabby, tabby cat", "golden retriever", "tench")


def classes(source: Any, categories: Any = NAMES, num_classes: int | None = None) -> dict[str, int | None]:
    """The class of each item by its id."""
    items = list(source.items())
    found = class_of_labels(source, items, categories, num_classes)
    return {item.id: found.of(item) for item in items}


def told(source: Any, categories: Any = NAMES, num_classes: int | None = None) -> str:
    return "; ".join(class_of_labels(source, source.items(), categories, num_classes).notes)


def test_folders_are_labels_where_all_of_them_are_named_as_classes(tmp_path: Path) -> None:
    put(tmp_path, "tabby/1.png", "golden_retriever/a/1.png", "Tench/1.png", "1.png")
    expected = {"tabby/1.png": 0, "golden_retriever/a/1.png": 1, "Tench/1.png": 2, "1.png": None}
    assert classes(source_of(tmp_path)) == expected
    assert classes(source_of(tmp_path, labels="folder")) == expected
    assert told(source_of(tmp_path)) == "1 of 4 items have no label"
    assert set(classes(source_of(tmp_path, labels=None)).values()) == {None}
    put(tmp_path, "tenhc/1.png")
    assert set(classes(source_of(tmp_path)).values()) == {None}
    assert "3 of 4 folders or texts are named as classes, and 'tenhc' is not" in told(source_of(tmp_path))
    with pytest.raises(LookupError, match=r"'tenhc/1.png': there is no class 'tenhc'; did you mean 'tench'?.*1 of 4"):
        classes(source_of(tmp_path, labels="folder"))


def test_folders_of_anything_are_no_labels_unless_they_are_asked_for(tmp_path: Path) -> None:
    put(tmp_path, "0/1.png", "1/1.png", "2/1.png")
    assert set(classes(source_of(tmp_path)).values()) == {None}
    assert list(classes(source_of(tmp_path, labels="folder")).values()) == [0, 1, 2]
    assert list(classes(source_of(tmp_path, labels="folder"), None, 3).values()) == [0, 1, 2]
    with pytest.raises(LookupError, match="there is no class 2; there are 2, numbered from 0"):
        classes(source_of(tmp_path, labels="folder"), None, 2)


def test_as_many_folders_as_classes_are_numbered_as_torchvision_does(tmp_path: Path) -> None:
    put(tmp_path, "n03/1.png", "n01/1.png", "n02/x.png", "n02/y.png")
    samples = ImageFolder(tmp_path).samples
    expected = {Path(path).relative_to(tmp_path).as_posix(): number for path, number in samples}
    assert classes(source_of(tmp_path, labels="folder")) == expected
    assert "numbered from 0 in their order (n01, n02, n03" in told(source_of(tmp_path, labels="folder"))
    with pytest.raises(LookupError, match=r"no class 'n01'.*3 labels fit no class, those of 4 of 4 items"):
        classes(source_of(tmp_path, labels="folder"), (*NAMES, "dog"))


def test_that_numbers_and_the_order_of_names_differ_is_told(tmp_path: Path) -> None:
    put(tmp_path, *(f"{number}/1.png" for number in range(11)))
    found = classes(source_of(tmp_path, labels="folder"), None, 11)
    assert found == {f"{number}/1.png": number for number in range(11)}
    assert "ImageFolder numbers them in the order of their names (0, 1, 10" in told(
        source_of(tmp_path, labels="folder"), None, 11
    )


def test_pictures_without_folders_have_no_labels_of_folders(tmp_path: Path) -> None:
    put(tmp_path, "1.png")
    with pytest.raises(ValueError, match="labels are the names of folders, and no picture lies in one"):
        classes(source_of(tmp_path, labels="folder"))


def test_a_table_gives_labels_by_as_much_of_a_path_as_it_tells(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    put(photos, "a/1.png", "b/1.png", "c/2.png", "c/3.png")
    table = tmp_path / "labels.csv"
    table.write_text(f"file,label\nphotos/a/1.png,tench\n{photos}/b/1.png,0\n2.png,golden retriever\n4.png,0\n")
    source = source_of(photos, labels=table)
    assert classes(source) == {"a/1.png": 2, "b/1.png": 0, "c/2.png": 1, "c/3.png": None}
    assert "1 of 4 items have no label" in told(source)
    assert "1 of 4 lines are of no picture, such as '4.png'" in " ".join(source.notes)
    table.write_text("1.png,0\n")
    with pytest.raises(ValueError, match=r"'1.png' fits 'a/1.png' and 'b/1.png'; write as much of their paths"):
        classes(source_of(photos, labels=table))
    table.write_text("file,label\nc/2.png,0\nc/2.png,1\n")
    with pytest.raises(ValueError, match=r"line 3: c/2.png has another class above"):
        classes(source_of(photos, labels=table))
    table.write_text("file,label\nother.png,0\n")
    with pytest.raises(ValueError, match=r"has a label for none of 4 pictures; it has one for 'other.png'"):
        classes(source_of(photos, labels=table))
    table.write_text("file,mask\nother.png,0\n")
    with pytest.raises(ValueError, match="has no column 'label'; its lines are path,label"):
        source_of(photos, labels=table)
    table.write_text("file,labels\nother.png,0\n")
    with pytest.raises(ValueError, match=r"has no column 'label'; is it 'labels'\? Call it label"):
        source_of(photos, labels=table)
    with pytest.raises(ValueError, match="labels='folders' is none of 'auto', 'folder', None, or a table"):
        source_of(photos, labels="folders")


def test_labels_of_a_column_fit_or_are_told(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "2.png", "3.png", "4.png")
    table = tmp_path / "t.csv"
    table.write_text("path,label\n1.png,2\n2.png,2.0\n3.png,tabby cat\n4.png,\n")
    assert list(classes(source_of(table)).values()) == [2, 2, 0, None]
    table.write_text("path,label\n1.png,2\n2.png,tabbi\n3.png,tabbi\n4.png,9\n")
    with pytest.raises(LookupError, match=r"'2.png': there is no class 'tabbi'; did you mean 'tabby'.*2 labels .*3 of"):
        classes(source_of(table))
    with pytest.raises(LookupError, match="no class names are known, so 'tabbi' can't be found"):
        classes(source_of(table), None, 3)


class Numbered(torch.utils.data.Dataset[Any]):
    """Gray pictures whose labels count the data set's own classes."""

    def __init__(self, names: list[str], targets: list[int]):
        self.classes, self.targets = names, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, number: int) -> Any:
        return Image.new("L", (4, 4), self.targets[number]), self.targets[number]


def test_a_column_of_hugging_face_tells_labels_and_the_names_of_their_classes() -> None:
    """As its data sets do, which give a mapping for a number and a column for a name."""

    class Features(Numbered):
        column_names = ("image", "label")
        features: ClassVar[dict[str, Any]] = {"label": SimpleNamespace(names=["tench", "tabby"])}

        def __init__(self) -> None:
            self.asked: list[Any] = []

        def __len__(self) -> int:
            return 2

        def __getitem__(self, key: Any) -> Any:
            self.asked.append(key)
            return [1, 0] if key == "label" else {"image": Image.new("L", (4, 4), key), "label": 1 - key}

        def with_format(self) -> None: ...

    assert list(classes(source_of(Features())).values()) == [0, 2]


def test_numbers_of_a_data_set_count_its_own_classes() -> None:
    """A part of the network's classes, in another order, would silently be others."""
    assert list(classes(source_of(Numbered(["tench", "tabby"], [1, 0, 1]))).values()) == [0, 2, 0]
    assert list(classes(source_of(Numbered(["x", "y", "z"], [1, 0, 2]))).values()) == [1, 0, 2]
    assert list(classes(source_of(Numbered(["x", "y"], [1, 0])), None, 2).values()) == [1, 0]
    with pytest.raises(LookupError, match="is 'y' in the data set, whose 2 classes are not the 3 of the network"):
        classes(source_of(Numbered(["tench", "y"], [0, 1])))
    with pytest.raises(LookupError, match="whose 3 classes are not the 3 of the network"):
        classes(source_of(Numbered(["tench", "y", "z"], [0, 1])))  # by number 0, by name 2
    with pytest.raises(LookupError, match="label 5 of 'index-000000' is no class of the data set, which has 2"):
        classes(source_of(Numbered(["x", "y"], [5])), None, 2)
