"""The switches of torch that decide how numbers are rounded, taken to worker processes as they are here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

_backends: Any = torch.backends  # torch has no types for all of it


def arithmetic_of(kind: str) -> dict[str, Any]:
    """How torch computes on this kind of device in this thread now, for JSON."""
    told: dict[str, Any] = {name: place.fp32_precision for name, place in _places(kind).items()}
    told["default_dtype"] = str(torch.get_default_dtype()).removeprefix("torch.")
    told["deterministic"] = torch.are_deterministic_algorithms_enabled()
    if kind == "cuda":
        told["cudnn.deterministic"] = torch.backends.cudnn.deterministic
        told["cudnn.benchmark"] = torch.backends.cudnn.benchmark
    enabled = torch.is_autocast_enabled(kind)
    told["autocast"] = str(torch.get_autocast_dtype(kind)).removeprefix("torch.") if enabled else None
    return told


def compute_by(arithmetic: Mapping[str, Any], kind: str) -> None:
    """Have torch compute in that way, in a process that nobody else computes in."""
    for name, place in _places(kind).items():
        if place.fp32_precision != arithmetic[name]:
            place.fp32_precision = arithmetic[name]
    torch.set_default_dtype(getattr(torch, arithmetic["default_dtype"]))
    torch.use_deterministic_algorithms(arithmetic["deterministic"])
    if kind == "cuda":
        torch.backends.cudnn.deterministic = arithmetic["cudnn.deterministic"]
        torch.backends.cudnn.benchmark = arithmetic["cudnn.benchmark"]
    autocast = arithmetic["autocast"]
    torch.set_autocast_enabled(kind, autocast is not None)
    if autocast is not None:
        torch.set_autocast_dtype(kind, getattr(torch, autocast))


def _places(kind: str) -> dict[str, Any]:
    """What has a switch for float32 on that kind of device, by name."""
    if kind == "cuda":
        cudnn = _backends.cudnn
        return {"cudnn.conv": cudnn.conv, "cudnn.rnn": cudnn.rnn, "cuda.matmul": _backends.cuda.matmul}
    mkldnn = _backends.mkldnn
    return {"mkldnn.conv": mkldnn.conv, "mkldnn.rnn": mkldnn.rnn, "mkldnn.matmul": mkldnn.matmul}
