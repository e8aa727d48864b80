"""Inputs to compare with: a constant, black, white, a blur of the input, a tensor, or a set of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias, TypeGuard

import torch
from torch import Tensor

from cnnviz.formulas.expr import Constant, Expr, frozen
from cnnviz.images.resampling import blurred
from cnnviz.run.run import Run
from cnnviz.run.targets import short

Baseline: TypeAlias = float | str | Tensor | Expr | Sequence[float | str | Tensor | Expr]
"""A number, "black", "white", "mean" (of each channel), "blur", a tensor that broadcasts, or a formula.

Or a tuple of them, one for each input, where several inputs are explained together.
"""
Stack: TypeAlias = Annotated[Tensor, "(K, C, *spatial)"]
"""Several inputs in one tensor; the command line reads it from a folder."""
Baselines: TypeAlias = float | str | Stack | Expr | Sequence[Stack]
"""A tensor (K, C, *spatial): K inputs, such as pictures; or one baseline, as ``Baseline`` has it.

Or a tuple of such tensors, one for each input, where several inputs are explained together.
"""

_NAMES = ("black", "white", "mean", "blur")


@dataclass(frozen=True, repr=False)
class baseline_input(Expr):
    """The input that a baseline stands for, (N, C, *spatial)."""

    called: ClassVar[str] = "baseline_input"

    baseline: Baseline

    def __post_init__(self) -> None:
        baseline = frozen(self.baseline)
        for each in baseline if isinstance(baseline, tuple) else [baseline]:
            if not isinstance(each, Expr | int | float) and each not in _NAMES:
                names = ", ".join(_NAMES)
                raise ValueError(f"there is no baseline {short(each)}; it is a number, a tensor, or {names}")
        object.__setattr__(self, "baseline", baseline)

    def compute(self, run: Run) -> Tensor:
        inputs, baseline = run.model_inputs.by_input(run.inputs), self.baseline
        if isinstance(baseline, Expr) and not isinstance(baseline, Constant) and len(inputs) > 1:
            return self._of(run, run.inputs, baseline)
        pairs = zip(inputs, _for_each(baseline, inputs), strict=True)
        return run.model_inputs.joined([self._of(run, *pair) for pair in pairs])

    def _of(self, run: Run, inputs: Tensor, baseline: Any) -> Tensor:
        """The baseline of one of the inputs that are explained, (N, C, *spatial)."""
        if isinstance(baseline, Expr):
            tensor = baseline(run).to(inputs)
            if run.copies > 1 and tensor.ndim == inputs.ndim and len(tensor) * run.copies == len(inputs):
                tensor = tensor.repeat(run.copies, *(1,) * (tensor.ndim - 1))
            try:
                return tensor.expand_as(inputs)
            except RuntimeError:
                raise ValueError(
                    f"the baseline is {tuple(tensor.shape)}, which does not fit an input of {tuple(inputs.shape)}"
                ) from None
        if isinstance(baseline, int | float):
            return torch.full_like(inputs, float(baseline))
        if baseline in ("blur", "mean") and inputs.ndim < 3:
            raise ValueError(
                f"the baseline {baseline!r} is made of neighbouring places, and an input of {tuple(inputs.shape)} has "
                "none; give a number or a tensor"
            )
        if baseline == "blur":
            return blurred(inputs, sigma=max(1.0, min(inputs.shape[2:]) / 20))
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


def _for_each(baseline: Any, inputs: Sequence[Tensor]) -> Sequence[Any]:
    """A baseline for each input. Raises ValueError for another number of them."""
    if not isinstance(baseline, tuple):
        return [baseline] * len(inputs)
    if len(baseline) != len(inputs):
        raise ValueError(f"there are {len(baseline)} baselines for {len(inputs)} inputs; give one, or one for each")
    return baseline


@dataclass(frozen=True)
class backgrounds:
    """Baselines, each of them for every input of the batch. Points of ``over`` and ``compared``."""

    called: ClassVar[str] = "backgrounds"

    baselines: Baselines = 0.0

    def __post_init__(self) -> None:
        baselines = frozen(self.baselines)
        if baselines == ():
            raise ValueError("there are no baselines; give at least one")
        stacks = [each for each in (baselines if isinstance(baselines, tuple) else [baselines]) if _is_stack(each)]
        for stack in stacks:
            if stack.value.ndim == 0 or len(stack.value) == 0:
                raise ValueError(f"the baselines are {tuple(stack.value.shape)}; give at least one, (K, C, *spatial)")
        if len({len(stack.value) for stack in stacks}) > 1:
            counts = " and ".join(str(len(stack.value)) for stack in stacks)
            raise ValueError(f"there are {counts} baselines for inputs that move together; give as many for each")
        if isinstance(baselines, tuple) and len(stacks) < len(baselines):
            if stacks and len(stacks[0].value) > 1:
                raise ValueError("some baselines are tensors (K, C, *spatial) and some are not; give tensors for all")
            baselines = baseline_input(baselines)
        if not isinstance(baselines, Expr | tuple):
            baselines = baseline_input(baselines)
        object.__setattr__(self, "baselines", baselines)

    @property
    def count(self) -> int:
        """How many there are, K."""
        stack = self.baselines[0] if isinstance(self.baselines, tuple) else self.baselines
        return len(stack.value) if isinstance(stack, Constant) else 1

    def draw(self, run: Run, start: int, stop: int) -> Tensor:
        """Those of these numbers, (stop - start, N, C, *spatial)."""
        if isinstance(self.baselines, Expr) and not isinstance(self.baselines, Constant):
            return baseline_input(self.baselines)(run)[None]
        inputs = run.model_inputs.by_input(run.inputs)
        pairs = zip(inputs, _for_each(self.baselines, inputs), strict=True)
        return run.model_inputs.joined([self._stack(part, stack.value)[start:stop] for part, stack in pairs])

    def _stack(self, inputs: Tensor, tensor: Tensor) -> Tensor:
        """All baselines of one of the inputs that are explained, (K, N, C, *spatial)."""
        fits = tensor.ndim == inputs.ndim and all(
            own in (1, size) for own, size in zip(tensor.shape[1:], inputs.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(
                f"the baselines are {tuple(tensor.shape)}, which does not fit an input of {tuple(inputs.shape)}; "
                f"give (K, {', '.join(map(str, inputs.shape[1:]))})"
            )
        return tensor[:, None].to(inputs).expand(-1, *inputs.shape)

    def weights(self, run: Run) -> Tensor:
        """What each counts for in a mean, (K,)."""
        return torch.full((self.count,), 1 / self.count, dtype=torch.float64)


def _is_stack(baseline: Any) -> TypeGuard[Constant]:
    return isinstance(baseline, Constant)
