"""Full strength is where its policy says, zero stays zero, and what holds no scale stays blank."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from cnnviz.drawing.intensity import POLICIES, Floats, Scale

BY_MAP = [policy for policy in POLICIES if policy != "shared"]


@pytest.fixture
def maps() -> Floats:
    """Three maps of very different strengths, both signs."""
    strengths = np.array([1.0, 10.0, 0.1])
    return np.random.default_rng(0).normal(0, strengths[:, None, None], (3, 4, 5))


def peaks_by_hand(maps: Floats, policy: str | float, percentile: float) -> list[float]:
    strengths = [sorted(abs(float(value)) for value in each.ravel()) for each in maps]
    if policy == "shared":
        return [max(map(max, strengths))] * len(maps)
    if policy == "percentile":
        peaks = []
        for each in strengths:
            place = percentile / 100 * (len(each) - 1)
            low = math.floor(place)
            high = min(low + 1, len(each) - 1)
            peaks.append(each[low] + (place - low) * (each[high] - each[low]))
        return peaks
    return [max(each) for each in strengths] if isinstance(policy, str) else [policy] * len(maps)


@pytest.mark.parametrize("policy", [*POLICIES, 2.5])
@pytest.mark.parametrize("percentile", [40.0, 99.0, 100.0])
def test_maps_are_drawn_in_units_of_their_peak(maps: Floats, policy: str | float, percentile: float) -> None:
    scaled = Scale(policy, percentile)(maps)
    for each, got, peak in zip(maps, scaled, peaks_by_hand(maps, policy, percentile), strict=True):
        for value, drawn in zip(each.ravel(), got.ravel(), strict=True):
            assert drawn == pytest.approx(min(1.0, max(-1.0, value / peak)))


def test_signed_measures_one_sign_by_the_stronger_of_both() -> None:
    signed = np.array([[2.0, -8.0, 0.0]])
    np.testing.assert_allclose(Scale("signed")(signed.clip(0), signed), [[0.25, 0, 0]])
    np.testing.assert_allclose(Scale("image")(signed.clip(0), signed), [[1, 0, 0]])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("level", [0.0, 0.3, -5.0, 1e30, 1e-30])
def test_a_constant_map_stays_blank(policy: str, level: float) -> None:
    assert not Scale(policy)(np.full((2, 3, 3), level)).any()
    assert not Scale(policy).above_lowest(np.full((2, 3, 3), level)).any()


@pytest.mark.parametrize("policy", POLICIES)
def test_the_rounding_errors_of_a_constant_map_are_not_drawn(policy: str) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8)) * 3e-8
    assert not Scale(policy)(0.3 + 0.3 * noise).any()
    scale = Scale(policy)
    assert not scale(scale.above_lowest(0.3 + 0.3 * noise)).any()


def test_a_number_as_peak_draws_a_constant_map_at_its_level() -> None:
    np.testing.assert_allclose(Scale(2.0)(np.full((1, 2, 2), 0.5)), np.full((1, 2, 2), 0.25))
    np.testing.assert_allclose(Scale(2.0).above_lowest(np.full((1, 2, 2), 0.5)), np.full((1, 2, 2), 0.5))


def test_a_shared_scale_draws_a_constant_map_beside_others_at_its_level() -> None:
    maps = np.stack([np.full((2, 2), 1.0), np.array([[0.0, 4.0], [0.0, 0.0]])])
    np.testing.assert_allclose(Scale("shared")(maps), maps / 4)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("magnitude", [1e-30, 1e-12, 1e30])
def test_magnitude_changes_nothing(maps: Floats, policy: str, magnitude: float) -> None:
    np.testing.assert_allclose(Scale(policy)(maps * magnitude), Scale(policy)(maps), atol=1e-12)


@pytest.mark.parametrize("rounding", [0.0, 1e-9])
def test_a_few_points_are_drawn_although_the_percentile_falls_on_nothing(rounding: float) -> None:
    maps = np.full((1, 50, 50), rounding)
    maps[0, 7, 9] = 3.0
    scaled = Scale("percentile", 99.0)(maps)
    assert scaled[0, 7, 9] == 1
    assert np.delete(scaled.ravel(), 7 * 50 + 9).max() < 1e-8


@pytest.mark.parametrize("policy", POLICIES)
def test_the_lowest_value_becomes_zero(maps: Floats, policy: str) -> None:
    lowest = [maps.min()] * 3 if policy == "shared" else [each.min() for each in maps]
    expected = np.stack([each - low for each, low in zip(maps, lowest, strict=True)])
    np.testing.assert_allclose(Scale(policy).above_lowest(maps), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "imgae"}, "there is no normalization 'imgae'; did you mean 'image'?"),
        ({"policy": "zzz"}, "there is no normalization 'zzz'; use image, shared, percentile, signed or a positive"),
        ({"policy": 0}, "normalize=0 cannot be full strength; use a positive number"),
        ({"policy": float("nan")}, "normalize=nan cannot be full strength"),
        ({"percentile": 0}, "percentile=0 is out of range; use one above 0 and up to 100"),
        ({"percentile": 101}, "percentile=101 is out of range"),
        ({"percentile": float("nan")}, "percentile=nan is out of range"),
    ],
)
def test_a_scale_that_cannot_be_is_told(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Scale(**settings)
