"""What float32 is computed in: itself, or TF32 with its ten bits, which GPUs multiply many times faster.

torch has flags for that, one set for all threads, under newer and older names. A flag of an operation that was never
set follows the flag of all of them. What is changed here is put back so that it follows again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Float32 = Literal["float32", "tf32"]

_backends: Any = torch.backends  # torch has no types for all of it
_OPERATIONS: dict[str, tuple[str, ...]] = {"matmul": ("matmul",), "cudnn": ("conv", "rnn")}
"""Operations on CUDA, by the older name that has one switch for them."""
_CODES = {"float32": "ieee", "tf32": "tf32"}
_NAMES = {"none": "float32", "ieee": "float32", "bf16": "bfloat16"}


class ComputedIn(NamedTuple):
    """What a device computes in, by names such as float32 or tf32."""

    convolutions: str
    products: str
    """Of matrices."""

    def __str__(self) -> str:
        if self.convolutions == self.products:
            return self.products
        return f"{self.convolutions} in convolutions, {self.products} in matrix products"


def computed_in(inputs: Tensor, autocast: torch.dtype | None = None) -> ComputedIn:
    """What a pass of these inputs computes in: as its ``autocast``, the caller's, their dtype or torch's flags say."""
    kind = inputs.device.type
    if autocast is None and torch.is_autocast_enabled(kind):
        autocast = torch.get_autocast_dtype(kind)
    name = str(autocast or inputs.dtype).removeprefix("torch.")
    if name != "float32":
        return ComputedIn(name, name)
    if kind == "cuda" and torch.cuda.get_device_capability(inputs.device) >= (8, 0):
        return of_cuda()
    if kind == "cpu":
        return ComputedIn(*(_name(getattr(_backends.mkldnn, part).fp32_precision) for part in ("conv", "matmul")))
    return ComputedIn("float32", "float32")


def of_cuda() -> ComputedIn:
    """What torch's flags say of float32 on CUDA, whether or not the device has TF32."""
    return ComputedIn(_name(_own("conv").fp32_precision), _name(_own("matmul").fp32_precision))


def _name(code: str) -> str:
    return _NAMES.get(code, code)


def _own(operation: str) -> Any:
    """What has the flag of one operation on CUDA."""
    return _backends.cuda.matmul if operation == "matmul" else getattr(_backends.cudnn, operation)


class Tf32Flags:
    """torch's flags for float32 on CUDA. Not to be used by two threads at once."""

    def __init__(self) -> None:
        self.now: Float32 | None = None
        """What they are set to; None while they are the user's."""
        self._undo: list[Callable[[], None]] = []

    def set(self, wanted: Float32 | None) -> None:
        """Set them, or put them back for None. May be interrupted, and called again."""
        if wanted == self.now and (wanted is not None or not self._undo):
            return
        self.now = None
        while self._undo:
            self._undo[-1]()
            self._undo.pop()
        if wanted is not None:
            self._change(wanted)
            self.now = wanted

    def _change(self, wanted: Float32) -> None:
        code, every = _CODES[wanted], _backends.cudnn  # which has the flag of all operations on CUDA, not of its own
        before = {name: _own(name).fp32_precision for names in _OPERATIONS.values() for name in names}
        if all((value == "tf32") is (code == "tf32") for value in before.values()):
            return
        older = {home: _older(home) for home in _OPERATIONS}
        # one that equals what lies above follows it: torch does not tell which was set
        self._write(every, code, "none" if every.fp32_precision == _backends.fp32_precision else every.fp32_precision)
        for home, names in _OPERATIONS.items():
            apart = [name for name in names if _own(name).fp32_precision != code]
            # the older names would raise an error for whoever reads them while they disagree; to set convolutions by
            # theirs would give them flags of their own, for good
            agree = older[home] is (code != "tf32") and (home == "matmul" or len(apart) == len(names))
            for name in names:
                if name in apart or agree:
                    self._undo.append(partial(_assign, _own(name), before[name] if name in apart else "none"))
            if agree:
                self._undo.append(partial(_assign_older, home, code != "tf32"))
                _assign_older(home, code == "tf32")
            for name in names:
                if _own(name).fp32_precision != code:
                    _assign(_own(name), code)

    def _write(self, place: Any, code: str, former: str) -> None:
        self._undo.append(partial(_assign, place, former))
        _assign(place, code)


def _assign(place: Any, code: str) -> None:
    place.fp32_precision = code


def _older(home: str) -> bool | None:
    """The older flag ``allow_tf32``; None where torch refuses to tell it, because the newer ones disagree."""
    try:
        if home == "matmul" and torch.get_float32_matmul_precision() == "medium":
            return None  # the older flag knows two of the three degrees
        return bool((_backends.cuda.matmul if home == "matmul" else _backends.cudnn).allow_tf32)
    except RuntimeError:
        return None


def _assign_older(home: str, allowed: bool) -> None:
    (_backends.cuda.matmul if home == "matmul" else _backends.cudnn).allow_tf32 = allowed
