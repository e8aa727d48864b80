"""Sheets of many pictures: almost square, and cut into pages where they would be too large to be opened."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnviz import demo, explain, load_model
from cnnviz.__main__ import main
from cnnviz.drawing.comparison import grid_pages
from cnnviz.drawing.montage import Cell, Pixels, paged
from cnnviz.images.writing import encoded


def items(number: int, width: int = 160, height: int = 100, cells: int = 1) -> list[list[list[Cell]]]:
    """So many items, each a row of cells that are of one colour, another for each."""
    colors = count(1)
    return [
        [[([], np.full((height, width, 3), (*divmod(next(colors), 250), 7), np.uint8)) for _ in range(cells)]]
        for _ in range(number)
    ]


def order(page: Pixels) -> list[int]:
    """The colours on a page, line by line."""
    numbers = page[..., 0].astype(int) * 250 + page[..., 1]
    shown = page[..., 2] == 7
    lines = [list(dict.fromkeys(numbers[row][shown[row]].tolist())) for row in range(len(page)) if shown[row].any()]
    return [number for line in dict.fromkeys(map(tuple, lines)) for number in line]


@pytest.mark.parametrize(("number", "cells", "columns"), [(1, 1, 1), (2, 1, 1), (6, 1, 2), (20, 1, 4), (20, 3, 2)])
def test_a_sheet_is_almost_square(number: int, cells: int, columns: int) -> None:
    (page,) = paged(items(number, cells=cells))
    assert page.items == slice(0, number)
    assert order(page.picture) == list(range(1, number * cells + 1))
    item, row = cells * 170, 100 + 4 + 10
    assert page.picture.shape[:2] == (-(-number // columns) * row + 10, columns * item + 10)


def test_a_page_ends_where_it_would_be_too_large() -> None:
    pages = paged(items(23), longest=600)
    assert [page.items for page in pages] == [slice(0, 15), slice(15, 23)], "three beside and five below each other"
    assert [order(page.picture) for page in pages] == [list(range(1, 16)), list(range(16, 24))]
    assert all(max(page.picture.shape) <= 600 for page in pages)
    alone = paged(items(2, width=900, height=900), longest=600)
    assert [page.items for page in alone] == [slice(0, 1), slice(1, 2)], "a single one may be larger"


def test_items_of_several_rows_keep_them_together() -> None:
    rows = [[item[0][:2], item[0][2:]] for item in items(2, width=400, cells=3)]
    (page,) = paged(rows, longest=2000)
    assert order(page.picture) == [1, 2, 3, 4, 5, 6]
    (beside,) = paged([[row[:1] for row in rows[0]], [row[:1] for row in rows[1]], *rows[:0]], longest=2000)
    assert order(beside.picture) == [1, 3, 4, 6]


def test_signals_and_pictures_are_titled_with_their_files() -> None:
    pictures = demo.as_inputs(demo.pictures().pictures[:2])
    results = explain(load_model("demo"), pictures, ["gradient"])
    (page,) = grid_pages(results, ["a.png", "b.png"])
    (other,) = grid_pages(results, ["a.png", "c.png"])
    changed = np.nonzero((page.picture != other.picture).any(-1))
    assert changed[0].max() - changed[0].min() < 19, "one line of text"


def test_the_command_line_numbers_the_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cnnviz.drawing.montage.PAGE", 500)
    monkeypatch.setattr(paged, "__defaults__", (500,))
    for number, picture in enumerate(demo.pictures().pictures[:4]):
        Image.fromarray(picture).save(f"{number}.png")
    assert main(["explain", "0.png", "1.png", "2.png", "3.png", "-m", "gradient", "-o", "s.webp"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["s-1.webp", "s-2.webp"]
    assert lines[0].count(",") == 1
    for name in ("s-1.webp", "s-2.webp"):
        with Image.open(name) as page:
            assert max(page.size) <= 500
    assert not Path("s.webp").exists()


def test_a_picture_too_large_for_its_format_is_one_clear_line() -> None:
    tall = np.zeros((16384, 2, 3), np.uint8)
    with pytest.raises(
        ValueError, match=r"^a picture of 2 x 16384 pixels can't be written as \.webp, which takes 16383"
    ):
        encoded(tall, ".webp")
    assert encoded(tall[:-1], ".WEBP")[8:12] == b"WEBP"
    with pytest.raises(ValueError, match=r"can't be written as \.jpg, which takes 65500 pixels on a side"):
        encoded(np.zeros((1, 65501), np.uint8), ".jpg")
