"""Quick scores are believed where they change as plain ones do, and by more than rounding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cnnviz.engine.agreement import agrees, outputs_agree


def changes(*values: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize(
    ("found", "plain", "score", "verdict"),
    [
        ((0.5, -0.2), (0.5, -0.2), 1.0, True),
        ((0.5, -0.2), (0.5, -0.21), 1.0, False),
        ((0.5, 0.0), (0.5, 0.01), 1.0, False),  # a change that was not seen, beside a large one
        ((5e-4,), (6e-4,), 1.0, False),  # beside the score, its change is small
        ((0.0,), (0.0,), 1.0, None),
        ((1e-6,), (-1e-6,), 1.0, None),  # rounding
        ((5e-4,), (6e-4,), 1000.0, None),
        ((0.5,), (float("nan"),), 1.0, False),
        ((float("nan"),), (0.5,), 1.0, False),
        ((0.0,), (0.0,), 0.0, None),
    ],
)
def test_changes_are_compared_with_changes(
    found: tuple[float, ...], plain: tuple[float, ...], score: float, verdict: bool | None
) -> None:
    assert agrees(changes(*found), changes(*plain), score=changes(score)) is verdict


@pytest.mark.parametrize(("dtype", "least"), [(torch.float64, 1e-12), (torch.float16, 0.05), (torch.bfloat16, 0.5)])
def test_what_tells_depends_on_the_precision(dtype: torch.dtype, least: float) -> None:
    score = changes(1.0, dtype=dtype)
    for reach, verdict in ((least, True), (least / 20, None)):
        change = changes(reach, dtype=dtype)
        assert agrees(change, change, score=score) is verdict
    assert agrees(changes(0.9, dtype=dtype), changes(0.7, dtype=dtype), score=score) is False


def test_what_differs_without_a_change_is_noise() -> None:
    assert agrees(changes(0.50), changes(0.51), score=changes(1.0)) is False
    assert agrees(changes(0.50), changes(0.51), score=changes(1.0), noise=0.01) is True
    assert agrees(changes(0.50), changes(0.51), score=changes(1.0), noise=0.1) is None


def test_ten_bits_of_cuda_are_allowed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found, plain, score = changes(0.5), changes(0.502), changes(1.0)
    assert agrees(found, plain, score=score) is False
    monkeypatch.setattr(Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert agrees(found, plain, score=score) is True


@pytest.mark.parametrize(
    ("fast", "plain", "verdict"),
    [
        (torch.tensor([3, 1]), torch.tensor([3, 1]), True),
        (torch.tensor([3, 1]), torch.tensor([3, 2]), False),
        (torch.tensor([True, False]), torch.tensor([True, False]), True),
        (torch.tensor([True, False]), torch.tensor([True, True]), False),
        (changes(1.0, -torch.inf), changes(1.00001, -torch.inf), True),
        (changes(1.0, -torch.inf), changes(1.01, -torch.inf), False),  # however large the other difference could be
        (changes(1.0, -torch.inf), changes(1.0, torch.inf), False),
        (changes(1.0, 2.0), changes(1.0, -torch.inf), False),
        (changes(1.0, 2.0), changes(1.0, torch.nan), False),
    ],
)
def test_outputs_are_compared_whatever_they_hold(fast: Tensor, plain: Tensor, verdict: bool) -> None:
    scores = changes(0.5, -0.2)
    assert outputs_agree({"scores": scores, "beside": fast}, {"scores": scores, "beside": plain}) is verdict
