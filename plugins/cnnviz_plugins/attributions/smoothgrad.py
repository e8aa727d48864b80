"""Means, squares and variances of any attribution under noise."""

from __future__ import annotations

from cnnviz import Expr, Formula, attribution, noisy, over


@attribution(renderer="grayscale")
def smoothgrad(of: Formula = "gradient", samples: int = 25, sigma: float = 0.15) -> Expr:
    """The mean map under noise (Smilkov et al., 2017, arXiv:1706.03825), of the gradient or of any attribution.

    ``sigma`` is a share of each input's range (maximum minus minimum). Values as those of ``of``.
    """
    return over(of, noisy(samples, sigma))


@attribution(renderer="grayscale")
def smoothgrad_squared(of: Formula = "gradient", samples: int = 25, sigma: float = 0.15) -> Expr:
    """The mean squared map under noise (Hooker et al., 2019, arXiv:1806.10758), of the gradient or of any attribution.

    ``sigma`` is a share of each input's range. Values are not negative, in the square of the units of ``of``.
    """
    return over(of**2, noisy(samples, sigma))


@attribution(renderer="grayscale")
def vargrad(of: Formula = "gradient", samples: int = 25, sigma: float = 0.15) -> Expr:
    """The map's variance under noise (Adebayo et al., 2018, arXiv:1810.03292), of the gradient or of any attribution.

    ``sigma`` is a share of each input's range. Values are not negative: the mean squared deviation, divided by
    ``samples`` (not ``samples - 1``), in the square of the units of ``of``.
    """
    return over(of, noisy(samples, sigma), "variance")
