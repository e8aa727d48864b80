"""Inputs at which formulas are evaluated: along the straight paths from baselines, or under noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnnviz.engine.deferred import uploaded
from cnnviz.formulas.baselines import Baseline, backgrounds, baseline_input
from cnnviz.run.run import Run

Quadrature = Literal["gauss-legendre", "left", "right", "middle", "trapezoid", "captum-trapezoid"]
Spread = Literal["random", "even"]

MOST_GAUSS = 10_000
"""Steps whose places and weights take seconds to find."""
WHICH, WHERE, ORDER = 1, 2, 3  # of the draws of a point on a way: apart from each other, and from the noise


@dataclass(frozen=True)
class path:
    """Points on the straight line from a baseline to the input, weighted so that ``over`` integrates along it.

    "captum-trapezoid" gives what captum's ``riemann_trapezoid`` does: its weights add up to (steps - 1) / steps.
    """

    called: ClassVar[str] = "path"

    steps: int = 50
    baseline: Baseline | baseline_input = 0.0
    quadrature: Quadrature = "gauss-legendre"

    def __post_init__(self) -> None:
        if not isinstance(self.baseline, baseline_input):
            object.__setattr__(self, "baseline", baseline_input(self.baseline))
        if self.quadrature not in get_args(Quadrature):
            raise ValueError(f"there is no quadrature {self.quadrature!r}; there are {', '.join(get_args(Quadrature))}")
        least = 2 if "trapezoid" in self.quadrature else 1
        if self.steps < least:
            raise ValueError(f"{self.quadrature} needs at least {least} steps, not {self.steps}")
        if self.quadrature == "gauss-legendre" and self.steps > MOST_GAUSS:
            raise ValueError(
                f"gauss-legendre has at most {MOST_GAUSS} steps, not {self.steps}; say quadrature='middle'"
            )

    @property
    def count(self) -> int:
        """How many there are, K."""
        return self.steps

    def draw(self, run: Run, start: int, stop: int) -> Tensor:
        """Those of these numbers, (stop - start, N, C, *spatial)."""
        assert isinstance(self.baseline, baseline_input)
        begin = self.baseline(run)
        places = torch.from_numpy(_rule(self.quadrature, self.steps)[0][start:stop])
        parts = uploaded(places.to(run.inputs.dtype), run.inputs.device)
        return begin + parts.view(-1, *(1,) * begin.ndim) * (run.inputs - begin)

    def weights(self, run: Run) -> Tensor:
        """What each counts for in a mean, (K,)."""
        return torch.tensor(_rule(self.quadrature, self.steps)[1])


@cache
def _rule(quadrature: Quadrature, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places from 0 to 1, and their weights."""
    even = np.full(n, 1 / n)
    if quadrature == "gauss-legendre":
        places, weights = np.polynomial.legendre.leggauss(n) if n <= 200 else _gauss_legendre(n)
        return (places + 1) / 2, weights / 2
    if quadrature == "left":
        return np.arange(n) / n, even
    if quadrature == "right":
        return np.arange(1, n + 1) / n, even
    if quadrature == "middle":
        return (np.arange(n) + 0.5) / n, even
    ends = np.where((np.arange(n) == 0) | (np.arange(n) == n - 1), 0.5, 1.0)
    return np.linspace(0, 1, n), ends / (n if quadrature == "captum-trapezoid" else n - 1)


def _gauss_legendre(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places from -1 to 1 and weights, by Newton's method: NumPy's way takes minutes for thousands."""
    places = np.cos(np.pi * (np.arange(n, 0, -1) - 0.25) / (n + 0.5))
    for last in (False, False, False, False, False, True):  # each step squares the error, which is small at once
        before, value = np.ones(n), places
        for degree in range(2, n + 1):
            before, value = value, ((2 * degree - 1) * places * value - (degree - 1) * before) / degree
        slopes = n * (before - places * value) / (1 - places**2)
        places = places if last else places - value / slopes
    return places, 2 / ((1 - places**2) * slopes**2)


@dataclass(frozen=True)
class noisy:
    """The input plus Gaussian noise of ``sigma`` times its range (each input's maximum minus minimum).

    Every input of a batch meets the same draws, so that no map depends on its neighbours in the batch.
    """

    called: ClassVar[str] = "noisy"

    samples: int = 25
    sigma: float = 0.15

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"noise needs at least 1 sample, not {self.samples}")
        if not self.sigma >= 0:
            raise ValueError(f"sigma is {self.sigma}; a share of the input's range is not negative")

    @property
    def count(self) -> int:
        """How many there are, K."""
        return self.samples

    def draw(self, run: Run, start: int, stop: int) -> Tensor:
        """Those of these numbers, (stop - start, N, C, *spatial)."""
        inputs = run.inputs
        drawn = run.draws(run.copies, range(start, stop)).normal(inputs.shape[1:], inputs.dtype)
        noise = drawn[:, None].expand(-1, *inputs.shape)
        pairs = zip(run.model_inputs.by_input(inputs), run.model_inputs.by_input(noise), strict=True)
        return run.model_inputs.joined([part + self.sigma * _reach(part) * draw for part, draw in pairs])

    def weights(self, run: Run) -> Tensor:
        """What each counts for in a mean, (K,)."""
        return torch.full((self.samples,), 1 / self.samples, dtype=torch.float64)


def _reach(inputs: Tensor) -> Tensor:
    """Each input's maximum minus its minimum, (N, 1, ...)."""
    flat = inputs.flatten(1)
    return (flat.amax(1) - flat.amin(1)).view(-1, *(1,) * (inputs.ndim - 1))


@dataclass(frozen=True)
class between:
    """Points drawn on the straight ways from baselines to the input. Ways of ``along``.

    "random": baseline and place are independent draws. "even": all baselines are met equally often, and the places on
    the ways from each are spread evenly, one drawn in each of as many equal parts. ``sigma`` is the standard deviation
    of noise put on the input, as a share of each input's range; the differences are those to the input without noise.
    """

    called: ClassVar[str] = "between"

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
        """How many there are, K."""
        return self.samples

    def draw(self, run: Run, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Where these ways begin, and a point on each: both (stop - start, N, C, *spatial)."""
        begins = torch.cat([self.baselines.draw(run, which, which + 1) for which in self._which(run, start, stop)])
        ends = noisy(self.samples, self.sigma).draw(run, start, stop) if self.sigma else run.inputs
        parts = self._parts(run, start, stop).to(run.inputs.dtype)
        return begins, begins + parts.view(-1, *(1,) * run.inputs.ndim) * (ends - begins)

    def _which(self, run: Run, start: int, stop: int) -> list[int]:
        """The baseline that each of these ways begins at."""
        known, numbers = self.baselines.count, range(start, stop)
        if self.spread == "random":
            return [int(known * run.draws(run.copies, WHICH, number).floats(1)[0]) for number in numbers]
        # where samples are no multiple of the baselines, chance decides which of them are met once more
        chance = run.draws(run.copies, ORDER, 0).floats(known)
        order = sorted(range(known), key=chance.__getitem__)
        return [order[number % known] for number in numbers]

    def _parts(self, run: Run, start: int, stop: int) -> Tensor:
        """Where on its way each of these points is, from 0 to 1, (stop - start,) in float64."""
        drawn = run.draws(run.copies, WHERE, range(start, stop)).uniform((), torch.float64)
        if self.spread == "random":
            return drawn
        numbers, known = torch.arange(start, stop, device=drawn.device), self.baselines.count
        met = (self.samples - 1 - numbers % known) // known + 1  # how often all samples meet that baseline
        return (numbers // known + drawn) / met
