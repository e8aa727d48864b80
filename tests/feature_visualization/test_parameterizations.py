"""Canvases are the waves and pixels they say; transformations move what is there, and nothing else."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnviz import Preprocessing
from cnnviz.feature_visualization import (
    FourierCanvas,
    FreeCanvas,
    PixelCanvas,
    RandomNumbers,
    composed,
    jittered,
    middle,
    padded,
    robustness,
    rotated,
    scaled,
)
from cnnviz.images import Bounds

SIZES = {1: (7,), 2: (4, 5), 3: (3, 2, 4)}
IMAGES = Preprocessing((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def drawing(seed: int = 0) -> RandomNumbers:
    return RandomNumbers(seed)


def bounds(channels: int, preprocessing: Preprocessing | None = None) -> Bounds:
    return Bounds.of(preprocessing, torch.zeros(1, channels, dtype=torch.float64))


def waves_by_hand(spectrum: Tensor, size: tuple[int, ...]) -> np.ndarray:
    """The sum over all waves, place by place; (C, *spatial)."""
    rank = len(size)
    waves = torch.view_as_complex(spectrum).numpy()
    values = np.zeros((len(waves), *size))
    for wave in product(*(range(length) for length in waves.shape[1:])):
        swings = [min(each, length - each) / length for each, length in zip(wave, size, strict=True)]
        frequency = max(math.hypot(*swings), 1 / max(size))
        # of the last axis, half of the waves are left out, for they mirror the others
        times = 1 if wave[-1] in (0, size[-1] / 2) else 2
        for place in product(*(range(length) for length in size)):
            turn = sum(each * at / length for each, at, length in zip(wave, place, size, strict=True))
            strength = waves[(slice(None), *wave)] / frequency ** (rank / 2)
            values[(slice(None), *place)] += times * (strength * np.exp(2j * np.pi * turn)).real
    return values / math.sqrt(math.prod(size)) / 4


def test_a_fourier_canvas_is_a_sum_of_waves(rank: int) -> None:
    size = SIZES[rank]
    canvas = FourierCanvas((2, 2, *size), bounds(2), drawing(), deviation=1.0)
    (spectrum,) = canvas.parameters
    inputs = canvas().detach()
    assert inputs.shape == (2, 2, *size)
    for item in range(2):
        expected = -2 + 4 / (1 + np.exp(-waves_by_hand(spectrum[item].detach(), size)))
        np.testing.assert_allclose(inputs[item].numpy(), expected, rtol=1e-9)


def test_the_start_has_the_deviation_asked_for() -> None:
    (spectrum,) = FourierCanvas((4, 3, 32, 32), bounds(3), drawing(), deviation=0.3).parameters
    assert float(spectrum.detach().std()) == pytest.approx(0.3, rel=0.02)
    (usual,) = FourierCanvas((4, 3, 32, 32), bounds(3), drawing()).parameters
    assert float(usual.detach().std()) == pytest.approx(0.01, rel=0.02)


def test_a_canvas_is_not_drawn_from_a_generator_of_torchs() -> None:
    with pytest.raises(TypeError, match=r"a canvas can't be drawn from a Generator; give it ascent\.draws"):
        FourierCanvas((1, 3, 8, 8), bounds(3), torch.Generator())  # type: ignore[arg-type]


def test_colours_of_images_vary_independently_mostly_in_brightness() -> None:
    canvas = FourierCanvas((1, 3, 16, 16), bounds(3), drawing(), deviation=2.0)
    plain = FourierCanvas((1, 3, 16, 16), bounds(3), drawing(), deviation=2.0)
    plain.colours = None
    mixed, directions = (each().detach().add(2).div(4).logit()[0].flatten(1) for each in (canvas, plain))
    matrix = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
    matrix /= np.sqrt((matrix**2).sum(0)).max()
    np.testing.assert_allclose(mixed.numpy(), matrix @ directions.numpy(), rtol=1e-9, atol=1e-12)
    assert FourierCanvas((1, 3, 16), bounds(3), drawing()).colours is None  # of signals nothing is known
    assert FourierCanvas((1, 2, 8, 8), bounds(2), drawing()).colours is None


def test_canvases_keep_between_the_bounds_and_begin_as_asked() -> None:
    limits = bounds(3, IMAGES)
    torch.testing.assert_close(limits.low, torch.tensor([-2.0, -2.0, -2.0], dtype=torch.float64))
    torch.testing.assert_close(limits.high, torch.tensor([3.0, 2.0, 4 / 3], dtype=torch.float64))
    start = limits.inputs(drawing().uniform((2, 3, 4, 5), torch.float64) * 0.9 + 0.05)
    torch.testing.assert_close(PixelCanvas(start, limits)().detach(), start)
    torch.testing.assert_close(FreeCanvas(start)().detach(), start)
    for canvas in (PixelCanvas(start, limits), FourierCanvas(start.shape, limits, drawing())):
        (numbers,) = canvas.parameters
        with torch.no_grad():
            numbers.mul_(1e6)
        shares = limits.shares(canvas().detach())
        assert float(shares.min()) >= -1e-12
        assert float(shares.max()) <= 1 + 1e-12
    with pytest.raises(ValueError, match="the preprocessing is for 3 channels, and the model takes 2; give the mod"):
        Bounds.of(IMAGES, torch.zeros(1, 2))


def test_what_a_free_canvas_gives_out_is_not_changed_afterwards() -> None:
    canvas = FreeCanvas(torch.zeros(1, 1, 3))
    given = canvas()
    with torch.no_grad():
        canvas.values.add_(1)
    assert not given.any()


# Transformations


def numbered(*size: int) -> Tensor:
    """Inputs in which every place has a number of its own."""
    return (
        torch.arange(1.0, 1 + math.prod(size), dtype=torch.float64).reshape(1, 1, *size).repeat(6, 1, *[1] * len(size))
    )


def test_jitter_shows_each_input_through_a_window_of_its_own(rank: int) -> None:
    size = (9, 8, 7)[:rank]
    inputs = numbered(*size)
    seen = jittered(2)(inputs, drawing())
    assert seen.shape[2:] == tuple(length - 2 for length in size)
    places = set()
    for each in seen[:, 0]:
        (first,) = (inputs[0, 0] == each.flatten()[0]).nonzero().tolist()
        window = inputs[0, 0][tuple(slice(at, at + length - 2) for at, length in zip(first, size, strict=True))]
        assert torch.equal(each, window)
        places.add(tuple(first))
    assert len(places) > 1
    assert torch.equal(jittered(2)(inputs, drawing()), seen)
    assert torch.equal(jittered(0)(inputs, drawing()), inputs)


def test_scaling_reads_nearer_to_the_middle(rank: int) -> None:
    size = (8, 10, 12)[:rank]
    for dim, length in enumerate(size):
        shape = [1] * (rank + 2)
        shape[dim + 2] = length
        ramp = (torch.arange(length, dtype=torch.float64) - (length - 1) / 2).view(shape).expand(1, 1, *size)
        twice = scaled([2.0])(ramp, drawing())
        inside = tuple(slice(2, -2) for _ in size)
        torch.testing.assert_close(twice[0, 0][inside], ramp[0, 0][inside] / 2)
        torch.testing.assert_close(scaled([1.0])(ramp, drawing()), ramp)
    small = scaled([0.5])(torch.ones(1, 1, *size), drawing())
    assert float(small.sum()) < 0.8 * math.prod(size)  # zeros around it
    assert float(small.flatten()[0]) == 0


def test_every_input_is_scaled_by_a_factor_of_its_own() -> None:
    seen = scaled([0.5, 1.0])(torch.ones(8, 1, 6, 6), drawing())
    assert {float(each.sum()) for each in seen} == {36.0, float(scaled([0.5])(torch.ones(1, 1, 6, 6), drawing()).sum())}


def test_turning_keeps_lengths_though_the_sides_differ() -> None:
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(30.0), indexing="ij")
    flat = (2 * (columns - 14.5) + (rows - 5.5)).double().expand(5, 1, 12, 30)
    turned = rotated(25)(flat, drawing())
    slopes = []
    for each in turned[:, 0, 4:-4, 12:-12]:
        down, across = float(each.diff(dim=0).mean()), float(each.diff(dim=1).mean())
        assert math.hypot(down, across) == pytest.approx(math.hypot(2, 1), rel=1e-6)
        slopes.append(math.degrees(math.atan2(down, across) - math.atan2(1, 2)))
    assert max(map(abs, slopes)) <= 25
    assert max(slopes) - min(slopes) > 5
    torch.testing.assert_close(rotated(0)(flat, drawing()), flat)


def test_volumes_turn_in_the_plane_of_their_last_axes() -> None:
    volume = torch.arange(4.0, dtype=torch.float64).view(1, 1, 4, 1, 1).expand(1, 1, 4, 9, 9)
    turned = rotated(30)(volume, drawing())
    torch.testing.assert_close(turned[..., 3:-3, 3:-3], volume[..., 3:-3, 3:-3])
    with pytest.raises(ValueError, match=r"\(1, 1, 5\): signals can't be turned; leave the rotation out"):
        rotated(30)(torch.zeros(1, 1, 5), drawing())


def test_the_middle_is_cut_out_or_framed() -> None:
    inputs = numbered(5, 7)
    assert torch.equal(middle((3, 3))(inputs, drawing()), inputs[:, :, 1:4, 2:5])
    framed = middle((7, 7))(inputs, drawing())
    assert torch.equal(framed[:, :, 1:6], inputs)
    assert not framed[:, :, [0, 6]].any()
    around = padded(2, value=3.0)(inputs, drawing())
    assert torch.equal(around[:, :, 2:-2, 2:-2], inputs)
    assert torch.equal(around[:, :, :2], torch.full((6, 1, 2, 11), 3.0, dtype=torch.float64))


def test_robustness_moves_everything_and_keeps_the_size(rank: int) -> None:
    size = (20, 24, 16)[:rank]
    inputs = drawing().normal((3, 2, *size))
    move = robustness(size)
    draws = drawing(1)
    first, second = move(inputs, draws), move(inputs, draws)
    assert first.shape == second.shape == inputs.shape
    assert not torch.equal(first, second)
    assert torch.equal(move(inputs, drawing(1)), first)
    assert torch.equal(composed()(inputs, draws), inputs)
