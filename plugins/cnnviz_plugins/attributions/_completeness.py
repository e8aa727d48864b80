"""Completeness: attributions that sum to a difference of scores, and the note on how far they miss it."""

from __future__ import annotations

from torch import Tensor

from cnnviz import Expr, lift, noted


@lift
def _gap(attributions: Tensor, expected: Tensor) -> Tensor:
    return attributions.flatten(1).double().sum(1) - expected


def with_completeness_gap(values: Expr, expected: Expr, attributions: Expr | None = None) -> Expr:
    """The values with the note ``completeness_gap`` (N,): the sum of each input's attributions minus the expected sum.

    ``attributions`` are the values themselves where nothing else is given.
    """
    return noted(values, "completeness_gap", _gap(values if attributions is None else attributions, expected))
