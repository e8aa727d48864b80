"""Inputs to compare with: a constant, black, white, a blur of the input, or a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from cnnviz.formulas.expr import Expr, frozen
from cnnviz.images.resampling import blurred as blurred
from cnnviz.run.run import Run

Baseline: TypeAlias = "float | str | Tensor | Expr"
"""A number, "black", "white", "mean" (of each channel), "blur", a tensor that broadcasts, or a formula."""

_NAMES = ("black", "white", "mean", "blur")


@dataclass(frozen=True, repr=False)
class baseline_input(Expr):
    """The input that a baseline stands for, (N, C, *spatial)."""

    baseline: Baseline

    def __post_init__(self) -> None:
        kept = frozen(self.baseline)
        if not isinstance(kept, Expr) and not isinstance(kept, int | float) and kept not in _NAMES:
            raise ValueError(f"there is no baseline {kept!r}; it is a number, a tensor, or {', '.join(_NAMES)}")
        object.__setattr__(self, "baseline", kept)

    def compute(self, run: Run) -> Tensor:
        inputs, chosen = run.inputs, self.baseline
        if isinstance(chosen, Expr):
            tensor = chosen(run).to(inputs)
            try:
                return tensor.expand_as(inputs)
            except RuntimeError:
                raise ValueError(
                    f"the baseline is {tuple(tensor.shape)}, which does not fit an input of {tuple(inputs.shape)}"
                ) from None
        if isinstance(chosen, int | float):
            return torch.full_like(inputs, float(chosen))
        if chosen == "blur":
            return blurred(inputs, sigma=max(1.0, min(inputs.shape[2:], default=1) / 20))
        if chosen == "mean":
            return inputs.mean(tuple(range(2, inputs.ndim)), keepdim=True).expand_as(inputs)
        preprocessing = run.options.preprocessing
        if preprocessing is None:
            raise ValueError(
                f"the baseline {chosen!r} is a colour, and without a preprocessing nobody knows its value; "
                "pass explain(..., preprocessing=...) or give the baseline as a number"
            )
        colour = 0.0 if chosen == "black" else 1.0
        spread = (1, -1) + (1,) * (inputs.ndim - 2)
        mean, std = (inputs.new_tensor(each).view(spread) for each in (preprocessing.mean, preprocessing.std))
        return ((colour - mean) / std).expand_as(inputs)
