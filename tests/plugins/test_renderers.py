"""Pictures of maps show the numbers they were made of, whatever the input, and never what is not there."""

from __future__ import annotations

import re
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnnviz import Explanation, Preprocessing, explain
from cnnviz.testing import SmallNet
from cnnviz_plugins.renderers.channels import _tile, channels
from cnnviz_plugins.renderers.heatmaps import diverging, heatmap, overlay
from cnnviz_plugins.renderers.panels import panels
from cnnviz_plugins.renderers.pixel_maps import color, grayscale, negative, positive
from cnnviz_plugins.renderers.signals import line
from cnnviz_plugins.renderers.volumes import slices

PLAIN = [heatmap, overlay, diverging, grayscale, color, positive, negative]


def explained(values: Tensor, inputs: Tensor, preprocessing: Preprocessing | None = None) -> Explanation:
    return Explanation(
        values=values,
        inputs=inputs,
        target=torch.zeros(len(values), dtype=torch.int64),
        score=torch.ones(len(values)),
        recipe="some_method()",
        preprocessing=preprocessing,
    )


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bilinear(values: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """One map at another size, pixel by pixel; corners are not aligned."""
    resized = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            for place, length, size in ((row, height, 0), (column, width, 1)):
                at = max(0.0, (place + 0.5) * values.shape[size] / length - 0.5)
                low = min(int(at), values.shape[size] - 1)
                pair = low, min(low + 1, values.shape[size] - 1), at - low
                if size == 0:
                    top, bottom, down = pair
                else:
                    left, right, along = pair
            upper = values[top, left] * (1 - along) + values[top, right] * along
            lower = values[bottom, left] * (1 - along) + values[bottom, right] * along
            resized[row, column] = upper * (1 - down) + lower * down
    return resized


def heat_by_hand(values: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    warm = np.array([[max(float(value), 0.0) for value in row] for row in values])
    large = bilinear(warm, height, width)
    return np.array(large / large.max())


def assert_shown(drawn: NDArray[np.uint8], expected: NDArray[Any]) -> None:
    """Pictures in 0..1 as they must look, to the rounding."""
    assert drawn.dtype == np.uint8
    np.testing.assert_allclose(drawn, np.clip(expected, 0, 1) * 255, atol=0.501)


def test_a_heatmap_is_the_positive_part_in_colours_at_the_size_of_the_input() -> None:
    values = normal(2, 1, 3, 2)
    drawn = heatmap("viridis", normalize="image")(explained(values, uniform(2, 3, 8, 6)))
    for picture, each in zip(drawn, values.numpy(), strict=True):
        assert_shown(picture, matplotlib.colormaps["viridis"](heat_by_hand(each[0], 8, 6))[..., :3])


def test_several_channels_join_as_the_sum_of_magnitudes() -> None:
    values = normal(1, 3, 4, 5)
    joined = sum(channel.abs() for channel in values[0])
    assert isinstance(joined, Tensor)
    three = heatmap()(explained(values, uniform(1, 3, 4, 5)))
    np.testing.assert_array_equal(three, heatmap()(explained(joined[None, None], uniform(1, 3, 4, 5))))


def test_absolute_shows_both_signs_alike() -> None:
    values = torch.tensor([[[[1.0, -1.0], [0.0, 0.5]]]])
    picture = heatmap("gray", absolute=True)(explained(values, uniform(1, 3, 2, 2)))[0, ..., 0]
    assert picture.tolist() == [[255, 255], [0, 128]]


@pytest.mark.parametrize("blend", ["heat", "alpha", "sum"])
@pytest.mark.parametrize("background", ["color", "gray"])
def test_an_overlay_mixes_picture_and_heat(blend: str, background: str) -> None:
    values, inputs = normal(1, 1, 3, 2), uniform(1, 3, 6, 5)
    drawn = overlay("jet", 0.3, blend, background, normalize="image")(explained(values, inputs))[0]
    heat = heat_by_hand(values[0, 0].numpy(), 6, 5)
    expected = np.zeros((6, 5, 3))
    for row in range(6):
        for column in range(5):
            under = inputs[0, :, row, column].double().numpy()
            if background == "gray":
                under = np.repeat((0.2989 * under[0] + 0.587 * under[1] + 0.114 * under[2]) / 0.9999, 3)
            over = np.array(matplotlib.colormaps["jet"](heat[row, column])[:3])
            share = 0.3 * heat[row, column] if blend == "heat" else 0.3
            expected[row, column] = under + over if blend == "sum" else (1 - share) * under + share * over
    assert_shown(drawn, expected / expected.max() if blend == "sum" else expected)


def test_without_evidence_the_overlay_is_the_picture() -> None:
    inputs = uniform(1, 3, 8, 8)
    for values in (torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.7), -uniform(1, 1, 2, 2)):
        assert_shown(overlay()(explained(values, inputs))[0], inputs[0].permute(1, 2, 0).numpy())


def test_diverging_colours_are_as_far_from_the_middle_as_values_from_zero() -> None:
    values, colors = torch.tensor([[[[-2.0, 0.0], [1.0, 4.0]]]]), matplotlib.colormaps["RdBu_r"]
    alone = diverging(fade=1, normalize="signed")(explained(values, uniform(1, 3, 2, 2)))[0]
    assert_shown(alone, np.array([[colors(0.25), colors(0.5)], [colors(0.625), colors(1.0)]])[..., :3])


def test_diverging_leaves_the_faded_picture_where_nothing_speaks() -> None:
    values, inputs = torch.tensor([[[[0.0, 1.0]]]]), torch.full((1, 3, 1, 2), 0.5)
    over = diverging(fade=0.6)(explained(values, inputs))[0, 0]
    assert over[0].tolist() == [204] * 3
    assert_shown(over[1], np.array(matplotlib.colormaps["RdBu_r"](1.0)[:3]))


def test_diverging_sums_channels_with_their_signs() -> None:
    values = torch.tensor([3.0, -3.0, 0.0, 1.0, 1.0, 1.0]).reshape(1, 3, 1, 2)  # columns sum to 4 and -1
    joined = values.sum(1, keepdim=True)
    inputs = uniform(1, 3, 1, 2)
    np.testing.assert_array_equal(diverging()(explained(values, inputs)), diverging()(explained(joined, inputs)))


def test_grayscale_is_from_the_lowest_to_the_percentile() -> None:
    values = normal(2, 3, 9, 7)
    drawn = grayscale(percentile=90)(explained(values, uniform(2, 3, 9, 7)))
    for picture, each in zip(drawn, values.double().numpy(), strict=True):
        sums = np.array([[sum(abs(v) for v in each[:, row, column]) for column in range(7)] for row in range(9)])
        span = np.percentile(sums, 90) - sums.min()
        assert_shown(picture, np.repeat(((sums - sums.min()) / span)[..., None], 3, -1))


def test_grayscale_tells_a_cam_from_a_gradient_of_one_channel() -> None:
    signed = torch.tensor([[[[-4.0, 0.0], [1.0, 2.0]]]])
    draw = grayscale(normalize="image")
    gradient = draw(explained(signed, uniform(1, 1, 2, 2)))[0, ..., 0]
    cam = draw(explained(signed, uniform(1, 3, 2, 2)))[0, ..., 0]
    assert gradient.tolist() == [[255, 0], [64, 128]]
    assert cam.tolist() == [[0, 0], [128, 255]]


@pytest.mark.parametrize("style", ["zero", "minmax", "std"])
def test_colours_of_values(style: str) -> None:
    values = normal(2, 3, 4, 5)
    drawn = color(style, normalize="image")(explained(values, uniform(2, 3, 4, 5)))
    for picture, each in zip(drawn, values.permute(0, 2, 3, 1).double().numpy(), strict=True):
        numbers = [float(value) for value in each.ravel()]
        mean = sum(numbers) / len(numbers)
        spread = (sum((value - mean) ** 2 for value in numbers) / len(numbers)) ** 0.5
        expected = {
            "zero": each / max(map(abs, numbers)) / 2 + 0.5,
            "minmax": (each - min(numbers)) / (max(numbers) - min(numbers)),
            "std": (each - mean) / spread * 0.1 + 0.5,
        }
        assert_shown(picture, expected[style])


@pytest.mark.parametrize("style", ["zero", "minmax", "std"])
def test_a_constant_map_has_one_colour_in_every_style(style: str) -> None:
    noise = 1 + 1e-8 * normal(1, 3, 6, 6).double()
    assert np.ptp(color(style)(explained(0.7 * noise, uniform(1, 3, 6, 6)))) == 0


def test_each_sign_alone() -> None:
    values = normal(1, 3, 4, 5)
    result, signed = explained(values, uniform(1, 3, 4, 5)), values[0].permute(1, 2, 0).numpy()
    assert_shown(positive(normalize="image")(result)[0], np.maximum(0, signed) / signed.max())
    assert_shown(negative(normalize="image")(result)[0], np.maximum(0, -signed) / -signed.min())
    stronger = max(signed.max(), -signed.min())
    assert_shown(positive(normalize="signed")(result)[0], np.maximum(0, signed) / stronger)
    assert_shown(negative(normalize="signed")(result)[0], np.maximum(0, -signed) / stronger)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_inputs_of_any_channels_become_pictures(channels: int) -> None:
    inputs = uniform(1, channels, 3, 5)
    drawn = overlay(opacity=0)(explained(normal(1, 1, 2, 2), inputs))[0]
    for row in range(3):
        for column in range(5):
            pixel = [float(value) for value in inputs[0, :, row, column]]
            if channels == 3:
                seen = pixel
            elif channels == 4:
                seen = [value * pixel[3] + 1 - pixel[3] for value in pixel[:3]]
            else:
                seen = [sum(pixel) / channels] * 3
            assert_shown(drawn[row, column], np.array(seen))


def test_the_picture_is_in_its_own_colours() -> None:
    picture = uniform(2, 3, 4, 4)
    known = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.1, 0.3))
    inputs = (picture - torch.tensor(known.mean)[:, None, None]) / torch.tensor(known.std)[:, None, None]
    drawn = overlay(opacity=0)(explained(normal(2, 1, 2, 2), inputs, known))
    assert_shown(drawn, picture.permute(0, 2, 3, 1).numpy())


def test_without_preprocessing_inputs_are_stretched_each_by_itself() -> None:
    inputs = torch.stack([torch.tensor([[[-1.0, 0.0, 3.0]]]), torch.tensor([[[0.0, 0.25, 0.5]]])])
    drawn = overlay(opacity=0)(explained(normal(2, 1, 2, 2), inputs))[:, 0, :, 0]
    assert drawn.tolist() == [[0, 64, 255], [0, 64, 128]]
    flat = overlay(opacity=0)(explained(normal(1, 1, 2, 2), torch.full((1, 3, 2, 2), -2.0)))
    assert not flat.any()


@pytest.mark.parametrize("draw", PLAIN, ids=lambda draw: str(draw.name))
@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@pytest.mark.parametrize("size", [(8, 8), (1, 3), (33, 20)])
def test_pictures_have_the_size_of_their_inputs(draw: Any, channels: int, size: tuple[int, int]) -> None:
    inputs = normal(2, channels, *size)
    for values in (normal(2, 1, 3, 2), normal(2, channels, *size)):
        before = values.clone(), inputs.clone()
        drawn = draw()(explained(values, inputs))
        assert drawn.shape == (2, *size, 3)
        assert drawn.dtype == np.uint8
        assert torch.equal(values, before[0])
        assert torch.equal(inputs, before[1])


@pytest.mark.parametrize("draw", PLAIN, ids=lambda draw: str(draw.name))
@pytest.mark.parametrize("level", [0.0, 0.7, -0.7])
def test_a_constant_map_looks_like_no_map(draw: Any, level: float) -> None:
    inputs = uniform(1, 3, 6, 6)
    for shape in ((1, 1, 2, 2), (1, 3, 6, 6), (1, 1, 1, 1)):
        constant, empty = (draw()(explained(torch.full(shape, each), inputs)) for each in (level, 0.0))
        np.testing.assert_array_equal(constant, empty)


@pytest.mark.parametrize("draw", PLAIN, ids=lambda draw: str(draw.name))
@pytest.mark.parametrize("magnitude", [1e-30, 1e30])
def test_magnitude_changes_no_picture(draw: Any, magnitude: float) -> None:
    values, inputs = normal(1, 3, 6, 6), uniform(1, 3, 6, 6)
    usual, extreme = (draw()(explained(each, inputs)).astype(int) for each in (values, values * magnitude))
    assert abs(usual - extreme).max() <= 1


@pytest.mark.parametrize("draw", PLAIN, ids=lambda draw: str(draw.name))
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_is_drawn(draw: Any, precision: torch.dtype) -> None:
    values, inputs = normal(1, 3, 6, 6).to(precision), uniform(1, 3, 6, 6).to(precision)
    known = Preprocessing((0.1,) * 3, (0.9,) * 3)
    drawn = draw()(explained(values.requires_grad_(), inputs, known))
    np.testing.assert_array_equal(drawn, draw()(explained(values.detach().float(), inputs.float(), known)))


@pytest.mark.parametrize("draw", [*PLAIN, panels], ids=lambda draw: str(draw.name))
def test_values_that_are_not_finite_are_told(draw: Any) -> None:
    values = torch.ones(1, 1, 2, 2)
    values[0, 0, 0, 0] = float("nan")
    values[0, 0, 1, 1] = float("inf")
    with pytest.raises(ValueError, match=re.escape("2 of 4 values of some_method() are NaN or infinite")):
        draw()(explained(values, uniform(1, 3, 4, 4)))


@pytest.mark.parametrize("draw", [*PLAIN, panels], ids=lambda draw: str(draw.name))
def test_what_is_no_image_is_sent_to_its_renderer(draw: Any) -> None:
    for shape, kind, right in (((1, 2, 9), "signals", "line"), ((1, 1, 3, 4, 5), "volumes", "slices")):
        with pytest.raises(ValueError, match=f"^{draw.name} draws images; for {kind} use '{right}'$"):
            draw()(explained(normal(*shape), normal(*shape)))


def test_signals_and_volumes_have_their_own_renderers() -> None:
    image = explained(normal(1, 3, 4, 4), normal(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"^line draws vectors and signals; for images use 'overlay'$"):
        line()(image)
    with pytest.raises(ValueError, match=r"^slices draws volumes; for images use 'overlay'$"):
        slices()(image)
    with pytest.raises(ValueError, match="there is no renderer for inputs"):
        heatmap()(explained(normal(1, 1, 2, 2, 2, 2), normal(1, 1, 2, 2, 2, 2)))
    with pytest.raises(ValueError, match=re.escape("heatmap: values (1, 5) do not lie over inputs (1, 3, 4, 4)")):
        heatmap()(explained(normal(1, 5), normal(1, 3, 4, 4)))


@pytest.mark.parametrize(
    ("build", "settings", "message"),
    [
        (heatmap, {"colormap": "turbbo"}, "there is no colour map 'turbbo'; did you mean 'turbo'?"),
        (overlay, {"colormap": "?"}, "there is no colour map '?'; use one of matplotlib's"),
        (diverging, {"normalize": "imgae"}, "did you mean 'image'?"),
        (grayscale, {"percentile": 120}, "percentile=120 is out of range"),
        (overlay, {"opacity": 2}, "opacity=2 is out of range; use 0 to 1"),
        (diverging, {"fade": -1}, "fade=-1 is out of range; use 0 to 1"),
        (overlay, {"blend": "add"}, "there is no blend 'add'; use heat, alpha, sum"),
        (overlay, {"background": "red"}, "there is no background 'red'; use 'color' or 'gray'"),
        (color, {"style": "mid"}, "there is no style 'mid'; use zero, minmax, std"),
        (panels, {"channels": "min"}, "there is no way 'min' to join channels; use 'sum' or 'max'"),
        (panels, {"background": "red"}, "there is no background 'red'; use 'faded' or 'pale'"),
        (panels, {"contrast": 0}, "contrast=0 leaves no colours"),
        (line, {"clip": 0.5}, "clip=0.5 leaves the highest colours unused"),
        (slices, {"count": 0}, "count=0 shows nothing; use 1 or more"),
        (slices, {"axis": 3}, "axis=3 is not one of a volume's; use 0 (depth), 1 (height) or 2 (width)"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_drawn(build: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build(**settings)


# Every channel of a layer


def found(sheet: NDArray[np.uint8], small: NDArray[np.uint8], factor: int | None = None) -> tuple[int, int, int]:
    """Where a picture stands on a sheet, and how many times it is enlarged; the largest that is there."""
    bluest = np.unravel_index((small.max(-1).astype(int) - small.min(-1)).argmax(), small.shape[:2])
    alike = (sheet == small[bluest]).all(-1)
    for times in [factor] if factor else range(256 // len(small), 0, -1):
        large = small.repeat(times, 0).repeat(times, 1)
        height, width = (sheet.shape[axis] - large.shape[axis] + 1 for axis in (0, 1))
        if height < 1 or width < 1:
            continue
        row, column = (int(at) * times for at in bluest)
        places = np.argwhere(alike[row : row + height, column : column + width])
        for at in np.ndindex(small.shape[:2]):
            tops, lefts = (places + np.array(at) * times).T
            places = places[(sheet[tops, lefts] == small[at]).all(-1)]
        for top, left in places.tolist():
            if np.array_equal(sheet[top : top + len(large), left : left + large.shape[1]], large):
                return top, left, times
    raise AssertionError("it is not there")


def seen(strengths: Any) -> NDArray[np.uint8]:
    """Gray for numbers from 0 to 1, blue for those from -1 to 0."""
    picture = np.zeros((*np.shape(strengths), 3), np.uint8)
    for place, strength in np.ndenumerate(np.asarray(strengths, np.float64)):
        color = [strength] * 3 if strength >= 0 else [-strength * part for part in (0.15, 0.45, 1.0)]
        picture[place] = [round(255 * part) for part in color]
    return picture


def layer(values: Any, size: int = 8) -> Explanation:
    return explained(torch.as_tensor(values)[None], uniform(1, 3, size, size))


def test_channels_are_gray_from_zero_to_their_own_strongest_and_blue_below_zero() -> None:
    values = [[[0.0, 2.0], [1.0, 0.5]], [[0.0, -4.0], [2.0, 1.0]], [[0.2, 0.1], [0.0, 0.15]]]
    sheet = channels()(layer(values))[0]
    expected = [seen(np.array(each) / peak) for each, peak in zip(values, (2, 4, 0.2), strict=True)]
    places = [found(sheet, each) for each in expected]
    assert len({top for top, *_ in places}) == 1
    assert [left for _, left, _ in places] == sorted(left for _, left, _ in places)
    assert places[0][2] == places[1][2] == places[2][2] > 60


def test_shared_channels_have_one_scale_and_roundings_are_none() -> None:
    shape = np.array([[0.0, 1.0], [0.5, 1.0]])
    values = np.array([4.0, 1.0, 1e-9])[:, None, None] * shape
    one = channels(shared=True)(layer(values))[0]
    assert found(one, seen(shape))[1] < found(one, seen(shape / 4))[1] < found(one, seen(shape * 0))[1]
    own = channels()(layer(values))[0]
    assert found(own, seen(shape))[1] < found(own, seen(shape * 0))[1]


def test_the_strongest_channels_come_first() -> None:
    values = np.array([0.25, 1.0, 0.5, 0.75])[:, None, None] * np.array([[0.0, 1.0], [1.0, 1.0]])
    sheet = channels(most=3, shared=True)(layer(values))[0]
    places = [found(sheet, seen(values[number]), 128)[1] for number in (1, 3, 2)]
    assert places == sorted(places)
    with pytest.raises(AssertionError, match="it is not there"):
        found(sheet, seen(values[0]), 128)


@pytest.mark.parametrize(
    ("count", "columns", "across", "factor"),
    [(3, None, 3, 42), (64, None, 20, 12), (500, None, 23, 10), (2048, None, 46, 6), (64, 8, 8, 32)],
)
def test_so_many_channels_stand_in_a_row(count: int, columns: int | None, across: int, factor: int) -> None:
    values = np.zeros((count, 6, 6))
    values[0, 1, 1] = values[across - 1, 4, 1] = values[-1, 1, 2] = -1  # three to know, in blue
    sheet = channels(columns)(layer(values))[0]
    first, last_of_row, last = (found(sheet, seen(values[number]), factor) for number in (0, across - 1, -1))
    assert first[0] == last_of_row[0]
    assert sheet.shape[1] - last_of_row[1] < 6 * factor + 60
    column, row = (count - 1) % across, (count - 1) // across
    assert last[1] - first[1] == (last_of_row[1] - first[1]) / (across - 1) * column
    assert last[0] - first[0] == row * (6 * factor + 17)  # under its label
    assert max(sheet.shape) < 3000


def test_every_channel_has_its_number_above() -> None:
    values = np.zeros((12, 6, 6))
    values[:, 2, 2] = -1
    labelled, alike = channels(shared=True)(layer(values))[0], seen(values[0])
    top, _, factor = found(labelled, alike)
    above = labelled[top - 12 : top]
    dark = (above < 128).all(-1).any(0)
    assert dark.sum() > 12 * 8  # letters above all of them
    assert (labelled[top + 6 * factor :] == 255).all(-1).mean() == 1  # and nothing below


def test_a_volume_shows_its_strongest_in_depth_and_a_signal_its_curve() -> None:
    volume = torch.zeros(1, 1, 3, 2, 2)
    volume[0, 0, 1, 0, 1], volume[0, 0, 2, 0, 1], volume[0, 0, 0, 1, 0] = 0.5, -1.0, 0.25
    found(channels()(explained(volume, uniform(1, 1, 3, 4, 4)))[0], seen([[0, -1], [0.25, 0]]))
    tile = _tile(np.array([0.0] * 5 + [1.0] * 5), 100)
    assert tile.shape == (50, 100, 3)
    lowest = len(tile) - 1 - tile[::-1, :, 0].argmax(0)  # where each column is brightest
    assert abs(lowest[:40] - 25).max() <= 1
    assert lowest[60:].max() <= 2
    down = _tile(np.array([-1.0] * 10), 100)
    assert down[:, 50, 0].argmax() >= 47


@pytest.mark.parametrize("setting", ["columns", "most"])
def test_no_channels_cannot_be_drawn(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{setting}=0 leaves no place for a picture; use 1 or more"):
        channels(**{setting: 0})


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_method_is_drawn_by_its_own_renderer_where_that_draws_so_many_dimensions(rank: int) -> None:
    size = (12, 10, 8)[:rank]
    inputs = normal(1, 3, *size)
    model = SmallNet(rank)
    usual = {1: "line", 2: "color", 3: "slices"}[rank]
    for name, expected in (
        ("activation", "channels"),
        ("saliency_confusion", "confusion_matrix"),
        ("guided_backprop", usual),
    ):
        answer = explain(model, inputs, name, target=0)
        assert answer.usual_renderer == expected
        np.testing.assert_array_equal(answer.render(), answer.render(expected))


def test_activations_are_what_the_layer_gives(rank: int) -> None:
    model, inputs = SmallNet(rank), normal(2, 3, *(12, 10, 8)[:rank])
    kept: list[Tensor] = []
    handle = model.second.register_forward_hook(lambda module, args, output: kept.append(output.detach().clone()))
    model(inputs)
    handle.remove()
    assert torch.equal(explain(model, inputs, "activation", layer="second").values, kept[0])
