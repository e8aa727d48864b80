"""Rectifiers that are written as something else, such as ``x * (x > 0)``, found by what they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from cnnviz.engine.operations import Operation, spelled

_PRODUCTS = frozenset(spelled("mul", "multiply"))
_CHOICES = frozenset(spelled("where"))
_MAXIMA = frozenset(spelled("maximum", "max", "fmax", "clamp", "clip", "clamp_min"))
_FILLS = frozenset(spelled("masked_fill"))
_COMPARISONS = frozenset(spelled("gt", "ge", "lt", "le", "greater", "greater_equal", "less", "less_equal"))
_CASTS = frozenset(
    spelled("float", "double", "half", "bfloat16", "int", "to", "type", "type_as", "invert", "logical_not", "clone")
)


class Disguises:
    """Finds calls that are a ReLU in one pass.

    Args:
        refuses: raise ValueError for a choice by the sign of its own operand that is no ReLU, such as a leaky one.
    """

    def __init__(self, refuses: bool):
        self.refuses = refuses
        self._signs: WeakIdKeyDictionary = WeakIdKeyDictionary()
        """Where in memory that lies which was compared with zero, by the result and casts of it."""

    def see(self, func: Operation, args: Sequence[Any], output: Any) -> None:
        """Remember what comes of a comparison with zero."""
        if not isinstance(output, Tensor) or not args:
            return
        if func in _COMPARISONS and len(args) == 2 and any(map(_is_zero, args)):
            # of two tensors the first may be zeros; a number is never what is compared
            other = args[1] if isinstance(args[1], Tensor) and _is_zero(args[0]) else args[0]
            if isinstance(other, Tensor):
                self._signs[output] = _memory(other)
        elif func in _CASTS and args[0] in self._signs:
            self._signs[output] = self._signs[args[0]]

    def operand(self, func: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
        """The operand of which this call is a ReLU; None where it is none."""
        given = [*args, *(kwargs[name] for name in ("other", "min", "value") if name in kwargs)]
        if len(given) != len(args) + len(kwargs) or not 2 <= len(given) <= 3:
            return None
        if len(given) == 2 and (func in _PRODUCTS or func in _MAXIMA):
            return self._of_two(func, *given)
        if len(given) == 3 and func in _CHOICES:
            x, condition = given[:2] if func is Tensor.where else given[1::-1]
            return self._chosen(condition, x, given[2])
        if len(given) == 3 and func in _FILLS:
            x, mask, value = given
            return x if _carries(x) and _is_zero(value) and self._is_sign(mask, x, False) else None
        if self.refuses and len(given) == 3 and func is Tensor.__setitem__:
            x, mask, _ = given
            if _carries(x) and self._is_sign(mask, x, False):
                raise _by_hand("an assignment", "x.relu()")
        return None

    def _of_two(self, func: Operation, one: Any, other: Any) -> Tensor | None:
        x, constant = (one, other) if _carries(one) else (other, one)
        if not _carries(x) or not isinstance(constant, Tensor) or constant.requires_grad:
            return None
        if func in _PRODUCTS:
            return x if self._is_sign(constant, x, True) else None
        return x if _is_zero(constant) and constant.numel() <= x.numel() else None

    def _chosen(self, condition: Tensor, one: Any, other: Any) -> Tensor | None:
        for x, rest, positive in ((one, other, True), (other, one, False)):
            if _carries(x) and self._is_sign(condition, x, positive):
                if isinstance(rest, int | float | Tensor) and _is_zero(rest):
                    return x  # type: ignore[no-any-return]
                if self.refuses and _carries(rest):
                    raise _by_hand("torch.where", "F.leaky_relu")
        return None

    def _is_sign(self, mask: Any, x: Tensor, positive: bool) -> bool:
        """True if a mask is where ``x`` is positive, or negative, and by no accident: truth values, zeros and ones."""
        if not isinstance(mask, Tensor) or mask.shape != x.shape:
            return False
        values = x.detach()
        ways = (values > 0, values >= 0) if positive else (values < 0, values <= 0)
        alike = any(torch.equal(mask, way.to(mask.dtype)) for way in ways)
        if not alike:
            return False
        by_accident = x.numel() < 64 or bool(mask.any()) == bool(mask.all())
        return not by_accident or (mask in self._signs and self._signs[mask] == _memory(x))


def _memory(tensor: Tensor) -> int:
    with torch._C.DisableTorchFunction():  # it is not the model that asks
        return tensor.data_ptr()


def _by_hand(what: str, way_out: str) -> ValueError:
    return ValueError(
        f"{what} chooses by the sign of its own operand, which is a rectifier that no rule reaches; "
        f"write it as one operation, such as {way_out}"
    )


def _carries(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _is_zero(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.requires_grad and not bool(value.any())
    return isinstance(value, int | float) and value == 0
