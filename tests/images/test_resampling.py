"""Tensors of every rank are resized and blurred as is worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cnnviz.images import blurred, resize

RISING = torch.tensor([0.0, 4.0, 8.0, 12.0])


def test_lines_are_halved_and_doubled_by_hand() -> None:
    line = RISING.view(1, 1, 4)
    assert resize(line, (2,)).flatten().tolist() == [2.0, 10.0]
    assert resize(line, (2,), "nearest").flatten().tolist() == [0.0, 8.0]
    assert resize(line, (7,), "corners").flatten().tolist() == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    assert resize(line, (4,)) is line
    with pytest.raises(ValueError, match="there is no interpolation 'cubic'; it is linear, nearest, corners"):
        resize(line, (2,), "cubic")


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_only_images_that_are_reduced_are_smoothed(rank: int) -> None:
    inputs = RISING.view(1, 1, 4, *(1,) * (rank - 1)).expand(1, 1, *(4,) * rank)
    plain, smooth = (resize(inputs, (2,) * rank, antialias=antialias) for antialias in (False, True))
    first = smooth[(0, 0, slice(None), *(0,) * (rank - 1))].tolist()
    # each new pixel is a triangle of four, 1 3 3 1, cut off at the border: (3 * 0 + 3 * 4 + 1 * 8) / 7
    assert first == pytest.approx([20 / 7, 64 / 7] if rank == 2 else [2.0, 10.0])
    assert torch.equal(plain, smooth) == (rank != 2)
    assert torch.equal(resize(inputs, (8,) * rank, antialias=True), resize(inputs, (8,) * rank))


def test_a_blur_ends_at_three_sigma() -> None:
    point: Tensor = torch.zeros(1, 1, 9, dtype=torch.float64)
    point[..., 4] = 1
    weights = [math.exp(-(away**2) / 2) if away <= 3 else 0.0 for away in (4, 3, 2, 1, 0, 1, 2, 3, 4)]
    expected = torch.tensor([weight / sum(weights) for weight in weights], dtype=torch.float64)
    torch.testing.assert_close(blurred(point, 1.0).flatten(), expected, rtol=1e-6, atol=1e-9)
    constant = torch.full((2, 3, 4, 5), 7.0)
    torch.testing.assert_close(blurred(constant, 2.0), constant)
