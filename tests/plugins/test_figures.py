"""Figures hold the numbers and names they promise, cut nothing off, and leave nothing behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray
from torch import Tensor

from cnnviz import Explanation
from cnnviz.drawing.comparison import grid
from cnnviz.drawing.figure import PixelFigure
from cnnviz_plugins.renderers.heatmaps import heatmap, overlay
from cnnviz_plugins.renderers.panels import panels
from cnnviz_plugins.renderers.saliency_confusion import confusion_matrix
from cnnviz_plugins.renderers.signals import line
from cnnviz_plugins.renderers.volumes import projection, slices

LONG = (
    "white wolf, Arctic wolf, Canis lupus tundrarum, a wolf whose $name_is$ Donaudampfschifffahrtsgesellschaftskapitän"
)
NAMES = ("cat", "dog", LONG)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is drawn from here on."""
    kept: list[Figure] = []
    drawn = PixelFigure.drawn

    def keep(sheet: PixelFigure) -> NDArray[np.uint8]:
        kept.append(sheet.figure)
        return drawn(sheet)

    monkeypatch.setattr(PixelFigure, "drawn", keep)
    return kept


def explained(
    values: Tensor, inputs: Tensor, target: int | None = 0, notes: Mapping[str, Tensor] | None = None
) -> Explanation:
    return Explanation(
        values=values,
        inputs=inputs,
        target=None if target is None else torch.full((len(values),), target),
        score=torch.linspace(17.3, 2.0, len(values)),
        recipe="some_method()",
        categories=NAMES,
        notes=notes or {},
    )


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def pictures(figure: Figure) -> list[NDArray[Any]]:
    """What was shown, colour bars aside."""
    shown = [image for image in figure.findobj(AxesImage) if isinstance(image, AxesImage)]
    arrays = [np.asarray(image.get_array()) for image in shown]
    return [array for array in arrays if array.dtype == np.uint8]


def legend(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[-1].get_yticklabels()]


def assert_seen(shown: NDArray[Any], expected: NDArray[Any]) -> None:
    np.testing.assert_allclose(shown, np.clip(expected, 0, 1) * 255, atol=0.501)


def test_the_matrix_has_one_scale_and_says_whose_maps_they_are(figures: list[Figure]) -> None:
    values = torch.tensor([4.0, 1.0, 0.0, 2.0]).reshape(1, 4, 1, 1) * torch.tensor([[[[0.0, 0.5], [1.0, 0.0]]]])
    confusion_matrix("gray", 1.0, normalize="image")(
        explained(values, torch.zeros(1, 3, 2, 2), 1, {"prediction": torch.tensor([0])})
    )
    (figure,) = figures
    assert texts(figure) == ["Negative", "Positive", "Ground truth:", "dog 17.30", "Prediction:", "cat"]
    assert legend(figure) == ["0", "2", "4"]
    for shown, strength in zip(pictures(figure), [4, 1, 0, 2], strict=True):
        heat = strength / 4 * np.array([[0, 0.5], [1, 0]])
        assert_seen(shown, np.repeat((heat * heat)[..., None], 3, -1))  # gray of the heat, as opaque as it is warm


def test_the_matrix_tells_that_values_go_on_beyond_its_bar(figures: list[Figure]) -> None:
    values = torch.arange(16.0).reshape(1, 4, 2, 2)
    confusion_matrix(normalize=5.0)(explained(values, uniform(1, 3, 2, 2)))
    assert legend(figures[0]) == ["0", "2.5", "≥ 5"]


def test_the_matrix_of_a_signal_is_four_curves_in_the_colours_of_their_maps(figures: list[Figure]) -> None:
    maps = 2 * uniform(1, 4, 5)
    signal = normal(1, 2, 5)
    confusion_matrix(normalize="image")(explained(maps, signal, 1, {"prediction": torch.tensor([0])}))
    turbo, peak = matplotlib.colormaps["turbo"], float(maps.max())
    found = lines(figures[0])
    assert len(found) == 8  # four maps, two channels each
    for quarter in range(4):
        strong = (maps[0, quarter] / peak).double().numpy()
        for colors in found[2 * quarter : 2 * quarter + 2]:
            np.testing.assert_allclose(colors, turbo((strong[:-1] + strong[1:]) / 2)[:, :3])
    assert [text for text in texts(figures[0]) if text][:2] == ["Negative", "Positive"]
    assert legend(figures[0])[-1] == f"{peak:.3g}"


def test_the_matrix_of_a_volume_is_seen_through_in_depth(figures: list[Figure]) -> None:
    maps, volume = uniform(1, 4, 3, 2, 2), uniform(1, 1, 3, 2, 2)
    confusion_matrix("gray", 1.0, normalize="image")(explained(maps, volume))
    shown = pictures(figures[0])
    for quarter in range(4):
        heat = (maps[0, quarter] / maps.max()).amax(0).double().numpy()
        expected = volume[0, 0].amax(0).double().numpy() * (1 - heat) + heat * heat
        np.testing.assert_allclose(shown[quarter], np.repeat(expected[..., None], 3, -1) * 255, atol=2)


@pytest.mark.parametrize(
    ("values", "got"),
    [(normal(1, 3, 2, 2), "3 maps"), (-uniform(1, 4, 2, 2), "maps with negative values")],
)
def test_the_matrix_says_which_method_it_draws(values: Tensor, got: str) -> None:
    message = f"each input and got {got}; explain with 'saliency_confusion', which makes them"
    with pytest.raises(ValueError, match=message):
        confusion_matrix()(explained(values, uniform(1, 3, 4, 4)))


@pytest.mark.parametrize("contrast", [1.0, 2.0, 4.5])
@pytest.mark.parametrize("clip", [1.0, 3.0])
@pytest.mark.parametrize("channels", ["sum", "max"])
def test_panels_clip_values_and_raise_colours(
    figures: list[Figure], contrast: float, clip: float, channels: str
) -> None:
    values, inputs = normal(1, 3, 5, 4), uniform(1, 3, 5, 4)
    panels(contrast, clip, channels, background="pale")(explained(values, inputs))
    table = matplotlib.colormaps["Reds"](np.arange(256))
    table[0] = 1
    table = table**contrast
    places = [(row, column) for row in range(5) for column in range(4)]
    strengths = {}
    for row, column in places:
        pixel = [float(value) for value in values[0, :, row, column]]
        strengths[row, column] = abs(max(pixel)) if channels == "max" else sum(map(abs, pixel))
    peak = max(strengths.values()) / clip
    original, alone, over = pictures(figures[0])
    assert_seen(original, inputs[0].permute(1, 2, 0).numpy())
    for place in places:
        heat = table[min(int(min(strengths[place], peak) / peak * 256), 255), :3]
        assert_seen(alone[place], heat)
        gray = float(inputs[0][:, place[0], place[1]].double() @ torch.tensor([0.2989, 0.587, 0.114]).double()) / 0.9999
        assert_seen(over[place], np.minimum(heat, max(gray, 230 / 255)))
    assert texts(figures[0]) == ["cat 17.30", "Importance", "Overlay"]
    assert legend(figures[0]) == ["0", f"{peak / 2:.3g}", ("≥ " if clip > 1 else "") + f"{peak:.3g}"]


def test_coarse_maps_lie_over_the_gray_picture(figures: list[Figure]) -> None:
    inputs = uniform(1, 3, 4, 6)
    panels()(explained(torch.tensor([[[[0.0, 1.0]]]]), inputs))
    _, alone, over = pictures(figures[0])
    heat = matplotlib.colormaps["jet"](np.array([0, 1 / 6, 0.5, 1 / 2 + 0, 5 / 6, 1.0]))[:, :3]
    assert_seen(alone[:, 0], np.repeat(heat[None, 0], 4, 0))
    gray = (inputs[0].permute(1, 2, 0).double().numpy() @ np.array([0.2989, 0.587, 0.114])) / 0.9999
    assert_seen(over[:, 5], 0.3 * heat[5] + 0.7 * gray[:, 5, None])


def lines(figure: Figure) -> list[NDArray[Any]]:
    """The colours of each row's segments, (L - 1, 3)."""
    found = [rows for rows in figure.findobj(LineCollection) if isinstance(rows, LineCollection)]
    return [np.asarray(rows.get_colors())[:, :3] for rows in found]


def test_signals_have_the_colours_of_their_importance(figures: list[Figure]) -> None:
    values, signals = normal(1, 2, 30), normal(1, 2, 30)
    line(contrast=2.0, clip=2.0)(explained(values, signals))
    table = matplotlib.colormaps["Reds"](np.arange(256))[:, :3] ** 2
    table[:25] = 0.8
    peak = float(values.abs().max()) / 2
    for row, colors in zip(values[0].double().abs().clamp(max=peak).tolist(), lines(figures[0]), strict=True):
        for left, right, drawn in zip(row[:-1], row[1:], colors, strict=True):
            np.testing.assert_allclose(drawn, table[min(int((left + right) / 2 / peak * 256), 255)])
    collections = figures[0].findobj(LineCollection)
    assert {float(width) for each in collections for width in np.ravel(each.get_linewidth())} == {2.0}


def test_a_cam_colours_every_channel(figures: list[Figure]) -> None:
    line()(explained(torch.tensor([[[0.0, -3.0, 2.0]]]), normal(1, 3, 3)))
    turbo = matplotlib.colormaps["turbo"]
    for colors in lines(figures[0]):
        np.testing.assert_allclose(colors, np.array([turbo(0.0), turbo(0.5)])[:, :3])
    assert [text for text in texts(figures[0]) if text.strip()] == ["cat 17.30", "channel 0", "channel 1", "channel 2"]


def test_vectors_are_bars_of_their_values(figures: list[Figure]) -> None:
    values = torch.tensor([[1.5, -2.0, 0.0]])
    line()(explained(values, normal(1, 3)))
    bars = [bar for bar in figures[0].axes[0].patches if isinstance(bar, Rectangle)]
    assert [bar.get_height() for bar in bars] == [1.5, -2.0, 0.0]
    reds, _, blues, _ = zip(*(bar.get_facecolor() for bar in bars[:2]), strict=True)
    assert reds[0] > blues[0]
    assert reds[1] < blues[1]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("count", "places"), [(1, [3]), (2, [1, 4]), (3, [1, 3, 5]), (99, [0, 1, 2, 3, 4, 5])])
def test_slices_are_evenly_spaced_and_end_with_the_highest(
    figures: list[Figure], axis: int, count: int, places: list[int]
) -> None:
    shape = [4, 4, 4]
    shape[axis] = 6
    values = uniform(1, 1, *shape)
    slices(count, axis, "gray", 1.0, normalize="image")(explained(values, torch.zeros(1, 1, *shape)))
    (figure,) = figures
    name = ("depth", "height", "width")[axis]
    assert texts(figure) == ["cat 17.30", *(f"{name} {place}" for place in places), "maximum"]
    heat = (values / values.max())[0, 0].numpy()
    shown = [np.take(heat, place, axis) for place in places] + [heat.max(axis)]
    for picture, each in zip(pictures(figure), shown, strict=True):
        np.testing.assert_allclose(picture, np.repeat((each * each)[..., None], 3, -1) * 255, atol=2)


def test_projections_are_the_strongest_along_each_axis(figures: list[Figure]) -> None:
    values, volume = normal(1, 1, 3, 4, 5), uniform(1, 1, 3, 4, 5)
    projection("gray", 1.0, normalize="image")(explained(values, volume))
    (figure,) = figures
    assert texts(figure) == ["cat 17.30", "along depth", "along height", "along width"]
    heat, seen = (values / values.max()).clamp(min=0)[0, 0].double(), volume[0, 0].double()
    shown = pictures(figure)
    for axis in range(3):
        above, below = shown[2 * axis], shown[2 * axis + 1]
        brightest, strongest = seen.amax(axis).numpy(), heat.amax(axis).numpy()
        assert above.shape == (*brightest.shape, 3)
        assert_seen(above, np.repeat(brightest[..., None], 3, -1))
        expected = brightest * (1 - strongest) + strongest**2
        np.testing.assert_allclose(below, np.repeat(expected[..., None], 3, -1) * 255, atol=2)
    assert legend(figure)[-1] == f"{float(values.max()):.3g}"


@pytest.mark.parametrize("marks", ["3, 7.5", (3, 7.5)])
def test_marks_are_black_lines_through_every_row(figures: list[Figure], marks: Any) -> None:
    line(marks=marks)(explained(normal(1, 2, 10), normal(1, 2, 10)))
    line(marks=marks)(explained(normal(1, 10), normal(1, 10)))
    for figure, rows in zip(figures, (2, 1), strict=True):
        found = [each for axes in figure.axes for each in axes.lines if each.get_color() == "black"]
        assert [each.get_xdata()[0] for each in found] == [3, 7.5] * rows


@pytest.mark.parametrize("marks", ["3;4", "3,,4"])
def test_marks_that_are_no_places_are_told(marks: Any) -> None:
    with pytest.raises(ValueError, match=r"are no places; give numbers with commas between, such as 30,75\.5"):
        line(marks=marks)


@pytest.mark.parametrize("draw", [heatmap, overlay])
def test_a_bar_tells_the_values(figures: list[Figure], draw: Any) -> None:
    values = torch.tensor([[[[0.0, 8.0], [2.0, -9.0]]], [[[0.0, 0.5], [0.25, 0.0]]]])
    result = explained(values, uniform(2, 3, 2, 2))
    drawn = draw(normalize="image", bar=True)(result)
    assert [legend(figure) for figure in figures] == [["0", "4", "8"], ["0", "0.25", "0.5"]]
    plain = draw(normalize="image")(result)
    for figure, picture in zip(figures, plain, strict=True):
        np.testing.assert_array_equal(pictures(figure)[0], picture)
    assert drawn.shape[2] > drawn.shape[1]
    draw(normalize="signed", bar=True)(result)
    assert legend(figures[2]) == ["0", "4.5", "9"]
    draw(normalize=2.0, absolute=True, bar=True)(result)
    assert legend(figures[4]) == ["0", "1", "\u2265 2"]
    draw(bar=True)(explained(torch.zeros(1, 1, 2, 2), uniform(1, 3, 2, 2)))
    assert legend(figures[6]) == ["0"]


def confusion(target: int | None, height: int, width: int, magnitude: float) -> Callable[[], NDArray[np.uint8]]:
    values = uniform(2, 4, 3, 3) * magnitude
    notes = {"prediction": torch.tensor([2, 0])}
    return lambda: confusion_matrix()(explained(values, uniform(2, 3, height, width), target, notes))


def every_figure() -> Iterator[Any]:
    for size in ((8, 8), (150, 224), (400, 30), (30, 600)):
        for target in (0, 2, None):
            name = f"{size[0]}x{size[1]}, target {target}"
            yield pytest.param(confusion(target, *size, 1e-30), id=f"confusion of {name}")
            coarse = explained(normal(2, 1, 3, 3) * 12345678.0, uniform(2, 3, *size), target)
            yield pytest.param(lambda it=coarse: panels(clip=3)(it), id=f"panels of {name}")
    for target in (0, 2):
        for channels, length in ((1, 1), (1, 2), (3, 100), (20, 50)):
            signal = explained(-normal(2, 1, 7) * 1e-30, -normal(2, channels, length) * 1e30, target)
            yield pytest.param(lambda it=signal: line(clip=2)(it), id=f"{channels} x {length} signal, target {target}")
        vector = explained(-normal(2, 100) * 1e-30, normal(2, 100), target)
        yield pytest.param(lambda it=vector: line()(it), id=f"vector, target {target}")
        volume = explained(normal(2, 1, 2, 2, 2), normal(2, 1, 20, 9, 7), target)
        yield pytest.param(lambda it=volume: slices()(it), id=f"volume, target {target}")
        yield pytest.param(lambda it=volume: slices(1, 2)(it), id=f"one slice, target {target}")
        yield pytest.param(lambda it=volume: projection()(it), id=f"projection, target {target}")
        for shape in ((1, 2, 30), (5, 4, 6, 80), (1, 9, 40, 7)):
            maps = explained(uniform(2, 4, *shape[1:]) * 1e9, normal(2, *shape), target)
            yield pytest.param(lambda it=maps: confusion_matrix()(it), id=f"confusion of {shape}, target {target}")
    for size in ((8, 8), (400, 30), (3, 600)):
        barred = explained(normal(2, 1, 3, 3) * 1e-9, uniform(2, 3, *size))
        yield pytest.param(lambda it=barred: overlay(bar=True)(it), id=f"bar of {size}")


@pytest.mark.parametrize("draw", list(every_figure()))
def test_no_text_is_cut_or_covered(figures: list[Figure], draw: Callable[[], NDArray[np.uint8]]) -> None:
    drawn = draw()
    assert drawn.dtype == np.uint8
    assert drawn.shape[0] == 2
    edges = drawn[:, [0, -1]], drawn[:, :, [0, -1]]
    assert all(edge.min() == 255 for edge in edges)
    for figure in figures:
        inside = [image.get_window_extent() for image in figure.findobj(AxesImage)]
        seen = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text().strip()]
        boxes = [text.get_window_extent() for text in seen if text.get_visible()]
        for number, box in enumerate(boxes):
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.x1
            assert box.y1 <= figure.bbox.y1
            for other in [*boxes[:number], *inside]:
                assert not box.shrunk(0.98, 0.8).overlaps(other)


def test_whole_names_are_written(figures: list[Figure]) -> None:
    panels()(explained(normal(1, 1, 2, 2), uniform(1, 3, 8, 8), 2))
    title = "".join(texts(figures[0])[:-2])
    assert re.sub(r"\s", "", title) == re.sub(r"\s", "", f"{LONG} 17.30")


def test_threads_and_styles_change_no_figure() -> None:
    results = [explained(normal(1, 3, 9, 9) * scale, uniform(1, 3, 9, 9)) for scale in range(1, 5)]
    draw = panels()
    alone = [draw(result) for result in results]
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(draw, results))
    with matplotlib.rc_context({"axes.grid": True, "text.color": "white", "font.size": 30.0, "image.origin": "lower"}):
        styled = [draw(result) for result in results]
    for first, second, third in zip(alone, together, styled, strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, third)


def test_a_grid_has_a_row_for_each_input_and_its_picture_first() -> None:
    inputs = uniform(2, 3, 200, 170)
    results = {
        name: explained(values, inputs) for name, values in (("a", normal(2, 1, 3, 3)), ("b", normal(2, 3, 2, 2)))
    }
    drawn = grid(results, heatmap())
    assert drawn.dtype == np.uint8
    assert drawn.shape[1] == 4 * 10 + 3 * 170
    heat = {name: heatmap()(result) for name, result in results.items()}
    for item in range(2):
        top = 10 + 23 + item * (200 + 23 + 10)
        cells = [overlay(opacity=0)(results["a"])[item], heat["a"][item], heat["b"][item]]
        for column, cell in enumerate(cells):
            left = 10 + column * 180
            np.testing.assert_array_equal(drawn[top : top + 200, left : left + 170], cell)
            caption = drawn[top - 23 : top, left : left + 170]
            assert caption.min() < 100, "the caption is missing"
            assert caption[0].min() == 255, "the caption is cut"


def test_small_pictures_are_enlarged_by_whole_numbers() -> None:
    result = explained(normal(1, 1, 2, 2), uniform(1, 1, 8, 6))
    drawn = grid({"cam": result}, heatmap())
    cell = heatmap()(result)[0].repeat(20, 0).repeat(20, 1)  # 160 x 120
    np.testing.assert_array_equal(drawn[-170:-10, -150:-30], cell)


def test_a_grid_goes_on_below_after_so_many_columns() -> None:
    inputs = uniform(1, 3, 160, 160)
    results = {name: explained(normal(1, 1, 2, 2), inputs) for name in "abcd"}
    wide, narrow = grid(results, heatmap()), grid(results, heatmap(), columns=2)
    assert wide.shape == (10 + 23 + 160 + 10, 10 + 5 * 170, 3)
    assert narrow.shape == (10 + 3 * (23 + 160 + 10), 10 + 2 * 170, 3)


def test_captions_of_a_grid_are_wrapped_and_tell_another_target() -> None:
    inputs = uniform(1, 3, 64, 64)
    one, other = explained(normal(1, 1, 2, 2), inputs), explained(normal(1, 1, 2, 2), inputs, target=1)
    same, apart = (grid({"a": one, "b": result}, heatmap()) for result in (one, other))
    assert apart.shape[0] == same.shape[0] + 19
    for name in ("a", LONG):
        margins = grid({name: explained(normal(1, 1, 2, 2), inputs, target=2)}, heatmap())
        assert min(margins[:10].min(), margins[:, :10].min(), margins[:, -10:].min()) == 255


def test_a_grid_of_signals_has_no_picture_beside_its_figures() -> None:
    result = explained(normal(1, 1, 5), normal(1, 1, 50))
    figure = line()(result)[0]
    drawn = grid({"a": result, "b": result}, line())
    assert drawn.shape[1] == 3 * 10 + 2 * figure.shape[1]


def test_a_grid_of_nothing_or_of_different_batches_is_told() -> None:
    with pytest.raises(ValueError, match="no results to draw; give explain"):
        grid({})
    two = {
        "a": explained(normal(1, 1, 2, 2), uniform(1, 3, 4, 4)),
        "b": explained(normal(2, 1, 2, 2), uniform(2, 3, 4, 4)),
    }
    with pytest.raises(ValueError, match=re.escape("different numbers of inputs (a 1, b 2)")):
        grid(two)
    with pytest.raises(ValueError, match="columns=0 leaves no place for a picture"):
        grid({"a": two["a"]}, heatmap(), columns=0)
