"""Inputs to compare with: a constant, black, white, a blur of the input, a tensor, or a set of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

import torch
from torch import Tensor

from cnnviz.formulas.expr import Constant, Expr, frozen
from cnnviz.images.resampling import blurred
from cnnviz.run.run import Run

Baseline: TypeAlias = float | str | Tensor | Expr
"""A number, "black", "white", "mean" (of each channel), "blur", a tensor that broadcasts, or a formula."""
Stack: TypeAlias = Annotated[Tensor, "(K, C, *spatial)"]
"""Several inputs in one tensor; the command line reads it from a folder."""
Baselines: TypeAlias = float | str | Stack | Expr
"""A tensor (K, C, *spatial): K inputs, such as pictures; or one baseline, as ``Baseline`` has it."""

_NAMES = ("black", "white", "mean", "blur")


@dataclass(frozen=True, repr=False)
class baseline_input(Expr):
    """The input that a baseline stands for, (N, C, *spatial)."""

    baseline: Baseline

    def __post_init__(self) -> None:
        baseline = frozen(self.baseline)
        if not isinstance(baseline, Expr | int | float) and baseline not in _NAMES:
            raise ValueError(f"there is no baseline {baseline!r}; it is a number, a tensor, or {', '.join(_NAMES)}")
        object.__setattr__(self, "baseline", baseline)

    def compute(self, run: Run) -> Tensor:
        inputs, baseline = run.inputs, self.baseline
        if isinstance(baseline, Expr):
            tensor = baseline(run).to(inputs)
            try:
                return tensor.expand_as(inputs)
            except RuntimeError:
                raise ValueError(
                    f"the baseline is {tuple(tensor.shape)}, which does not fit an input of {tuple(inputs.shape)}"
                ) from None
        if isinstance(baseline, int | float):
            return torch.full_like(inputs, float(baseline))
        if baseline == "blur":
            return blurred(inputs, sigma=max(1.0, min(inputs.shape[2:], default=1) / 20))
        if baseline == "mean":
            return inputs.mean(tuple(range(2, inputs.ndim)), keepdim=True).expand_as(inputs)
        preprocessing = run.options.preprocessing
        if preprocessing is None:
            raise ValueError(
                f"the baseline {baseline!r} is a colour, and without a preprocessing nobody knows its value; "
                "pass explain(..., preprocessing=...) or give the baseline as a number"
            )
        colour = 0.0 if baseline == "black" else 1.0
        spread = (1, -1) + (1,) * (inputs.ndim - 2)
        mean, std = (inputs.new_tensor(value).view(spread) for value in (preprocessing.mean, preprocessing.std))
        return ((colour - mean) / std).expand_as(inputs)


@dataclass(frozen=True)
class backgrounds:
    """Baselines, each of them for every input of the batch. Points of ``over`` and ``compared``."""

    baselines: Baselines = 0.0

    def __post_init__(self) -> None:
        baselines = frozen(self.baselines)
        if isinstance(baselines, Constant) and (baselines.value.ndim == 0 or len(baselines.value) == 0):
            raise ValueError(f"the baselines are {tuple(baselines.value.shape)}; give at least one, (K, C, *spatial)")
        if not isinstance(baselines, Expr):
            baselines = baseline_input(baselines)
        object.__setattr__(self, "baselines", baselines)

    @property
    def count(self) -> int:
        """How many there are, K."""
        return len(self.baselines.value) if isinstance(self.baselines, Constant) else 1

    def draw(self, run: Run, start: int, stop: int) -> Tensor:
        """Those of these numbers, (stop - start, N, C, *spatial)."""
        inputs = run.inputs
        if not isinstance(self.baselines, Constant):
            assert isinstance(self.baselines, Expr)
            return baseline_input(self.baselines)(run)[None]
        tensor = self.baselines.value
        fits = tensor.ndim == inputs.ndim and all(
            own in (1, size) for own, size in zip(tensor.shape[1:], inputs.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(
                f"the baselines are {tuple(tensor.shape)}, which does not fit an input of {tuple(inputs.shape)}; "
                f"give (K, {', '.join(map(str, inputs.shape[1:]))})"
            )
        return tensor[start:stop, None].to(inputs).expand(-1, *inputs.shape)

    def weights(self, run: Run) -> Tensor:
        """What each counts for in a mean, (K,)."""
        return torch.full((self.count,), 1 / self.count, dtype=torch.float64)
