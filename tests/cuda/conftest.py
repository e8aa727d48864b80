"""What only a CUDA device can show. Elsewhere every test of this folder is skipped, for the reason given here."""

from __future__ import annotations

import pytest
import torch

SEEN = {name: getattr(torch.cuda, name) for name in ("is_available", "device_count")}
"""As torch tells, before tests/conftest.py hides the devices from the other tests."""


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The first CUDA device, which computes float32 in float32: TF32 has ten bits, and the CPU is compared with."""
    if not SEEN["is_available"]():
        pytest.skip("no CUDA device is here")
    for name, told in SEEN.items():
        monkeypatch.setattr(torch.cuda, name, told)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    return torch.device("cuda", 0)
