"""Map-style data sets as sources: what their items are, as a loop over them gives it."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_tree import put
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from cnnviz.datasets import Item, source_of


class Given(Dataset[Any]):
    """Gives what a function makes of a number."""

    def __init__(self, count: int, make: Callable[[int], Any]):
        self.count, self.make = count, make
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        self.asked.append(number)
        return self.make(number)


def gray(number: int) -> Image.Image:
    return Image.new("L", (4, 4), number)


def as_input(number: int) -> torch.Tensor:
    return torch.full((3, 4, 4), float(number))


@pytest.mark.parametrize("make", [gray, as_input, lambda n: np.full((4, 4, 3), n, np.uint8)])
@pytest.mark.parametrize("form", [lambda x, n: x, lambda x, n: (x, n), lambda x, n: {"image": x, "label": n}])
def test_items_are_pictures_alone_or_with_their_labels(make: Any, form: Any) -> None:
    source = source_of(Given(3, lambda number: form(make(number), number)))
    items = list(source.items())
    assert [item.id for item in items] == ["index-000000", "index-000001", "index-000002"]
    labelled = form(0, 7) != 0
    assert [item.label for item in items] == ([0, 1, 2] if labelled else [None] * 3)
    assert bool(source.notes) == labelled  # that all were read for it
    source.source.dataset.asked.clear()
    assert [item.label for item in source.items()] == [item.label for item in items]
    assert not labelled or set(source.source.dataset.asked) == {0, 2}  # they are known now
    for number, item in enumerate(items):
        assert np.array_equal(np.asarray(source.open(item)), np.asarray(make(number)))


def test_labels_that_are_told_beforehand_cost_no_reading() -> None:
    dataset = Given(50, lambda number: (gray(number), number % 3))
    dataset.targets = torch.arange(50) % 3  # type: ignore[attr-defined]
    source = source_of(dataset)
    assert [item.label for item in source.items()] == [number % 3 for number in range(50)]
    assert set(dataset.asked) == {0, 49}
    dataset.targets = torch.zeros(50, dtype=torch.int64)  # type: ignore[attr-defined]  # which items contradict
    assert [item.label for item in source_of(dataset).items()] == [number % 3 for number in range(50)]


def test_labels_that_are_not_asked_for_are_not_read() -> None:
    dataset = Given(50, lambda number: (gray(number), number % 3))
    source = source_of(dataset, labels=None)
    assert {item.label for item in source.items()} == {None}
    assert set(dataset.asked) == {0}
    assert not source.notes


def test_a_transform_that_flips_some_pictures_is_found() -> None:
    dice, ramp = torch.Generator().manual_seed(0), torch.arange(12.0).reshape(1, 3, 4)
    flipping = Given(2, lambda number: ramp.flip(2) if torch.rand((), generator=dice) < 0.5 else ramp)
    with pytest.raises(ValueError, match="is another picture each time it is read; give a data set that gives one"):
        list(source_of(flipping).items())


def test_a_folder_of_torchvision_has_paths_for_ids(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "dog/a/2.png", "dog/3.png")
    dataset = ImageFolder(tmp_path)
    source = pickle.loads(pickle.dumps(source_of(dataset)))
    items = list(source.items())
    assert [(item.id, item.label) for item in items] == [("cat/1.png", 0), ("dog/3.png", 1), ("dog/a/2.png", 1)]
    for item, (picture, _) in zip(items, dataset, strict=True):
        assert np.array_equal(np.asarray(source.open(item)), np.asarray(picture))
    assert source.classes == ("cat", "dog")
    part = source_of(Subset(dataset, [2, 0]))
    assert [(item.id, item.label) for item in part.items()] == [("dog/a/2.png", 1), ("cat/1.png", 0)]
    assert [np.asarray(part.open(item))[0, 0, 0] for item in part.items()] == [1, 0]


def test_lists_and_tensors_are_data_sets_too() -> None:
    assert [item.id for item in source_of([gray(3), gray(4)]).items()] == ["index-000000", "index-000001"]
    inputs, labels = torch.rand(3, 1, 5), torch.tensor([2, 0, 1])
    source = source_of(TensorDataset(inputs, labels))
    items = list(source.items())
    assert [item.label for item in items] == [2, 0, 1]
    assert all(torch.equal(source.open(item), row) for item, row in zip(items, inputs, strict=True))  # type: ignore[arg-type]
    assert torch.equal(source_of(inputs).open(Item("index-000002")), inputs[2])  # type: ignore[arg-type]


def test_an_item_that_can_not_be_read_costs_its_row() -> None:
    def make(number: int) -> Any:
        if number == 1:
            raise KeyError("gone")
        return as_input(number) if number != 2 else as_input(2) * float("nan")

    source = source_of(Given(4, make))
    items = list(source.items())
    assert len(items) == 4
    with pytest.raises(ValueError, match="item 1 of the data set can't be read: KeyError: 'gone'"):
        source.open(items[1])
    with pytest.raises(ValueError, match="item 2 of the data set has values that are NaN or infinite"):
        source.open(items[2])
    assert torch.equal(source.open(items[3]), as_input(3))  # type: ignore[arg-type]


def test_a_data_set_is_read_by_one_thread_at_a_time_unless_it_is_of_files(tmp_path: Path) -> None:
    """It may share a file or an archive between its items."""
    inside = most = 0
    count = threading.Lock()

    def make(number: int) -> Image.Image:
        nonlocal inside, most
        with count:
            inside += 1
            most = max(most, inside)
        time.sleep(0.002)
        with count:
            inside -= 1
        return gray(number)

    def read(source: Any) -> None:
        items = list(source.items())
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(source.open, items))

    read(source_of(Given(12, make)))
    assert most == 1
    files = Given(12, make)
    files.samples = [(str(tmp_path / f"{n}.png"), 0) for n in range(12)]  # type: ignore[attr-defined]
    read(source_of(files))
    assert most > 1


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([gray(0)])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (Stream(), "a Stream has no numbered items, .* give a Dataset with __len__ and __getitem__"),
        (iter([gray(0)]), "a list_iterator has no numbered items"),
        (DataLoader([gray(0)]), "a DataLoader has batches, .*: loader.dataset"),  # type: ignore[arg-type]
        ({"a": gray(0)}, "a dict is nothing that a batch run can be over; give a folder"),
        (None, "a NoneType is nothing that a batch run can be over"),
        (Given(2, lambda n: torch.zeros(3, 4, 4, dtype=torch.uint8)), "a tensor torch.uint8 .* is no input"),
        (Given(2, lambda n: torch.tensor(4.0)), "is no input; give floating point"),
        (Given(2, lambda n: {"a": 1}), "a dict is no picture"),
        (Given(2, lambda n: np.zeros((2, 2), np.int32)), "an array int32 .* is no picture"),
        (Given(0, gray), "the data set has no items"),
        (Given(2, lambda n: torch.rand(3, 4, 4)), "item 0 of the data set is another picture each time it is read"),
    ],
)
def test_what_is_no_data_set_of_pictures_is_refused(given: Any, told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told) as raised:
        list(source_of(given).items())
    assert "\n" not in str(raised.value)


def test_a_data_set_tells_its_type() -> None:
    described = source_of(Given(3, gray)).described()
    assert described["kind"] == "dataset"
    assert described["type"].endswith("Given")
    assert described["items"] == 3
