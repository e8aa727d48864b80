"""Sets of baselines to compare with, and points drawn on the ways from them to the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from cnnviz.formulas.baselines import baseline_input
from cnnviz.formulas.expr import Constant, Expr, frozen
from cnnviz.formulas.sample_points import noisy
from cnnviz.run.run import Run

Baselines: TypeAlias = "float | str | Tensor | Expr"
"""A tensor (K, C, *spatial): K inputs, such as pictures; or one baseline, as ``Baseline`` has it."""
Spread = Literal["random", "even"]


@dataclass(frozen=True)
class backgrounds:
    """Baselines, each of them for every input of the batch. Points of ``over`` and ``compared``."""

    baselines: Baselines = 0.0

    def __post_init__(self) -> None:
        kept = frozen(self.baselines)
        if isinstance(kept, Constant) and (kept.value.ndim == 0 or len(kept.value) == 0):
            raise ValueError(f"the baselines are {tuple(kept.value.shape)}; give at least one, (K, C, *spatial)")
        if not isinstance(kept, Expr):
            kept = baseline_input(kept)
        object.__setattr__(self, "baselines", kept)

    @property
    def count(self) -> int:
        return len(self.baselines.value) if isinstance(self.baselines, Constant) else 1

    def draw(self, run: Run, start: int, stop: int) -> Tensor:
        inputs = run.inputs
        if not isinstance(self.baselines, Constant):
            assert isinstance(self.baselines, Expr)
            return baseline_input(self.baselines)(run)[None]
        found = self.baselines.value
        fits = found.ndim == inputs.ndim and all(
            own in (1, size) for own, size in zip(found.shape[1:], inputs.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(
                f"the baselines are {tuple(found.shape)}, which does not fit an input of {tuple(inputs.shape)}; "
                f"give (K, {', '.join(map(str, inputs.shape[1:]))})"
            )
        return found[start:stop, None].to(inputs).expand(-1, *inputs.shape)

    def weights(self, run: Run) -> Tensor:
        return torch.full((self.count,), 1 / self.count, dtype=torch.float64)


@dataclass(frozen=True)
class between:
    """Points drawn on the straight ways from baselines to the input. Ways of ``along``.

    "random": baseline and place are independent draws. "even": all baselines are met equally often, and the places on
    the ways from each are spread evenly, one drawn in each of as many equal parts. ``sigma`` is the standard deviation
    of noise put on the input, as a share of each input's range; the differences are those to the input without noise.
    """

    baselines: backgrounds
    samples: int
    spread: Spread = "random"
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if self.spread not in get_args(Spread):
            raise ValueError(f"there is no spread {self.spread!r}; there are {', '.join(get_args(Spread))}")
        if self.samples < 1:
            raise ValueError(f"an expectation needs at least 1 sample, not {self.samples}")
        noisy(self.samples, self.sigma)  # raises for noise that can't be

    @property
    def count(self) -> int:
        return self.samples

    def draw(self, run: Run, start: int, stop: int) -> tuple[Tensor, Tensor]:
        drawn = [self._place(run, number) for number in range(start, stop)]
        begins = torch.cat([self.baselines.draw(run, which, which + 1) for which, _ in drawn])
        ends = noisy(self.samples, self.sigma).draw(run, start, stop) if self.sigma else run.inputs
        parts = run.inputs.new_tensor([part for _, part in drawn])
        return begins, begins + parts.view(-1, *(1,) * run.inputs.ndim) * (ends - begins)

    def _place(self, run: Run, number: int) -> tuple[int, float]:
        """Which baseline draw ``number`` begins at, and where on its way the point is, from 0 to 1."""
        known, device = self.baselines.count, run.inputs.device
        generator = run.generator_of(run.copies, number, 1)  # apart from that of the noise
        first, second = torch.rand(2, generator=generator, device=device).tolist()
        if self.spread == "random":
            return int(first * known), second
        turn, place = divmod(number, known)
        # where samples are no multiple of the baselines, chance decides which of them are met once more
        order = torch.randperm(known, generator=run.generator_of(run.copies), device=device)
        turns = -(-(self.samples - place) // known)
        return int(order[place]), (turn + second) / turns
