"""One seed gives the same draws on a CUDA device as on a CPU, and so the same maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import FlatteningNet, tiny_inputs
from torch import Tensor

from cnnviz import explain
from cnnviz.feature_visualization import RandomNumbers

EXACT: dict[str, Callable[[RandomNumbers], Tensor]] = {
    **{
        f"uniform-{dtype}": lambda draws, dtype=dtype: draws.uniform((3, 1001), dtype)  # type: ignore[misc]
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    },
    "integers": lambda draws: draws.integers(-7, 2**31 - 7, (5000,)),
    "permutation": lambda draws: draws.permutation(5000),
    "choice": lambda draws: draws.choice([0.1, 0, 3, 0.7], (5000,)),
}


@pytest.mark.parametrize("numbers", [(), (3,), (1, 2**40, range(4, 9))], ids=repr)
@pytest.mark.parametrize("seed", [0, -3])
def test_draws_are_those_of_a_cpu(seed: int, numbers: tuple[Any, ...], device: torch.device) -> None:
    for name, draw in EXACT.items():
        found = draw(RandomNumbers(seed, *numbers, device=device))
        assert found.device == device
        assert torch.equal(found.cpu(), draw(RandomNumbers(seed, *numbers))), name
    for dtype in (torch.float32, torch.float64):
        found = RandomNumbers(seed, *numbers, device=device).normal((3, 224, 224), dtype).cpu()
        torch.testing.assert_close(found, RandomNumbers(seed, *numbers).normal((3, 224, 224), dtype), rtol=0, atol=1e-6)


METHODS: dict[str, dict[str, Any]] = {
    "rise": {"masks": 24, "cells": 3},
    "lime": {"samples": 40, "segments": "equal", "pieces": 9},
    "kernel_shap": {"samples": 40, "segments": "equal", "pieces": 9},
    "shapley_sampling": {"permutations": 4, "segments": "equal", "pieces": 9},
    "smoothgrad": {"samples": 7},
    "expected_gradients": {"samples": 7, "baselines": torch.zeros(3, 2, 5, 6)},
}


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_one_seed_are_those_of_a_cpu(method: str, device: torch.device) -> None:
    how: dict[str, Any] = {"target": [0, 2], "seed": 5} | METHODS[method]
    expected = explain(FlatteningNet(), tiny_inputs(), method, **how).values
    found = explain(FlatteningNet().to(device), tiny_inputs().to(device), method, **how).values
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-6)


def test_no_draw_waits_for_the_device(device: torch.device) -> None:
    draws = RandomNumbers(0, 1, range(20), device=device)
    draws.normal((3, 64, 64))  # the first use of a kernel may wait
    for draw in EXACT.values():
        draw(draws)
    torch.cuda.set_sync_debug_mode("error")
    try:
        draws.normal((3, 64, 64))
        for draw in EXACT.values():
            draw(draws)
    finally:
        torch.cuda.set_sync_debug_mode("default")
