"""SmoothGrad and its relatives: mean, mean square and variance of any attribution over noisy inputs."""

from __future__ import annotations

from cnnviz import Expr, Formula, attribution, over
from cnnviz.formulas import noisy


@attribution(renderer="grayscale")
def smoothgrad(of: Formula = "gradient", samples: int = 25, sigma: float = 0.15) -> Expr:
    """Mean of an attribution over noisy copies of the input (Smilkov et al., 2017, arXiv:1706.03825).

    ``of`` is the attribution, by default the gradient; values (N, C, *spatial) have its size, units and sign. ``sigma``
    is the standard deviation of the Gaussian noise, as a share of each input's range (maximum minus minimum). Raises
    ValueError for fewer than 1 sample, or a negative ``sigma``.
    """
    return over(of, noisy(samples, sigma))


@attribution(renderer="grayscale")
def smoothgrad_squared(of: Formula = "gradient", samples: int = 25, sigma: float = 0.15) -> Expr:
    """Mean square of an attribution over noisy copies of the input (Hooker et al., 2019, arXiv:1806.10758).

    Values (N, C, *spatial) have the size of ``of`` and are not negative, in the square of its units. ``sigma`` is the
    standard deviation of the noise, as a share of each input's range. Raises ValueError for fewer than 1 sample, or a
    negative ``sigma``.
    """
    return over(of**2, noisy(samples, sigma))


@attribution(renderer="grayscale")
def vargrad(of: Formula = "gradient", samples: int = 25, sigma: float = 0.15) -> Expr:
    """Variance of an attribution over noisy copies of the input (Adebayo et al., 2018, arXiv:1810.03292).

    Values (N, C, *spatial) have the size of ``of`` and are not negative, in the square of its units: the mean squared
    deviation, divided by ``samples`` (not ``samples - 1``). ``sigma`` is the standard deviation of the noise, as a
    share of each input's range. Raises ValueError for fewer than 1 sample, or a negative ``sigma``.
    """
    return over(of, noisy(samples, sigma), "variance")
