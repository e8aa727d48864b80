"""The public toolkit of renderers: its names exist, load nothing before they are used, and suffice for a stranger."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import cnnviz
from cnnviz import Explanation
from cnnviz.drawing import (
    Layout,
    draw_inputs,
    enlarged,
    fitted,
    fraction_of_peak,
    in_rows,
    laid_out,
    lines,
    pictures_of,
    resized,
    tiled,
)

ROOT = Path(__file__).parents[2]


def gray(height: int, width: int, level: int = 0) -> NDArray[np.uint8]:
    return np.full((height, width, 3), level, np.uint8)


def test_the_toolkit_loads_nothing_until_a_name_is_used() -> None:
    code = (
        "import sys, cnnviz.drawing; "
        "print([name for name in ('torch', 'matplotlib', 'numpy', 'PIL', 'skimage') if name in sys.modules])"
    )
    assert ran(code) == "[]\n"


def test_a_renderer_of_the_toolkit_passes_the_kit_where_nothing_was_loaded_before() -> None:
    page = (ROOT / "docs" / "write-a-renderer.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.S)[0]
    assert ran(f"{code}\nfrom cnnviz.testing import check_renderer\ncheck_renderer(spotlight)\nprint('passed')") == (
        "passed\n"
    )


def ran(code: str, **variables: str) -> str:
    """What the code prints in a new process."""
    env = {**os.environ, **variables}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout


def test_maps_are_resized_channel_by_channel_whatever_stands_before_space() -> None:
    maps = np.array([[[0.0, 4.0], [8.0, 4.0]]])  # (1, 2, 2): as one map, and as two signals of one input
    expected = np.array([[0.0, 1.0, 3.0, 4.0], [8.0, 7.0, 5.0, 4.0]])  # corners are not aligned
    np.testing.assert_array_equal(resized(maps, (4,)), expected[None])
    np.testing.assert_array_equal(resized(maps, (2, 4)), expected[None])
    np.testing.assert_array_equal(resized(maps[None], (2, 4)), expected[None, None])


def test_fractions_of_a_peak_are_cut_off_and_zero_where_the_peak_is_zero() -> None:
    maps, peaks = np.array([[-3.0, 1.0, 2.0], [0.0, 0.0, 0.0]]), np.array([[2.0], [0.0]])
    np.testing.assert_array_equal(fraction_of_peak(maps, peaks), [[-1.0, 0.5, 1.0], [0.0, 0.0, 0.0]])


def test_tiles_lie_in_rows_with_white_between_them() -> None:
    black, white, middle = gray(2, 3), 255, gray(2, 3, 100)
    drawn = tiled([black, middle, black], columns=2, gap=1)[..., 0]
    row = [0, 0, 0, white, 100, 100, 100]
    last = [0, 0, 0, white, white, white, white]
    assert drawn.tolist() == [row, row, [white] * 7, last, last]
    assert tiled([black, middle], columns=1)[..., 0].tolist() == [[0] * 3] * 2 + [[100] * 3] * 2


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((2, 3), 10, (6, 9)),
        ((3, 2), 9, (9, 6)),
        ((10, 4), 10, (10, 4)),
        ((40, 20), 10, (10, 5)),
        ((400, 1), 10, (10, 1)),
    ],
)
def test_a_picture_is_fitted_by_a_whole_number_or_reduced(
    size: tuple[int, int], side: int, expected: tuple[int, int]
) -> None:
    assert fitted(gray(*size), side).shape == (*expected, 3)


def test_fitting_and_enlarging_repeat_pixels() -> None:
    picture = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    np.testing.assert_array_equal(fitted(picture, 5), np.repeat(np.repeat(picture, 2, 0), 2, 1))
    np.testing.assert_array_equal(enlarged(picture, 5), np.repeat(np.repeat(picture, 3, 0), 3, 1))
    np.testing.assert_array_equal(enlarged(picture, 1), picture)


def test_a_montage_has_the_measures_of_its_layout() -> None:
    layout = Layout(gap=3, column=10, letters=8, line=9, below=2)
    cells = [([], gray(4, 4)), ([], gray(2, 12)), ([], gray(4, 4, 50))]
    drawn = laid_out(in_rows(cells, 2), layout)[..., 0]
    assert drawn.shape == (3 + (2 + 4 + 3) * 2, 3 + 10 + 3 + 12 + 3)
    expected = np.full_like(drawn, 255)
    expected[5:9, 6:10] = 0  # in the middle of a column that is 10 wide
    expected[5:7, 16:28] = 0
    expected[14:18, 6:10] = 50
    np.testing.assert_array_equal(drawn, expected)
    captioned = laid_out([[(["ab"], gray(4, 4))]], layout)[..., 0]
    assert captioned.shape == (3 + 9 + 2 + 4 + 3, 3 + 10 + 3)
    assert captioned[3:12].min() < 128


def test_words_are_broken_only_where_one_is_too_long() -> None:
    assert lines(["one two", "three"], 1000) == ["one two", "three"]
    assert lines(["one two"], 40) == ["one", "two"]
    assert "".join(lines(["unbreakable"], 30)) == "unbreakable"
    assert len(lines(["unbreakable"], 30)) > 2


def test_an_input_is_drawn_as_it_is_without_any_renderer() -> None:
    inputs = torch.tensor([0.0, 0.25, 0.5, 1.0]).view(1, 1, 2, 2)
    values = torch.full((1, 1, 2, 2), float("nan"))  # the values are no part of the picture
    explanation = Explanation(values, inputs, None, torch.ones(1), "some_method()")
    assert pictures_of(explanation)[0].tolist() == [[[0.0] * 3, [0.25] * 3], [[0.5] * 3, [1.0] * 3]]


def test_slices_of_a_volume_lie_nearly_in_a_square() -> None:
    volume = torch.linspace(-2, 2, 5).view(1, 1, 5, 1, 1).expand(1, 1, 5, 2, 2)  # without a preprocessing: 0 to 1
    drawn = draw_inputs(volume)[0, ..., 0]
    assert drawn.shape == (5, 8)
    assert drawn[::3, ::3].tolist() == [[0, 64, 128], [191, 255, 255]]


def test_the_core_draws_a_grid_where_no_renderer_is_installed() -> None:
    code = """
import cnnviz, numpy as np, torch
assert list(cnnviz.renderers) == []
inputs = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
explanation = cnnviz.Explanation(torch.ones(1, 1, 2, 2), inputs, None, torch.ones(1), "m()")
try:
    explanation.render()
except ValueError as error:
    print(error)
drawn = cnnviz.grid({"m": explanation}, lambda explanation: np.zeros((1, 160, 160, 3), np.uint8))
print(np.array_equal(drawn[33:193, 10:170], (inputs[0].movedim(0, -1).double().numpy() * 255).round()))
"""
    expected = "there is no renderer for inputs (1, 3, 160, 160); name one\nTrue\n"
    assert ran(code, CNNVIZ_BLOCK=",".join(cnnviz.renderers)) == expected
